"""The sub-commands of ``jaxlora``; each has ``run(arguments) -> exit code``."""

"""Which code made a number: hashes of the modules that decide it."""

import hashlib
import importlib.util


def digest(*modules: str) -> str:
    """Returns the SHA-256, in hex, of the source of some modules.

    Args:
      modules: names such as ``"jaxlora.studies.two_hop.rows"``.

    >>> digest("jaxlora.lora") != digest("jaxlora.tree")
    True
    """
    text = hashlib.sha256()
    for name in sorted(set(modules)):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"jaxlora has no source at {name!r}.")
        with open(spec.origin, "rb") as file:
            text.update(name.encode() + file.read())
    return text.hexdigest()

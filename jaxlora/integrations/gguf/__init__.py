"""Models in GGUF files, as Hugging Face checkpoints.

Needs the extra: ``pip install 'jaxlora[gguf]'``. :func:`.convert.convert` writes a
folder that everything else here reads.
"""

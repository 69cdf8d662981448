"""Compiled programs, kept between runs: the second start of a command is quick."""

import contextlib
import os
import platform
from pathlib import Path

import platformdirs

PLACE = "JAX_COMPILATION_CACHE_DIR"
"""JAX's own variable for the folder."""
SWITCH = "JAX_ENABLE_COMPILATION_CACHE"


def folder() -> Path:
    """Where programs are kept, unless the environment says so."""
    # By host: a program for the instructions of one CPU may not run on another one.
    name = platform.node() or "here"
    return Path(platformdirs.user_cache_dir("jaxlora"), "programs", name)


def keep(*, on: bool) -> None:
    """Sets the environment for JAX; call it before JAX is imported.

    What the environment says already is left as it is.

    Args:
      on: should programs be kept?
    """
    if not on:
        os.environ[SWITCH] = "false"
    elif PLACE not in os.environ:
        place = folder()
        # Where nothing can be written (a container), JAX would warn at each program.
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                os.environ[PLACE] = str(place)

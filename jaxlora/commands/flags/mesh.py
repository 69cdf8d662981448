"""The flag that says how devices are laid out, ``--mesh``."""

from typing import Annotated, TypeAlias

import tyro

from jaxlora.parallel.written import mesh as mesh
from jaxlora.parallel.written import sizes as sizes

MeshSizes: TypeAlias = Annotated[
    str,
    tyro.conf.arg(
        metavar="AXIS=N,...",
        help="Devices along data, fsdp, tensor and expert, such as expert=4,fsdp=2; -1 "
        "on one of them is the rest. If not given, one device.",
    ),
]

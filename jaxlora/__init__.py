"""Does reusing LoRA adapters compose knowledge, or only match patterns?

The parts, each imported when it is first used, so that ``import jaxlora`` takes no time
and ``jaxlora.<TAB>`` offers them:

    lora         adapters: make, stack, fuse, reparametrize; a tree of LoraWeight
    merge        one adapter of several: presets, steps and spaces, fidelity
    route        several adapters, weighed for each token: gates, by name
    models       decoders: init, apply, generate; checkpoints of Hugging Face
    reuse        a checkpoint with its adapters, merged or routed, in one call
    train        fit experts, gates and bases; one program for all
    evaluate     rows, intervals and verdicts
    diagnose     will two experts compose? before they are trained
    tasks        worlds, word problems, data files
    io           PEFT adapters, collections and gates on disk
    testing      the batteries that hold a merge or a route of yours to its laws
    theory       models of one and two layers in closed form
    studies      whole experiments: configuration, protocol, predictions
    report       tables, figures and pages of studies
    parallel     meshes and shardings
    plan         memory, traffic and time on devices that are not here
    integrations lm-evaluation-harness
    tree         names of leaves, patterns, maps over trees
    spectrum     singular values and inner products of deltas, from their factors
    spectra      spectra and likeness of the adapters of a library

Each package has a README beside its code; ``jaxlora --help`` lists the commands.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"
PARTS = tuple(
    line.split()[0] for line in (__doc__ or "").splitlines() if line[:4] == " " * 4
)
"""What ``jaxlora.<TAB>`` offers; the map above is the list."""


def __getattr__(name: str) -> ModuleType:
    if name not in PARTS:
        from jaxlora.names import hint

        raise AttributeError(
            f"module 'jaxlora' has no attribute {name!r}{hint(name, PARTS)}"
        )
    return importlib.import_module(f"jaxlora.{name}")


def __dir__() -> list[str]:
    return sorted([*PARTS, "__version__", "__doc__"])

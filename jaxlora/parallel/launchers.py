"""What the launchers of many processes set, where some of it is missing or wrong.

JAX finds Slurm, Open MPI, Cloud TPU and GKE by these variables (``jax._src.clusters``),
all of a launcher's or none; which of them is missing it does not say.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Launcher(NamedTuple):
    """Variables that belong together, and what sets them."""

    name: str
    variables: tuple[str, ...]
    way: str
    """What to do where some are missing."""


LAUNCHERS = (
    Launcher(
        "Slurm",
        (
            "SLURM_JOB_ID",
            "SLURM_STEP_NODELIST",
            "SLURM_NTASKS",
            "SLURM_PROCID",
            "SLURM_LOCALID",
        ),
        "start every process with srun",
    ),
    Launcher(
        "Open MPI",
        (
            "OMPI_MCA_orte_hnp_uri",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_LOCAL_RANK",
        ),
        "start every process with mpirun; that of Open MPI 5 does not say where the "
        "first process is",
    ),
    Launcher(
        "Cloud TPU or GKE",
        ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
        "these are for machines with TPUs, and need pip install 'jax[tpu]'",
    ),
    Launcher(
        "Kubernetes",
        ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"),
        "processes are those of an indexed Job, and need pip install 'jax[k8s]'",
    ),
)


def half_set(environment: Mapping[str, str]) -> str:
    """Which launcher has set some of its variables, in a sentence; empty if none has.

    Args:
      environment: of this process.

    >>> half_set({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"})
    'Slurm has set SLURM_JOB_ID, SLURM_NTASKS and SLURM_PROCID without SLURM_STEP_...
    >>> half_set({})
    ''
    """
    for launcher in LAUNCHERS:
        there = [name for name in launcher.variables if environment.get(name)]
        absent = [name for name in launcher.variables if name not in there]
        if there:
            without = f" without {_listed(absent)}" if absent else ""
            return f"{launcher.name} has set {_listed(there)}{without}: {launcher.way}."
    return ""


@contextlib.contextmanager
def read() -> Iterator[None]:
    """Says which variables were set where JAX cannot read them in this block.

    Raises:
      ValueError: naming them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on packages, in lines of a program
            yield
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        every = (name for launcher in LAUNCHERS for name in launcher.variables)
        there = [f"{x}={os.environ[x]!r}" for x in every if x in os.environ]
        raise ValueError(
            f"JAX cannot read what a launcher has set ({_listed(there) or 'nothing'}; "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            f"mend it, or give every process --coordinator, --processes and --process."
        ) from None


def _listed(names: list[str]) -> str:
    """Names in words.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last

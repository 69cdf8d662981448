"""Many processes of one run: who they are, what all know, and who writes.

Every process runs the same program. The first one reads and writes what is shared, and
the others learn what came of it; arrays of all are gathered. The engine is JAX's own:
its coordination service and its collectives. With one process all of this is nothing.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlora.parallel import launchers, roll_call
from jaxlora.tree import Tree

T = TypeVar("T")

HEARTBEAT = 60
"""Seconds after which a host that is silent counts as lost."""
PARTING = 20.0
"""Seconds that a process which ends with an error waits for the others to do so."""
LAST = 0.3
"""Seconds by which the first process ends after the others."""
PATIENCE = 3600
"""Seconds that processes wait for each other where all must meet."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a run; what is None is left to JAX to find out."""

    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which of them this is, from 0."""


def start(group: Group, wait: float) -> Group:
    """Makes this process one of a run; call it before anything else of JAX.

    Args:
      group: what is known of the run.
      wait: seconds for all processes to come.

    Returns:
      What was found out of it.

    Raises:
      ValueError: naming who did not come, or if JAX sees no cluster.
    """
    group = detected(group, wait)
    address, processes, process = dataclasses.astuple(group)
    if processes > 1:
        roll_call.take(address, processes, process, wait)
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=max(60, int(wait)),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    return group


def detected(group: Group, wait: float) -> Group:
    """Fills in what JAX's own detection knows: Cloud TPU, GKE, Slurm, MPI.

    Args:
      group: what is known; if it is complete, nothing is looked for.
      wait: seconds.

    Raises:
      ValueError: if something stays unknown.
    """
    # Private, but the only place where JAX says what initialize would do.
    from jax._src.clusters import ClusterEnv

    if None in dataclasses.astuple(group):
        known = group.coordinator, group.processes, group.process
        with launchers.read():
            seen = ClusterEnv.auto_detect_unset_distributed_params(
                *known, None, None, int(wait)
            )
        group = Group(*seen[:3])
    if None in dataclasses.astuple(group):
        half = launchers.half_set(os.environ)
        raise ValueError(
            f"JAX sees no cluster here (Cloud TPU, GKE, Slurm or MPI)"
            f"{f'. {half} Or' if half else ', so'} give every process --coordinator "
            f"HOST:PORT, --processes N and its --process I."
        )
    if not 0 <= (group.process or 0) < (group.processes or 1):
        raise ValueError(
            f"The launcher says that this is process {group.process} of "
            f"{group.processes}, expected 0 to {(group.processes or 1) - 1}; is the "
            f"environment that of another job?"
        )
    return group


def count() -> int:
    """How many processes the run has."""
    # Asked before JAX is at work, too: this must not start it.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Which process of the run this is, from 0."""
    return jax.process_index() if count() > 1 else 0


def first() -> bool:
    """Is this the process that writes?"""
    return number() == 0


def meet() -> None:
    """Waits for all processes, however long they read or compile before.

    The collectives of CPUs give up after 30 seconds when they are first used.

    Raises:
      RuntimeError: if another process is gone.
    """
    # Private; what is public waits by a collective.
    from jax._src.distributed import global_state

    client: Any = global_state.client
    if count() > 1 and client is not None:
        client.wait_at_barrier(f"jaxlora-{next(_MEETINGS)}", 1000 * PATIENCE)


_MEETINGS = itertools.count()


def part(wait: float = PARTING) -> None:
    """Waits for the others, not for long, before this process ends with an error.

    An input that is wrong is so for all of them. Whoever reads it first must not end
    before the others have, or these take it for a lost machine.

    Args:
      wait: seconds, at most.
    """
    # Private, as in :func:`meet`.
    from jax._src.distributed import global_state

    client: Any = global_state.client
    if count() == 1 or client is None:
        return
    with contextlib.suppress(RuntimeError):  # they go on, or are gone
        client.wait_at_barrier("jaxlora-part", int(1000 * wait))
    if first():  # it holds the service that the others would miss
        time.sleep(LAST)


def agreed(make: Callable[[], T]) -> T:
    """What the first process makes of a function, in all processes.

    Args:
      make: returns what JSON can hold; it is called in the first process only.

    Raises:
      ValueError: in all processes, if ``make`` raised a ValueError or an OSError.
      OSError: likewise.
    """
    if count() == 1:
        return make()
    here = _made(make) if first() else None
    meet()
    sent = _send(here)
    if "errno" in sent:
        raise OSError(sent["errno"], sent["error"], sent["filename"])
    if "error" in sent:
        raise ValueError(sent["error"])
    return sent["value"]


def same(value: Any, what: str) -> None:
    """Refuses a run whose processes disagree.

    Args:
      value: JSON-able, and equal in all processes.
      what: its name, for the message.

    Raises:
      ValueError: in all processes, naming those that differ from the first.
    """
    if count() == 1:
        return
    here = json.dumps(value, sort_keys=True, default=str).encode()
    meet()
    sums = np.frombuffer(hashlib.sha256(here).digest(), np.uint32)
    every = np.asarray(multihost_utils.process_allgather(sums))
    differ = [str(i) for i, other in enumerate(every) if (other != every[0]).any()]
    if differ:
        raise ValueError(
            f"The {what} of process {', '.join(differ)} differ from those of process 0;"
            f" give every host the same files and the same command."
        )


def host(tree: Tree) -> Tree:
    """Arrays of NumPy, complete in every process.

    Args:
      tree: arrays, wherever they lie.
    """
    return jax.tree.map(_fetched, tree)


def shared(tree: Tree | None, shapes: Tree) -> Tree:
    """Arrays of the first process, in all.

    Args:
      tree: arrays of NumPy in the first process; anything in the others.
      shapes: of the arrays, the same in all processes.
    """
    if count() == 1:
        return tree
    if not first():
        tree = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    def send(x: Any) -> np.ndarray:
        # Leaf by leaf: each is complete on every device for a moment.
        return np.asarray(multihost_utils.broadcast_one_to_all(x))

    return jax.tree.map(send, tree)


def told_to_stop(step: int) -> bool:
    """Was a process of the run sent SIGTERM? All learn it at the same step.

    Args:
      step: 1, 2, 3 ...: the number of this call, in every process.
    """
    if count() == 1 or not stops_together():
        return False
    return multihost_utils.reached_preemption_sync_point(step)


def stops_together() -> bool:
    """Do all processes learn of a signal to one? If not, it is for that one alone."""
    # Private; without the service what is public raises.
    from jax._src.distributed import global_state

    return count() == 1 or global_state.preemption_sync_manager is not None


def is_loss(error: BaseException) -> bool:
    """Does an error say that another process is gone?

    Args:
      error: that JAX raised.
    """
    text = str(error).lower()
    signs = ("gloo", "closed by peer", "coordination", "heartbeat", "unavailable")
    return count() > 1 and any(x in text for x in (*signs, "barrier"))


def _fetched(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if not x.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        x = x.addressable_data(0)
    return np.asarray(x)


def _made(make: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": make()}
    except OSError as error:
        name = None if error.filename is None else str(error.filename)
        return {"errno": error.errno, "error": error.strerror, "filename": name}
    except ValueError as error:
        return {"error": str(error)}


def _send(value: dict[str, Any] | None) -> dict[str, Any]:
    """JSON of the first process, in all: its length, and then its bytes."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = text if first() else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text)).tobytes())

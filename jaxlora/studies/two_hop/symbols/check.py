"""What can be refused before anything is trained or written.

A rank, a pattern or a world that does not fit would otherwise be found minutes later,
in a folder that already belongs to the wrong configuration.
"""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxlora import lora, models
from jaxlora.evaluate.schema import Method
from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.studies.two_hop.config import check_top_k
from jaxlora.studies.two_hop.symbols import bases, oracle, oracle_search
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.tasks.two_hop.records import Record
from jaxlora.tasks.two_hop.world import World

NEEDED = {
    "two_hop": "no query to train on; raise trained",
    "held_out": "no held-out query for the criteria; lower trained, or raise relations",
    "context": "no made-up facts; raise context_rows",
}


def world(given: World) -> None:
    """Refuses a world that lacks what training or a criterion needs.

    Raises:
      ValueError: saying what is missing.
    """
    for split, reason in NEEDED.items():
        if not given.splits.get(split):
            raise ValueError(f"The world has {reason}.")


def adapters(given: World, model: DecoderConfig, config: LoraConfig) -> None:
    """Refuses adapters that do not fit the base, from shapes alone.

    Raises:
      ValueError: if a pattern matches nothing, the rank is above a kernel's, or the
        type does not exist.
    """
    try:
        jnp.dtype(config.dtype)
    except TypeError:
        raise ValueError(
            f"lora.dtype is {config.dtype!r}, expected a type such as float32 or "
            f"bfloat16."
        ) from None
    decoder = bases.vocabulary(model, given.vocab)

    def make(key: jax.Array):
        return lora.init(key, models.init(key, decoder), config)

    jax.eval_shape(make, jax.random.key(0))


def router(config: TwoHopConfig) -> None:
    """Refuses an Arrow that keeps more experts than the smallest library has.

    And an oracle that would have to try too many routes.

    Raises:
      ValueError: naming the number.
    """
    if Method.ORACLE in config.methods and config.oracle_search == "exhaustive":
        values = oracle.search_of(config).values
        oracle_search.size(values, config.model.num_layers, len(oracle.TOKENS))
    check_top_k(config)


def people(path: Path, given: Sequence[Record]) -> None:
    """Refuses a facts file whose answers cannot be deranged.

    With two people in a pair, both hops deranged would be right; with one answer for
    all of them there is no other to give.

    Raises:
      ValueError: naming the pair by its number.
    """
    answers: dict[tuple[int, str], set[tuple[str, ...]]] = {}
    for record in given:
        answers.setdefault((record.pair, record.role), set()).add(record.answer)
    sizes = collections.Counter(r.pair for r in given if r.role == "two_hop")
    for pair, size in sizes.items():
        if size < 3:
            raise ValueError(
                f"{path} has {size} people for its pair {pair + 1} of relations, "
                f"expected at least 3: answers are deranged one hop at a time and "
                f"both at once."
            )
    for (pair, role), different in answers.items():
        if len(different) < 2:
            raise ValueError(
                f"{path} has one answer for all people of its pair {pair + 1} of "
                f"relations ({role}: {' '.join(*different)!r}), expected at least 2."
            )


def data_dir(config: TwoHopConfig, path: Path, given: Sequence[Record]) -> None:
    """Refuses a data folder that lacks one of the study's worlds.

    Args:
      config: of the study.
      path: the data folder.
      given: a user's people.

    Raises:
      ValueError: naming the first that is missing.
    """
    from jaxlora.tasks.two_hop import builder

    for coverage in config.all_coverages:
        sizes = dataclasses.replace(config.world, coverage=coverage)
        for seed in config.numbers:
            folder = builder.folder(sizes, seed, path, given)
            if not folder.is_dir():
                raise ValueError(
                    f"{path} has no world of coverage {coverage:g} and seed {seed} "
                    f"({folder} does not exist); `jaxlora data two-hop --out {path}` "
                    f"with the same options writes it."
                )

"""What is said of a merge that has a name."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxlora.merge.compose import Merge
from jaxlora.merge.linear import Data


@dataclasses.dataclass(frozen=True)
class Entry:
    """A preset: what makes it of its fields, and what there is to say of it."""

    make: Callable[..., Merge]
    """Returns the merge, of fields that all have defaults."""
    summary: str
    """One line."""
    source: str
    """The paper or the software that the convention is of."""
    control: bool = False
    """Whether it is a negative control, which must not do as well as a merge."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the preset and their defaults."""
        parameters = inspect.signature(self.make).parameters
        return {name: p.default for name, p in parameters.items()}

    @functools.cached_property
    def default(self) -> Merge:
        """The merge that all the defaults make."""
        return self.make()

    @property
    def data(self) -> Data:
        """What the merge must see: "free", "own" or "target"."""
        return self.default.data

    @property
    def draws(self) -> bool:
        """Whether the result depends on the PRNG key."""
        return self.default.draws

    @property
    def needs_key(self) -> bool:
        """Whether the merge refuses to run without a PRNG key."""
        return self.default.needs_key

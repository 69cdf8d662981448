"""What an ``adapter_config.json`` of PEFT says: kind, targets, ranks and scales.

The file is a stranger's: every field that is read is checked for its type, a boolean is
no number, and patterns are matched in bounded time (:mod:`jaxlora.io.patterns`).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jaxlora.io import module_names, patterns, peft_parameters
from jaxlora.io.patterns import Budget
from jaxlora.io.peft_checks import CONFIG, STARTS, Raw, check
from jaxlora.io.tensors import short

CONFIG_BYTES = 2**22
"""A config larger than this is no config."""

MAX_RANK = 2**16
"""No layer has more features than this, and no adapter a higher rank."""


class Config:
    """An adapter_config.json that was found to describe low-rank updates.

    Modules are asked for as their tensors name them. Which of several names a pattern
    means (of a compiled model, say, or of the plain one) is not known: any will do.

    Args:
      raw: what the file holds.
      modules: how many of them will be asked about, at most.

    Raises:
      ValueError: naming the field, what it holds and what was expected.
    """

    def __init__(self, raw: Raw, modules: int = 0):
        self._raw = raw
        seconds = patterns.SECONDS + patterns.SECONDS_PER_MODULE * modules
        self._budget = Budget(seconds)
        check(raw)
        # Lists of a thousand names are looked up for each of thousands of modules.
        self._listed = {
            field: frozenset({*raw[field], *map(module_names.unwrapped, raw[field])})
            for field in ("target_modules", "exclude_modules")
            if isinstance(raw.get(field), list)
        }
        self._bare = frozenset(raw.get("target_parameters") or ())
        init = str(raw.get("init_lora_weights")).lower()
        self.start = init if init in STARTS else None
        self.base_name: str | None = raw.get("base_model_name_or_path") or None

    def shown(self, field: str) -> str:
        """Returns a field's value, cut to fit into a message.

        Args:
          field: its name.
        """
        return short(self._raw.get(field))

    @property
    def listed(self) -> tuple[str, ...] | None:
        """Names in target_modules, if that list is all that says what is adapted."""
        raw = self._raw
        given = raw.get("target_modules")
        # Either of these narrows the list, and in ways that fit this adapter alone.
        more = ("exclude_modules", "layers_to_transform", "target_parameters")
        if not isinstance(given, list) or any(raw.get(field) for field in more):
            return None
        return None if raw.get("layers_to_transform") == 0 else tuple(given)

    def rank_of(self, path: str) -> int:
        """Returns the rank of a module.

        Args:
          path: of the module, such as ``model.layers.1.q``.

        Raises:
          ValueError: if it is no rank.

        >>> raw = {"peft_type": "LORA", "r": 4, "rank_pattern": {"layers.1.q": 2}}
        >>> Config(raw).rank_of("model.layers.1.q")
        2
        """
        # 8 is PEFT's default for both r and lora_alpha.
        rank = self._first("rank_pattern", path, self._raw.get("r", 8))
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise ValueError(
                f"{CONFIG} gives {module_names.unwrapped(path)!r} the rank "
                f"{short(rank)}, expected a whole number from 1 to {MAX_RANK}."
            )
        return rank

    def scale_of(self, path: str) -> float:
        """Returns the factor of a module's update: alpha / r, or alpha / sqrt(r).

        Args:
          path: of the module, such as ``model.layers.1.q``.

        Raises:
          ValueError: if alpha is no number, or the rank no rank.

        >>> raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True}
        >>> Config(raw).scale_of("model.layers.1.q")
        4.0
        """
        alpha = self._first("alpha_pattern", path, self._raw.get("lora_alpha", 8))
        # A scale beyond this is infinity once it is float32.
        most = float(np.finfo(np.float32).max)
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not -most <= alpha <= most:
            raise ValueError(
                f"{CONFIG} gives {module_names.unwrapped(path)!r} the alpha "
                f"{short(alpha)}, expected a number of at most {most:.1e}."
            )
        rank = self.rank_of(path)
        return alpha / (math.sqrt(rank) if self._raw.get("use_rslora") else rank)

    def is_target(self, path: str) -> bool:
        r"""Does the config put an adapter on this module?

        Args:
          path: of the module, such as ``model.layers.1.q``.

        Raises:
          ValueError: if a pattern is no regular expression, or time is up.

        >>> raw = {"peft_type": "LORA", "target_modules": r".*\.[qv]_proj"}
        >>> Config(raw).is_target("model.layers.0.attn.v_proj")
        True
        """
        raw = self._raw
        names = module_names.spellings(path)
        if self.is_parameter(peft_parameters.parameter_of(path)):
            return True
        excluded = raw.get("exclude_modules")
        # Its tensors are there: only what no name of it lets in was not adapted.
        if excluded and all(self._names("exclude_modules", name) for name in names):
            return False
        chosen = raw.get("target_modules")
        # It depends on the model, which is not known here.
        if isinstance(chosen, str) and chosen.lower() == "all-linear":
            return True
        if not chosen or not any(self._names("target_modules", x) for x in names):
            return False
        layers = raw.get("layers_to_transform")
        # PEFT reads layers_to_transform only beside a list of names.
        if isinstance(chosen, str) or layers is None or layers == []:
            return True
        layer = self._layer(module_names.unwrapped(path))
        return layer in ([layers] if isinstance(layers, int) else layers)

    def narrowing(self, path: str) -> str:
        """Returns the field that leaves a module out, with what it holds.

        Args:
          path: of a module that is no target.

        >>> raw = {"target_modules": ["q"], "layers_to_transform": [0]}
        >>> Config({"peft_type": "LORA", **raw}).narrowing("model.layers.1.q")
        'layers_to_transform [0]'
        """
        for field in ("layers_to_transform", "exclude_modules"):
            rest = {x: y for x, y in self._raw.items() if x != field}
            given = self._raw.get(field) not in (None, [])
            if given and Config(rest).is_target(path):
                return f"{field} {self.shown(field)}"
        return f"target_modules {self.shown('target_modules')}"

    def is_parameter(self, name: str) -> bool:
        """Does target_parameters name this bare parameter?

        Args:
          name: such as ``model.layers.1.mlp.experts.down_proj``.

        >>> raw = {"peft_type": "LORA", "target_parameters": ["experts.down_proj"]}
        >>> Config(raw).is_parameter("model.layers.1.mlp.experts.down_proj")
        True
        """
        return bool(self._bare) and bool(self._parameters(name))

    def check_parameters(self, paths: Iterable[str]) -> None:
        """Refuses a config that names bare parameters which are not adapted.

        Args:
          paths: of the modules that are, as their tensors have them.

        Raises:
          ValueError: naming the parameter.
        """
        left = set(self._bare)
        for path in paths if left else ():
            left -= self._parameters(peft_parameters.parameter_of(path))
        if left:
            raise ValueError(
                f"{CONFIG} has target_parameters {short(min(left))}, but the adapter "
                f"holds no factors of it; config and tensors are of different ones."
            )

    def _parameters(self, name: str) -> frozenset[str]:
        """Entries of target_parameters that name this one."""
        return self._bare.intersection(_ends(module_names.spellings(name)))

    def _first(self, field: str, path: str, default: Any) -> Any:
        keys = self._raw.get(field) or {}
        parameter = peft_parameters.parameter_of(path)
        if keys and self.is_parameter(parameter):
            path = parameter
        for name in module_names.spellings(path) if keys else ():
            for key, value in keys.items():
                if self._match(patterns.ends, field, key, name):
                    return value
        return default

    def _names(self, field: str, path: str) -> bool:
        given = self._raw[field]
        if isinstance(given, str):
            return self._match(patterns.matches, field, given, path)
        return not self._listed[field].isdisjoint(_ends([path]))

    def _layer(self, path: str) -> int | None:
        """The number after the part of ``path`` that layers_pattern matches."""
        given = self._raw.get("layers_pattern") or r"[^.]*"
        parts = path.split(".")
        for pattern in [given] if isinstance(given, str) else given:
            # The layer is the first number that comes after the pattern, as in PEFT.
            for i, part in enumerate(parts[1:-1], 1):
                before = ".".join(parts[:i])
                number = part.isascii() and part.isdigit()
                if number and self._match(
                    patterns.ends, "layers_pattern", pattern, before
                ):
                    return int(part)
        return None

    def _match(self, how: Callable[..., bool], field: str, pattern: str, path: str):
        try:
            return how(pattern, path, self._budget)
        except ValueError as error:
            raise ValueError(f"{CONFIG} has a bad {field}: {error}.") from None


def _ends(names: Iterable[str]) -> Iterator[str]:
    """Each name, and what is left of it after each of its dots."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[i:]) for i in range(len(parts)))

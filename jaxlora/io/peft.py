r"""LoRA adapters in the format of PEFT: ``adapter_config.json`` and tensors.

A module's update of its weight [F, D] is ``scale * b @ a`` with ``lora_A`` a [R, D] and
``lora_B`` b [F, R]. Rank and alpha of a module come from the first key of
``rank_pattern`` and ``alpha_pattern`` that matches its name as the regular expression
``(.*\.)?(key)$``, or else from ``r`` and ``lora_alpha``; the scale is alpha / rank, or
alpha over the square root of the rank with ``use_rslora``. An embedding [V, D] has
``lora_embedding_A`` [R, V] and ``lora_embedding_B`` [D, R], and the update of its table
is the transpose, ``scale * (b @ a).T``.

Beside its update a module may have a magnitude (DoRA) or a bias (``lora_bias``), and an
adapter may replace tensors of the base, or rows of its embedding
(:mod:`jaxlora.io.peft_parts`). What else there is in PEFT is refused by name: read as
if it were plain LoRA, it would be another adapter. So is whatever a stranger's file may
hold that is no adapter: every error is a ValueError that names the folder. This module
knows the format and no model.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxlora.io import (
    peft_files,
    peft_keys,
    peft_parameters,
    peft_parts,
    tensors,
    trust,
)
from jaxlora.io.errors import PathError, naming
from jaxlora.io.peft_checks import CONFIG, Raw
from jaxlora.io.peft_config import Config
from jaxlora.io.peft_file import PeftFile as PeftFile
from jaxlora.io.peft_keys import WEIGHTS as WEIGHTS
from jaxlora.io.peft_parts import Parts
from jaxlora.io.peft_types import Header as Header
from jaxlora.io.peft_types import PeftAdapter as PeftAdapter
from jaxlora.io.peft_types import PeftModule as PeftModule
from jaxlora.io.peft_types import Rows as Rows
from jaxlora.io.tensors import Tensors

SEAL = "adapter"
"""Key of the manifest of an adapter that we wrote."""


def read(folder: Path, *, name: str | None = None) -> PeftAdapter:
    """Reads an adapter.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      name: of an adapter that PEFT put into a folder of its name within ``folder``;
        needed if there are several.

    Raises:
      ValueError: if a file is missing or damaged, the adapter is more than low-rank
        updates of linear layers and embeddings, or config and tensors disagree.
    """
    file = open_folder(folder, name=name)
    return PeftAdapter(
        modules={path: file.read(path) for path in file.modules},
        base_name=file.base_name,
        replaced={name: file.tensor(key) for name, key in file.replaced.items()},
        rows={x: Rows(ids, file.tensor(key)) for x, (ids, key) in file.rows.items()},
    )


def open_folder(folder: Path, *, name: str | None = None) -> PeftFile:
    """Reads and checks an adapter's config and headers, but no values.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      name: of an adapter that PEFT put into a folder of its name within ``folder``;
        needed if there are several.

    Raises:
      ValueError: if a file is missing or damaged, the adapter is more than low-rank
        updates of linear layers and embeddings, or config and tensors disagree.
    """
    folder = _folder(folder, name)
    with naming(folder):
        trust.check_sealed(folder, SEAL)
        raw, stored = peft_files.open_parts(folder)
        config = Config(raw, modules=len(stored.entries))
        if raw.get("target_parameters"):
            known = config.is_parameter, config.rank_of
            stored = peft_parameters.unstacked(stored, *known)
        parts, keys = peft_parts.split(stored.entries)
        pairs, copies = peft_keys.pairs(keys)
        pairs = _without_tied(raw, config, pairs)
        config.check_parameters(
            pair["A"].rpartition(".lora_")[0] for pair in pairs.values()
        )
        modules = {path: _header(config, stored, path, pairs[path]) for path in pairs}
        peft_parts.check(raw, parts, modules)
        modules = {path: _beside(stored, parts, path, modules[path]) for path in pairs}
        _check_copies(stored, modules, copies)
        rows = {path: _rows(raw, stored, path, key) for path, key in parts.rows.items()}
    return PeftFile(
        folder=folder,
        modules=dict(sorted(modules.items())),
        base_name=config.base_name,
        targets=config.listed,
        copies=dict(sorted(copies.items())),
        replaced=dict(sorted(parts.replaced.items())),
        rows=rows,
        tied=bool(raw.get("ensure_weight_tying")),
        settings={x: raw[x] for x in peft_parts.SETTINGS if raw.get(x)},
        stored=stored,
    )


def _folder(folder: Path, name: str | None) -> Path:
    if name is not None:
        # The name may come from a stranger: it must not leave the folder.
        if Path(name).name != name or name in ("", ".."):
            raise PathError(
                folder,
                f"The adapter's name is {name!r}, expected the name of a folder within "
                f"{folder}.",
            )
        folder = folder / name
    if (folder / CONFIG).is_file():
        return folder
    if not folder.is_dir():
        raise PathError(
            folder, f"There is no folder {str(folder)!r}, expected an adapter."
        )
    # PEFT saves an adapter that is not called "default" into a folder of its name.
    inner = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if len(inner) == 1 and name is None:
        return inner[0]
    shown = ", ".join(path.name for path in inner)
    model = (folder / "config.json").is_file()
    raise PathError(
        folder,
        f"{folder} has no {CONFIG}, expected an adapter in the format of PEFT"
        + (f"; it holds several, give the folder of one: {shown}" if inner else "")
        + (", and not a model." if model and not inner else "."),
    )


def _header(config: Config, stored: Tensors, path: str, pair: Mapping[str, str]):
    keys = pair["A"], pair["B"]
    named = keys[0].rpartition(".lora_")[0]
    # PEFT ignores such tensors; to use them here would be another adapter.
    if not config.is_target(named):
        raise ValueError(
            f"The adapter holds {path!r}, which {config.narrowing(named)} does not "
            f"match; PEFT would ignore it."
        )
    a, b = (stored.entries[key].shape for key in keys)
    rank = config.rank_of(named)
    _check_shapes(path, a, b, rank)
    for key in keys:
        tensors.check_dtype(key, stored.entries[key])
    kinds = {stored.entries[key].dtype for key in keys}
    # Float16 becomes float32: its range is too small for sums of adapters.
    dtype = tensors.DTYPES["BF16" if kinds == {"BF16"} else "F32"]
    table = "lora_embedding_" in keys[0]
    header = Header(rank, a[1], b[0], config.scale_of(named), table, dtype, keys)
    bare = config.is_parameter(peft_parameters.parameter_of(named))
    start = None if table else config.start
    return dataclasses.replace(header, start=start, parameter=bare)


def _without_tied(raw: Raw, config: Config, pairs):
    """Leaves out a head that PEFT has tied to the embedding: it is that, transposed."""
    if not raw.get("ensure_weight_tying"):
        return pairs
    tables = [x for x, pair in pairs.items() if "lora_embedding_" in pair["A"]]
    odd = {x for x in pairs if x.endswith("lm_head") and not config.is_target(x)}
    return {x: y for x, y in pairs.items() if not tables or x not in odd}


def _beside(stored: Tensors, parts: Parts, path: str, header: Header) -> Header:
    """The header with the tensors beside the factors, of F values each."""
    keys = parts.magnitudes.get(path), parts.biases.get(path)
    for key in keys:
        if key is not None:
            _check_stored(stored, key, (header.f,))
    return dataclasses.replace(header, beside=keys)


def _rows(raw: Raw, stored: Tensors, path: str, key: str):
    shape = stored.entries[key].shape
    _check_stored(stored, key, shape if len(shape) == 2 else (0, 0))
    return peft_parts.token_ids(raw, path, shape[0]), key


def _check_stored(stored: Tensors, key: str, shape: tuple[int, ...]) -> None:
    tensors.check_dtype(key, stored.entries[key])
    if stored.entries[key].shape != shape:
        raise ValueError(
            f"Tensor {key!r} of the adapter has the shape {stored.entries[key].shape}, "
            f"expected {shape or 'rows'}."
        )


def _check_shapes(path: str, a: tuple[int, ...], b: tuple[int, ...], rank: int) -> None:
    shapes = f"The adapter's lora_A and lora_B of {path!r} have the shapes {a} and {b}"
    if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
        raise ValueError(
            f"{shapes}, expected ({rank}, in) and (out, {rank}) by {CONFIG}, which "
            f"gives it the rank {rank}."
        )
    if not a[1] or not b[0]:
        raise ValueError(f"{shapes}, expected features in and out: no layer is empty.")


def _check_copies(stored: Tensors, modules: Mapping[str, Header], copies) -> None:
    for path in copies.keys() & modules.keys():
        header, key = modules[path], copies[path]
        d, f = header.d, header.f
        _check_stored(stored, key, (d, f) if header.embedding else (f, d))

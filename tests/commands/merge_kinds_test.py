"""Merging adapters that are more than low-rank updates, without their base."""

import pathlib
import shutil
import types

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli
from jaxlora.io import collection_beside, peft

DATA = pathlib.Path(__file__).parents[1] / "data" / "adapters"
LM_HEAD = "base_model.model.lm_head.weight"


@pytest.fixture
def merge(tmp_path, capsys):
    """Merges folders of adapters, and returns the result and what was printed."""

    def run(*folders, words="--method mean", code=0):
        out = tmp_path / "out"
        flags = [*map(str, folders), *words.split(), "--out", str(out)]
        assert cli.main(["merge", *flags]) == code
        printed = capsys.readouterr()
        text = " ".join((printed.out + printed.err).split())
        return (peft.read(out) if code == 0 else None), text

    return run


@pytest.fixture
def other(tmp_path):
    """A function that copies an adapter and changes its tensors."""

    def copy(kind, **factors):
        folder = shutil.copytree(DATA / kind, tmp_path / "other")
        path = folder / "adapter_model.safetensors"
        values = load_file(path)
        for part, factor in factors.items():
            values |= {k: x * factor for k, x in values.items() if part in k}
        save_file(values, path)
        return folder

    return copy


def delta(module):
    return module.scale * module.b.astype(np.float64) @ module.a


def test_dora_with_itself_is_itself(merge, other):
    merged, text = merge(DATA / "tied/dora", other("tied/dora"))
    before = peft.read(DATA / "tied/dora").modules
    assert merged.modules.keys() == before.keys()
    for path, module in merged.modules.items():
        np.testing.assert_allclose(delta(module), delta(before[path]), atol=1e-5)
        np.testing.assert_allclose(module.magnitude, before[path].magnitude, rtol=1e-6)
    assert "their magnitudes are averaged by weight" in text


def test_magnitudes_are_averaged_by_absolute_weight(merge, other):
    second = other("tied/dora", magnitude=3.0)
    merged, _ = merge(DATA / "tied/dora", second, words="--method sum --weights 1 -0.5")
    before = peft.read(DATA / "tied/dora").modules
    for path, module in merged.modules.items():
        want = before[path].magnitude * (1 + 0.5 * 3) / 1.5
        np.testing.assert_allclose(module.magnitude, want, rtol=1e-6)


def test_dora_beside_a_plain_adapter_needs_the_base(merge):
    _, text = merge(DATA / "tied/dora", DATA / "tied/head", code=2)
    assert "Adapter dora has a magnitude (DoRA) of" in text
    assert "--base MODEL merges them on it" in text


def test_magnitudes_of_other_modules_are_refused_by_name():
    has = types.SimpleNamespace(beside=("m", None))
    files = [types.SimpleNamespace(modules={path: has}) for path in ("q", "v", "q")]
    with pytest.raises(ValueError, match=r"Adapter a has a magnitude .* 'q' and b has"):
        collection_beside.of_merge(("a", "b", "c"), files, (1, 1, 1))


def test_biases_merge_as_deltas_do(merge):
    kinds = "untied/lora_bias", "untied/head"
    _, text = merge(DATA / kinds[0], DATA / "untied/embed", code=2)
    assert "has biases (lora_bias) and embed updates an embedding" in text
    merged, _ = merge(
        *(DATA / kind for kind in kinds), words="--method sum --weights 2 1"
    )
    before = peft.read(DATA / kinds[0]).modules
    for path, module in before.items():
        got = merged.modules[path]
        np.testing.assert_allclose(
            got.scale * got.bias, 2 * module.scale * module.bias, rtol=1e-5
        )
    assert not merged.modules["lm_head"].bias.any()


def test_equal_replacements_are_kept_bit_for_bit(merge, other):
    merged, text = merge(DATA / "tied/saved_head", DATA / "tied/tokens")
    stored = load_file(DATA / "tied/saved_head" / "adapter_model.safetensors")
    np.testing.assert_array_equal(merged.replaced["lm_head.weight"], stored[LM_HEAD])
    assert merged.rows["model.embed_tokens"].ids == (5, 3)
    assert "lm_head.weight of the merge is that of saved_head." in text
    assert "2 trained tokens are kept beside the merge." in text


@pytest.mark.parametrize("second", ["tokens", "embed"])
def test_a_replaced_table_is_not_changed_again(merge, second):
    _, text = merge(DATA / "untied/saved", DATA / "untied" / second, code=2)
    assert f"Adapter saved replaces 'model.embed_tokens' and {second} updates" in text


def test_different_replacements_are_refused_or_averaged(merge, other):
    second = other("untied/saved", lm_head=2.0)
    _, text = merge(DATA / "untied/saved", second, code=2)
    assert "saved and other replace 'lm_head.weight' of the base by different" in text
    assert "--average takes their mean" in text
    merged, text = merge(
        DATA / "untied/saved", second, words="--method mean --weights 1 3 --average"
    )
    stored = load_file(DATA / "untied/saved" / "adapter_model.safetensors")
    np.testing.assert_allclose(
        merged.replaced["lm_head.weight"], stored[LM_HEAD] * 1.75, rtol=1e-6
    )
    assert "lm_head.weight of the merge is the mean of those of saved, other." in text


def test_inspect_says_what_is_there(capsys):
    kinds = "untied/dora", "untied/lora_bias", "untied/saved", "untied/tokens"
    assert cli.main(["inspect", *(str(DATA / kind) for kind in kinds)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Adapter dora has DoRA in 4 modules beside its updates." in text
    assert "Adapter lora_bias has 4 biases beside its updates." in text
    assert "Adapter saved has lm_head.weight replaced, model.embed_tokens" in text
    assert "Adapter tokens has 2 trained tokens beside its updates." in text

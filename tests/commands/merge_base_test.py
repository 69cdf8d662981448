"""``jaxlora merge --base``: updates that are known on their base only."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli, lora, reuse
from jaxlora import merge as merges
from jaxlora import tree as named
from jaxlora.io import peft
from jaxlora.models import adapters, sites

DATA = pathlib.Path(__file__).parents[1] / "data" / "adapters"
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture
def merge(tmp_path, capsys):
    """Merges adapters on the base of the first, and returns the result and the text."""

    def run(*kinds, words="--method mean", code=0):
        out = tmp_path / "out"
        base = DATA / kinds[0].partition("/")[0] / "base"
        folders = [str(DATA / kind) for kind in kinds]
        flags = [*folders, *words.split(), "--base", str(base), "--out", str(out)]
        assert cli.main(["merge", *flags]) == code
        printed = capsys.readouterr()
        text = " ".join((printed.out + printed.err).split())
        return (peft.read(out) if code == 0 else None), text

    return run


def weight_of(kind, path):
    return load_file(DATA / kind.partition("/")[0] / "base/model.safetensors")[
        f"{path}.weight"
    ].astype(np.float64)


def adapted(weight, module):
    """A weight [F, D] with its update, by the formula of the paper of DoRA."""
    total = weight + module.scale * module.b.astype(np.float64) @ module.a
    if module.magnitude is None:
        return total
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return module.magnitude[:, None] * total / norm


def test_dora_beside_plain_adapters_is_merged_in_delta_space(merge):
    kinds = ["tied/dora", "tied/head"]
    merged, text = merge(*kinds, words="--method sum --weights 0.25 0.75")
    assert "dora has magnitudes (DoRA) in 4 modules, which are merged" in text
    parts = [peft.read(DATA / kind).modules for kind in kinds]
    for path in (Q, "model.layers.0.self_attn.v_proj"):
        weight = weight_of("tied/dora", path)
        deltas = [adapted(weight, x[path]) - weight if path in x else 0 for x in parts]
        want = weight + 0.25 * deltas[0] + 0.75 * deltas[1]
        np.testing.assert_allclose(
            adapted(weight, merged.modules[path]), want, atol=2e-6
        )
    table = weight_of("tied/dora", "model.embed_tokens")
    head = adapted(table, merged.modules["lm_head"]) - table
    want = adapted(table, parts[1]["lm_head"]) - table
    np.testing.assert_allclose(head, 0.75 * want, atol=2e-6)


def test_a_rank_makes_it_the_nearest_plain_adapter(merge):
    kinds = ["tied/dora", "tied/lora_bias"]
    merged, text = merge(*kinds, words="--method sum --rank 3")
    parts = [peft.read(DATA / kind).modules for kind in kinds]
    weight, module = weight_of("tied/dora", Q), merged.modules[Q]
    exact = sum(adapted(weight, x[Q]) - weight for x in parts)
    u, s, v = np.linalg.svd(exact)
    assert module.magnitude is None
    assert module.a.shape[0] == 3
    want = (u[:, :3] * s[:3]) @ v[:3]
    np.testing.assert_allclose(adapted(0, module), want, atol=1e-5)
    assert "plain LoRA of rank 3, which leaves out 0." in text
    _, text = merge(*kinds, words="--method sum --force", code=2)
    assert "magnitudes (DoRA) and biases at" in text
    assert "--rank R writes it as plain LoRA" in text


def test_factors_are_taken_out_of_the_base_again(merge):
    merged, text = merge("untied/pissa", "untied/olora", words="--method sum")
    assert "pissa began with pissa factors of its base, which are taken out" in text
    weight = weight_of("untied/pissa", Q)
    module = peft.read(DATA / "untied/pissa").modules[Q]
    u, s, v = np.linalg.svd(weight)
    began = (u[:, :2] * s[:2]) @ v[:2]
    got = adapted(0, merged.modules[Q])
    np.testing.assert_allclose(got, adapted(0, module) - began, atol=1e-5)


def test_another_base_is_refused_by_name(tmp_path, capsys):
    base = shutil.copytree(DATA / "untied/base", tmp_path / "base")
    values = load_file(base / "model.safetensors")
    values[f"{Q}.weight"] = values[f"{Q}.weight"][:, :8].copy()
    save_file(values, base / "model.safetensors")
    out = tmp_path / "other"
    flags = [str(DATA / "untied/pissa"), "--method", "mean", "--base", str(base)]
    assert cli.main(["merge", *flags, "--out", str(out)]) == 2
    assert "from 16 to 16 features, and its weight in" in capsys.readouterr().err
    assert not out.exists()


def test_a_multiplier_below_zero_is_no_dora(merge):
    _, text = merge("tied/dora", words="--method sum --weights -9", code=2)
    assert "which no magnitude of DoRA does; --rank R" in text
    raw = json.loads((DATA / "tied/dora/adapter_config.json").read_text())
    assert raw["use_dora"] is True


def test_a_gain_is_no_module_of_its_own(merge):
    _, text = merge("tied/dora", "tied/head", words="--method sum --weights 0 1")
    assert "The merge is zero in" in text
    assert "dora_gain" not in text


def test_dora_of_the_mlps_of_a_mixture_is_merged_as_it_is_run(tmp_path, capsys):
    """``ties`` elects signs: a gain that is part of an update gives another merge."""
    family = DATA.parent / "families" / "mixtral"
    folders = [dora_of_mlps(family, tmp_path / str(i), i) for i in (1, 2)]
    words = ["--method", "ties", "--density", "0.5", "--base", str(family / "base")]
    flags = [*map(str, folders), *words, "--out", str(tmp_path / "out")]
    assert cli.main(["merge", *flags]) == 0, capsys.readouterr().err
    once = reuse.load(family / "base", [tmp_path / "out"]).adapter
    how = merges.preset("ties", density=0.5)
    base = reuse.load(family / "base")
    trees = [adapters.load(x, base.base) for x in folders]
    at_once = lora.sites(how(lora.stack(trees), [1.0, 1.0]))
    for name in ("gate", "up", "down"):
        site = f"layers/moe/{name}/kernel"
        kernel = named.flatten(base.base)[site]
        got, want = (sites.fused(kernel, site, x) for x in (lora.sites(once), at_once))
        np.testing.assert_allclose(got, want, atol=1e-4)  # gains are divided out
        assert np.abs(got - kernel).max() > 0.1


def dora_of_mlps(family, folder, seed):
    """The MLPs' adapter of a family, turned, with magnitudes."""
    shutil.copytree(family / "experts", folder)
    file = folder / "adapter_model.safetensors"
    stored, rng = load_file(file), np.random.default_rng(seed)
    stored = {x: rng.permuted(y).reshape(y.shape) for x, y in stored.items()}
    for key in [x for x in stored if x.endswith("lora_B.weight")]:
        magnitude = rng.uniform(0.5, 2, len(stored[key])).astype(np.float32)
        stored[key.replace("lora_B.weight", "lora_magnitude_vector")] = magnitude
    save_file(stored, file)
    config = folder / "adapter_config.json"
    raw = json.loads(config.read_text()) | {"use_dora": True}
    config.write_text(json.dumps(raw))
    return folder

"""Adapters that are more than low-rank updates, against PEFT's logits."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import lora, models, reuse
from jaxlora.io import peft
from jaxlora.models import adapters, pretrained, sites
from jaxlora.reuse import calls

DATA = pathlib.Path(__file__).parents[1] / "data" / "adapters"
THEIRS = load_file(DATA / "logits.safetensors")
IDS = THEIRS.pop("ids")
CLOSE = 1e-4
FAST = ("untied/saved", "tied/dora", "tied/embed_and_head", "tied/lora_bias")
KINDS = [x if x in FAST else pytest.param(x, marks=pytest.mark.slow) for x in THEIRS]
Q = "layers/attn/q_proj/"


def base_of(kind):
    return DATA / kind.partition("/")[0] / "base"


def loaded(*kinds, **combining):
    return reuse.load(base_of(kinds[0]), [DATA / kind for kind in kinds], **combining)


def logits(reused):
    return np.concatenate(list(calls.logits(reused, IDS, len(IDS))))


def save_fused(folder, reused, kind):
    what = {"adapter": reused.adapter, "like": base_of(kind)}
    pretrained.save(folder, reused.model, reused.base, **what)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_peft(kind, tmp_path):
    reused, theirs = loaded(kind), THEIRS[kind]
    plain = logits(reuse.load(base_of(kind)))
    assert np.abs(plain - theirs[..., : plain.shape[-1]]).max() > 1
    np.testing.assert_allclose(logits(reused), theirs, rtol=0, atol=CLOSE)
    if kind == "untied/lora_bias":  # a Llama's checkpoint has no place for it
        with pytest.raises(ValueError, match=f"lora_bias. at '{Q}bias', and the model"):
            save_fused(tmp_path / "fused", reused, kind)
        return
    save_fused(tmp_path / "fused", reused, kind)
    fused = logits(reuse.load(tmp_path / "fused"))
    np.testing.assert_allclose(fused, theirs, rtol=0, atol=CLOSE)


def test_what_an_adapter_replaces_is_said():
    notes = loaded("tied/tokens").notes
    assert notes == (
        "2 rows of model.embed_tokens.weight are replaced by trained tokens.",
    )
    (note,) = loaded("untied/saved", "untied/embed", merge="mean").notes
    assert note.startswith("7 tensors of the base are replaced by those of the adapter")
    assert note.endswith("and 3 more; they are used with embed, too.")


def kernel_of(reused, name="layers/attn/q_proj/kernel", layer=1):
    """The kernel with all that adapts it."""
    leaf = reused.base
    for part in name.split("/"):
        leaf = leaf[part]
    parts = {} if reused.adapter is None else lora.sites(reused.adapter)
    every = jax.tree.map(lambda x: x[layer], sites.of_leaf(name, parts))
    return np.asarray(sites.fused(leaf[layer], name, every))


def dora(kind, layer=1):
    """The kernel of q_proj [D, F] by the formula of the paper, in NumPy."""
    stored = load_file(DATA / kind / "adapter_model.safetensors")
    base = load_file(base_of(kind) / "model.safetensors")
    path = f"model.layers.{layer}.self_attn.q_proj"
    part = {x.rpartition("q_proj.")[2]: v for x, v in stored.items() if path in x}
    total = base[f"{path}.weight"].astype(np.float64)
    total = total + 3.0 * part["lora_B.weight"] @ part["lora_A.weight"]
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return (part["lora_magnitude_vector"][:, None] * total / norm).T


def test_dora_is_merged_in_delta_space():
    """Beside a plain adapter, whose kernel has no magnitude of its own."""
    np.testing.assert_allclose(
        kernel_of(loaded("tied/dora")), dora("tied/dora"), atol=1e-6
    )
    apart = [kernel_of(loaded(kind)) for kind in ("tied/dora", "tied/head")]
    merged = loaded("tied/dora", "tied/head", merge="mean", weights=[1.0, 3.0])
    want = 0.25 * apart[0] + 0.75 * apart[1]
    np.testing.assert_allclose(kernel_of(merged), want, atol=1e-6)


def test_a_route_reaches_no_head():
    with pytest.raises(ValueError, match="a site 'head', and a route reads adapters"):
        loaded("tied/dora", "tied/head", route="uniform")


def test_generation_reads_table_and_head():
    reused = loaded("tied/embed_and_head")
    decoding = models.Decoding(4)
    unfused = models.generate(
        reused.model,
        reused.base,
        jnp.asarray(IDS, jnp.int32),
        decoding,
        adapter=reused.adapter,
    )
    theirs = THEIRS["tied/embed_and_head"][:, -1].argmax(-1)
    np.testing.assert_array_equal(unfused.tokens[:, 0], theirs)


def changed(folder, kind, change):
    """A copy of an adapter with other tensors."""
    shutil.copytree(DATA / kind, folder)
    path = folder / "adapter_model.safetensors"
    values = load_file(path)
    change(values)
    save_file(values, path)
    return folder


def test_a_route_weighs_gains_as_it_weighs_kernels(tmp_path):
    """With equal weights it is the mean of the two, in every layer."""

    def change(values):
        for key in values:
            values[key] *= -0.5 if "lora_B" in key else 1.5

    other = changed(tmp_path / "other", "tied/dora", change)
    folders = [DATA / "tied/dora", other]
    routed, merged = (
        logits(reuse.load(base_of("tied/dora"), folders, **how))
        for how in ({"route": "uniform"}, {"merge": "mean"})
    )
    np.testing.assert_allclose(routed, merged, rtol=0, atol=CLOSE)


def test_different_replacements_are_refused_by_name(tmp_path):
    def change(values):
        values["base_model.model.lm_head.weight"] += 1

    other = changed(tmp_path / "other", "untied/saved", change)
    folders = [DATA / "untied/saved", other]
    with pytest.raises(
        ValueError, match=r"replace 'lm_head.weight' of the base by diff"
    ):
        reuse.load(base_of("untied/saved"), folders, merge="mean")
    alone = reuse.load(base_of("untied/saved"), folders[:1]).base["head"]
    for weights, head in (([1, 0], alone), ([0, 1], alone + 1)):
        how = {"merge": "sum", "weights": weights}
        mixed = reuse.load(base_of("untied/saved"), folders, **how)
        np.testing.assert_array_equal(mixed.base["head"], head)
    same = shutil.copytree(DATA / "untied/saved", tmp_path / "same")
    reuse.load(base_of("untied/saved"), [folders[0], same], merge="mean")


def test_tokens_of_two_adapters(tmp_path):
    def change(values):
        (key,) = (key for key in values if "token_adapter" in key)
        values[key] += 1

    other = changed(tmp_path / "other", "tied/tokens", change)
    folders = [DATA / "tied/tokens", other]
    with pytest.raises(ValueError, match=r"Token 5 of 'model.embed_tokens.weight' is"):
        reuse.load(base_of("tied/tokens"), folders, merge="mean")


def test_one_adapter_alone_is_no_tree():
    _, base = pretrained.load(base_of("tied/tokens"))
    with pytest.raises(ValueError, match=r"replaces 'model.embed_tokens' .*reuse.load"):
        adapters.load(DATA / "tied/tokens", base)


@pytest.mark.parametrize(
    "kind", ["tied/dora", "tied/dora_head", "untied/lora_bias", "tied/head"]
)
def test_written_for_peft_it_is_the_same(kind, tmp_path):
    _, base = pretrained.load(base_of(kind))
    adapter = adapters.load(DATA / kind, base)
    adapters.save(tmp_path / "out", adapter, base=base, base_name="base")
    first, second = (
        peft.read(folder).modules for folder in (DATA / kind, tmp_path / "out")
    )
    assert first.keys() == second.keys()
    for path, module in first.items():
        again = second[path]
        for part in ("a", "b", "magnitude", "bias"):
            values = getattr(module, part)
            if values is None:
                assert getattr(again, part) is None
            else:
                np.testing.assert_allclose(getattr(again, part), values, rtol=1e-5)
    if kind == "tied/dora":
        with pytest.raises(ValueError, match=r"gain' .DoRA., whose magnitudes are nor"):
            adapters.save(tmp_path / "other", adapter)

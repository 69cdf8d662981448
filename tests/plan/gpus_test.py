"""GPUs as their compiler reads them, and plans where it is missing."""

import dataclasses

import pytest

from jaxlora.commands import plan_output
from jaxlora.plan import describe, gpus, planning, search, topology
from plan_shapes import CONFIG, WORK


@pytest.mark.parametrize("kind", gpus.CARDS)
def test_a_card_has_the_numbers_of_its_chip(kind):
    card, chip = gpus.CARDS[kind], topology.CHIPS[kind]
    assert chip.gib * 2**30 == pytest.approx(card.memory * 1e9)
    text = gpus.target(card)
    assert f"device_memory_size: {round(card.memory * 1e9)}\n" in text
    assert f"shared_memory_per_block_optin: {(card.shared - 1) * 1024}\n" in text
    # Products of bfloat16: so many a cycle and multiprocessor, at this clock or below.
    cycle = {8: 2048, 9: 4096}[card.capability[0]]
    most = card.processors * cycle * card.gigahertz * 1e9
    assert 0.9 * most <= chip.teraflops * 1e12 <= 1.01 * most


def test_without_the_compiler_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(gpus, "installed", lambda: False)
    where = describe("h100:8")
    assert (where.count, where.devices) == (8, ())
    assert "pip install jax-cuda13-plugin==" in where.note


def test_a_compiler_that_does_not_start_is_a_sentence(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("The plugin is of another JAX.\nand much more")

    monkeypatch.setattr(gpus, "installed", lambda: True)
    monkeypatch.setattr(gpus, "devices", refuse)
    where = describe("a100:4")
    assert where.devices == ()
    assert where.note.endswith("does not start (The plugin is of another JAX)")


@pytest.mark.parametrize(
    ("count", "shape"), [(1, "1x1x1"), (8, "1x1x8"), (12, "1x1x12"), (16, "1x2x8")]
)
def test_machines_have_eight(monkeypatch, count, shape):
    from jax.experimental import topologies

    class Seen:
        devices = range(count)

        def __init__(self, **given):
            assert given["topology"] == shape
            assert given["target_config"] == gpus.target(gpus.CARDS["h200"])

    monkeypatch.setattr(topologies, "get_topology_desc", Seen)
    assert len(gpus.devices("h200", count)) == count


def test_what_jax_does_not_take_by_itself_is_said():
    where = describe("h100:1", compiled=False)
    asked = dataclasses.replace(WORK, task="route", method="arrow")
    plain = planning.plan(asked, where, {})
    fine = dataclasses.replace(plain, peak=int(0.74 * (plain.limit or 0)))
    assert "MEM_FRACTION" not in plan_output.verdict(fine)
    tight = dataclasses.replace(plain, peak=int(0.76 * (plain.limit or 0)))
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in plan_output.verdict(tight)


def test_what_would_fit_is_said_in_flags_of_the_command(monkeypatch):
    """Of a program of so many GiB a row, and of layers that are recomputed a third."""

    def estimate(work, _):
        return {"all": work.batch * (1 if work.config.remat else 3) * 2**30}

    monkeypatch.setattr(search.memory, "estimate", estimate)
    where = describe("v5e:16x16", compiled=False)  # none is larger

    def verdict(rows, **flags):
        work = dataclasses.replace(WORK, batch=rows)
        return plan_output.verdict(planning.plan(work, where, {"fsdp": -1}), **flags)

    monkeypatch.setattr(planning.search, "check_mesh", lambda *_: None)
    monkeypatch.setattr(planning.costs, "traffic", lambda *_: [])
    monkeypatch.setattr(search, "largest_batch", lambda work, *_: work.batch // 2)
    assert verdict(8).endswith("these would: --batch 4; --remat on.")
    assert verdict(16).endswith("these would: --batch 8.")
    of_study = {"batch": "train.batch {}"}
    assert verdict(8, flags=of_study).endswith("these would: train.batch 4.")


@pytest.mark.slow
def test_more_cards_of_the_same_kind_are_offered():
    large = dataclasses.replace(CONFIG, hidden_size=8192, vocab_size=2**19)
    name, _ = search.smallest(
        dataclasses.replace(WORK, config=large, batch=64).on("gpu"),
        describe("a100:1", compiled=False),
    ) or ("", {})
    assert name.startswith("a100:")

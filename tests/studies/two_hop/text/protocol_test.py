"""The whole study on a tiny checkpoint: complete rows, gates, resume, own adapters."""

import dataclasses
import json
from typing import NamedTuple

import pandas as pd
import pytest

from jaxlora.evaluate.schema import COLUMNS
from jaxlora.models import adapters as stored
from jaxlora.report import page, tables
from jaxlora.studies.harness import Results
from jaxlora.studies.harness.config import read
from jaxlora.studies.two_hop.arms import COMBINED
from jaxlora.studies.two_hop.text import answer, experts, protocol, resources
from jaxlora.studies.two_hop.text.config import STUDY, CriteriaConfig, TextConfig
from jaxlora.tasks.two_hop import people
from jaxlora.tasks.two_hop.experts import Expert


class Ran(NamedTuple):
    """A finished study."""

    results: Results
    out: object
    cache: object


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    results = protocol.run(tiny, root / "out", root / "cache")
    return Ran(results, root / "out", root / "cache")


@pytest.fixture(scope="module")
def table(ran):
    return pd.read_csv(ran.out / "results.csv", keep_default_na=False)


def pooled(table, **wanted):
    chosen = table[table["seed"] == "all"]
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def test_every_library_and_method_has_every_hop(table, tiny):
    assert tuple(table.columns) == COLUMNS
    assert set(table["study"]) == {"two-hop-text"}
    assert set(table["familiarity"] + table["knows"]) == {"FOO", ""}
    wanted = {(str(x), m) for x in COMBINED for m in tiny.methods}
    wanted |= {("base", "none"), ("A->B", "none"), ("joint", "none")}
    for split in ("hop 1", "hop 2", "two-hop"):
        found = pooled(table, split=split, metric="accuracy", condition="{}")
        assert wanted <= set(zip(found["library"], found["method"], strict=True))
        assert set(found["n"]) == {3}


def test_both_ways_of_scoring_are_there_under_their_names(table):
    found = pooled(table, library="2-combination", method="mean", split="two-hop")
    scored = {
        json.loads(text).get("scored")
        for text in found[found["metric"] == "accuracy"]["condition"]
    }
    assert scored == {
        None,
        "generation, exact",
        "generation, first name",
        "ranking among answers only",
    }
    assert "coverage" not in " ".join(table["condition"])


def test_shares_of_answers_sum_to_one(table):
    for library, method in (("2-combination", "arrow"), ("A->C", "none")):
        found = pooled(table, library=library, method=method, split="two-hop")
        found = found[found["condition"] == "{}"]
        shares = found[
            (found["metric"] == "accuracy") | found["metric"].str.startswith("error")
        ]
        assert len(shares) == 5
        assert shares["value"].astype(float).sum() == pytest.approx(1, abs=1e-5)


def test_written_bridges_and_facts_in_context_are_asked(table):
    written = pooled(table, split="two-hop, written bridge", metric="accuracy")
    assert set(written["library"]) == {"base", "2-combination", "joint"}
    context = pooled(table, split="two-hop, facts in context", metric="accuracy")
    assert set(context["library"]) == {"base"}


def test_criteria_verdicts_and_what_was_left_out_are_told(ran):
    told = json.loads((ran.out / "results.json").read_text())
    assert [x["criterion"] for x in told["criteria"]] == [
        "facts in context",
        "experts' own facts",
    ]
    judged = {(v["library"], v["method"]) for v in told["verdicts"]}
    both = ("mean", "arrow")
    assert judged == {(x, m) for x in ("2-combination", "3-combination") for m in both}
    assert {left["what"] for left in told["left_out"]} == {
        "full fine-tuning",
        "method oracle",
    }
    full = pooled(ran.results.rows, library="full fine-tuning")
    assert set(full["metric"]) == {"control available"}
    assert told["predictions"]["digest"]
    assert {x["library"] for x in told["own_facts"]} >= {"2-combination", "A->B"}


def test_the_texts_that_were_generated_are_kept(ran):
    (path,) = ran.out.rglob("seed0-2-combination-mean.json")
    notes = json.loads(path.read_text())["content"]["notes"]["generated"]
    assert [told["split"] for told in notes] == ["hop 1", "hop 2", "two-hop"]
    assert [len(told["texts"]) for told in notes] == [3, 3, 3]


def test_held_out_targets_write_for_the_other_half(ran):
    """The first of three people is asked the expert of the others, and so on."""
    (path,) = ran.out.rglob("*seed0-A-C-of-others-none.json")
    told = json.loads(path.read_text())["content"]
    notes = {x["split"]: x for x in told["notes"]["generated"]}["two-hop"]
    assert all(len(notes[name]) == 3 for name in ("texts", "exact", "contains"))


def test_reports_are_made_of_it(ran, tmp_path):
    words = tables.to_markdown(ran.results.rows, ran.results.summary)
    assert "2-combination (mean)" in words
    written = page.write(ran.results.rows, ran.results.summary, tmp_path)
    assert "two-hop-text study" in written.read_text()


def test_a_finished_study_is_done_at_once(ran, tiny, monkeypatch):
    monkeypatch.setattr(resources, "load", lambda *_: pytest.fail("it was loaded"))
    before = (ran.out / "results.csv").read_bytes()
    again = protocol.run(tiny, ran.out, ran.cache)
    assert (ran.out / "results.csv").read_bytes() == before
    assert again.summary["timings"]["blocks_resumed"] == 25


def test_a_cut_study_asks_only_what_is_missing(ran, tiny, monkeypatch):
    before = (ran.out / "results.csv").read_bytes()
    (path,) = ran.out.rglob("*3-combination-mean.json")
    path.unlink()
    asked = []
    real = answer.answer

    def count(setting, arm, method):
        asked.append((str(arm), str(method)))
        return real(setting, arm, method)

    monkeypatch.setattr(answer, "answer", count)
    protocol.run(tiny, ran.out, ran.cache)
    assert asked == [("3-combination", "mean")]
    assert (ran.out / "results.csv").read_bytes() == before


def test_another_configuration_is_refused(ran, tiny):
    other = dataclasses.replace(tiny, people=4)
    with pytest.raises(ValueError, match="people is 3 there and 4 here"):
        protocol.run(other, ran.out, ran.cache)
    # How many are asked at once decides nothing: out of memory, it may be lowered.
    fewer = dataclasses.replace(tiny, ask=dataclasses.replace(tiny.ask, batch=3))
    protocol.run(fewer, ran.out, ran.cache)


def test_the_config_of_a_run_is_read_back(ran, tiny):
    found = read(TextConfig, ran.out / "results.json", STUDY)
    assert dataclasses.replace(found, ask=tiny.ask) == tiny


def test_a_base_that_fails_a_criterion_stops_there(tiny, tmp_path, ran):
    strict = dataclasses.replace(
        tiny, criteria=CriteriaConfig(min_context=1, min_own=0)
    )
    results = protocol.run(strict, tmp_path / "out", ran.cache)
    assert results.failed
    assert [v["label"] for v in results.summary["verdicts"]] == ["invalid"]
    assert len(list((tmp_path / "out").rglob("seed0*"))) == 1


def test_experts_that_fail_their_criterion_make_verdicts_invalid(tiny, tmp_path, ran):
    strict = dataclasses.replace(
        tiny, methods=("mean",), criteria=CriteriaConfig(min_context=0, min_own=1)
    )
    results = protocol.run(strict, tmp_path / "out", ran.cache)
    assert {v["label"] for v in results.summary["verdicts"]} == {"invalid"}
    assert {v["cause"] for v in results.summary["verdicts"]} == {"fine-tuning"}
    assert not results.failed


@pytest.fixture(scope="module")
def own(tiny, ran, tmp_path_factory):
    """Three trained experts as PEFT adapters, and the facts they were trained on."""
    root = tmp_path_factory.mktemp("own")
    group = people.generate(("F-OO",), 3, 1, seed=0)[0]
    loaded = resources.load(tiny, lambda *_: None)
    names = protocol.wanted(tiny)
    learner = experts.Learner(*loaded[:3])
    made = experts.train(learner, [group], 0, tiny, ran.cache, names=names)
    folders = []
    for role in (Expert.HOP1, Expert.HOP2, Expert.TARGET):
        folder = root / str(role)
        stored.save(folder, made.adapters[role])
        folders.append(str(folder))
    facts = [
        {"head": r.prompt[0], "relation": r.prompt[1], "tail": r.answer[0]}
        for r in (*group.hop1, *group.hop2)
    ]
    (root / "facts.jsonl").write_text("\n".join(map(json.dumps, facts)))
    return dataclasses.replace(
        tiny,
        adapter=tuple(folders),
        facts=root / "facts.jsonl",
        familiarity="F",
        hop1=folders[0],
        hop2=folders[1],
        target=folders[2],
    )


def test_own_adapters_are_asked_as_trained_ones_are(own, tmp_path, ran, table):
    results = protocol.run(own, tmp_path / "out", ran.cache)
    rows = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    for library in ("A->B", "B->C", "A->C", "2-combination", "3-combination"):
        for split in ("hop 1", "hop 2", "two-hop"):
            same = {"library": library, "split": split, "metric": "accuracy"}
            one, two = (pooled(x, condition="{}", **same) for x in (rows, table))
            assert one["value"].tolist() == two["value"].tolist()
    assert {v["library"] for v in results.summary["verdicts"]} == {
        "2-combination",
        "3-combination",
    }
    left = {x["what"] for x in results.summary["left_out"]}
    assert left >= {"shuffled answers", "counterfactual hop 1", "joint"}
    assert results.summary["roles"]["of"]["hop2"] == own.hop2
    assert results.summary["predictions"]["outcomes"] == []
    missing = pooled(rows, library="shuffled answers", metric="control available")
    assert len(missing) == 2
    assert set(missing["value"].astype(float)) == {0.0}


def test_roles_are_measured_once_and_remembered(own, tmp_path, ran, monkeypatch):
    told = {own.adapter[0]: [0, 1, 0], own.adapter[1]: [1, 0, 0]}
    told[own.adapter[2]] = [0, 0, 0.5]
    monkeypatch.setattr(resources, "skills", lambda *_: told)
    found = dataclasses.replace(
        own,
        hop1="",
        hop2="",
        target="",
        methods=("mean",),
        criteria=CriteriaConfig(min_context=0),
    )
    first = protocol.run(found, tmp_path / "out", ran.cache)
    of = first.summary["roles"]["of"]
    assert (of["hop1"], of["hop2"]) == (own.adapter[1], own.adapter[0])
    assert first.summary["roles"]["how"] == "hop1 measured; hop2 measured"
    monkeypatch.setattr(resources, "skills", lambda *_: pytest.fail("measured again"))
    again = protocol.run(found, tmp_path / "out", ran.cache)
    assert again.summary["roles"] == first.summary["roles"]


def test_skills_are_accuracies_of_each_adapter(own):
    loaded = resources.load(own, lambda *_: None)
    group = people.generate(("F-OO",), 3, 1, seed=0)
    found = resources.skills(loaded, own, group)
    assert list(found) == list(own.adapter)
    for values in found.values():
        assert len(values) == 3
        assert all(3 * x == round(3 * x) for x in values)


def test_real_people_are_sorted_by_what_the_base_knows(
    tiny, tmp_path, ran, monkeypatch
):
    lines = []
    for i in range(7):
        lines.append({"head": f"Ann {i}", "relation": "spouse", "tail": f"Bo {i}"})
        lines.append({"head": f"Bo {i}", "relation": "home", "tail": f"Rome {i}"})
    (tmp_path / "facts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    knows = ([True] * 3 + [False] * 4, [True] * 3 + [False] * 3 + [True])
    monkeypatch.setattr(resources, "knowledge", lambda *_: knows)
    real = dataclasses.replace(
        tiny,
        cells=(),
        facts=tmp_path / "facts.jsonl",
        criteria=CriteriaConfig(min_context=1),
    )
    results = protocol.run(real, tmp_path / "out", ran.cache)
    cells = results.rows["familiarity"] + "-" + results.rows["knows"]
    assert set(cells) == {"R-II", "R-OO", "-"}
    left = {x["what"]: x["why"] for x in results.summary["left_out"]}
    assert "same hops known" in left["1 people of the facts"]
    assert {x["criterion"] for x in results.summary["criteria"]} == {
        "facts in context",
        "two-hop over known facts",
    }


def test_programs_are_compiled_once_for_all_groups(tiny, tmp_path, ran):
    """A second seed has other people, and the same shapes."""
    from jaxlora.studies.two_hop.text import reads

    begun, trees = reads.begin._cache_size(), reads.read._cache_size()
    more = dataclasses.replace(tiny, first_seed=1, methods=("mean",))
    protocol.run(more, tmp_path / "out", tmp_path / "cache")
    assert reads.begin._cache_size() == begun
    # Other names may make a tree of another size, and each size has a program.
    assert reads.read._cache_size() < 2 * trees


def test_bad_input_leaves_no_folder(tiny, tmp_path):
    for other, said in (
        ({"model": ""}, "--model DIR names a checkpoint"),
        ({"model": str(tmp_path)}, "config.json"),
        ({"lora": dataclasses.replace(tiny.lora, rank=99)}, "rank is 99"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.run(
                dataclasses.replace(tiny, **other), tmp_path / "out", tmp_path / "cache"
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data=2,fsdp=2,tensor=2", "expert=4,data=2"])
def test_over_a_mesh_the_study_says_the_same(tiny, table, tmp_path, mesh):
    cut = dataclasses.replace(tiny, mesh=mesh)
    protocol.run(cut, tmp_path / "out", tmp_path / "cache")
    other = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    assert len(other) == len(table)
    values = [pd.to_numeric(x["value"], errors="coerce") for x in (table, other)]
    # Sums in another order may turn an answer of an untrained model round.
    assert (values[0] - values[1]).abs().mean() < 0.02
    assert values[0].std() > 0.1

"""Studies of a language model as two processes: the rows that one writes."""

import json
import shutil

import pandas as pd
import pytest

import checkpoints
import pairs

COMMON = """
--dtype float32 --methods mean --resamples 50 --lora.rank 2
--lora.targets layers/attn/[qv]_proj/kernel --train.steps 4 --train.batch 2
--train.warmup 1 --ask.new-tokens 4
""".split()  # noqa: SIM905
WORDS = {
    "two-hop": """
--cells F-OO --people 3 --pairs 1 --phrasings 2 --train.length 256
--no-extra --ask.phrasings 1 --ask.batch 4 --ask.candidates-at-once 6
--ask.no-generate --ask.no-written
--criteria.min-own 0 --criteria.min-context 0 --criteria.min-two-hop 0
""".split(),  # noqa: SIM905
    "word-problems": """
--formats plain --rows 4 --ask.problems 2 --ask.shots 0 --ask.batch 8 --min-own 0
--train.length 512
""".split(),  # noqa: SIM905
}
MESH = ["--mesh", "expert=2,fsdp=2,tensor=2"]


@pytest.mark.slow
@pytest.mark.parametrize("study", WORDS)
def test_two_processes_write_the_rows_of_one(study, tmp_path):
    model = checkpoints.qwen2(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"max_position_embeddings": 2048}
    (model / "config.json").write_text(json.dumps(config))
    words = ["study", study, "--model", str(model), *COMMON, *WORDS[study]]

    def to(name: str) -> list[str]:
        outs = ["--out", str(tmp_path / name), "--cache-dir", str(tmp_path / "cache")]
        return [*words, *outs]

    one = pairs.ended([pairs.alone(to("one"))])[0]
    assert one[0] == 0, one[2][-3000:]
    shutil.rmtree(tmp_path / "cache")  # each trains its own
    both = pairs.ended(pairs.start([*to("two"), *MESH], pairs.free_port()), 600)
    assert [end[0] for end in both] == [0, 0], both[0][2][-3000:] + both[1][2][-3000:]
    assert both[1][1] == ""  # the first one prints
    got, want = (
        pd.read_csv(tmp_path / name / "results.csv", keep_default_na=False)
        for name in ("two", "one")
    )
    assert len(want) > 20
    values = [pd.to_numeric(x.pop("value"), errors="coerce") for x in (got, want)]
    columns = ["study", "seed", "library", "method", "metric", "condition", "n"]
    pd.testing.assert_frame_equal(got[columns], want[columns])
    # Sums in another order may turn an answer of an untrained model round.
    assert (values[0] - values[1]).abs().mean() < 0.02
    assert values[1].std() > 0.1

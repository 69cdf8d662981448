"""GSM8K from a file and from a prepared TFDS dataset; records of our own writing."""

import json
import sys

import pytest

from jaxlora import tasks
from jaxlora.tasks import gsm

RECORDS = (
    {
        "question": "Ola bakes 4 trays of 6 rolls and eats 2. How many are left?",
        "answer": "4*6 = <<4*6=24>>24 rolls\n24-2 = <<24-2=22>>22\n#### 22",
    },
    {
        "question": "A lamp costs $1,200 and falls by $1,500. What is its price?",
        "answer": "1200-1500 = <<1200-1500=-300>>-300\n#### -300",
    },
)


@pytest.fixture
def path(tmp_path):
    out = tmp_path / "rolls.jsonl"
    out.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    return out


def test_a_file_is_a_stream_of_problems(path):
    problems = list(gsm.read(path))
    assert [x.answer for x in problems] == [22, -300]
    assert [len(x.annotations) for x in problems] == [2, 1]
    assert problems[1].where == f"{path}:2"
    # The second line is not read before it is asked for.
    path.write_text(path.read_text().replace("#### -300", "none"))
    stream = gsm.read(path)
    assert next(stream).answer == 22
    with pytest.raises(ValueError, match=r"rolls\.jsonl:2: the answer has no final"):
        next(stream)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "2: not JSON"),
        ("[1]", r"2: got \[1\], expected an object"),
        ('{"question": "2?"}', "2: no field 'answer'"),
    ],
)
def test_bad_lines_are_named(path, line, message):
    path.write_text(json.dumps(RECORDS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"rolls\.jsonl:{message}"):
        list(gsm.read(path))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read .*no\.jsonl: No such file"):
        list(gsm.read(tmp_path / "no.jsonl"))
    with pytest.raises(ValueError, match=r"prepare it once with network: .*gsm8k"):
        list(gsm.read("tfds:gsm8k", data_dir=tmp_path))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset of the name and columns of TFDS's gsm8k, with two records of ours."""
    import tensorflow_datasets as tfds

    from jaxlora.tasks.tfds_writing import OfflineInfo, quiet

    columns = ("question", "answer", "annotation", "short_answer")

    class Gsm8k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = {name: tfds.features.Text() for name in columns}
            features = tfds.features.FeaturesDict(text)
            info = OfflineInfo(builder=self, features=features)
            info.set_file_format("array_record")
            return info

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(),
                "test": self._generate_examples(),
            }

        def _generate_examples(self):
            for i, record in enumerate(RECORDS):
                parts = record["answer"].split("#### ")
                extra = {"annotation": parts[0], "short_answer": parts[1]}
                yield i, record | extra

    root = tmp_path_factory.mktemp("tfds")
    options = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    with quiet():
        Gsm8k(data_dir=root).download_and_prepare(download_config=options)
    return root


@pytest.mark.parametrize("name", ["tfds:gsm8k", "gsm8k:test", "tfds:gsm8k/1.0.0:train"])
def test_the_tfds_dataset_gives_the_same_problems(prepared, path, name):
    problems = {
        x.question: (x.steps, x.answer) for x in gsm.read(name, data_dir=prepared)
    }
    expected = {x.question: (x.steps, x.answer) for x in gsm.read(path)}
    assert problems == expected
    assert "tensorflow" not in sys.modules


def test_the_tfds_dataset_is_training_text_by_name(prepared):
    read = tasks.read("tfds:gsm8k", data_dir=prepared)
    asked = {x.asked[0]["content"]: x.answer for x in read.records}
    assert asked == {x["question"]: x["answer"] for x in RECORDS}

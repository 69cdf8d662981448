"""What tpu/README.md tells a reader to type is read by the programs that it is of."""

import os
import pathlib
import re
import shlex
import subprocess

import pytest

from jaxlora.commands import plan_study, plan_train, study, study_text, train
from jaxlora.commands.flags import parsing
from jaxlora.commands.flags.study import parse_config
from jaxlora.plan import topology

ROOT = pathlib.Path(__file__).parents[2]


def commands():
    """Every command of a block of bash, as words."""
    text = (ROOT / "tpu" / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of(*names):
    return [words for words in commands() if words[: len(names)] == list(names)]


def sent():
    """What pod.sh and jobset.sh are given to run."""
    every = [x for x in commands() if x[0].startswith("tpu/") and "--" in x]
    return [x[x.index("--") + 1 :] for x in every]


@pytest.mark.parametrize("words", of("tpu/pod.sh"), ids=" ".join)
def test_the_launcher_reads_its_options(words):
    env = os.environ | {"CLOUDSDK_CORE_PROJECT": "p", "CLOUDSDK_COMPUTE_ZONE": "z"}
    call = ["bash", *words[:2], "--dry-run", *words[2:]]
    done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", sent(), ids=" ".join)
def test_what_is_sent_is_a_command_of_ours(words):
    words = [x.format(worker=0, workers=2) for x in words if x not in ("|", "kubectl")]
    words = words[: words.index("apply")] if "apply" in words else words
    if words[0] == "train":
        assert train.parse(words[1:]).out
    elif "--model" in words:
        assert study_text.parse(words[2:]).seeds == 8
    else:
        assert words[:2] == ["study", "two-hop"]
        assert parse_config(study.Arguments, "", words[2:]).config.seeds == 5


def test_plans_are_of_what_the_launcher_asks_for():
    kinds = {"train": plan_train, "study": plan_study}
    shown = {words[2]: words for words in of("jaxlora", "plan")}
    assert set(shown) == set(kinds)
    for name, words in shown.items():
        given = parsing.parse(kinds[name].Arguments, "", words[3:], description="")
        where = topology.describe(given.devices.topology, compiled=False)
        assert where.name in ("v5e:2x4", "v5p:2x4x4")
    asked = {w[w.index("--type") + 1] for w in of("tpu/pod.sh") if "--type" in w}
    assert asked == {"v5litepod-8", "v5litepod-16", "v5p-64"}

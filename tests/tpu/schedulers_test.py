"""What tpu/jobset.sh prints for GKE, and tpu/slurm.sh starts."""

import os
import pathlib
import subprocess
import time

import pytest
import yaml

TPU = pathlib.Path(__file__).parents[2] / "tpu"
JOBSET = {
    "name": "lora",
    "image": "registry/jaxlora",
    "accelerator": "tpu-v5p-slice",
    "topology": "2x4x4",
    "hosts": "8",
    "chips": "4",
    "claim": "results",
}


WORDS = ['--x="a\\b"', "--y", "1", "a\nb", "a\tb", "", "#", "{a: b}", "yes", "é", "\\n"]


def call(
    script: str, *words: str, cwd: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    return subprocess.run(
        ["bash", str(TPU / script), *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env=clean | env,
    )


def flags(**changed: str) -> list[str]:
    given = {k: v for k, v in (JOBSET | changed).items() if v}
    return [word for k, v in given.items() for word in (f"--{k}", v)]


def test_a_job_set_has_one_pod_a_host_and_the_words_as_given():
    done = call("jobset.sh", *flags(slices="2"), "--", "train", *WORDS)
    assert done.returncode == 0, done.stderr
    (jobs,) = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"]
    spec = jobs["template"]["spec"]
    assert (jobs["replicas"], spec["parallelism"], spec["completions"]) == (2, 8, 8)
    pod = spec["template"]["spec"]
    words = ["jaxlora", "train", *WORDS, "--processes", "auto"]
    assert pod["containers"][0]["command"] == words
    assert pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == 4
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4x4"
    done = call("jobset.sh", *flags(), "--", "train", "$(HOME)q$")
    assert '"$$(HOME)q$$"' in done.stdout  # Kubernetes reads two dollars as one
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*flags(claim=""), "--", "a"], "option --claim is missing"),
        ([*flags(topology="v5p-64"), "--", "a"], "--topology is 'v5p-64'"),
        ([*flags(hosts="4"), "--", "a"], "has 32 chips, got 4 hosts of 4"),
        ([*flags(chips="four"), "--", "a"], "--chips is 'four', expected a number"),
        ([*flags(hosts="08"), "--", "a"], "--hosts is '08', expected a number"),
        ([*flags(slices="0"), "--", "a"], "--slices is '0', expected a number"),
        ([*flags(name="a: b"), "--", "a"], "--name is 'a: b', expected lower-case"),
        ([*flags(claim="a/b"), "--", "a"], "--claim is 'a/b', expected lower-case"),
        ([*flags(image="a #"), "--", "a"], "--image is 'a #', expected REGISTRY"),
        ([*flags(accelerator="v5p"), "--", "a"], "what node pools are labelled with"),
        ([*flags(), "--", "a", "{worker}"], "and has no {worker}"),
        ([*flags(), "--claim", "--", "a"], "option --claim needs a value"),
        (flags(), "nothing to run"),
        (["--color"], "no option '--color'"),
    ],
)
def test_a_bad_job_set_is_one_sentence(words, says):
    done = call("jobset.sh", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


@pytest.fixture
def tools(tmp_path):
    """The programs of Slurm, which note or run what they are given."""
    for name, text in {
        "srun": (
            "most=0; for SLURM_PROCID in 0 1; do export SLURM_PROCID\n"
            'code=0; "$@" || code=$?; [ $code -lt $most ] || most=$code; done\n'
            "exit $most"
        ),
        "jaxlora": (
            'echo "$*"; codes=(${CODE:-0}); exit ${codes[SLURM_PROCID]:-${codes[0]}}'
        ),
        "scontrol": 'echo "scontrol $*"',
    }.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {
        "PATH": path,
        "cwd": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
    }


def test_tasks_of_slurm_are_processes_of_one_run(tools):
    done = call("slurm.sh", "train", "a b", **tools)
    assert done.stdout == "train a b --processes auto\n" * 2
    assert done.returncode == 0


def test_processes_that_are_given_stay(tools):
    for given in (["--processes", "2"], ["--processes=2"]):
        done = call("slurm.sh", "train", *given, **tools)
        assert done.stdout == f"{' '.join(['train', *given])}\n" * 2
        done = call("jobset.sh", *flags(), "--", "train", *given)
        assert "auto" not in done.stdout


def test_tasks_of_slurm_that_run_alone_get_their_number(tools):
    done = call("slurm.sh", "study", "--share", "{worker}/{workers}", **tools)
    assert done.stdout == "study --share 0/2\nstudy --share 1/2\n"


@pytest.mark.parametrize(
    ("codes", "code"), [("75", 75), ("2", 2), ("75 2", 2), ("1 75", 1), ("0 75", 75)]
)
def test_only_what_was_stopped_is_requeued(tools, codes, code):
    done = call("slurm.sh", "train", CODE=codes, **tools)
    assert done.returncode == code
    assert ("scontrol requeue 7" in done.stdout) == (code == 75)
    assert not list(pathlib.Path(tools["cwd"]).glob(".jaxlora*"))


def test_tasks_that_run_alone_are_requeued_whatever_ended_another(tools):
    words = ["study", "--share", "{worker}/{workers}"]
    done = call("slurm.sh", *words, CODE="2 75", **tools)
    assert done.returncode == 75
    assert "scontrol requeue 7" in done.stdout


@pytest.mark.parametrize(("count", "goes_on"), [("19", True), ("20", False)])
def test_a_job_is_requeued_so_often(tools, count, goes_on):
    done = call("slurm.sh", "train", CODE="75", SLURM_RESTART_COUNT=count, **tools)
    assert done.returncode == 75
    assert ("scontrol requeue 7" in done.stdout) == goes_on
    assert ("requeued 20 times already" in done.stderr) != goes_on


def test_tasks_are_warned_and_may_save(tools):
    folder = pathlib.Path(tools.pop("cwd"))
    (folder / "srun").write_text('#!/bin/bash\nSLURM_PROCID=0 exec "$@"\n')
    (folder / "jaxlora").write_text(
        "#!/bin/bash\ntrap 'echo saved; exit 75' TERM\n"
        "touch begun; while :; do sleep 0.05; done\n"
    )
    child = subprocess.Popen(
        ["bash", str(TPU / "slurm.sh"), "train"],
        cwd=folder,
        env=os.environ | tools,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (folder / "begun").exists():
        time.sleep(0.02)
        assert child.poll() is None
    child.terminate()
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (75, "saved\nscontrol requeue 7\n")


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        ("SLURM_JOB_ID", "not within a Slurm job"),
        ("SLURM_NTASKS", "no number of tasks"),
    ],
)
def test_a_half_set_environment_of_slurm_is_said(tools, left_out, says):
    del tools[left_out]
    done = call("slurm.sh", "train", **tools)
    assert done.returncode == 2
    assert says in done.stderr

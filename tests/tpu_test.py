"""The TPU script: what it would send, and what it refuses."""

import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "tpu" / "vm.sh"
WHERE = ["--name", "lora", "--zone", "us-west4-a", "--project", "mine"]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *words], capture_output=True, text=True, timeout=20
    )


def test_create_names_the_machine_and_nothing_else():
    done = call("create", *WHERE, "--type", "v6e-8", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.strip() == (
        "gcloud compute tpus tpu-vm create lora --zone us-west4-a --project mine "
        "--accelerator-type v6e-8 --version v2-alpha-tpuv5-lite"
    )


def test_run_passes_the_command_on_in_a_session_of_its_own():
    done = call("run", *WHERE, "--dry-run", "--", "study", "two-hop", "--seeds", "2")
    assert done.returncode == 0
    sent = done.stdout.replace("\\", "")
    assert "setsid nohup .venv/bin/jaxlora study two-hop --seeds 2" in sent


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["crate", *WHERE], "no action 'crate'"),
        (["create", "--name", "a", "--zone", "b"], "option --project is missing"),
        (["create", *WHERE, "--color", "red"], "no option '--color'"),
        (["create", "--name"], "option --name needs a value"),
        (["run", *WHERE], "nothing to run"),
    ],
)
def test_bad_calls_are_one_sentence_and_exit_code_2(words, says):
    done = call(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""

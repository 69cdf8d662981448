"""Environments of launchers that are half set, or wrong: the cause is named."""

import pytest

from jaxlora.commands import processes as words
from jaxlora.parallel import processes
from jaxlora.parallel.launchers import LAUNCHERS, half_set

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def detect(monkeypatch):
    """What JAX's detection makes of an environment."""
    for name in (name for launcher in LAUNCHERS for name in launcher.variables):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # nothing is asked of the network

    def detected(environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return processes.detected(processes.Group(), 1)

    return detected


def test_a_complete_environment_is_a_group(detect):
    group = detect(SLURM)
    assert (group.processes, group.process) == (2, 1)
    assert group.coordinator.startswith("localhost:")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, r"GKE, Slurm or MPI\), so give every process --coordinator"),
        ({"SLURM_JOB_ID": "7"}, "Slurm has set SLURM_JOB_ID without SLURM_STEP_NODE"),
        (
            {name: x for name, x in SLURM.items() if name != "SLURM_LOCALID"},
            "SLURM_PROCID without SLURM_LOCALID: start every process with srun",
        ),
        ({**SLURM, "SLURM_JOB_ID": "x"}, "JAX cannot read .*SLURM_JOB_ID='x'"),
        ({**SLURM, "SLURM_NTASKS": "two"}, "SLURM_NTASKS='two'"),
        ({**SLURM, "SLURM_PROCID": "5"}, "this is process 5 of 2, expected 0 to 1"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI has set OMPI_COMM_WORLD_SIZE with"),
        ({"OMPI_MCA_orte_hnp_uri": "junk"}, "OMPI_MCA_orte_hnp_uri='junk'"),
        ({"TPU_WORKER_ID": "0"}, "without TPU_WORKER_HOSTNAMES: these are for mach"),
        ({"KUBERNETES_SERVICE_HOST": "h"}, r"without JOB_COMPLETION_INDEX.*jax\[k8s\]"),
    ],
)
def test_what_is_missing_or_wrong_is_named(detect, environment, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        detect(environment)
    assert "\n" not in str(error.value)


def test_a_complete_launcher_that_jax_does_not_see_is_named():
    text = half_set({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "a,b"})
    assert text.startswith("Cloud TPU or GKE has set TPU_WORKER_ID and TPU_WORKER_HOST")
    assert "without" not in text


def test_empty_variables_are_none_and_no_run_has_no_process():
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    assert words.split(["train"], dict.fromkeys(names, "")) == (["train"], None)
    with pytest.raises(ValueError, match="JAX_NUM_PROCESSES is 0, expected 1 or more"):
        words.split(["train"], dict(zip(names, ("h:1", "0", "0"), strict=True)))

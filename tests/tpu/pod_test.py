"""The TPU launcher, against a gcloud that makes machines wait, fail and disappear."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE.parents[1] / "tpu" / "pod.sh"
WHERE = ["--name", "lora", "--zone", "us-west4-a", "--project", "mine"]
TYPE = ["--type", "v5litepod-8"]
SHORT = ["--poll", "1", "--patience", "5", "--misses", "3", "--tries", "3"]
SAVES = """\
mkdir -p results; echo "$*" >> results/ran; echo "working in $PWD"
"""
"""What stands for jaxlora notes each start in its results."""


class Cloud:
    """A folder that stands for a project of Google Cloud."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.bin, self.laptop = folder / "bin", folder / "laptop"
        for path in (self.bin, self.laptop):
            path.mkdir()
        for name in ("gcloud", "uv", "git", "sleep", "python3"):
            (self.bin / name).symlink_to(HERE / "gcloud.sh")
        self.write("states", "ACTIVE\n")
        self.write("workers", "1\n")
        self.job("exit 0")

    def write(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def job(self, text: str) -> None:
        self.write("job", f"#!/usr/bin/env bash\n{SAVES}{text}\n")
        (self.folder / "job").chmod(0o755)

    def start(self, *words: str) -> subprocess.Popen[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=self.laptop,
            env={**os.environ, "PATH": path, "FAKE": str(self.folder)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        child = self.start(*words)
        try:
            out, err = child.communicate(timeout=60)
        finally:
            child.terminate()
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call("up", *WHERE, *TYPE, *SHORT, *words, "--", "train", "a b")

    def calls(self, text: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if text in line]

    @property
    def left(self) -> bool:
        """Is there a request that costs money?"""
        return (self.folder / "request").exists()

    def results(self) -> list[str]:
        return (self.laptop / "results/ran").read_text().splitlines()


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_success_is_fetched_deleted_and_never_tried_again(cloud):
    cloud.write("states", "ACCEPTED\nWAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n")
    done = cloud.up("--spot")
    assert done.returncode == 0, done.stderr
    assert "working in" in done.stdout
    assert cloud.results() == ["train a b"]
    assert len(cloud.calls("queued-resources create")) == 1
    assert "--spot" in cloud.calls("queued-resources create")[0]
    assert not cloud.left


def test_a_preempted_request_is_deleted_made_again_and_goes_on(cloud):
    # The first machine is taken once something is in the bucket.
    cloud.job(
        '[ "$(wc -l < results/ran)" -gt 1 ] && exit 0\n'
        'until [ -s "$FAKE"/bucket/b/x/worker-0/ran ]; do /bin/sleep 0.05; done\n'
        'touch "$FAKE/preempted"; exec /bin/sleep 60'
    )
    done = cloud.up("--spot", "--store", "gs://b/x")
    assert done.returncode == 0, done.stderr
    assert "machines lost" in done.stderr
    order = [line.split()[3] for line in cloud.calls("queued-resources")]
    made = [word for word in order if word in ("create", "delete")]
    assert made == ["create", "delete", "create", "delete"]
    assert cloud.results() == ["train a b"] * 2  # the second start saw the first
    assert not cloud.left


@pytest.mark.slow
def test_machines_that_are_lost_again_and_again_end_it(cloud):
    cloud.write("states", "FAILED\n")
    done = cloud.up()
    assert done.returncode == 5
    assert "lost 3 times" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 3
    assert not cloud.left


def test_a_job_that_fails_is_not_tried_again(cloud):
    cloud.job("echo 'jaxlora: no such model'; exit 2")
    done = cloud.up("--spot")
    assert done.returncode == 2
    assert "no such model" in done.stdout
    assert "`jaxlora` ended with 2 on lora, worker 0" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 1
    assert "no such model" in (cloud.laptop / "run-lora-0.log").read_text()
    assert not cloud.left


def test_machines_that_never_come_are_waited_for_so_long(cloud):
    cloud.write("states", "WAITING_FOR_RESOURCES\n")
    done = cloud.up("--wait", "2")
    assert done.returncode == 4
    assert "no machines in 2 s" in done.stderr
    assert not cloud.left


def test_a_machine_that_does_not_answer_is_given_up(cloud):
    cloud.write("hang")
    done = cloud.up("--patience", "1", "--install", "1", "--misses", "1")
    assert done.returncode == 1
    assert "setup failed 1 times" in done.stderr
    assert not cloud.left


def test_a_machine_that_cannot_be_copied_to_is_tried_so_often(cloud):
    cloud.write("closed", "5\n")
    done = cloud.up("--misses", "2")
    assert done.returncode == 1, done.stderr
    assert "setup failed 2 times" in done.stderr
    assert "results" not in done.stderr  # of what was never begun
    assert (cloud.folder / "closed").read_text() == "3\n"
    assert not cloud.left


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ('touch "$FAKE/hang"; exec /bin/sleep 60', "no answer of lora, worker 0"),
        ("kill -9 $PPID", "the job on lora, worker 0, is gone without an end"),
    ],
)
def test_a_run_that_stalls_or_dies_is_begun_again(cloud, trouble, says):
    cloud.job(f'[ -e "$FAKE/begun" ] && exit 0\ntouch "$FAKE/begun"\n{trouble}')
    done = cloud.up("--patience", "1", "--misses", "1")
    assert done.returncode == 0, done.stderr
    assert says in done.stderr
    assert len(cloud.calls("queued-resources create")) == 2
    assert not cloud.left


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_killed_launcher_leaves_no_request(cloud, number):
    cloud.write("states", "WAITING_FOR_RESOURCES\n")
    child = cloud.start("create", *WHERE, *TYPE, *SHORT)
    while not cloud.left:
        time.sleep(0.02)
    child.send_signal(number)
    err = child.communicate(timeout=30)[1]
    assert child.returncode == 128 + number
    assert "deleting the request lora" in err
    assert not cloud.left


def test_a_request_that_cannot_be_deleted_is_named(cloud):
    cloud.write("deaf")
    done = cloud.up()
    assert done.returncode == 1
    assert "which may cost money: tpu/pod.sh delete --name lora" in done.stderr
    assert len(cloud.calls("queued-resources delete")) == 6  # 3, and 3 on the way out


def test_a_request_of_somebody_else_is_left_alone(cloud):
    cloud.write("request")
    done = cloud.up()
    assert done.returncode == 2
    assert "a request lora is there already (ACTIVE)" in done.stderr
    assert cloud.left


def test_a_request_that_was_suspended_is_replaced(cloud):
    cloud.write("request")
    cloud.write("states", "SUSPENDED\nACTIVE\n")
    done = cloud.up()
    assert done.returncode == 0, done.stderr
    assert not cloud.left


def test_a_refused_request_is_not_tried_again(cloud):
    cloud.write("refuse")
    done = cloud.up()
    assert done.returncode == 2
    assert "ERROR: quota" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 1


def test_a_request_of_the_same_moment_is_left_alone(cloud):
    cloud.write("exists")
    done = cloud.up()
    assert done.returncode == 2
    assert "lora is there already, and is left alone" in done.stderr
    assert cloud.left


def test_why_a_request_failed_is_said(cloud):
    cloud.write("states", "FAILED\n")
    cloud.write("why", "no quota for TPUs\n")
    done = cloud.call("create", *WHERE, *TYPE, *SHORT)
    assert done.returncode == 4
    assert "it says: no quota for TPUs" in done.stderr
    assert not cloud.left


@pytest.mark.parametrize("action", ["create", "status"])
def test_why_gcloud_cannot_be_asked_is_said(cloud, action):
    cloud.write("denied")
    done = cloud.call(action, *WHERE, *TYPE, *SHORT)
    assert done.returncode == 2
    assert "for lora (ERROR: PERMISSION_DENIED: not yours)" in done.stderr


def test_a_killed_launcher_waits_for_the_request_that_it_sent(cloud):
    cloud.write("slow")
    child = cloud.start("create", *WHERE, *TYPE, *SHORT)
    while not (cloud.folder / "sent").exists():
        time.sleep(0.02)
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 143
    time.sleep(0.4)  # by when a request would be there
    assert not cloud.left


def test_a_launcher_is_killed_while_gcloud_hangs(cloud):
    cloud.write("stuck")
    child = cloud.start("status", *WHERE, "--patience", "100")
    while not (cloud.folder / "asked").exists():
        time.sleep(0.02)
    child.terminate()
    child.communicate(timeout=40)
    assert child.returncode == 143


def test_an_answer_that_fails_once_loses_no_machine(cloud):
    cloud.write("hidden", "1\n")
    done = cloud.up()
    assert done.returncode == 0, done.stderr
    assert "how many workers lora has (ERROR: 503)" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 1


def test_a_worker_that_lets_nobody_in_is_a_lost_machine(cloud):
    cloud.write("workers", "2\n")
    cloud.write("lame", "1\n")
    done = cloud.up("--misses", "1", "--tries", "2")
    assert done.returncode == 5
    assert "lora, worker 1, took no command in 1 calls" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 2
    assert not cloud.left


def test_machines_that_are_taken_with_the_results_are_not_kept(cloud):
    cloud.write("taken")
    done = cloud.up()
    assert done.returncode == 5
    assert "the machines were taken with them" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 1  # it had ended well
    assert not cloud.left


@pytest.mark.parametrize(
    "locale", ["C", pytest.param("C.UTF-8", marks=pytest.mark.slow)]
)
def test_words_arrive_as_they_were_given(cloud, locale, monkeypatch):
    monkeypatch.setenv("LC_ALL", locale)
    cloud.job('printf "%s\\0" "$@" > results/words')
    words = ["it's", 'say "x"', "$HOME `id` $(id)", "*", "a\nb", "a\tb", "é", "\\", ""]
    before = "echo $HOME > $FAKE/before # done"
    done = cloud.call("up", *WHERE, *TYPE, *SHORT, f"--before={before}", "--", *words)
    assert done.returncode == 0, done.stderr
    arrived = (cloud.laptop / "results/words").read_text().split("\0")
    assert arrived == [*words, ""]
    home = cloud.folder / "machine-lora-0"
    assert (cloud.folder / "before").read_text() == f"{home}\n"


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("run", "worker 0, has no jaxlora; tpu/pod.sh setup installs it"),
        ("follow", "nothing was started on lora, worker 0; tpu/pod.sh run does"),
        ("fetch", "lora, worker 0, has no results"),
    ],
)
def test_a_step_without_the_one_before_is_said(cloud, action, says):
    cloud.write("request")
    (cloud.folder / "machine-lora-0" / "jaxlora").mkdir(parents=True)
    job = ["--", "train"] if action == "run" else []
    done = cloud.call(action, *WHERE, *SHORT, *job)
    assert done.returncode in (1, 2)
    assert says in done.stderr


def test_without_a_checkout_nothing_is_requested(cloud):
    (cloud.bin / "git").unlink()
    (cloud.bin / "git").symlink_to("/bin/false")
    done = cloud.up()
    assert done.returncode == 2
    assert "is not a git checkout" in done.stderr
    assert not (cloud.folder / "calls").exists()


def test_a_machine_of_the_user_is_neither_made_nor_deleted(cloud):
    cloud.write("request")
    cloud.write("states", "READY\n")
    words = ["up", *WHERE, *SHORT, "--existing", "--", "train", "a b"]
    done = cloud.call(*words)
    assert done.returncode == 0, done.stderr
    assert not cloud.calls("queued-resources")
    assert cloud.results() == ["train a b"]
    assert cloud.left


def test_all_workers_of_all_slices_are_processes_of_one_run(cloud):
    cloud.write("workers", "2\n")
    done = cloud.up("--slices", "2")
    assert done.returncode == 0, done.stderr
    create = cloud.calls("queued-resources create")[0]
    assert "--node-count 2 --node-prefix lora" in create
    starts = cloud.calls("setsid")
    assert {line.split()[4] for line in starts} == {"lora-0", "lora-1"}
    assert len(starts) == 4
    assert all(r"\ --processes\ auto" in line for line in starts)


def test_workers_that_run_alone_get_their_number(cloud):
    cloud.write("workers", "2\n")
    job = ["study", "two-hop", "--share", "{worker}/{workers}"]
    done = cloud.call("up", *WHERE, *TYPE, *SHORT, "--", *job)
    assert done.returncode == 0, done.stderr
    starts = [line.replace("\\", "") for line in cloud.calls("setsid")]
    shares = [line.split("--share ")[1].split()[0] for line in starts]
    assert sorted(shares) == ["0/2", "1/2"]
    assert not any("--processes" in line for line in starts)


def test_of_workers_that_ended_each_other_the_one_that_failed_counts(cloud):
    cloud.write("workers", "2\n")
    cloud.job("case $PWD in *-1/jaxlora) exit 2 ;; *) /bin/sleep 0.5; exit 75 ;; esac")
    done = cloud.up()
    assert done.returncode == 2, done.stderr
    assert "`jaxlora` ended with 2 on lora, worker 1" in done.stderr
    assert len(cloud.calls("queued-resources create")) == 1


def test_a_job_that_could_not_be_started_is_started_again(cloud):
    cloud.write("mute", "2\n")
    done = cloud.up()
    assert done.returncode == 0, done.stderr
    assert cloud.results() == ["train a b"]
    assert len(cloud.calls("queued-resources create")) == 1


@pytest.mark.parametrize(("times", "code"), [("2", 0), ("9", 5)])
def test_a_bucket_that_cannot_be_read_is_not_written(cloud, times, code):
    stored = cloud.folder / "bucket/b/x/worker-0/ran"
    stored.parent.mkdir(parents=True)
    stored.write_text("before\n")
    cloud.write("shut", times + "\n")
    done = cloud.up("--store", "gs://b/x", "--tries", "1")
    assert done.returncode == code, done.stderr
    assert stored.read_text() == "before\n" + "train a b\n" * (code == 0)
    assert ("worker-0 could not be copied" in done.stdout) == (code == 5)


def test_results_are_fetched_again_before_the_machines_go(cloud):
    cloud.write("torn", "2\n")
    done = cloud.up()
    assert done.returncode == 0, done.stderr
    assert cloud.results() == ["train a b"]
    assert not cloud.left


@pytest.mark.parametrize("store", [[], ["--store", "gs://b/x"]])
def test_machines_with_the_only_results_are_kept(cloud, store):
    cloud.write("workers", "2\n")
    cloud.write("torn", "9\n")
    job = ["study", "two-hop", "--share", "{worker}/{workers}"]
    done = cloud.call("up", *WHERE, *TYPE, *SHORT, *store, "--", *job)
    assert "results could not be fetched" in done.stderr
    assert done.returncode == (0 if store else 1)
    assert ("the machines are kept" in done.stderr) == (not store)
    assert cloud.left == (not store)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["crate", *WHERE], "no action 'crate'"),
        (["create", "--name", "a", "--zone", "b"], "option --project is missing"),
        (["create", *WHERE, "--color", "red"], "no option '--color'"),
        (["create", "--name"], "option --name needs a value"),
        (["create", *WHERE], "option --type is missing"),
        (["create", *WHERE, "--type", "v5e-8"], "Cloud TPU calls it v5litepod-8"),
        (["create", *WHERE, "--type", "v5e:2x4"], "a topology as `jaxlora plan`"),
        (["create", *WHERE, "--type", "a100"], "known are v2-, v3-"),
        (["create", *WHERE, *TYPE, "--slices", "0"], "expected a number from 1 on"),
        (["create", *WHERE, *TYPE, "--wait", "1h"], "--wait is '1h'"),
        (["create", *WHERE, *TYPE, "--", "study"], "create takes no command"),
        (["run", *WHERE], "nothing to run"),
        (["run", *WHERE, "--store", "b/x", "--", "a"], "expected gs://BUCKET/FOLDER"),
        (["run", "--existing", "--slices", "2", *WHERE, "--", "a"], "one TPU VM"),
        (["delete", *WHERE, "--name", "Lora"], "expected lower-case letters"),
        (["run", *WHERE, "--store", "gs://b/a b", "--", "a"], "of letters, digits"),
        (["create", *WHERE, "--type", "v5p-64x"], "expected a type and a number"),
        (["create", *WHERE, *TYPE, "--spot=1"], "option --spot takes no value"),
        (["run", *WHERE, "--before", "--", "a"], "option --before needs a value"),
        (["run", *WHERE, "--existing", "--spot", "--", "a"], "does not change"),
    ],
)
def test_bad_calls_are_one_sentence_and_exit_code_2(words, says):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLOUDSDK")}
    call = ["bash", str(SCRIPT), *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=20, env=env)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_dry_run_sends_nothing(cloud):
    done = cloud.up("--dry-run", "--slices", "2", "--store", "gs://b/x")
    assert done.returncode == 0, done.stderr
    assert not (cloud.folder / "calls").exists()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("git ")  # before anything costs money
    assert "queued-resources create lora --zone us-west4-a --project mine" in lines[1]
    assert "--accelerator-type v5litepod-8" in lines[1]
    assert lines[-1].split()[3] == "queued-resources"
    assert lines[-1].split()[4] == "delete"


def test_help_names_every_option():
    call = ["bash", str(SCRIPT), "--help"]
    text = subprocess.run(call, capture_output=True, text=True, timeout=20).stdout
    script = SCRIPT.read_text()
    options = script.split("--name|")[1].split(")")[0].split("|")
    assert len(options) == 13
    for option in [*options, "--spot", "--existing", "--keep", "--dry-run"]:
        assert option in text

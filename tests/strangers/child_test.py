"""What a stranger's work may take is bounded by the operating system, and said."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxlora.strangers.child import Child, LimitError, shared

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
MEMORY = "needs more memory than is allowed"
TIME = "needs more time than is allowed"
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "asked": [[1, True]]}
CHAT |= {"special_tokens": {}, "today": "2024-07-26"}
DOUBLED = "{% set n = namespace(x=(1,)) %}{% for i in range(60) %}"
DOUBLED += "{% set n.x = (n.x, n.x) %}{% endfor %}"


@pytest.fixture(scope="module")
def child():
    return Child()


def match(child, pattern, text, seconds=1.0):
    return child.ask("match", seconds, pattern=pattern, text=text)[0]


def number(child):
    assert child._process is not None
    return child._process.pid


def test_the_answer_is_that_of_re(child):
    assert match(child, r"(a|b)+\.c", "ab.c")
    assert not match(child, r"(a|b)+\.c", "ab.d")
    with pytest.raises(ValueError, match="unterminated subpattern") as caught:
        match(child, "(", "a")
    assert not isinstance(caught.value, LimitError)


@pytest.mark.parametrize(
    "source",
    [
        DOUBLED + "{{ n.x|string }}",
        DOUBLED + "{{ n.x|indent }}",
        DOUBLED + "{{ [n.x]|map('string')|list }}",
        DOUBLED + "{{ n }}",
        "{% for i in range(9999) %}{% set a = range(99999)|sort %}{% endfor %}",
    ],
)
def test_templates_that_no_meter_stops(child, source):
    with pytest.raises(LimitError, match=f"{TIME}|{MEMORY}"):
        child.ask("render", 0.5, template=source, **CHAT)


def test_it_goes_on_in_a_new_process(child):
    assert match(child, "a", "a")
    before = number(child)
    with pytest.raises(LimitError, match=TIME):
        match(child, "(a+)+b", "a" * 60, seconds=0.2)
    assert match(child, "a", "a")
    assert number(child) != before


def test_memory_is_bounded(tmp_path):
    """Each of sixty replacements doubles the text."""
    doubling = {"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}
    raw = json.loads((DATA / "plain" / "tokenizer.json").read_text())
    raw["normalizer"] = {"type": "Sequence", "normalizers": [doubling] * 60}
    (tmp_path / "x.json").write_text(json.dumps(raw))
    child = Child(2**28)
    child.ask("load", 5.0, path=str(tmp_path / "x.json"))
    with pytest.raises(LimitError, match=MEMORY):
        child.ask("call", 60.0, method="encode", arguments=["a" * 100, True])


def test_time_is_processor_time_of_each_request(child):
    start = time.perf_counter()
    while time.perf_counter() - start < 0.4:
        assert match(child, "a+", "aaa", seconds=0.3)


def test_requests_and_replies_are_any_text(child):
    text = "a\ud800\x00\u202e\n" + "é" * 100_000
    messages = [{"role": "user", "content": text}]
    source = "{{ messages[0].content }}"
    ((kind, shown),) = child.ask(
        "render", 5.0, template=source, **CHAT | {"messages": messages}
    )
    assert (kind, shown) == ("text", text)


def test_nothing_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    for name in ("json", "re", "jinja2", "tokenizers", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert match(Child(), "a", "a")
    assert Child().ask("render", 5.0, template="x", **CHAT) == [["text", "x"]]


def test_ctrl_c_is_for_the_owner(child):
    assert match(child, "a", "a")
    assert os.getpgid(number(child)) != os.getpgid(0)


def test_it_ends_with_its_owner():
    code = (
        "import os; from jaxlora.strangers.child import Child; c = Child(); "
        "c.ask('match', 1, pattern='a', text='a'); print(c._process.pid, flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    for _ in range(600):
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{done.stdout.strip()}/stat") as file:
            if file.read().split()[2] == "Z":  # nobody waits for it here
                return
        time.sleep(0.05)
    pytest.fail("the child outlived its owner")


def test_it_ends_with_its_object():
    child = Child()
    assert match(child, "a", "a")
    process = child._process
    del child
    assert process.returncode is not None


def test_all_that_keep_nothing_share_a_process():
    assert shared() is shared()

"""Stops a command again and again at random moments, and lets it go on each time.

``python killing.py SPEC`` reads ``{"arguments", "root", "stops", "each", "signal"}``
from a JSON file; OUT in an argument stands for a new folder of each lap. A run is a
fork of one process that has imported everything, since most of a short run is imports,
and finds its programs compiled. Only what stopped a run counts, so that no moment lies
after its end.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 75}
"""What a stopped run ends with."""
LEFT = re.compile(r"\..*\.tmp|\.lock|\..*\.lock|\.checkpoint|\..*\.checkpoint")
"""What no run may leave."""
SAVED = re.compile(r"Stopped: update (\d+) of \d+ is saved")
SENTENCE = re.compile(r"jaxlora: (Stopped|Ended)[:; ]")


def fork(arguments, said):
    """Starts the command in a child whose stderr is a file; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        # In the background of a shell SIGINT is ignored, which children inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopping.leave(cli.main(arguments))
    except SystemExit as ended:
        os._exit(ended.code)
    except BaseException as error:  # a child must not go on as its parent
        print(repr(error), file=sys.stderr)
    os._exit(70)


def wait(child):
    """Waits for a child; returns its exit code, or minus its signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_stopped(number, said, out):
    """A run that a signal stopped says what is saved, and it is there."""
    text = said.read_text()
    assert "Traceback" not in text, text[-3000:]
    if number == signal.SIGKILL:
        return
    assert SENTENCE.search(text), text[-500:]
    if saved := SAVED.search(text):
        steps = [int(x.name) for x in out.rglob("*") if x.name.isdecimal()]
        # The last chunk of updates may be longer than what is left of them.
        assert max(steps, default=-1) >= int(saved[1]), (saved[0], steps)


def lap(spec, out, limit, rng, lasts):
    """Stops a run until it ends by itself; returns the stops, and what it lasts."""
    number, said = signal.Signals(spec["signal"]), out.with_suffix(".err")
    stops = 0
    while True:
        began = time.monotonic()
        words = [word.replace("OUT", str(out)) for word in spec["arguments"]]
        child = fork(words, said)
        if stops < limit:
            time.sleep(rng.uniform(0.02, 0.9) * lasts)
            os.kill(child, number)
        status = wait(child)
        if status == 0:
            # Undisturbed from its start on: what a whole run lasts from now on.
            return stops, time.monotonic() - began if stops == 0 else lasts
        text = f"exit code {status} after {stops} stops: {said.read_text()[-3000:]}"
        assert stops < limit, text
        assert status == CODES[number], text
        check_stopped(number, said, out)
        stops += 1


def main(path):
    spec = json.loads(Path(path).read_text())
    root, rng = Path(spec["root"]), random.Random(0)
    for name in ("cold", "whole"):  # the second finds its programs compiled
        stops, lasts = lap(spec, root / name, 0, rng, 0)
    stops, laps = 0, 0
    while stops < spec["stops"]:
        limit = min(spec["stops"] - stops, spec["each"])
        more, lasts = lap(spec, root / f"stopped{laps}", limit, rng, lasts)
        stops += more
        laps += 1
        assert laps <= spec["stops"], "signals are swallowed, or all come too late"
    print(json.dumps({"stops": stops, "laps": laps, "seconds": lasts}))


def survive(root, arguments, stops, each, results, number=signal.SIGKILL):
    """Stops a command so often, and compares what each lap of it left."""
    root.mkdir()
    spec = {"arguments": arguments, "root": str(root), "stops": stops, "each": each}
    (root / "spec.json").write_text(json.dumps(spec | {"signal": int(number)}))
    words = [sys.executable, __file__, str(root / "spec.json")]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    env = os.environ | cache | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ran = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    assert counts["stops"] == stops
    for lap in range(counts["laps"]):
        for name in results:
            there = (root / f"stopped{lap}" / name).read_bytes()
            assert there == (root / "whole" / name).read_bytes(), (lap, name)
    assert not [x for x in root.rglob("*") if LEFT.fullmatch(x.name)]
    return counts


if __name__ == "__main__":
    import jax

    from jaxlora import cli, stopping
    from jaxlora.commands import gate, study, study_text, train  # noqa: F401
    from jaxlora.train import session

    # A child may only be forked while there is no backend with its threads.
    assert not jax._src.xla_bridge._backends
    session.SAVE_EVERY = 0.0
    session.Checkpoints.__new__.__defaults__ = (None, {}, 2)
    main(sys.argv[1])

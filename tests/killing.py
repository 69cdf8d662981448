"""Kills a command again and again at random moments, and lets it go on each time.

``python killing.py SPEC`` reads ``{"arguments", "root", "kills", "each"}`` from a
JSON file; OUT in an argument stands for a new folder of each lap. A run is a fork of
one process that has imported everything, since most of a short run is imports.
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

LEFT = re.compile(r"\..*\.tmp|\.lock|\..*\.lock|\.checkpoint|\..*\.checkpoint")
"""What no run may leave."""


def fork(arguments):
    """Starts the command in a child, and returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        code = cli.main(arguments)
    except BaseException as error:  # a child must not go on as its parent
        print(repr(error), file=sys.stderr)
        code = 70
    os._exit(code)


def lap(spec, out, limit, rng, lasts):
    """Kills a run until it ends by itself; returns the kills."""
    kills = 0
    while True:
        child = fork([word.replace("OUT", str(out)) for word in spec["arguments"]])
        if kills < limit:
            time.sleep(rng.uniform(0.02, 0.8) * lasts)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            assert status == 0, f"exit code {status} after {kills} kills"
            return kills
        kills += 1


def main(path):
    spec = json.loads(Path(path).read_text())
    root, rng = Path(spec["root"]), random.Random(0)
    start = time.monotonic()
    assert lap(spec, root / "whole", 0, rng, 0) == 0
    lasts = time.monotonic() - start
    kills, laps = 0, 0
    while kills < spec["kills"]:
        limit = min(spec["kills"] - kills, spec["each"])
        kills += lap(spec, root / f"killed{laps}", limit, rng, lasts)
        laps += 1
    print(json.dumps({"kills": kills, "laps": laps, "seconds": lasts}))


def survive(root, arguments, kills, each, results):
    """Kills a command so often, and compares what each lap of it left."""
    root.mkdir()
    spec = {"arguments": arguments, "root": str(root), "kills": kills, "each": each}
    (root / "spec.json").write_text(json.dumps(spec))
    words = [sys.executable, __file__, str(root / "spec.json")]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ran = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    counts = json.loads(ran.stdout.splitlines()[-1])
    assert counts["kills"] == kills
    for lap in range(counts["laps"]):
        for name in results:
            there = (root / f"killed{lap}" / name).read_bytes()
            assert there == (root / "whole" / name).read_bytes(), (lap, name)
    assert not [x for x in root.rglob("*") if LEFT.fullmatch(x.name)]
    return counts


if __name__ == "__main__":
    import jax

    from jaxlora import cli
    from jaxlora.commands import gate, study, study_text, train  # noqa: F401
    from jaxlora.train import session

    # A child may only be forked while there is no backend with its threads.
    assert not jax._src.xla_bridge._backends
    session.SAVE_EVERY = 0.0
    session.Checkpoints.__new__.__defaults__ = (None, {}, 2)
    main(sys.argv[1])

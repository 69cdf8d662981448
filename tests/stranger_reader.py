"""A process that reads what strangers wrote, and says how each ended.

Standard input has a kind and a number a line; standard output, for each, an object:
``read``, or ``refused`` with the sentence, or ``broken`` with a traceback; the time of
the processor that it took, and the largest memory that this process has had, both with
those of its children.
"""

import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np

import stranger_files
from jaxlora import tree
from jaxlora.commands.flags import study
from jaxlora.evaluate import predictions
from jaxlora.io import library_json, module_names, peft, tensors
from jaxlora.models import chat, pretrained
from jaxlora.models import tokenizer as tokenizers
from jaxlora.strangers import child
from jaxlora.studies.harness import store
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.tasks import jsonl, token_ids

CHAT = [{"role": "user", "content": "Hello world, l" + "l" * 60}]
MEMORY = 6 * 2**30
"""Address space of this process, for the machine's sake; JAX reserves most of it."""


def read_adapter(folder):
    for module in peft.read(folder).modules.values():
        assert np.isfinite(module.a).all()
        assert np.isfinite(module.scale)


def read_spelling(folder):
    """However its tensors are named, it is the adapter that it is."""
    name = (folder / "source.txt").read_text()
    plain = peft.read(stranger_files.DATA / "hf" / "llama" / name).modules
    read = {module_names.canonical(x): y for x, y in peft.read(folder).modules.items()}
    assert read.keys() == plain.keys()
    for path, module in plain.items():
        assert read[path].scale == module.scale
        assert np.array_equal(read[path].a, module.a)
        assert np.array_equal(read[path].b, module.b)


def read_base(folder):
    model, base = pretrained.load(folder)
    assert all(np.isfinite(np.asarray(x)).all() for x in tree.flatten(base).values())
    assert model.config.num_layers < 99


def read_tokenizer(folder):
    words = tokenizers.load(folder)
    words = tokenizers.fitted(words, 256)
    for text in (CHAT[0]["content"], "a" * 60 + "!", "x\u202e é"):
        ids = words.encode(text)
        assert all(0 <= i < words.vocab_size for i in ids)
        words.decode(ids)
    if words.chat_template:
        words.render(CHAT)


def read_template(folder):
    source = (folder / "chat_template.jinja").read_text()
    assert isinstance(chat.render(source, CHAT), str)


def read_data(folder):
    (path,) = folder.iterdir()
    READERS[path.stem](path)


def _claim(path):
    identity = {"study": "two-hop", "config": {}, "predictions": "", "code": ""}
    identity["people"] = ""
    store.check(path.parent, identity, kind=TwoHopConfig)


READERS = {
    "predictions": predictions.load,
    "results": study.read_config,
    "study": _claim,
    "library": lambda path: library_json.read(path.parent),
    "tokens": token_ids.read,
    "rows": lambda path: [
        jsonl.text(row, "prompt", "x", "y") for _, row in jsonl.read(path)
    ],
    "block": lambda path: store.load(path, ("item",)),
    "index": tensors.read_json,
}


def ending(kind, number):
    """Makes a folder, reads it, and says how that ended."""
    rng = random.Random(f"{kind} {number}")
    folder = Path(tempfile.mkdtemp()) / "x"
    # What a child has used is known when it has ended: each case has one of its own.
    child.shared.cache_clear()
    before = sum(os.times()[:4])
    try:
        stranger_files.KINDS[kind](folder, rng)
        before = sum(os.times()[:4])
        globals()[f"read_{kind}"](folder)
        child.shared.cache_clear()
    except ValueError as error:
        ended, text = "refused", str(error).replace(str(folder), "X")
    except BaseException:
        ended, text = "broken", traceback.format_exc()
    else:
        ended, text = "read", ""
    finally:
        shutil.rmtree(folder.parent)
    return {
        "kind": kind,
        "number": number,
        "ended": ended,
        "text": text,
        "seconds": sum(os.times()[:4]) - before,
        "kib": max(resident(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss),
    }


def resident():
    """Most memory of this process, KiB; ru_maxrss also counts what started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(most)


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        kind, number = line.split()
        print(json.dumps(ending(kind, int(number))), file=out, flush=True)


if __name__ == "__main__":
    main()

"""Calls of ``jaxlora merge`` that several files of tests share."""

import json
import shutil

import numpy as np

from jaxlora import cli, lora


def run(folder, adapters, *flags, out):
    called = [str(folder / name) for name in adapters]
    return cli.main(["merge", *called, *flags, "--out", str(out)])


def deltas(adapter):
    return {name: np.asarray(lora.delta(w)) for name, w in lora.sites(adapter).items()}


def other_adapter(small, folder, **config):
    shutil.copytree(small / "plain2", folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    (folder / "manifest.json").unlink(missing_ok=True)  # it is another adapter now
    return folder

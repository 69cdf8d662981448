"""Damage of files, of every kind that a disk or a hand can do; shared by tests."""

import json
import shutil

KINDS = ("flip", "truncate", "zero", "swap", "delete", "edit")


def files(folder):
    """All files of a folder, in their order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(rng, kind, path, other):
    """Damages a file in place; returns whether its bytes changed.

    Args:
      rng: of NumPy.
      kind: of KINDS.
      path: of the file.
      other: the same file of another entry.
    """
    before = path.read_bytes()
    data = bytearray(before)
    if kind == "flip":
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == "truncate":
        del data[rng.integers(len(data)) :]
    elif kind == "zero":
        start = rng.integers(len(data))
        part = data[start : start + rng.integers(1, 64)]
        data[start : start + len(part)] = bytes(len(part))
    elif kind == "swap":
        shutil.copyfile(other, path)
        return path.read_bytes() != before
    elif kind == "edit":
        data = edited(rng, data)
    path.unlink()
    if kind == "delete":
        return True
    path.write_bytes(data)
    return bytes(data) != before


def edited(rng, data):
    """JSON with one number changed, or a digit of what is no JSON."""
    try:
        content = json.loads(bytes(data))
    except ValueError:
        content = None
    if content is None:
        places = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        if places:
            at = places[rng.integers(len(places))]
            data[at] = ord("1") if data[at] == ord("0") else ord("0")
        return data
    places = list(numbers(content))
    if places:
        owner, key = places[rng.integers(len(places))]
        owner[key] = 1 - owner[key]  # 0 becomes 1: a wrong answer is right
    return json.dumps(content).encode()


def numbers(content):
    """``(container, key)`` of every number in JSON."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(pairs):
        if isinstance(value, dict | list):
            yield from numbers(value)
        elif type(value) in (int, float):
            yield content, key

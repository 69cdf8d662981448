"""Messages between a process and its limited child: a length in 8 bytes, and JSON."""

import json
from typing import Any


def packed(value: Any) -> bytes:
    """Returns a message: its length in 8 bytes, and JSON.

    Args:
      value: anything that is JSON; text may hold halves of surrogate pairs.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data


def unpacked(pipe: Any, most: int) -> Any:
    """Reads a message.

    Args:
      pipe: to read from.
      most: bytes of its JSON.

    Raises:
      EOFError: if the other side has ended, or the message is longer.
    """
    length = int.from_bytes(head := pipe.read(8), "little")
    if len(head) < 8 or length > most:
        raise EOFError
    if len(data := pipe.read(length)) < length:
        raise EOFError
    return json.loads(data.decode("utf-8", "surrogatepass"))

"""Who of a run's processes is there, before JAX's coordination service starts.

That service ends every process with a stack trace when one is missing, and does not say
which. So process 0 first takes the names of the others at the service's own address,
and all learn in one sentence who did not come.
"""

import contextlib
import re
import socket
import time
from collections.abc import Iterable

GO = "go"
_HELLO = re.compile(r"jaxlora (\d{1,6}) of (\d{1,6})")


def take(address: str, processes: int, process: int, wait: float) -> None:
    """Returns when every process has called this.

    Args:
      address: HOST:PORT of process 0.
      processes: how many there are.
      process: which of them this is, from 0.
      wait: seconds, at most.

    Raises:
      ValueError: naming who did not come, or who disagrees on their number.
    """
    host, _, port = address.rpartition(":")
    wrong = not host or "/" in host or not port.isdecimal()
    if wrong or not 0 < int(port) < 65536:
        raise ValueError(
            f"The coordinator is {address!r}, expected HOST:PORT of process 0, such as "
            f"10.0.0.2:8476."
        )
    if process:
        _answer(host, int(port), f"jaxlora {process} of {processes}", wait)
    else:
        _call(int(port), processes, wait)


def _call(port: int, processes: int, wait: float) -> None:
    """Process 0: waits for the others, and says to all of them what came of it."""
    deadline = time.monotonic() + wait
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(port))
        refusal = ""
        while not refusal and len(present) < processes - 1:
            left = deadline - time.monotonic()
            if left <= 0:
                refusal = _missing(set(range(1, processes)) - present.keys(), wait)
                break
            server.settimeout(left)
            with contextlib.suppress(TimeoutError):
                other = stack.enter_context(server.accept()[0])
                refusal = _enter(present, other, processes)
        for other in present.values():
            _send(other, refusal or GO)
    if refusal:
        raise ValueError(refusal)


def _enter(present: dict[int, socket.socket], other: socket.socket, processes: int):
    """Notes a process that has come; returns why all must end, if they must."""
    hello = _HELLO.fullmatch(_line(other, 5.0))
    if hello is None:  # a scanner of ports, or something else that has lost its way
        return ""
    process, expected = int(hello[1]), int(hello[2])
    refusal = ""
    if expected != processes or not 0 < process < processes:
        refusal = (
            f"Process {process} expects {expected} processes and process 0 expects "
            f"{processes}; give all the same --processes."
        )
    elif process in present:
        refusal = (
            f"Two processes call themselves {process} of {processes}; give each a "
            f"--process of its own, or end what is left of another run."
        )
    present.setdefault(process, other)
    if refusal:
        _send(other, refusal)
    return refusal


def _answer(host: str, port: int, hello: str, wait: float) -> None:
    """Another process: comes to process 0, again and again, and waits for its word."""
    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5)) as server:
                _send(server, hello)
                # Process 0 started later than this one: it may wait for longer.
                word = _line(server, left + wait)
        except OSError:  # it is not there yet
            word = ""
        if word == GO:
            return
        if word:
            raise ValueError(word)
        time.sleep(0.1)
    raise ValueError(
        f"Process 0 did not answer at {host}:{port} within {wait:.0f} s; is it running "
        f"there, and does the network let this port through?"
    )


def _missing(processes: Iterable[int], wait: float) -> str:
    names = [str(process) for process in sorted(processes)]
    several = len(names) > 1
    shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
    return (
        f"Process{'es' if several else ''} {shown} did not come within {wait:.0f} s, "
        f"so none goes on; look at the messages of "
        f"{'these' if several else 'that one'}, and whether "
        f"{'they reach' if several else 'it reaches'} process 0."
    )


def _server(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ValueError(
            f"Process 0 cannot listen on port {port} ({error.strerror}); give "
            f"--coordinator another one."
        ) from None


def _send(other: socket.socket, word: str) -> None:
    with contextlib.suppress(OSError):  # it will find out by itself
        other.sendall(f"{word}\n".encode())
        # The last to close keeps the port for a while, which JAX needs at once.
        if word == GO:
            other.shutdown(socket.SHUT_WR)
            other.settimeout(2.0)
            other.recv(1)


def _line(other: socket.socket, wait: float) -> str:
    """The first line that comes within some seconds; empty if none does."""
    other.settimeout(wait)
    text = b""
    with contextlib.suppress(OSError):
        while not text.endswith(b"\n") and len(text) < 1000:
            more = other.recv(1000)
            if not more:
                break
            text += more
    return text.decode(errors="replace").strip()

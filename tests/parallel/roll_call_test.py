"""Who of a run's processes is there: threads stand for processes."""

import socket
import threading

import pytest

from jaxlora.parallel import roll_call


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def call(address: str, who: list[tuple[int, int]], wait: float = 20.0) -> list[str]:
    """What each (process, processes) of a run learns; empty if all are there."""
    out = [""] * len(who)

    def take(i: int, process: int, processes: int) -> None:
        try:
            roll_call.take(address, processes, process, wait)
        except ValueError as error:
            out[i] = str(error)

    threads = [
        threading.Thread(target=take, args=(i, *pair)) for i, pair in enumerate(who)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_all_are_there_whoever_comes_first(address):
    assert call(address, [(2, 3), (0, 3), (1, 3)]) == ["", "", ""]


def test_all_that_came_learn_who_did_not(address):
    here = call(address, [(0, 4), (2, 4)], wait=0.5)
    assert here[0].startswith("Processes 1, 3 did not come within 0 s, so none goes on")
    assert here[1] == here[0]


def test_a_first_process_that_never_comes_is_named(address):
    (text,) = call(address, [(1, 2)], wait=0.3)
    assert f"Process 0 did not answer at {address} within 0 s" in text


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ([(0, 2), (1, 3)], "Process 1 expects 3 processes and process 0 expects 2"),
        ([(0, 3), (1, 3), (1, 3)], "Two processes call themselves 1 of 3"),
    ],
)
def test_all_learn_who_disagrees(address, who, says):
    here = call(address, who, wait=5.0)
    assert any(says in text for text in here[1:])
    assert says in here[0]


def test_a_stranger_at_the_port_is_ignored(address):
    def knock() -> None:
        for _ in range(50):
            try:
                with socket.create_connection(address.split(":"), timeout=1) as other:
                    other.sendall(b"GET / HTTP/1.1\n")
                    return
            except OSError:
                threading.Event().wait(0.02)

    stranger = threading.Thread(target=knock)
    stranger.start()
    late = threading.Timer(0.3, lambda: call(address, [(1, 2)]))
    late.start()
    assert call(address, [(0, 2)]) == [""]
    stranger.join()
    late.join()


@pytest.mark.parametrize("text", ["here", "host:port", "host:0", ":8476", "h:99999"])
def test_an_address_without_a_port_is_refused(text):
    with pytest.raises(ValueError, match="expected HOST:PORT of process 0"):
        roll_call.take(text, 2, 1, 1.0)


def test_a_port_that_is_taken_is_said(address):
    with socket.create_server(("", int(address.split(":")[1]))):
        (text,) = call(address, [(0, 2)])
    assert "cannot listen on port" in text
    assert "give --coordinator another one" in text

"""What tests of all rooms share."""

import gc
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

# How long one example takes depends on what else the machine does.
settings.register_profile("ztproxy", deadline=None)
settings.load_profile("ztproxy")

#: Rooms that have no business with the network: their tests may not touch it either.
OFFLINE = frozenset(
    {"administrator", "architecture", "crypto", "policy", "trust", "trust_posture", "trust_signals", "wire"}
)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the thousands of tests that were found, which stay until the end.

    It would look through them all again and again.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse sockets in unit tests."""
    room = Path(request.path).relative_to(Path(__file__).parent).parts[0]
    if room in OFFLINE:

        def refuse(*_: object) -> NoReturn:
            pytest.fail(f"tests of {room} do not open connections")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports of loopback that nobody listens on, a different one at each call."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find

"""The listening sockets of a node: bound once by the supervisor, kept through every restart below it.

Whoever accepts may be killed, replaced or upgraded; callers wait in the backlog for the successor instead of
being refused. That holds for people on the network and for workers that ask the control process.
"""

import errno
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from ztproxy.config.settings import Settings
from ztproxy.service.state import StateDirectory

BACKLOG: Final = 4096
PATIENCE: Final = 5.0  # seconds for those of a supervisor that was killed to let go of the address


class Descriptors(Struct, frozen=True):
    """The sockets as numbers, to be passed on."""

    workers: tuple[int, ...]
    link: int  # of workers to control
    portal: int
    admin: int
    telemetry: int


class Sockets:
    """All listening sockets of one node."""

    def __init__(
        self,
        workers: Sequence[socket.socket],
        link: socket.socket,
        portal: socket.socket,
        admin: socket.socket,
        telemetry: socket.socket,
    ) -> None:
        self.workers = tuple(workers)
        self.link = link
        self.portal = portal
        self.admin = admin
        self.telemetry = telemetry

    @property
    def descriptors(self) -> Descriptors:
        """Return the sockets as numbers."""
        own = (self.link, self.portal, self.admin, self.telemetry)
        return Descriptors(tuple(one.fileno() for one in self.workers), *(one.fileno() for one in own))

    @classmethod
    def inherit(cls, numbers: Descriptors) -> "Sockets":
        """Take over the sockets of the program that this process was before."""
        own = (numbers.link, numbers.portal, numbers.admin, numbers.telemetry)
        return cls([kept(number) for number in numbers.workers], *map(kept, own))

    def close(self) -> None:
        """Let go of all."""
        for one in (*self.workers, self.link, self.portal, self.admin, self.telemetry):
            one.close()


def kept(descriptor: int) -> socket.socket:
    """Return the socket of an inherited descriptor, which from now on nobody inherits by accident."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def open_sockets(settings: Settings, state: StateDirectory, workers: int) -> Sockets:
    """Bind everything a node listens on. Raises OSError; nothing stays bound then."""
    opened: list[socket.socket] = []
    try:
        opened += _patiently(settings.listen.host, settings.listen.port, workers)
        telemetry = settings.telemetry.listen
        opened += _patiently(telemetry.host, telemetry.port, 1)
        opened += [_unix(path) for path in (state.control, state.portal, state.admin)]
    except OSError:
        for one in opened:
            one.close()
        raise
    *ours, private, link, portal, admin = opened
    return Sockets(ours, link, portal, admin, private)


def _patiently(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind, even if what an earlier one left behind is just ending."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return bind(host, port, count)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise OSError(f"can not listen on {host}:{port}: {error.strerror}") from error
        time.sleep(0.05)


def bind(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind `count` listening sockets to one address (SO_REUSEPORT). Raises OSError."""
    _claim(host, port)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_listen(host, port, shared=count > 1))
            port = sockets[0].getsockname()[1]
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _claim(host: str, port: int) -> None:
    """Raise OSError when somebody listens there, also one who shares: the kernel would split the callers."""
    with _socket(host) as alone:
        alone.bind((host, port))


def _socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    listener = _socket(host)
    try:
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: Path) -> socket.socket:
    """Listen on a private path. What lies there is a remnant: the state directory is locked for us."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(f"can not listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return listener

"""`ztproxy run`: check the configuration, prepare the state directory, bind, supervise.

Called by `cli`. Everything that can be wrong with the configuration is said before anything is started.
"""

import asyncio
import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from ztproxy.config.load import load
from ztproxy.config.policies import load_policies
from ztproxy.service.process import use_all_descriptors
from ztproxy.service.state import StateDirectory
from ztproxy.service.supervisor import bind, programs, supervise
from ztproxy.telemetry.log import configure

log = logging.getLogger("ztproxy.run")

PATIENCE = 5.0  # seconds for the workers of a supervisor that was killed to let go of the address


class AlreadyRunning(Exception):
    """Another ztproxy uses this state directory."""


def main(config: Path, workers: int | None = None) -> None:
    """Run a node until SIGTERM or SIGINT.

    Raises ConfigProblems, OSError (address in use), AlreadyRunning.
    """
    settings = load(config)
    load_policies(settings)
    configure(settings.log.level, settings.log.format)
    use_all_descriptors()
    state = StateDirectory(settings.state_dir)
    state.prepare()
    with _locked(state.lock):
        sockets = _bind(settings.listen.host, settings.listen.port, workers or settings.workers)
        state.pid.write_text(f"{os.getpid()}\n")
        log.info("listening", extra={"address": "{}:{}".format(*sockets[0].getsockname()[:2])})
        try:
            asyncio.run(supervise(programs(config.resolve(), sockets)))
        finally:
            state.pid.unlink(missing_ok=True)
            for listener in sockets:
                listener.close()


def _bind(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind, even if what an earlier one left behind is just ending."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return bind(host, port, count)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise OSError(f"can not listen on {host}:{port}: {error.strerror}") from error
        time.sleep(0.05)


class _locked:  # noqa: N801 - reads as a statement
    """Hold the state directory for this process alone (flock(2): released by the kernel on any death)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            os.close(self._fd)
            raise AlreadyRunning(f"another ztproxy is using {self._path.parent.parent}") from held

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

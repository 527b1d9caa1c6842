"""`ztproxy run`: check the configuration, prepare the state directory, bind, supervise.

Called by `cli`, and by the program before in an upgrade: then everything but the first step is done already.
Everything that can be wrong with the configuration is said before anything is started.
"""

import asyncio
import fcntl
import os
import signal
from pathlib import Path

from ztproxy.net.descriptors import use_all_descriptors
from ztproxy.service.capture import capture, stand_by
from ztproxy.service.configuration import unseal
from ztproxy.service.sockets import open_sockets
from ztproxy.service.standby import Standby
from ztproxy.service.state import StateDirectory
from ztproxy.service.supervisor import ASKING, First, Supervisor
from ztproxy.service.upgrade import HandOver, becoming, handed_over, succeed
from ztproxy.telemetry.log import configure


class AlreadyRunning(Exception):
    """Another ztproxy uses this state directory."""


def main(config: Path, workers: int | None = None) -> None:
    """Run a node until SIGTERM or SIGINT.

    Raises ConfigProblems, OSError (address in use), AlreadyRunning.
    """
    config = config.absolute()  # not resolved: where a link leads may change, and a reload follows it
    left = handed_over()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # they would end us, until there is a supervisor
    standby = stand_by(config)  # before there is anything that it would hold, too
    try:
        if left is not None:
            _go_on(config, left, standby)
        else:
            _start(config, workers, standby)
    finally:
        standby.end()


def _start(config: Path, workers: int | None, standby: Standby) -> None:
    in_force = capture(config)
    settings, _ = unseal(in_force.descriptor, config)
    configure(settings.log.level, settings.log.format)
    use_all_descriptors()
    state = StateDirectory(settings.state_dir)
    state.prepare()
    lock = _lock(state)
    try:
        sockets = open_sockets(settings, state, workers or settings.workers)
        state.pid.write_text(f"{os.getpid()}\n")
        _serve(state, Supervisor(config, sockets, in_force, becoming(lock), standby), Supervisor.start)
    finally:
        os.close(lock)


def _go_on(config: Path, left: HandOver, standby: Standby) -> None:
    """Be the next program of a node that runs."""
    settings, _ = unseal(left.next_memory, config)
    configure(settings.log.level, settings.log.format)
    supervisor, first = succeed(left, config, standby)
    _serve(StateDirectory(settings.state_dir), supervisor, first)


def _serve(state: StateDirectory, supervisor: Supervisor, first: First) -> None:
    try:
        asyncio.run(supervisor.run(first))
    finally:
        state.pid.unlink(missing_ok=True)
        supervisor.sockets.close()


def _lock(state: StateDirectory) -> int:
    """Hold the state directory for this process alone (flock(2): released by the kernel on any death)."""
    lock = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as held:
        os.close(lock)
        raise AlreadyRunning(f"another ztproxy is using {state.root}") from held
    return lock

"""The parent of `ztproxy run`: binds the listening sockets, starts control and workers, restarts what dies.

It holds the sockets, so that connections to a worker that was killed wait for its successor instead of
being refused. It reads no request, holds no key and speaks to nobody.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from ztproxy.service.process import stop_event

log = logging.getLogger("ztproxy.supervisor")

STOP_TIMEOUT: Final = 15.0  # seconds for a child to end by itself
STEADY: Final = 10.0  # seconds of life after which a death is no longer "right after the start"
LONGEST_PAUSE: Final = 5.0  # seconds between restarts at the most


class Program(Struct, frozen=True):
    """A child to keep running."""

    name: str
    arguments: tuple[str, ...]
    descriptors: tuple[int, ...] = ()


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
        listener.listen(4096)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def programs(config: Path, sockets: Sequence[socket.socket]) -> list[Program]:
    """Return the children of one node: control first, then a worker for each socket."""
    parent = str(os.getpid())
    common = ("--config", str(config), "--parent", parent)
    control = Program(
        name="control",
        arguments=("-m", "ztproxy.service.control", *common, "--workers", str(len(sockets))),
    )
    workers = [
        Program(
            name=f"worker-{index}",
            arguments=(
                *("-m", "ztproxy.service.worker", *common),
                *("--index", str(index), "--listen", str(listener.fileno())),
            ),
            descriptors=(listener.fileno(),),
        )
        for index, listener in enumerate(sockets)
    ]
    return [control, *workers]


async def keep(program: Program, stop: asyncio.Event) -> None:
    """Run a child until `stop`; start it again whenever it ends, at once or after a growing pause."""
    loop = asyncio.get_running_loop()
    pause = 0.0
    while not stop.is_set():
        born = loop.time()
        child = await asyncio.create_subprocess_exec(
            sys.executable, *program.arguments, pass_fds=program.descriptors, stdin=asyncio.subprocess.DEVNULL
        )
        log.info("started", extra={"child": program.name, "child_pid": child.pid})
        if await _ended(child, stop):
            return
        pause = 0.1 if loop.time() - born > STEADY else min(pause * 2 or 0.1, LONGEST_PAUSE)
        log.error(
            "child ended, starting it again",
            extra={"child": program.name, "child_pid": child.pid, "status": child.returncode},
        )
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            continue


async def _ended(child: asyncio.subprocess.Process, stop: asyncio.Event) -> bool:
    """Wait for the child or for `stop`; True when the child was stopped because of `stop`."""
    waiting = asyncio.create_task(child.wait())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not stop.is_set():
        await waiting
        return False
    if child.returncode is None:
        child.terminate()
    try:
        await asyncio.wait_for(waiting, STOP_TIMEOUT)
    except TimeoutError:
        child.kill()
        await child.wait()
    return True


async def supervise(children: Sequence[Program]) -> None:
    """Keep all children running until SIGTERM or SIGINT; workers stop before control does."""
    stop, workers_gone = stop_event(), asyncio.Event()
    control = asyncio.create_task(keep(children[0], workers_gone))
    try:
        async with asyncio.TaskGroup() as group:
            for program in children[1:]:
                group.create_task(keep(program, stop))
    finally:
        workers_gone.set()
        await control

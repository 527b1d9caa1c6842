"""A process that stands by to read configurations, so that a reload need not wait for a program to start.

Started by `service.run` before anything else: it has what reading needs, and holds no file, no key and no
socket but the one it is asked over. It reads nothing itself. For each question it forks a child, which reads
and checks once and ends: whatever files do to that one, neither those who serve nor the next reload notice.
Asked by `service.capture`; never for an upgrade, because only a fresh process is the program on disk.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from ztproxy.service.process import die_with_parent

#: (memory to fill, memory in force) -> the answer. Called in a process that ends afterwards.
Check = Callable[[int, int], bytes]

ASKED: Final = 3  # descriptors of a question: memory to fill, memory in force, where to answer
MOST: Final = 8 << 20  # bytes of an answer
_DEAF: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # what a terminal, or somebody, sends to all


class Standby:
    """The supervisor's end."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self._end = end

    @classmethod
    def start(cls, check: Check, patience: int) -> "Standby":
        """Fork: only while this process has one thread and no loop. `patience`: seconds for one check."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        gc.freeze()  # what is there stays shared between both
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF)  # until it is deaf: one may come at once
        pid = os.fork()
        if pid == 0:
            _be(lambda: _stand_by(theirs, parent, check, patience, before))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.setblocking(False)
        return cls(pid, ours)

    async def ask(self, into: int, in_force: int) -> bytes | None:
        """Return the answer to one check; b"": whoever checked has died; None: there is nobody to ask."""
        answer, writing = os.pipe()
        try:
            socket.send_fds(self._end, [b"?"], [into, in_force, writing])
        except OSError:
            os.close(answer)
            return None
        finally:
            os.close(writing)
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(answer, "rb", buffering=0)
        )
        with contextlib.closing(transport):
            return await whole(stream)

    def end(self) -> None:
        """End it and wait until it is gone: before this process ends, or becomes another program."""
        self._end.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


async def whole(stream: asyncio.StreamReader) -> bytes:
    """Return what a checking process says until it ends, b"" when that is more than there can be."""
    answer = bytearray()
    while part := await stream.read(1 << 16):
        answer += part
        if len(answer) > MOST:
            return b""
    return bytes(answer)


# ---------------------------------------------------------------------- in the process that stands by


def _be(work: Callable[[], None]) -> NoReturn:
    """Do only this, and end without a word of what the process before had begun."""
    status = 1
    try:
        work()
        status = 0
    except Exception:  # noqa: BLE001 - the last thing that this process says
        traceback.print_exc()
    finally:
        os._exit(status)


def _stand_by(end: socket.socket, parent: int, check: Check, patience: int, mask: Iterable[int]) -> None:
    """Have a child answer each question, until there is nobody who asks."""
    die_with_parent(parent)
    for one in _DEAF:
        signal.signal(one, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children: the kernel need not keep them
    os.umask(0o077)
    _close_all_but(end.fileno())
    own = os.getpid()
    while True:
        asked, descriptors, _, _ = socket.recv_fds(end, 1, ASKED)
        if not asked:
            return
        with contextlib.suppress(OSError):  # then nobody answers, which is an answer
            if os.fork() == 0:
                end.close()
                _be(lambda: _answer(own, check, patience, descriptors))  # noqa: B023 - this process ends in it
        for descriptor in descriptors:
            os.close(descriptor)


def _answer(parent: int, check: Check, patience: int, descriptors: list[int]) -> None:
    die_with_parent(parent)
    signal.alarm(patience)  # its default ends the process, wherever that hangs
    into, in_force, answer = descriptors
    with os.fdopen(answer, "wb") as file:
        file.write(check(into, in_force))


def _close_all_but(kept: int) -> None:
    """Hold nothing that the process before had open, except what it says things on."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, kept)
    os.closerange(kept + 1, most)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

"""One process below the supervisor: started by it, or inherited from the program it was before an upgrade.

Both kinds are waited for by a descriptor (pidfd_open(2)), because asyncio knows only what it started itself.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from ztproxy.service.orders import FromChild, Orders, of_supervisor, pair

#: Threads that connections to upstreams go through (libuv's, some KiB each; 4 if nobody says so). One that
#: looks up a name whose servers do not answer is held for ten seconds, whether or not anybody still waits:
#: four such names would keep everybody from all the others.
THREADS: Final = "128"


class Child:
    """A running process and the supervisor's end of its orders."""

    def __init__(self, pid: int, orders: Orders[FromChild], started: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.orders = orders
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()  # the status
        self._started = started
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    def start(cls, arguments: Sequence[str], descriptors: Sequence[int]) -> "Child":
        """Start a program of ours; its end of the orders is named by the last argument. Raises OSError.

        In this thread, which must be the main one: the kernel tells children of the death of the thread that
        started them (prctl(2)), and only the main thread outlives execve(2). Nothing is imported from the
        directory we happen to stand in (-P): anybody may have put it there.
        """
        orders, theirs = pair()
        with theirs:
            started = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", *arguments, "--orders", str(theirs.fileno())],
                pass_fds=(*descriptors, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                env={"UV_THREADPOOL_SIZE": THREADS, **os.environ},
            )
        return cls(started.pid, orders, started)

    @classmethod
    def inherit(cls, pid: int, orders: int) -> "Child":
        """Take over a child of the program that this process was before. Raises OSError: it is gone."""
        return cls(pid, of_supervisor(orders), None)

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it is gone."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self, patience: float) -> None:
        """Ask it to end, then make it."""
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), patience)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.ended

    def _reap(self) -> None:
        if self._started is not None:
            status = self._started.wait()
        else:
            try:
                status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                status = -1  # reaped by somebody else
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(status)

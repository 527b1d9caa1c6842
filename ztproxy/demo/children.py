"""Starts the demo's programs, keeps them running, and stops them, whatever happens to the demo itself.

Each child leads a process group of its own (a terminal's Ctrl-C reaches the demo alone, which then stops
them in order) and is told by the kernel when the demo dies without having stopped it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ztproxy.demo.errors import DemoProblem

PR_SET_PDEATHSIG: Final = 1
PATIENCE: Final = 20.0  # seconds between asking a child to end and making it
RESTARTS: Final = 5  # within a minute; more means that it can not run
PAUSE: Final = 0.25  # seconds between two looks; times the recent starts, before one more

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """In a child, before it becomes its program: end when the demo does."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(1)


@dataclass
class Child:
    """One program with its log. It is started again when it ends by itself, and stopped while not wanted."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    process: asyncio.subprocess.Process | None = None
    wanted: Callable[[], bool] = lambda: True
    starts: list[float] = field(default_factory=list)

    async def start(self) -> None:
        """Start it, with its output appended to its log."""
        now = time.monotonic()
        self.starts = [*(at for at in self.starts if now - at < 60), now]
        if len(self.starts) > RESTARTS:
            raise DemoProblem(f"{self.name} keeps ending.", f"see {self.log}")
        parent = os.getpid()
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.returncode is None

    async def stop(self) -> None:
        """Ask it to end, then make it; nothing of its process group is left."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM, group=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), PATIENCE)
        self._signal(signal.SIGKILL, group=True)
        await self.process.wait()

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, number)
            elif self.process.returncode is None:
                self.process.send_signal(number)


class Children:
    """All programs of the demo, stopped in the reverse order of their start."""

    def __init__(self, log: Callable[[str], Path], restarted: Callable[[str], None]) -> None:
        self._log = log
        self._restarted = restarted
        self._children: list[Child] = []

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a program under a name."""
        child = Child(name, command, self._log(name), env, cwd)
        self._children.append(child)
        await child.start()
        return child

    async def watch(self) -> None:
        """Start again whatever ends, for as long as the demo runs; DemoProblem when one keeps ending."""
        while True:
            for child in self._children:
                if child.running and not child.wanted():
                    await child.stop()
                    child.starts.clear()
                if not child.running and child.wanted():
                    await asyncio.sleep(PAUSE * len(child.starts))
                    self._restarted(child.name)
                    await child.start()
            await asyncio.sleep(PAUSE)

    async def stop(self) -> None:
        """Stop everything; the device first, then the proxy, then what it stood in front of."""
        for child in reversed(self._children):
            await child.stop()

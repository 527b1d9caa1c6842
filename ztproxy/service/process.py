"""What every process of `ztproxy run` does first and last: die with its parent, have a name, stop cleanly."""

import asyncio
import ctypes
import os
import re
import signal
import socket
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies; stop at once if it is gone already (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the supervisor is gone")


def started_at(pid: int) -> int | None:
    """Return the kernel's start time of a process (clock ticks since boot); None when there is none.

    With the pid it names a process for good: pids are used again, this pair is not (proc(5), field 22).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - one read of a kernel file
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def node_name() -> str:
    """Return what this node is called among others that share a store: the host's name, in plain letters."""
    return re.sub(r"[^0-9A-Za-z._-]", "-", socket.gethostname())[:64] or "node"


def journal_name(role: str) -> str:
    """Return the name of this process's journal: unique for ever, and telling who writes it."""
    pid = os.getpid()
    return f"{role}-{pid}-{started_at(pid) or 0}"


def journal_alive(name: str) -> bool:
    """Return whether the process that writes this journal still runs."""
    parts = name.rsplit("-", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    return started_at(int(parts[1])) == int(parts[2])


def give_way() -> None:
    """Let this thread never interrupt others; its share of the time stays the same (sched(7), SCHED_BATCH).

    Sealing comes in bursts of milliseconds, on a core where requests are answered in tenths of one.
    """
    with suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM sets. Call inside the running loop.

    What a terminal, or somebody who names every process of ours, sends to all is for the supervisor alone: it
    says who ends when.
    """
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return event

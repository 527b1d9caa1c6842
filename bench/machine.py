"""What /proc says about processes: CPU time, memory, children; and which core is whose."""

import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

PROXY_CORE = 0
LOAD_CORE = 1
TICK = os.sysconf("SC_CLK_TCK")


_given: set[int] = set()


def free_port() -> int:
    """Return a port of loopback that nobody has, and no connection to elsewhere gets meanwhile."""
    while True:
        port = 15_000 + secrets.randbelow(17_000)  # below those that the system gives to connections
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # ended meanwhile
            continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user + system time of processes, all their threads included."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def ran_and_waited(pid: int) -> tuple[float, float]:
    """Return seconds in which the first thread of a process ran, and in which it waited for a core."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def memory_kib(pids: Iterable[int], field: str = "VmRSS") -> int:
    """Return resident memory of processes (`VmRSS` now, `VmHWM` at its highest) in KiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1])
    return total


def forget_peak(pids: Iterable[int]) -> None:
    """Make `VmHWM` start again from what is resident now."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def busy_seconds(core: int) -> float:
    """Return how long a core was not idle since it started."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *numbers = line.split()
        if name == f"cpu{core}":
            times = [int(number) for number in numbers]
            return (sum(times[:8]) - times[3] - times[4]) / TICK
    raise LookupError(f"there is no core {core}")


def describe() -> dict[str, str]:
    """Return what kind of machine this is."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": str(os.cpu_count()), "kernel": os.uname().release}

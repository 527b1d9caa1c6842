"""The proxies: one file each, with its configuration as an expert would write it and how it starts."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.machine import family


@dataclass
class Running:
    """A proxy that runs. `counted` names the processes whose CPU is its own; `beside` is told apart."""

    name: str
    port: int
    counted: dict[str, Callable[[], list[int]]]
    settle: Callable[[], None] = lambda: None  # waits for work left over from the last turn
    stop: Callable[[], None] = lambda: None
    notes: dict[str, str] = field(default_factory=dict)

    def pids(self) -> dict[str, list[int]]:
        """Return the processes of each part."""
        return {part: found() for part, found in self.counted.items()}


def with_children(pid: int) -> Callable[[], list[int]]:
    """Return what finds a program with all its children."""
    return lambda: family(pid)

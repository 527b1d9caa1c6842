"""The configuration in force, as the supervisor holds it: one sealed piece of anonymous memory.

Every child reads that and never the files: whoever is started again, at whatever moment and whatever lies on
disk by then, serves exactly what the others serve. Memory, not files: keys that come from a volume in memory
must not end on a disk. Sealed (memfd_create(2)): what was checked can not be changed by anybody.
"""

import fcntl
import os
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from ztproxy.config.files import MOST
from ztproxy.config.load import restore, restore_settings
from ztproxy.config.places import Places
from ztproxy.config.policies import places_of
from ztproxy.config.problems import Problem
from ztproxy.config.section import Section
from ztproxy.config.settings import Settings
from ztproxy.policy.engine import PolicySet

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

#: Where a node is and who it is: sockets, state and names that run through records, cookies and certificates.
#: Keys of the file -> attributes of Settings.
NEEDS_RESTART: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("listen",): ("listen",),
    ("external_port",): ("external_port",),
    ("workers",): ("workers",),
    ("state",): ("state_dir",),
    ("store",): ("store",),
    ("trust_domain",): ("trust_domain",),
    ("portal", "host"): ("portal", "host"),
    ("telemetry", "listen"): ("telemetry", "listen"),
}


class Summary(Struct, frozen=True):
    """What the supervisor has to know of a configuration."""

    digest: str
    policies: str  # digest of the policy set
    routes: int
    drain: float  # seconds
    watch: bool
    read: tuple[str, ...] = ()  # paths and patterns that it is made of
    log: tuple[str, Literal["json", "text"]] = ("info", "json")  # level and format

    def __str__(self) -> str:
        routes = "1 route" if self.routes == 1 else f"{self.routes} routes"
        return f"configuration {self.digest[:16]}, policies {self.policies[:16]}, {routes}"


class Configuration(Struct, frozen=True):
    """A checked configuration: what it is in short, and the memory that holds it."""

    summary: Summary
    descriptor: int

    def same_as(self, other: "Configuration") -> bool:
        """Tell whether both are made of the very same files."""
        return _whole(self.descriptor) == _whole(other.descriptor)

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self.descriptor)


def summary_of(settings: Settings, policies: PolicySet) -> Summary:
    """Return a configuration in short."""
    return Summary(
        digest=settings.files.digest,
        policies=policies.digest,
        routes=len(settings.route_settings),
        drain=settings.drain / 1000,
        watch=settings.reload == "watch",
        read=(*settings.files.paths, *settings.files.patterns),
        log=(settings.log.level, settings.log.format),
    )


def memory() -> int:
    """Return a descriptor of new anonymous memory, to be filled and sealed."""
    return os.memfd_create("ztproxy-configuration", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def fill(descriptor: int, settings: Settings) -> None:
    """Write the files of a configuration. Raises OSError."""
    with open(descriptor, "wb", closefd=False) as file:
        file.write(settings.files.pack())


def seal(descriptor: int) -> None:
    """From now on nobody can change it."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def unseal(descriptor: int, config: Path, before: PolicySet | None = None) -> tuple[Settings, PolicySet]:
    """Return what a configuration comes to: takes a moment. Raises ConfigProblems, ValueError, OSError.

    `before`: policies that are in force here, of which most may be the same.
    """
    return restore(config, _whole(descriptor), before)


def unseal_settings(descriptor: int, config: Path) -> Settings:
    """Return its settings alone. Raises as `unseal`."""
    return restore_settings(config, _whole(descriptor))


def _whole(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > 2 * MOST:
        raise ValueError("not a configuration")
    data = b""
    while len(data) < size and (part := os.pread(descriptor, size - len(data), len(data))):
        data += part
    return data


def unchangeable(new: Settings, old: Settings) -> list[Problem]:
    """Return what a running node can not take up, with its place in the new file."""
    places: Places = places_of(new)
    problems = []
    for loc, attributes in NEEDS_RESTART.items():
        before, after = _value(old, attributes), _value(new, attributes)
        if before != after:
            message = f"needs a restart to change: {_shown(before)} is in force"
            remedy = "restart ztproxy, or write the old value back"
            problems.append(places.problem(message, remedy, *loc))
    return problems


def _value(settings: Settings, attributes: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in attributes:
        value = getattr(value, name)
    return value


def _shown(value: object) -> str:
    if isinstance(value, Section):
        return "the section it was started with"
    return "the port of `listen`" if value is None else str(value)

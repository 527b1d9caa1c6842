"""Whether this node can serve, and if not, why not.

`service` gives one check for each thing that must hold; `telemetry.http` asks them. Alive and ready are two
things: a node that lost its store is alive, and restarting it would help nobody.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

#: Returns "" when all is well, else a few words saying what is not. Must not raise or wait.
Check = Callable[[], str]


class Health(Struct, frozen=True):
    """The answer of all checks at one moment."""

    ready: bool
    reasons: tuple[str, ...] = ()


class Readiness:
    """All checks of this node."""

    __slots__ = ("_checks",)

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    def __call__(self) -> Health:
        """Ask every check."""
        said = ((name, check()) for name, check in self._checks.items())
        reasons = tuple(f"{name}: {words}" for name, words in said if words)
        return Health(ready=not reasons, reasons=reasons)

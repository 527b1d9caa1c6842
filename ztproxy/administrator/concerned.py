"""Which live paths a change concerns: an index from whom and what they hang on to their numbers.

Used by `administrator.paths` only. Knows no clock and no decision; finding the paths of one session among
any number costs what these are, and taking one out costs its own few entries.
"""

from collections.abc import Iterable

from ztproxy.model.permit import Permit
from ztproxy.trust.memory import Concern


class Concerned:
    """Numbers of paths by concern. One number is kept as it is, because most concerns are of one path."""

    __slots__ = ("_by", "_more")

    def __init__(self) -> None:
        self._by: dict[str, dict[str, int | set[int]]] = {}
        self._more: dict[int, tuple[Concern, ...]] = {}  # what its permit does not say

    def __len__(self) -> int:
        return sum(len(values) for values in self._by.values())

    def enter(self, number: int, permit: Permit) -> None:
        """Enter a path under all that its permit says it hangs on."""
        for concern in concerns_of(permit):
            self._put(number, concern)

    def hangs_on(self, number: int, concerns: tuple[Concern, ...]) -> None:
        """Enter a path under what has come to it since, instead of what was said so before."""
        before = self._more.get(number, ())
        if concerns != before:
            for concern in before:
                self._take(number, concern)
            self._more[number] = concerns
            for concern in concerns:
                self._put(number, concern)

    def leave(self, number: int, permit: Permit) -> None:
        """Take a path out; the permit is the one it was entered with."""
        for concern in concerns_of(permit):
            self._take(number, concern)
        for concern in self._more.pop(number, ()):
            self._take(number, concern)

    def _put(self, number: int, concern: Concern) -> None:
        kind, value = concern
        values = self._by.get(kind)
        if values is None:
            values = self._by[kind] = {}
        there = values.get(value)
        if there is None:
            values[value] = number
        elif isinstance(there, set):
            there.add(number)
        elif there != number:
            values[value] = {there, number}

    def _take(self, number: int, concern: Concern) -> None:
        kind, value = concern
        values = self._by.get(kind)
        there = values.get(value) if values is not None else None
        if values is None or there is None:
            return
        if isinstance(there, set):
            there.discard(number)
            if not there:
                del values[value]
        elif there == number:
            del values[value]

    def of(self, concerns: Iterable[Concern]) -> set[int]:
        """Return the numbers of all paths that one of these concerns."""
        found: set[int] = set()
        for kind, value in concerns:
            values = self._by.get(kind)
            there = values.get(value) if values is not None else None
            if isinstance(there, set):
                found |= there
            elif there is not None:
                found.add(there)
        return found


def concerns_of(permit: Permit) -> list[Concern]:
    """Return all that a path hangs on: what a lock can be on, and what facts it was let in by."""
    concerns: list[Concern] = [("principal", permit.principal_id), ("route", permit.route.name)]
    if permit.session_id:
        concerns.append(("session", permit.session_id))
    if permit.issuer:
        concerns.append(("issuer", permit.issuer))
    if permit.handle:
        concerns.append(("handle", permit.handle))
    if permit.device_id:
        concerns.append(("device", permit.device_id))
    certificate = permit.request.subject.certificate
    if certificate is not None:
        concerns.append(("credential", certificate.fingerprint))
        if certificate.bundle != permit.issuer:
            concerns.append(("issuer", certificate.bundle))
        above, _, named = certificate.subject.rpartition("/")
        if certificate.kind == "device" and named != permit.device_id:
            concerns.append(("device", named))
        elif certificate.kind == "connector":
            concerns.append(("principal", above))
            concerns.append(("connector", f"{above.rpartition('/')[2]}/{named}"))
    return concerns

"""What the catalogue grows by: summed up in memory for each owner, so that it is written seldom and at once.

Called by `recording.catalog` only. Pure; every Python operation in `Growth.note` is paid for by every record.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import msgspec.structs

from ztproxy.model.record import PREFLIGHT, FloodRecord, SessionRecord, SignalRecord, StandingRecord
from ztproxy.model.subject import ANONYMOUS
from ztproxy.recording.glimpse import Decided, DecidedValues, Finished, Glimpse, Seen
from ztproxy.recording.line import GapRecord
from ztproxy.recording.summary import Run, Summary

GAPS: Final = "gaps"  # owner of gap records
STRANGERS: Final = f"{ANONYMOUS.kind}::{ANONYMOUS.id}"  # and of floods
SIGNALS: Final = "signals"  # owner of what transmitters of signals said
CONFIGURATION: Final = "configuration"  # owner of what happened to the configuration
STANDING: Final = "standing"  # owner of locks and of what signals said, but for those of one session
PLACE: Final = struct.Struct("<QI")  # offset, length

_Finished = tuple[str, int, str, int, int]  # a `Finished` as values
_values: Final = msgspec.structs.astuple
_place: Final = PLACE.pack


class Tally:
    """What one owner's summary and places grow by."""

    __slots__ = (
        "device", "ended", "ended_at", "file", "first", "ip", "last", "name", "older", "open", "owner",
        "permitted", "principal", "received", "refused", "sent", "spots", "started_at",
    )  # fmt: skip

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.principal = self.name = self.device = self.ip = self.ended = ""
        self.first = self.last = self.started_at = self.ended_at = 0
        self.permitted = self.refused = self.open = self.received = self.sent = 0
        self.file = 0
        self.spots = bytearray()  # places of records in that file
        self.older: list[tuple[int, bytes]] = []  # and in those before

    @property
    def records(self) -> int:
        """Return how many there are."""
        return (sum(len(packed) for _, packed in self.older) + len(self.spots)) // PLACE.size

    def places(self) -> list[tuple[int, bytes]]:
        """Return (file, packed places), in order."""
        return [*self.older, (self.file, bytes(self.spots))] if self.spots else self.older

    def turn(self, file: int) -> None:
        """Go on in another file."""
        self.older = self.places()
        self.file, self.spots = file, bytearray()

    def happened(self, at: int) -> None:
        """Take in when something was."""
        if at > self.last:
            self.last = at
        if at < self.first or not self.first:
            self.first = at

    def identify(self, principal: str, name: str, device: str, ip: str) -> None:
        """Take in who it was: as first said, but device and address as last said."""
        if not self.principal:
            self.principal = principal
        if not self.name:
            self.name = name
        if device:
            self.device = device
        if ip:
            self.ip = ip

    def add_to(self, summary: Summary) -> None:
        """Bring a summary up to date: who it was as first recorded, device and address as last recorded."""
        summary.principal = summary.principal or self.principal
        summary.name = summary.name or self.name
        summary.device = self.device or summary.device
        summary.ip = self.ip or summary.ip
        summary.first = min(summary.first or self.first, self.first)
        summary.last = max(summary.last, self.last)
        summary.started_at = self.started_at or summary.started_at
        if self.ended_at:
            summary.ended_at, summary.ended = self.ended_at, self.ended
        summary.permitted += self.permitted
        summary.refused += self.refused
        summary.open += self.open
        summary.received += self.received
        summary.sent += self.sent
        summary.records += self.records


class Growth:
    """The growth of all owners since the catalogue was written.

    `earlier` finds the owner of a request that began before. "" owns what nobody can be found for.
    """

    __slots__ = ("_earlier", "open", "records", "refused", "tallies")

    def __init__(self, earlier: Callable[[str], str | None]) -> None:
        self._earlier = earlier
        self.records = 0
        self.tallies: dict[str, Tally] = {}
        self.open: dict[str, Tally] = {}  # by request: permitted and not finished
        self.refused: dict[str, Tally] = {}

    def note(self, run: Run, seen: Iterable[Seen]) -> None:
        """Take in the records of a run. Of an iterator only these are taken."""
        file, offset = run.file, run.offset
        decided, finished, values = Decided, Finished, _values  # names of a module are searched each time
        place = _place  # now: all at once, when it is written, requests would wait for it
        for length, glimpse in zip(run.lengths, seen, strict=False):
            kind = type(glimpse)
            if isinstance(glimpse, tuple):
                tally = self._decided(glimpse)
            elif kind is decided:
                tally = self._decided(values(glimpse))
            elif kind is finished:
                tally = self._finished(values(glimpse))
            else:
                tally = self._happened(glimpse)
            if tally.file != file:
                tally.turn(file)
            tally.spots += place(offset, length)
            offset += length + 1
        self.records += len(run.lengths)

    def tally(self, owner: str) -> Tally:
        """Return the tally of an owner, a new one if need be."""
        tally = self.tallies.get(owner)
        if tally is None:
            tally = self.tallies[owner] = Tally(owner)
        return tally

    def _decided(self, values: Any) -> Tally:
        request, at, allow, decided, principal, name, session, device, ip = cast(DecidedValues, values)
        tally = self.tally(session or principal)
        if allow:
            tally.permitted += 1
            tally.open += 1
            self.open[request] = tally
        else:
            tally.refused += decided != PREFLIGHT
            self.refused[request] = tally
        tally.happened(at)
        tally.identify(principal, name, device, ip)
        return tally

    def _finished(self, values: tuple[Any, ...]) -> Tally:
        request, at, session, received, sent = cast(_Finished, values)
        tally = self.open.pop(request, None)
        if tally is None:
            tally = self.refused.pop(request, None) or self._stray(request, session)
        else:
            tally.open -= 1
        tally.received += received
        tally.sent += sent
        tally.happened(at)
        return tally

    def _stray(self, request: str, session: str) -> Tally:
        """The end of a request that began before this growth."""
        owner = self._earlier(request)
        if owner is None:
            return self.tally(session)
        tally = self.tally(owner)
        tally.open -= 1
        return tally

    def _happened(self, record: Glimpse) -> Tally:
        tally = self.tally(_owner(record))
        tally.happened(record.at)
        if isinstance(record, FloodRecord):
            tally.refused += record.count
            tally.principal = STRANGERS
        elif isinstance(record, SessionRecord):
            if record.event == "started":
                tally.started_at = record.at
            elif record.event == "ended":
                tally.ended_at, tally.ended = record.at, record.detail or "ended"
            tally.identify(record.principal, record.name, record.device, record.ip)
        return tally


def _owner(record: Glimpse) -> str:
    """Return under whom records are listed that are no part of a request."""
    if isinstance(record, SessionRecord):
        return record.session or record.id
    if isinstance(record, StandingRecord):
        return record.session or STANDING
    if isinstance(record, FloodRecord):
        return STRANGERS
    if isinstance(record, SignalRecord):
        return SIGNALS
    return GAPS if isinstance(record, GapRecord) else CONFIGURATION

"""What the catalogue grows by: summed up in memory for each owner, so that it is written seldom and at once.

Called by `recording.catalog` only. Pure; every Python operation in `Growth.note` is paid for by every record.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final

from ztproxy.model.record import PREFLIGHT, FloodRecord, SessionRecord, SignalRecord, StandingRecord
from ztproxy.model.subject import ANONYMOUS
from ztproxy.recording.glimpse import Decided, Finished, Glimpse
from ztproxy.recording.line import GapRecord
from ztproxy.recording.summary import Run, Summary

GAPS: Final = "gaps"  # owner of gap records
STRANGERS: Final = f"{ANONYMOUS.kind}::{ANONYMOUS.id}"  # and of floods
SIGNALS: Final = "signals"  # owner of what transmitters of signals said
CONFIGURATION: Final = "configuration"  # owner of what happened to the configuration
STANDING: Final = "standing"  # owner of locks and of what signals said, but for those of one session
PLACE: Final = struct.Struct("<QI")  # offset, length
_pack: Final = PLACE.pack


class Tally:
    """What one owner's summary and places grow by."""

    __slots__ = (
        "device", "ended", "ended_at", "file", "first", "ip", "last", "name", "older", "open", "owner",
        "packed", "permitted", "principal", "received", "records", "refused", "sent", "started_at",
    )  # fmt: skip

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.principal = self.name = self.device = self.ip = self.ended = ""
        self.first = self.last = self.started_at = self.ended_at = 0
        self.permitted = self.refused = self.open = self.received = self.sent = self.records = 0
        self.file = 0
        self.packed = bytearray()  # places in that file
        self.older: list[tuple[int, bytes]] = []  # and in those before

    def places(self) -> list[tuple[int, bytes]]:
        """Return (file, packed places), in order."""
        return [*self.older, (self.file, bytes(self.packed))] if self.packed else self.older

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

    def note(self, run: Run, seen: Iterable[Glimpse]) -> None:
        """Take in the records of a run. Of an iterator only these are taken."""
        file, offset = run.file, run.offset
        for length, glimpse in zip(run.lengths, seen, strict=False):
            if isinstance(glimpse, Decided):
                tally = self._decided(glimpse)
            elif isinstance(glimpse, Finished):
                tally = self._finished(glimpse)
            else:
                tally = self._happened(glimpse)
            if tally.file != file:
                _turn(tally, file)
            tally.packed += _pack(offset, length)
            tally.records += 1
            at = glimpse.at
            if at > tally.last:
                tally.last = at
            if at < tally.first or not tally.first:
                tally.first = at
            offset += length + 1
        self.records += len(run.lengths)

    def tally(self, owner: str) -> Tally:
        """Return the tally of an owner, a new one if need be."""
        tally = self.tallies.get(owner)
        if tally is None:
            tally = self.tallies[owner] = Tally(owner)
        return tally

    def _decided(self, record: Decided) -> Tally:
        tally = self.tally(record.session or record.principal)
        if record.allow:
            tally.permitted += 1
            tally.open += 1
            self.open[record.id] = tally
        else:
            tally.refused += record.decided != PREFLIGHT
            self.refused[record.id] = tally
        _identify(tally, record)
        return tally

    def _finished(self, record: Finished) -> Tally:
        tally = self.open.pop(record.id, None)
        if tally is None:
            tally = self.refused.pop(record.id, None)
            if tally is None:
                tally = self._stray(record)
        else:
            tally.open -= 1
        tally.received += record.received
        tally.sent += record.sent
        return tally

    def _stray(self, record: Finished) -> Tally:
        """The end of a request that began before this growth."""
        owner = self._earlier(record.id)
        if owner is None:
            return self.tally(record.session)
        tally = self.tally(owner)
        tally.open -= 1
        return tally

    def _happened(self, record: Glimpse) -> Tally:
        if isinstance(record, FloodRecord):
            tally = self.tally(STRANGERS)
            tally.refused += record.count
            tally.principal = STRANGERS
            return tally
        if isinstance(record, StandingRecord):
            return self.tally(record.session or STANDING)
        if isinstance(record, SignalRecord):
            return self.tally(SIGNALS)
        if not isinstance(record, SessionRecord):
            return self.tally(GAPS if isinstance(record, GapRecord) else CONFIGURATION)
        tally = self.tally(record.session or record.id)
        if record.event == "started":
            tally.started_at = record.at
        elif record.event == "ended":
            tally.ended_at, tally.ended = record.at, record.detail or "ended"
        _identify(tally, record)
        return tally


def _identify(tally: Tally, record: Decided | SessionRecord) -> None:
    if not tally.principal:
        tally.principal = record.principal
    if not tally.name:
        tally.name = record.name
    if record.device:
        tally.device = record.device
    if record.ip:
        tally.ip = record.ip


def _turn(tally: Tally, file: int) -> None:
    if tally.packed:
        tally.older.append((tally.file, bytes(tally.packed)))
        tally.packed = bytearray()
    tally.file = file

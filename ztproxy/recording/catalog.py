"""The catalogue: which sessions there are in the log, a summary of each, and where its records lie.

Kept up by the sealer, read by `recording.read`. Derived from the log and never believed as evidence: it
says where to look, `recording.verify` says whether what lies there is genuine.

Callers without a session (workloads, strangers) are listed under their principal; what happened to the
configuration is listed under `configuration`, locks and what signals said under `standing`.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from ztproxy.model.record import (
    PREFLIGHT,
    DecisionRecord,
    FloodRecord,
    OutcomeRecord,
    SessionRecord,
    SignalRecord,
    StandingRecord,
)
from ztproxy.model.subject import ANONYMOUS
from ztproxy.recording.files import INDEX, line_before, lines_from
from ztproxy.recording.line import Entry, GapRecord, Malformed, parse, parse_record
from ztproxy.recording.summary import Place, Reached, Summary
from ztproxy.store.index import Index

GAPS: Final = "gaps"  # owner of gap records
STRANGERS: Final = f"{ANONYMOUS.kind}::{ANONYMOUS.id}"  # and of floods
SIGNALS: Final = "signals"  # owner of what transmitters of signals said
CONFIGURATION: Final = "configuration"  # owner of what happened to the configuration
STANDING: Final = "standing"  # owner of locks and of what signals said, but for those of one session
BATCH: Final = 4096
_PLACE: Final = struct.Struct("<QI")  # offset, length


class Catalog:
    """An open catalogue, on disk (the sealer's) or in memory (a reader's)."""

    __slots__ = ("_index", "_reached")

    def __init__(self, index: Index) -> None:
        self._index = index
        position = index.position()
        try:
            self._reached = msgspec.json.decode(position, type=Reached) if position else Reached()
        except msgspec.MsgspecError:
            self._reached = Reached()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a log's catalogue for writing; it may have to catch up. Raises StoreUnavailable."""
        return cls(Index.open(directory / INDEX))

    @classmethod
    def copy(cls, directory: Path) -> Self:
        """Return an up-to-date catalogue in memory; the directory may be read-only, or lack an index."""
        catalog = cls(Index.copy(directory / INDEX))
        catalog.catch_up(directory)
        return catalog

    def close(self) -> None:
        """Close it."""
        self._index.close()

    @property
    def reached(self) -> Reached:
        """Return how far it goes."""
        return self._reached

    def catch_up(self, directory: Path, limit: int = 1 << 60) -> bool:
        """Add up to `limit` records that the log has and the catalogue has not; return whether that is all.

        Starts over when the catalogue is not of this log.
        """
        if not self._fits(directory):
            with self._index.transaction():
                self._index.clear()
            self._reached = Reached()
        batch: list[tuple[Place, Entry]] = []
        for count, placed in enumerate(_read(directory, self._reached), 1):
            batch.append(placed)
            if len(batch) == BATCH or count == limit:
                self.add(batch)
                batch = []
            if count == limit:
                return False
        self.add(batch)
        return True

    def add(self, placed: list[tuple[Place, Entry]]) -> None:
        """Add the next records of the log. Raises StoreUnavailable: then nothing was added."""
        if not placed:
            return
        last = placed[-1][0]
        reached = Reached(last.file, last.offset + last.length + 1, last.n)
        with self._index.transaction():
            _Addition(self._index).add(placed)
            self._index.set_position(msgspec.json.encode(reached))
        self._reached = reached

    def sessions(self, limit: int = 1000) -> list[Summary]:
        """Return summaries, the last active first."""
        return [msgspec.json.decode(value, type=Summary) for value in self._index.summaries(limit)]

    def session(self, identifier: str) -> Summary | None:
        """Return one summary."""
        value = self._index.summary(identifier)
        return msgspec.json.decode(value, type=Summary) if value else None

    def matching(self, prefix: str, limit: int = 16) -> list[str]:
        """Return the sessions whose id starts so."""
        return self._index.owners(prefix, limit)

    def places(self, identifier: str) -> Iterator[tuple[int, int, int]]:
        """Yield (file, offset, length) of a session's records, in the order of the log."""
        for file, packed in self._index.places(identifier):
            for offset, length in _PLACE.iter_unpack(packed):
                yield file, offset, length

    def _fits(self, directory: Path) -> bool:
        """Say whether the record before the position is the one the catalogue counted last."""
        reached = self._reached
        if not reached.count:
            return True
        try:
            line = line_before(directory, reached.file, reached.offset)
            return line is not None and parse(line).n == reached.count
        except (FileNotFoundError, Malformed):
            return False


class _Addition:
    """One batch on its way into the index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._summaries: dict[str, Summary] = {}
        self._places: dict[tuple[str, int], bytearray] = {}
        self._requests: dict[str, tuple[str, bool]] = {}  # id -> owner, permitted

    def add(self, placed: Iterable[tuple[Place, Entry]]) -> None:
        for place, entry in placed:
            owner = self._owner(entry)
            if owner:
                self._note(owner, place, entry)
        self._index.add_places((owner, file, bytes(packed)) for (owner, file), packed in self._places.items())
        for owner, summary in self._summaries.items():
            self._index.put_summary(owner, summary.last, msgspec.json.encode(summary))
        self._index.add_pending(
            (identifier, owner) for identifier, (owner, allow) in self._requests.items() if allow
        )

    def _owner(self, entry: Entry) -> str:
        if isinstance(entry, DecisionRecord):
            owner = entry.session or entry.principal
            self._requests[entry.id] = (owner, entry.allow)
            return owner
        if isinstance(entry, OutcomeRecord):
            return self._finished(entry)
        if isinstance(entry, FloodRecord):
            return STRANGERS
        if isinstance(entry, SessionRecord):
            return entry.session or entry.id
        if isinstance(entry, StandingRecord):
            return entry.session or STANDING
        if isinstance(entry, SignalRecord):
            return SIGNALS
        return GAPS if isinstance(entry, GapRecord) else CONFIGURATION

    def _finished(self, outcome: OutcomeRecord) -> str:
        owner, permitted = self._requests.pop(outcome.id, ("", False))
        if not owner:
            owner = self._index.take_pending(outcome.id) or ""
            permitted = bool(owner)
        if permitted:
            self._summary(owner).open -= 1
        return owner or outcome.session

    def _summary(self, owner: str) -> Summary:
        summary = self._summaries.get(owner)
        if summary is None:
            value = self._index.summary(owner)
            summary = msgspec.json.decode(value, type=Summary) if value else Summary(owner)
            self._summaries[owner] = summary
        return summary

    def _note(self, owner: str, place: Place, entry: Entry) -> None:
        self._places.setdefault((owner, place.file), bytearray()).extend(
            _PLACE.pack(place.offset, place.length)
        )
        summary = self._summary(owner)
        summary.records += 1
        summary.first = min(summary.first, entry.at) if summary.first else entry.at
        summary.last = max(summary.last, entry.at)
        if isinstance(entry, DecisionRecord):
            _count_decision(summary, entry)
        elif isinstance(entry, OutcomeRecord):
            summary.received += entry.received
            summary.sent += entry.sent
        elif isinstance(entry, SessionRecord):
            _count_event(summary, entry)
        elif isinstance(entry, FloodRecord):
            summary.refused += entry.count
            summary.principal = STRANGERS


def _count_decision(summary: Summary, record: DecisionRecord) -> None:
    if record.allow:
        summary.permitted += 1
        summary.open += 1
    elif record.decided != PREFLIGHT:
        summary.refused += 1
    _identify(summary, record)


def _count_event(summary: Summary, record: SessionRecord) -> None:
    if record.event == "started":
        summary.started_at = record.at
    elif record.event == "ended":
        summary.ended_at, summary.ended = record.at, record.detail or "ended"
    _identify(summary, record)


def _identify(summary: Summary, record: DecisionRecord | SessionRecord) -> None:
    """Keep who it was as first recorded, the device and address as last recorded."""
    summary.principal = summary.principal or record.principal
    summary.name = summary.name or record.name
    summary.device = record.device or summary.device
    summary.ip = record.ip or summary.ip


def _read(directory: Path, reached: Reached) -> Iterator[tuple[Place, Entry]]:
    """Yield the records behind a position. What is no record is passed over: telling is for verify."""
    for text in lines_from(directory, reached.file, reached.offset):
        if not text.complete:
            continue
        try:
            line = parse(text.data)
            yield Place(line.n, text.file, text.offset, len(text.data)), parse_record(line.record)
        except Malformed:
            continue

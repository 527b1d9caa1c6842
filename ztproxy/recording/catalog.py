"""The catalogue: which sessions there are in the log, a summary of each, and where its records lie.

Kept up by the sealer, read by `recording.read`. Derived from the log and never believed as evidence: it
says where to look, `recording.verify` says whether what lies there is genuine. It is written every few
seconds; what is not yet written, or lost by a kill, is read from the log again.

Callers without a session (workloads, strangers) are listed under their principal; what happened to the
configuration is listed under `configuration`, locks and what signals said under `standing`.
"""

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Self

import msgspec

from ztproxy.recording.files import INDEX, line_before, lines_from
from ztproxy.recording.glimpse import Glimpse, Seen, glimpse
from ztproxy.recording.growth import PLACE, Growth, Tally
from ztproxy.recording.line import Malformed, parse
from ztproxy.recording.summary import Reached, Run, Summary
from ztproxy.store.index import Index

EVERY: Final = 5000  # ms from one writing to the next …
LARGE: Final = 1 << 16  # … or so many records
SLICE: Final = 64  # owners written at once, at least; all in no more than …
SLICES: Final = 20  # … so many slices

#: What a record says of its time is not believed beyond this (ms): it has to fit where it is sorted by.
LATEST: Final = 1 << 53


class Catalog:
    """An open catalogue, on disk (the sealer's) or in memory (a reader's)."""

    __slots__ = ("_finished", "_growth", "_index", "_reached", "_writing", "_written", "_written_at")

    def __init__(self, index: Index) -> None:
        self._index = index
        position = index.position()
        try:
            self._reached = msgspec.json.decode(position, type=Reached) if position else Reached()
        except msgspec.MsgspecError:
            self._reached = Reached()
        self._growth = Growth(self._earlier)
        self._finished: set[str] = set()  # requests pending in the index that are so no more
        self._writing: Generator[None, None, None] | None = None
        self._written: Growth | None = None  # what is being written
        self._written_at = 0

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
        """Close it. What is not written is read from the log again."""
        self._break_off()
        self._index.close()

    @property
    def reached(self) -> Reached:
        """Return how far it goes, with what is not yet written."""
        return self._reached

    # growing

    def note(self, runs: Iterable[Run], seen: Iterable[Seen]) -> None:
        """Take in the next records of the log, in memory."""
        rest = iter(seen)
        for run in runs:
            self._growth.note(run, rest)
            end = run.offset + sum(run.lengths) + len(run.lengths)
            self._reached = Reached(run.file, end, run.n + len(run.lengths) - 1)

    def take_in(self, directory: Path, limit: int) -> bool:
        """Take in up to `limit` records that the log has and the catalogue has not.

        Return whether there are more. Starts over when the catalogue is not of this log.
        """
        if not self._fits(directory):
            self._start_over()
        count = 0
        for run, seen in islice(_read(directory, self._reached), limit):
            self.note((run,), (seen,))
            count += 1
        return count == limit

    def keep_up(self, now: int) -> None:
        """Write a part of what is due; for every tenth of a second or so. Raises StoreUnavailable."""
        growth = self._growth
        if self._writing is None and growth.records:
            if growth.records < LARGE and 0 <= now - self._written_at < EVERY:
                return
            self._written_at = now
            self._begin()
        self._go_on()

    def write(self) -> None:
        """Write everything. Raises StoreUnavailable."""
        self._finish()
        if self._growth.records:
            self._begin()
            self._finish()

    def catch_up(self, directory: Path) -> None:
        """Take in and write all that the log has."""
        while self.take_in(directory, LARGE):
            self.write()
        self.write()

    def _begin(self) -> None:
        self._written, self._growth = self._growth, Growth(self._earlier)
        finished, self._finished = self._finished, set()
        self._writing = self._write(self._written, finished, self._reached)

    def _go_on(self) -> None:
        if self._writing is not None and next(self._writing, True):
            self._writing = self._written = None

    def _finish(self) -> None:
        while self._writing is not None:
            self._go_on()

    def _break_off(self) -> None:
        if self._writing is not None:
            self._writing.close()
        self._writing = self._written = None

    def _write(self, growth: Growth, finished: set[str], reached: Reached) -> Generator[None, None, None]:
        """Write in slices, all in one transaction: it counts when the last one is written."""
        tallies = [tally for tally in growth.tallies.values() if tally.owner]
        pending = [(request, tally.owner) for request, tally in growth.open.items()]  # as of `reached`
        many = max(SLICE, len(tallies) // SLICES + 1)
        with self._index.transaction():
            for start in range(0, len(tallies), many):
                self._write_slice(tallies[start : start + many])
                if start + many < len(tallies):
                    yield
            self._index.drop_pending(finished)
            self._index.add_pending(pending)
            self._index.set_position(msgspec.json.encode(reached))

    def _write_slice(self, tallies: list[Tally]) -> None:
        index = self._index
        index.add_places((tally.owner, file, packed) for tally in tallies for file, packed in tally.places())
        for tally in tallies:
            summary = self.session(tally.owner) or Summary(tally.owner)
            tally.add_to(summary)
            index.put_summary(tally.owner, min(summary.last, LATEST), msgspec.json.encode(summary))

    def _earlier(self, request: str) -> str | None:
        """Return, once, the owner of a request that was permitted before this growth."""
        if request in self._finished:
            return None
        written = self._written.open.get(request) if self._written is not None else None
        owner = written.owner if written is not None else self._index.pending(request)
        if owner is not None:
            self._finished.add(request)
        return owner

    def _start_over(self) -> None:
        self._break_off()
        with self._index.transaction():
            self._index.clear()
        self._growth, self._finished = Growth(self._earlier), set()
        self._reached = Reached()

    # reading

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
            for offset, length in PLACE.iter_unpack(packed):
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


def _read(directory: Path, reached: Reached) -> Iterator[tuple[Run, Glimpse]]:
    """Yield the records behind a position. What is no record is passed over: telling is for verify."""
    for text in lines_from(directory, reached.file, reached.offset):
        if not text.complete:
            continue
        try:
            line = parse(text.data)
            yield Run(line.n, text.file, text.offset, [len(text.data)]), glimpse(line.record)
        except Malformed:
            continue

"""The sealer: moves records from the journals of all processes into the sealed log, each exactly once.

Run by `service` in a thread of the control process, every tenth of a second or so. Order of a step:
read journals, write lines, sign the checkpoint (which also says how far each journal is sealed), only
then remove what is sealed. So a stop at any point repeats nothing and loses nothing. Never drops an
unreadable entry silently: a gap record takes its place. What only a later version of the program can read
is left to it.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from ztproxy.recording import journal as journals
from ztproxy.recording.admit import admit
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.entry import Entry, whole
from ztproxy.recording.glimpse import Seen
from ztproxy.recording.line import GapRecord, Malformed, encode_record, parse_record
from ztproxy.recording.log import FILE_SIZE, Log, LogUnavailable, sync_directory
from ztproxy.recording.passages import Passages
from ztproxy.recording.position import Position
from ztproxy.recording.summary import Run
from ztproxy.store.interface import StoreUnavailable

messages = logging.getLogger("ztproxy.recording")

BATCH: Final = 256  # entries read and written at once: so many fit where the processor has them at hand
STEP: Final = 16_384  # entries of one journal sealed in one step
EACH: Final = 2 * BATCH  # records between rests: a millisecond or so
RESTS: Final = 32  # in one step; a step that seals more than belongs to so many is followed by one without
PATIENCE: Final = 50  # steps a living process may show an unreadable entry before it counts as lost


class Sealer:
    """Holds the log of one node. Used from one thread at a time."""

    def __init__(
        self,
        directory: Path,
        journal_directory: Path,
        key_file: Path,
        *,
        origin: str,
        now: Callable[[], int],
        alive: Callable[[], Collection[str]],
        rest: Callable[[], object] = bool,
        file_size: int = FILE_SIZE,
    ) -> None:
        """Open or found the log in `directory` (see `Log.open`).

        `alive` tells the names of journals whose processes still run. A process must be known to it
        before it makes its journal. `rest` is called between batches, while there is no backlog, and may
        take a few milliseconds: others have the core then. Raises LogDamaged, LogUnavailable.
        """
        self._directory = directory
        self._journals = journal_directory
        self._alive = alive
        self._now = now
        self._rest = rest
        self._rests = RESTS  # left in this step
        self._rested_at = 0  # records at the last rest, or when the step began
        self._open_log = partial(Log.open, directory, key_file, origin=origin, now=now, file_size=file_size)
        self._log: Log | None = self._open_log()
        self._catalog: Catalog | None = None
        self._positions: dict[str, Position] = {}
        self._passages: dict[str, Passages] = {}
        self._unreadable: dict[str, int] = {}  # steps in a row
        self._given_up: set[str] = set()  # living, but unreadable for good
        self._marks: dict[str, int] = {}  # as written into the journals
        self._later_known: frozenset[str] = frozenset()  # journals of a later version that were told of
        self._listed = True  # the catalogue could be written the last time

    @property
    def count(self) -> int:
        """Return how many records are sealed."""
        return self._log.count if self._log else 0

    def step(self) -> int:
        """Seal what has been appended; return how many records. Raises LogDamaged, LogUnavailable.

        After an error nothing is lost; the next step starts from the files again.
        """
        try:
            log = self._log = self._log or self._reopen()
            return self._step(log)
        except OSError as error:
            self._abandon()
            raise LogUnavailable(f"{self._directory}: {error}") from error
        except BaseException:
            self._abandon()
            raise

    def close(self) -> None:
        """Let go of the log. What was not sealed waits in the journals."""
        try:
            if self._log is not None and self._catalog is not None:
                with suppress(StoreUnavailable):
                    self._catalog.write()
        finally:
            self._abandon()

    def _reopen(self) -> Log:
        self._positions.clear()
        self._passages.clear()
        self._unreadable.clear()
        self._given_up.clear()
        self._marks.clear()
        return self._open_log()

    def _abandon(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = None
        self._unlist()  # it may know of records that never came to the log

    def _step(self, log: Log) -> int:
        before = self._rested_at = log.count
        self._catch_up(log)
        found = journals.names(self._journals)
        later = self._later()
        alive = frozenset(self._alive())
        finished = [name for name in sorted(found) if self._drain(log, name, found[name], alive)]
        self._miss(log, {*found, *later}, alive)
        if log.count > before:
            log.flush()
            self._mark(found)
        self._keep_up()
        self._clean(log, found, finished, alive | later)
        self._rests = RESTS if log.count - before < RESTS * EACH else 0
        return log.count - before

    # reading journals

    def _drain(self, log: Log, name: str, segments: list[int], alive: frozenset[str]) -> bool:
        """Seal what a journal has; return True when nothing more can come from it."""
        if name in self._given_up:
            return name not in alive
        position = self._position(log, name, segments)
        for _ in range(STEP // BATCH):
            if position is None:
                return name not in alive
            position, more = self._read(log, name, position, segments, name in alive)
            if position is not None:
                self._positions[name] = position
            self._let_others(log)
            if not more:
                break
        return position is None and name not in alive

    def _later(self) -> frozenset[str]:
        """Return the journals that this version can not read; say so when there are others than before."""
        later = frozenset(journals.later(self._journals))
        if later - self._later_known:
            messages.error(
                "journals of a later version of the program wait for it", extra={"journals": sorted(later)}
            )
        self._later_known = later
        return later

    def _let_others(self, log: Log) -> None:
        """Rest when enough was sealed since the last time: all in one go would hold up requests."""
        if self._rests and log.count >= self._rested_at + EACH:
            self._rests, self._rested_at = self._rests - 1, log.count
            self._rest()

    def _position(self, log: Log, name: str, segments: list[int]) -> Position | None:
        """Return where to go on; None when the journal ends before that (all of it is sealed)."""
        if name in self._positions:
            return self._positions[name]
        sealed = log.journals.get(name)
        if sealed is None:
            sealed = self._marked(name, segments)
        entry = sealed + 1
        try:
            position: Position | None = journals.locate(self._journals, name, entry)
        except LookupError:
            reason = "a journal segment was removed or is damaged"
            position = self._skip(log, name, Position(0, 0, entry), segments, reason)
        if position is not None:
            self._positions[name] = position
        return position

    def _read(
        self, log: Log, name: str, position: Position, segments: list[int], alive: bool
    ) -> tuple[Position | None, bool]:
        """Seal one batch; return the next position (None: the end for good) and whether to go on."""
        try:
            passages = self._passages.setdefault(name, Passages())
            batch = journals.read(self._journals, name, position, limit=BATCH, passages=passages)
        except FileNotFoundError:
            return self._skip(log, name, position, segments, "a journal segment was removed"), True
        if batch.entries:
            self._seal(log, name, position.entry, batch.entries)
        position = batch.position
        if batch.torn:
            return self._torn(log, name, position, segments, alive)
        self._unreadable.pop(name, None)
        if not batch.more and segments[-1] > position.segment:
            return self._skip(log, name, position, segments, "a journal segment was removed"), True
        if batch.more or alive:
            return position, batch.more
        if journals.leftover(self._journals, name, position):
            return self._skip(log, name, position, segments, "the process ended within an entry"), True
        return None, False

    def _torn(
        self, log: Log, name: str, position: Position, segments: list[int], alive: bool
    ) -> tuple[Position | None, bool]:
        self._unreadable[name] = self._unreadable.get(name, 0) + 1
        if alive and self._unreadable[name] < PATIENCE:
            return position, False  # it may be in the middle of a store
        return self._skip(log, name, position, segments, "an entry is damaged"), True

    def _skip(
        self, log: Log, name: str, position: Position, segments: list[int], reason: str
    ) -> Position | None:
        """Put a gap in the place of what can not be read; return where the journal is readable again."""
        resumed = self._resume(name, position, segments)
        if resumed is None:
            self._gap(log, name, position.entry, position.entry, reason)
            self._given_up.add(name)
        elif resumed.entry > position.entry:
            self._gap(log, name, position.entry, resumed.entry - 1, reason)
        return resumed

    def _resume(self, name: str, position: Position, segments: list[int]) -> Position | None:
        """Return the beginning of the next readable segment that repeats nothing."""
        for segment in segments:
            first = self._first(name, segment) if segment > position.segment else None
            if first is not None and first >= position.entry:
                return Position(segment, entry=first)
        return None

    def _marked(self, name: str, segments: list[int]) -> int:
        """Return how far a journal says that it is sealed, 0 when there is nothing so far."""
        try:
            sealed = max(journals.marked(self._journals, name, segment) for segment in segments)
            journals.locate(self._journals, name, sealed + 1)
        except (FileNotFoundError, LookupError):
            return 0
        return sealed

    def _first(self, name: str, segment: int) -> int | None:
        try:
            return journals.first_entry(self._journals, name, segment)
        except FileNotFoundError:
            return None

    def _miss(self, log: Log, found: Collection[str], alive: frozenset[str]) -> None:
        """Say so when a journal disappeared that was not finished: what was in it is lost."""
        known = log.journals.keys() & (alive.union(self._positions))
        for name in sorted(known - set(found) - self._given_up):
            entry = log.journals[name] + 1
            self._gap(log, name, entry, entry, "the journal was removed")
            self._given_up.add(name)

    # writing the log

    def _seal(self, log: Log, name: str, first: int, entries: list[Entry]) -> None:
        try:
            seen = admit(entries)
        except Malformed:
            half = len(entries) // 2
            if half:  # so the good ones among them are not looked at one by one
                self._seal(log, name, first, entries[:half])
                self._seal(log, name, first + half, entries[half:])
            else:
                self._seal_odd(log, name, first, whole(entries[0]))
            return
        self._note(log.extend(name, first, entries), seen)

    def _seal_odd(self, log: Log, name: str, number: int, payload: bytes) -> None:
        """Seal what is a record on several lines; put a gap in the place of what is none."""
        try:
            records: list[Entry] = [encode_record(parse_record(payload))]
            seen = admit(records)
        except Malformed:
            self._gap(log, name, number, number, "an entry is not a record")
            return
        self._note(log.extend(name, number, records), seen)

    def _gap(self, log: Log, name: str, first: int, last: int, reason: str) -> None:
        gap = GapRecord(self._now(), reason, name, first, last)
        self._note([log.append(name, first, last, encode_record(gap))], [gap])

    # the catalogue is derived: it catches up, and never holds up the sealing

    def _note(self, runs: list[Run], seen: Sequence[Seen]) -> None:
        """List what was just added to the log, if all before that is listed."""
        catalog = self._catalog
        if catalog is None or catalog.reached.count + 1 != runs[0].n:
            return
        try:
            catalog.note(runs, seen)
        except Exception as failed:  # noqa: BLE001
            self._not_listed(failed)

    def _catch_up(self, log: Log) -> None:
        """List what is in the log and not yet listed: after a start, or after something went wrong."""
        try:
            catalog = self._catalog = self._catalog or Catalog.open(self._directory)
            if catalog.reached.count != log.count:
                catalog.take_in(self._directory, STEP)
        except Exception as failed:  # noqa: BLE001
            self._not_listed(failed)

    def _mark(self, names: Iterable[str]) -> None:
        """Write into journals how far they are sealed, if that changed. What counts is the checkpoint."""
        for name in names:
            position = self._positions.get(name)
            if position is not None and position.entry - 1 != self._marks.get(name):
                with suppress(OSError):
                    journals.mark(self._journals, name, position)
                    self._marks[name] = position.entry - 1

    def _keep_up(self) -> None:
        """Write what is due of the catalogue."""
        if self._catalog is None:
            return
        try:
            self._catalog.keep_up(self._now())
            self._listed = True
        except Exception as failed:  # noqa: BLE001
            self._not_listed(failed)

    def _not_listed(self, failed: Exception) -> None:
        if self._listed:
            bug = None if isinstance(failed, StoreUnavailable | OSError) else failed
            messages.error("the catalogue is not written", extra={"reason": str(failed)}, exc_info=bug)
        self._listed = False
        self._unlist()

    def _unlist(self) -> None:
        catalog, self._catalog = self._catalog, None
        if catalog is not None:
            with suppress(StoreUnavailable):
                catalog.close()

    def _clean(
        self, log: Log, found: dict[str, list[int]], finished: list[str], kept: frozenset[str]
    ) -> None:
        """Remove what is sealed. A journal is forgotten only when its files are gone for good.

        `kept` are journals that may grow, or that a later version has to read.
        """
        for name, segments in found.items():
            position = self._positions.get(name)
            for segment in segments:
                if name in finished:
                    journals.remove(self._journals, name, segment)
                elif position is not None and segment < position.segment:
                    journals.retire(self._journals, name, segment)
        for left in journals.unused(self._journals) if finished else ():
            if left.name.partition(".")[0] not in kept:
                left.unlink(missing_ok=True)
        gone = [name for name in log.journals if name not in kept and (name in finished or name not in found)]
        if gone:
            sync_directory(self._journals)
            for name in gone:
                self._forget(log, name)

    def _forget(self, log: Log, name: str) -> None:
        del log.journals[name]
        self._positions.pop(name, None)
        self._passages.pop(name, None)
        self._unreadable.pop(name, None)
        self._given_up.discard(name)
        self._marks.pop(name, None)

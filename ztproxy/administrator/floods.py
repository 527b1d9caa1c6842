"""Floods: refusals of callers that nobody knows are written one by one only up to a point, then counted.

With a record for each, whoever can connect could fill the disk, and with a full disk everybody is refused.
Asked by `administrator.audit` for such refusals only: what was permitted, and what was refused to a known
caller, is never counted here. Pure; bounded in memory, and in records per interval.
"""

from collections.abc import Iterator
from typing import Final

from ztproxy.model.record import DecisionRecord, FloodRecord
from ztproxy.net.rate import source_of

#: Per interval and source and code; more are counted.
SINGLY: Final = 10
#: Per interval, of all sources together.
ALL_SINGLY: Final = 1000
#: Pairs of source and code told apart; the rest is counted by code only.
PAIRS: Final = 2048
INTERVAL: Final = 60.0  # seconds from one summary to the next

_EVERYBODY: Final = ""


class _Run:
    """What came from one source with one code in this interval."""

    __slots__ = ("count", "first", "last", "written")

    def __init__(self) -> None:
        self.written = 0  # records of its own
        self.count = 0  # counted and not yet written
        self.first = 0
        self.last = 0


class Floods:
    """The refusals of one interval in one process."""

    def __init__(self, *, singly: int = SINGLY, all_singly: int = ALL_SINGLY, pairs: int = PAIRS) -> None:
        self._singly = singly
        self._all_singly = all_singly
        self._pairs = pairs
        self._runs: dict[tuple[str, str], _Run] = {}
        self._written = 0
        self.counted = 0  # refusals without a record of their own, since the start

    def sift(self, refused: DecisionRecord) -> DecisionRecord | FloodRecord | None:
        """Return what to write for a refusal: itself, the beginning of a flood, or nothing for now."""
        source, run = self._run(source_of(refused.ip), refused.code)
        if source != _EVERYBODY and run.written < self._singly and self._written < self._all_singly:
            run.written += 1
            self._written += 1
            return refused
        self.counted += 1
        if run.written <= self._singly:  # said at once: a crash could lose the count, not that there was one
            run.written = self._singly + 1
            return FloodRecord(refused.at, source, refused.code, 1, refused.at, refused.at)
        run.first = run.first or refused.at
        run.last = refused.at
        run.count += 1
        return None

    def summaries(self, now: int) -> Iterator[FloodRecord]:
        """Yield what was counted and begin anew. One counts as written when the next is asked for."""
        for (source, code), run in self._runs.items():
            if run.count:
                yield FloodRecord(now, source, code, run.count, run.first, run.last)
                run.count = run.first = run.last = 0
        self._runs.clear()
        self._written = 0

    def _run(self, source: str, code: str) -> tuple[str, _Run]:
        run = self._runs.get((source, code))
        if run is None:
            if len(self._runs) >= self._pairs:
                source = _EVERYBODY
            run = self._runs.setdefault((source, code), _Run())
        return source, run

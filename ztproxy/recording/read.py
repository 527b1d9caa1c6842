"""Reading recordings: which sessions there were, and what was done in one, as people understand it.

Called by `cli.recordings`. Works on a node's directory or on a copy, also while the sealer writes and on
read-only media. Shows what the log says; whether that is genuine says `recording.verify`.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ztproxy.model.record import (
    ConfigurationRecord,
    DecisionRecord,
    FloodRecord,
    OutcomeRecord,
    SessionRecord,
    SignalRecord,
    StandingRecord,
)
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.files import line_at, lines_from, log_files
from ztproxy.recording.line import GapRecord, Malformed, parse, parse_record
from ztproxy.recording.summary import Summary

MAX_EVENTS: Final = 100_000


class NoSuchSession(Exception):
    """No session or request, or more than one, has an id that starts so."""


class Exchange(Struct, frozen=True, tag="exchange", tag_field="kind"):
    """One request from decision to end. `n` are the numbers of its records in the log."""

    n: tuple[int, ...]
    decision: DecisionRecord | None = None  # None: its record lies before what is shown
    outcome: OutcomeRecord | None = None

    @property
    def finished(self) -> bool:
        """Say whether it is over: refused, answered or broken off."""
        return self.outcome is not None or (self.decision is not None and not self.decision.allow)


Event = (
    Exchange | SessionRecord | FloodRecord | ConfigurationRecord | StandingRecord | SignalRecord | GapRecord
)


class Reader:
    """An opened log directory. Raises OSError, StoreUnavailable."""

    def __init__(self, directory: Path) -> None:
        log_files(directory)  # a directory that can not be read is told now
        self._directory = directory
        self._catalog = Catalog.copy(directory)

    def close(self) -> None:
        """Let go of what it holds."""
        self._catalog.close()

    def refresh(self) -> None:
        """Take in what was sealed since."""
        self._catalog.catch_up(self._directory)

    def sessions(self, limit: int = 1000) -> list[Summary]:
        """Return the sessions, the last active first: live, ended, and those that a crash cut off."""
        return self._catalog.sessions(limit)

    def find(self, prefix: str) -> Summary:
        """Return the one session whose id is or starts with `prefix`. Raises NoSuchSession."""
        summary = self._catalog.session(prefix)
        if summary is None:
            matching = self._catalog.matching(prefix) if prefix else []
            if len(matching) > 1:
                some = ", ".join(matching[:5]) + (", …" if len(matching) > 5 else "")
                raise NoSuchSession(f"{prefix} could be any of {some}")
            summary = self._catalog.session(matching[0]) if matching else None
        if summary is None:
            raise NoSuchSession(f"no recorded session has an id that starts with {prefix!r}")
        return summary

    def events(self, session: str, limit: int = MAX_EVENTS) -> list[Event]:
        """Return what happened in a session, in order; of a very long one the last `limit` records."""
        records = deque(self._records(session, 0), maxlen=limit)
        story = Story()
        for n, record in records:
            story.add(n, record)
        return story.events()

    def request(self, prefix: str) -> Exchange:
        """Return the one request whose id (hex digits) is or starts so. Raises NoSuchSession."""
        wanted, story = f'"id":"{prefix}'.encode(), Story()
        for text in lines_from(self._directory, 1, 0):
            if wanted in text.data:
                with suppress(Malformed):
                    line = parse(text.data)
                    story.add(line.n, parse_record(line.record))
        found = [event for event in story.events() if isinstance(event, Exchange)]
        if len(found) != 1:
            how = "more than one recorded request has" if found else "no recorded request has"
            why = "" if found else "; of a flood of refusals only the first have, the others were counted"
            raise NoSuchSession(f"{how} a reference that starts with {prefix!r}{why}")
        return found[0]

    def follow(self, session: str) -> Iterator[Event | None]:
        """Yield events as they come to their end, and None whenever there is nothing new right now."""
        seen, story = 0, Story()
        while True:
            for n, record in self._records(session, seen):
                seen += 1
                event = story.add(n, record)
                if not isinstance(event, Exchange) or event.finished:
                    yield event
            yield None
            story.forget()
            self.refresh()

    def _records(
        self, session: str, start: int
    ) -> Iterator[tuple[int, Event | DecisionRecord | OutcomeRecord]]:
        for index, place in enumerate(self._catalog.places(session)):
            if index < start:
                continue
            try:
                line = parse(line_at(self._directory, *place))
                record = parse_record(line.record)
            except (Malformed, FileNotFoundError):
                yield 0, GapRecord(0, f"not readable: {place}", "", 0, 0)
                continue
            yield line.n, record


class Story:
    """Merges decisions and outcomes into exchanges, in the order of the decisions."""

    def __init__(self) -> None:
        self._events: dict[str | int, Event] = {}

    def add(self, n: int, record: Event | DecisionRecord | OutcomeRecord) -> Event:
        """Take in the next record; return the event it became part of."""
        event: Event
        if isinstance(record, DecisionRecord):
            event = Exchange((n,), record)
            self._events[record.id] = event
        elif isinstance(record, OutcomeRecord):
            before = self._events.get(record.id)
            known = before if isinstance(before, Exchange) else Exchange(())
            event = Exchange((*known.n, n), known.decision, record)
            self._events[record.id] = event
        else:
            event = record
            self._events[n or -len(self._events) - 1] = event
        return event

    def events(self) -> list[Event]:
        """Return everything so far."""
        return list(self._events.values())

    def forget(self) -> None:
        """Drop what is finished; the rest still waits for its outcome."""
        self._events = {
            key: event
            for key, event in self._events.items()
            if isinstance(event, Exchange) and not event.finished
        }


def as_json(event: Event) -> object:
    """Return an event as plain values for programs."""
    return msgspec.to_builtins(event)

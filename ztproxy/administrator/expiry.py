"""Whose session is over: marks those as ended that time or a standing has ended, so that the review shows it.

Run by the control process every few seconds. It knows from the feed, whichever node writes, when each
session would end, so that none is read before its time; all are read at the start, where the feed does not
go on, and when somebody's sessions have been ended. Workers need none of this: they refuse by what they hold.
It also sees to it that no ended session leaves behind what its provider could be asked with.
"""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Protocol

import msgspec

from ztproxy.administrator.standing import read_standings
from ztproxy.model.standing import Standing
from ztproxy.model.subject import Session
from ztproxy.store.interface import Change, Feed, Records
from ztproxy.trust.standing import ended_by

#: Uses may be reported this late by workers; an idle session is given that time. In ms.
REPORTING_DELAY: Final = 60_000
_PAGE: Final = 500

_decode: Final = msgspec.msgpack.Decoder(Session).decode
_decode_standing: Final = msgspec.msgpack.Decoder(Standing).decode


class Ending(Protocol):
    """What is asked of `administrator.sessions.Sessions`."""

    async def get(self, session_id: str) -> Session | None:
        """Return the session, ended or not."""

    async def end(self, session_id: str, by: str) -> bool:
        """End a session; False when it was over."""

    async def granted(self, after: str = "") -> Sequence[str]:
        """Return ids of sessions for which something to ask providers with is kept, a page at a time."""

    async def drop_grant(self, session_id: str) -> None:
        """Forget that of a session that is over."""


class Expiry:
    """When the sessions in `records` end. `now` in ms."""

    def __init__(self, records: Records, feed: Feed, now: Callable[[], int]) -> None:
        self._records = records
        self._feed = feed
        self._now = now
        self._position: tuple[int, int] | None = None  # number and stamp of the last change heard
        self._standings: dict[str, Standing] = {}
        self._ends: dict[str, int] = {}  # of each session that is not ended; 0: it is over
        self._queue: list[tuple[int, str]] = []  # by end; what `_ends` says otherwise is out of date
        self._left: set[str] = set()  # sessions that ended, and may have left something behind
        self._left_by_any = True

    async def sweep(self, sessions: Ending) -> int:
        """End those that are over; return how many. What fails is tried again by the next sweep."""
        await self._hear()
        late = self._now() - REPORTING_DELAY
        ended = 0
        while self._queue and self._queue[0][0] <= late:
            at, session_id = self._queue[0]
            session = await sessions.get(session_id) if self._ends.get(session_id) == at else None
            if session is None or session.ended_at:
                self._forget(at, session_id)
            elif (by := self._over(session, late)) is not None:
                ended += await sessions.end(session_id, by)
                self._forget(at, session_id)
            else:  # somebody used it: what was heard of that did not bring the end nearer
                self._ends[session_id] = ends_at(session)
                heapreplace(self._queue, (self._ends[session_id], session_id))
        await self._tidy(sessions)
        return ended

    async def _tidy(self, sessions: Ending) -> None:
        """What an ended session was granted goes, too: whoever ended it may have died before that."""
        after = ""
        while self._left_by_any:
            page = await sessions.granted(after)
            self._left.update(one for one in page if one not in self._ends)
            self._left_by_any = bool(page)
            after = page[-1] if page else ""
        while self._left:
            session_id = next(iter(self._left))
            await sessions.drop_grant(session_id)
            self._left.discard(session_id)

    def _over(self, session: Session, late: int) -> str | None:
        """Return what ended a session, None while it goes on."""
        if ends_at(session) <= late:
            return "expired"
        standing = ended_by(session, "", self._standings)
        return None if standing is None else standing.ended_by or "all sessions ended"

    def _forget(self, at: int, session_id: str) -> None:
        heappop(self._queue)
        if self._ends.get(session_id) == at:
            del self._ends[session_id]

    async def _hear(self) -> None:
        """Take in what was written since the last sweep."""
        while self._position is not None:
            version, stamp = self._position
            changes = await self._feed.after(version, stamp=stamp, limit=_PAGE)
            if changes is None or not all(map(self._take, changes)):
                break
            if len(changes) < _PAGE:
                return
        await self._read_all()

    def _take(self, change: Change) -> bool:
        """Take in a change; return False when more sessions than one may be over by it."""
        self._position = change.version, change.stamp
        if change.kind == "session":
            self._note(change.key, change.value)
        return change.kind != "standing" or not self._ends_sessions(change.key, change.value)

    def _ends_sessions(self, key: str, value: bytes | None) -> bool:
        """Take in a standing; return whether it ends sessions that were not ended before."""
        before = self._standings.get(key)
        if value is None:
            self._standings.pop(key, None)
            return False
        try:
            after = self._standings[key] = _decode_standing(value)
        except msgspec.MsgspecError:  # whoever it is about is refused by what workers make of it
            return False
        return after.ended_before > (before.ended_before if before is not None else 0)

    async def _read_all(self) -> None:
        """Begin anew, from a position before what is read: what is written meanwhile is heard after it."""
        self._position = None
        position = await self._feed.position()
        self._standings = await read_standings(self._records)
        self._ends, self._queue, after = {}, [], ""
        while page := await self._records.scan("session", after=after, limit=_PAGE):
            for stored in page:
                self._note(stored.key, stored.value)
            after = page[-1].key
        self._left.clear()
        self._left_by_any = True
        self._position = position

    def _note(self, session_id: str, value: bytes | None) -> None:
        try:
            session = _decode(value) if value is not None else None
        except msgspec.MsgspecError:  # nobody can use it, and others have to end meanwhile
            session = None
        if session is None or session.ended_at:
            self._ends.pop(session_id, None)
            self._left.add(session_id)
            return
        ends = 0 if ended_by(session, "", self._standings) is not None else ends_at(session)
        known = self._ends.get(session_id)
        if known is None or ends < known:  # a later end is found out when the earlier one comes
            self._ends[session_id] = ends
            heappush(self._queue, (ends, session_id))
            if len(self._queue) > 2 * len(self._ends) + _PAGE:
                self._queue = [(at, one) for one, at in self._ends.items()]
                heapify(self._queue)


def ends_at(session: Session) -> int:
    """Return when time alone ends a session (ms), as far as its uses are known."""
    if not session.idle_limit:
        return session.expires_at
    return min(session.expires_at, session.last_seen_at + session.idle_limit)

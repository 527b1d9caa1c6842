"""A worker's side of asking identity providers again: one question per session at a time, none too soon.

Implements `administrator.rechecked.Rechecks`. The asking itself is the control process's
(administrator.rechecks).
"""

import asyncio
from collections.abc import Callable
from typing import Final

from ztproxy.administrator.freshness import ASIDE, NEVER
from ztproxy.model.messages import RecheckWanted
from ztproxy.model.subject import Session
from ztproxy.service.link import Link

KEPT: Final = 100_000  # answers remembered; beyond it all are asked for anew
#: How long an answer without a time of its own is good for, in ms.
SILENT: Final = 1_000  # the control process did not answer

#: What an answer was about: the session as it was checked last, and since when it has to be asked anew.
_Key = tuple[str, int, int]


class LinkedRechecks:
    """Asks over the link. `now` in ms."""

    def __init__(self, link: Link, now: Callable[[], int]) -> None:
        self._link = link
        self._now = now
        self._answers: dict[_Key, tuple[str, int]] = {}  # the word, and until when it is not asked again
        self._asking: dict[_Key, asyncio.Task[None]] = {}
        self._since: dict[tuple[str, int], int] = {}  # of a session as it was checked last

    def state(self, session: Session, after: int, now: int) -> str:
        """Return what came of asking a moment ago: "kept", "impossible"; "" = it is time to ask."""
        found = self._answers.get((session.id, session.checked_at, after))
        return found[0] if found is not None and now < found[1] else ""

    def since(self, session: Session) -> int:
        """Return the first moment (ms) that a signal named and the provider has said nothing after."""
        return self._since.get((session.id, session.checked_at), NEVER)

    def begin(self, session: Session, after: int) -> None:
        """Ask beside the requests, once."""
        self._task(session, after)

    async def ask(self, session: Session, after: int) -> None:
        """Ask, and wait until memory holds what came of it. The link bounds the time."""
        await asyncio.shield(self._task(session, after))

    def _task(self, session: Session, after: int) -> asyncio.Task[None]:
        key = session.id, session.checked_at, after
        if after > session.checked_at:
            self._note_first(key[:2], after)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask(self, key: _Key) -> None:
        session_id, seen, after = key
        answer = await self._link.recheck(RecheckWanted(ask=0, session=session_id, seen=seen, after=after))
        now = self._now()
        if answer is None:
            self._remember(key, "kept", now + SILENT)
        elif answer.outcome in ("confirmed", "ended"):
            await self._link.sync()
            self._remember(key, "kept", now + SILENT)  # should memory not have it yet
        elif answer.outcome == "impossible":
            self._remember(key, "impossible", now + ASIDE)  # what the browser brings is another session value
        else:
            self._remember(key, "kept", max(answer.retry_at, now + SILENT))

    def _note_first(self, checked: tuple[str, int], after: int) -> None:
        if len(self._since) >= KEPT:
            self._since.clear()
        self._since.setdefault(checked, after)

    def _remember(self, key: _Key, word: str, until: int) -> None:
        if len(self._answers) >= KEPT:
            self._answers.clear()
        self._answers[key] = word, until

"""Which sessions are in use, as all workers of a node report it: written together, each use once.

Filled by `service.hub`, written every second by the control process. Holds at most one entry per session that
workers know. What the store does not take now is kept and tried again: a session in use must not end as idle
because Redis was away for a minute.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

BATCH: Final = 2_000  # sessions in one step: others who write come in between

#: Writes when sessions were in use; returns those it could not write (administrator.sessions.Sessions.touch).
Touch = Callable[[Mapping[str, int]], Awaitable[Sequence[str]]]


class Uses:
    """Uses that are not written yet: session ids and times in ms."""

    def __init__(self, touch: Touch) -> None:
        self._touch = touch
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, sessions: Iterable[str], at: int) -> None:
        """Note a worker's report."""
        waiting = self._waiting
        for session_id in sessions:
            waiting[session_id] = max(at, waiting.get(session_id, 0))

    async def write(self) -> None:
        """Write what waits now."""
        waiting, self._waiting = self._waiting, {}
        left = list(waiting.items())
        while left:
            some, left = dict(left[:BATCH]), left[BATCH:]
            failed = await self._touch(some)
            if failed:
                for session_id, at in [*((one, some[one]) for one in failed), *left]:
                    self.note((session_id,), at)
                return

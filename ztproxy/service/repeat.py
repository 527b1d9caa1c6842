"""Work in the background of the control process: done again and again, whatever happens to it once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.recording.log import LogUnavailable
from ztproxy.store.interface import StoreUnavailable

log = logging.getLogger("ztproxy.control")


class Repeat:
    """Does a thing every few seconds while the block runs. A failure is logged; the next try may succeed."""

    def __init__(self, seconds: float, step: Callable[[], Awaitable[object]]) -> None:
        self._seconds = seconds
        self._step = step

    def __enter__(self) -> "Repeat":
        self._task = asyncio.create_task(self._run())
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()

    async def finish(self) -> None:
        """Stop repeating and do it one last time."""
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._once()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self._once()

    async def _once(self) -> None:
        try:
            await self._step()
        except (AuditUnavailable, LogUnavailable, StoreUnavailable, OSError) as failed:
            log.error("background work failed, trying again", extra={"reason": str(failed)})
        except Exception:  # a bug met once must not end the sealing of records or of sessions for good
            log.exception("background work failed, trying again")

"""Drives the live paths of a worker on its loop: in small steps, with other callers' turns between them.

Made by `service.worker`. Knows when something is decided again, never what.
"""

import asyncio
from typing import Final

from ztproxy.administrator.paths import Paths

PULSE: Final = 0.05  # seconds between looks at deadlines


class Pacing:
    """The one timer of all live paths, and the step that goes on while some of them wait."""

    def __init__(self) -> None:
        self._paths: Paths | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, paths: Paths) -> None:
        """Begin, on the running loop."""
        self._paths = paths
        self._loop = asyncio.get_running_loop()
        self._pulse()
        self._step()

    def stop(self) -> None:
        """Go on no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    def wake(self) -> None:
        """Somebody waits to be decided again."""
        if self._loop is not None:
            self._loop.call_soon(self._step)

    def _pulse(self) -> None:
        if self._loop is not None and self._paths is not None:
            self._timer = self._loop.call_later(PULSE, self._pulse)  # first, so that a fault stops nothing
            self._paths.pulse()

    def _step(self) -> None:
        if self._loop is None or self._paths is None:
            return
        more = True  # also after a fault: whoever waits to be decided again must not wait for ever
        try:
            more = self._paths.step()
        finally:
            if more:
                self._loop.call_soon(self._step)

"""Renewing the certificate in the last third of its life, or sooner if proxies do not believe it any more.

Run by `connector.program`. A portal that does not answer is asked again after growing pauses. A clock that is
wrong must not end a connector: what counts is the portal's time, as far as it is known.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ztproxy.connector.enrolment import renew
from ztproxy.connector.state import FOR_GOOD, ConnectorError, Folder
from ztproxy.crypto.ids import Entropy
from ztproxy.crypto.template import BACKDATE
from ztproxy.net.clock import Clock
from ztproxy.net.portal import PortalRefused, PortalUnreachable

#: First and longest pause after a failure, and the longest between two looks at the clock, which may be set
#: meanwhile (s).
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: A clock that differs by more than this (ms) is told of.
NOTABLE: Final = 20_000

log = logging.getLogger("ztproxy.connector")


class Renewal:
    """Keeps one certificate young. `renewed` is called when there is another one."""

    def __init__(
        self,
        folder: Folder,
        *,
        ca: Path | None,
        clock: Clock,
        entropy: Entropy,
        renewed: Callable[[], None],
    ) -> None:
        self._folder = folder
        self.ca = ca
        self._clock = clock
        self._entropy = entropy
        self._renewed = renewed
        self._doubted = False
        self._ahead = 0  # ms by which the portal's clock is ahead of ours

    async def run(self) -> None:
        """Go on until cancelled. Raises ConnectorError when this connector was revoked."""
        pause = FIRST_PAUSE
        while True:
            due = self.due()
            if due > 0:
                pause = FIRST_PAUSE
                await asyncio.sleep(min(due, LONGEST_PAUSE))
            elif await self._renew():
                pause = FIRST_PAUSE
            else:
                await asyncio.sleep(pause * (0.5 + self._entropy(1)[0] / 512))
                pause = min(pause * 2, LONGEST_PAUSE)

    def doubt(self) -> None:
        """A proxy does not let us in: ask soon whether we are still who we were."""
        self._doubted = True

    def due(self) -> float:
        """Return the seconds until the certificate is to be renewed, 0 or less when that has come.

        It has in the last third of its life, or after an eighth of it if there is doubt: so few are good at
        once, however often we are refused.
        """
        begins, ends = self._folder.term()
        life = ends - begins
        at = begins + life // 8 if self._doubted else ends - life // 3
        return (at - self._now()) / 1000

    def _now(self) -> int:
        return self._clock.now() + self._ahead

    async def _renew(self) -> bool:
        """Try once; False when it has to be tried again after a pause."""
        try:
            await renew(self._folder, self._now(), self.ca)
        except PortalRefused as refused:
            return self._refused(refused)
        except PortalUnreachable as error:
            log.warning("not renewed: the portal does not answer", extra={"why": str(error)})
            return False
        except ConnectorError as error:  # a full disk may be emptied: try again
            log.warning("not renewed", extra={"why": str(error)})
            return False
        self._doubted = False
        begins, ends = self._folder.term()
        self._adjust(begins + BACKDATE)
        log.info("the certificate was renewed", extra={"ends": ends})
        self._renewed()
        return True

    def _refused(self, refused: PortalRefused) -> bool:
        if refused.code == "connector-revoked":
            raise ConnectorError("this connector was revoked; have it enrolled anew", FOR_GOOD) from refused
        if refused.code == "statement-invalid" and refused.date and self._adjust(refused.date):
            return True  # signed for another time than the portal's: again at once
        log.warning(
            "not renewed: the portal refuses",
            extra={"code": refused.code or f"http-{refused.status}", "why": str(refused)},
        )
        return False

    def _adjust(self, portal_now: int) -> bool:
        """Note the portal's time; True when it is notably another one than was assumed."""
        before, ahead = self._ahead, portal_now - self._clock.now()
        self._ahead = ahead if abs(ahead) > NOTABLE else 0
        if abs(self._ahead - before) <= NOTABLE:
            return False
        way = "behind" if ahead > 0 else "ahead of"
        seconds = abs(ahead) // 1000
        log.warning(f"this machine's clock is {way} the portal's: set it", extra={"by_seconds": seconds})
        return True

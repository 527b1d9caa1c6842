"""The agent's rounds: renew the certificate when it is due, look at the device, report, wait.

Called by `agent.program.run`. Waiting ends early when the posture file changes, so that bad news travels at
once; a portal that does not answer is asked again with growing pauses. It stops by being cancelled.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ztproxy.agent import collect, posture_file
from ztproxy.agent.portal import Portal, Taken
from ztproxy.agent.posture_file import Seen
from ztproxy.agent.state import AgentError, Folder, Identity, Status
from ztproxy.crypto import posture_document, statements
from ztproxy.crypto.ids import Entropy, new_token
from ztproxy.crypto.jose import SigningKey, sign
from ztproxy.crypto.posture_document import PostureDocument
from ztproxy.net.clock import Clock
from ztproxy.net.portal import Credentials, PortalRefused, PortalUnreachable

#: How often the posture file is looked at, in seconds.
LOOK_EVERY: Final = 0.2
#: First and longest pause after a failure, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

_log = logging.getLogger(__name__)


class Reporter:
    """Reports one device. `interval` in seconds; `file` replaces the agent's own checks."""

    def __init__(
        self,
        folder: Folder,
        identity: Identity,
        signer: SigningKey,
        *,
        clock: Clock,
        entropy: Entropy,
        interval: float,
        file: Path | None,
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._signer = signer
        self._portal = Portal(identity.portal)
        self._clock = clock
        self._entropy = entropy
        self._interval = interval
        self._file = file
        self._os = collect.os_name()

    async def run(self) -> None:
        """Go round until cancelled."""
        pause = FIRST_PAUSE
        while True:
            seen = self._look()
            if await self._round(seen):
                pause = FIRST_PAUSE
                await self._changed(seen, self._interval)
            else:
                await self._changed(seen, self._jittered(pause))
                pause = min(pause * 2, LONGEST_PAUSE, max(self._interval, FIRST_PAUSE))

    async def _round(self, seen: Seen) -> bool:
        """One renewal if due and one report; False when it has to be tried again soon."""
        try:
            await self._renew_if_due()
            taken = await self._report()
            accepted = Status(accepted=True, seq=taken.seq, healthy=taken.healthy, checks=taken.checks)
            await self._remember(accepted, seen)
        except PortalRefused as refused:
            await self._refused(refused)
        except PortalUnreachable as error:
            await self._failed("portal-unreachable", error)
        except AgentError as error:  # a full disk may be emptied: try again
            await self._failed("folder-unusable", error)
        else:
            return True
        return False

    async def _report(self) -> Taken:
        now = self._clock.now()
        checks, source = await asyncio.to_thread(self._observe, now)
        seq = await asyncio.to_thread(self._folder.next_seq, now)
        document = PostureDocument(seq=seq, source=source, os=self._os, checks=checks)
        claims = posture_document.build(
            document, self._identity.id, self._identity.portal, now, new_token(self._entropy)
        )
        statement = sign(claims, self._signer, posture_document.TYPE)
        return await self._portal.report(self._credentials(), statement)

    def _observe(self, now: int) -> tuple[dict[str, posture_document.Observation], str]:
        if self._file is not None:
            return posture_file.read(self._file, now), posture_file.SOURCE
        return collect.collect(now), collect.SOURCE

    async def _renew_if_due(self) -> None:
        """Renew in the last third of the certificate's life."""
        now = self._clock.now()
        begins, ends = self._folder.certificate_term()
        if now < ends - (ends - begins) // 3:
            return
        claims = statements.renewal(self._identity.id, self._identity.portal, now)
        statement = sign(claims, self._signer, statements.RENEWAL)
        issued = await self._portal.renew(self._credentials(), statement)
        await asyncio.to_thread(self._folder.write_certificate, issued.certificate)
        _log.info("the certificate was renewed")

    def _credentials(self) -> Credentials:
        """Shows the certificate only while it is valid: one that is over would close the door to renewal."""
        folder = self._folder
        ca = folder.ca_file if folder.ca_file.exists() else None
        begins, ends = folder.certificate_term()
        if not begins <= self._clock.now() < ends:
            return Credentials(ca=ca)
        return Credentials(ca=ca, certificate=folder.certificate_file, key=folder.key_file)

    async def _refused(self, refused: PortalRefused) -> None:
        if refused.code == "posture-replayed":
            with suppress(AgentError):
                await asyncio.to_thread(self._folder.skip_seq, self._clock.now())
        await self._failed(refused.code or f"http-{refused.status}", refused)

    async def _failed(self, code: str, error: Exception) -> None:
        _log.warning("not reported (%s): %s", code, error)
        with suppress(AgentError):
            await self._remember(Status(error=code), Seen())

    async def _remember(self, status: Status, seen: Seen) -> None:
        whole = replace(
            status,
            at=self._clock.now(),
            certificate_ends=self._folder.certificate_term()[1],
            posture_file=seen.modified,
        )
        await asyncio.to_thread(self._folder.write_status, whole)

    # ------------------------------------------------------------------ waiting

    def _look(self) -> Seen:
        return Seen() if self._file is None else posture_file.look(self._file)

    async def _changed(self, seen: Seen, seconds: float) -> None:
        """Return when the posture file is another one than was `seen`, or after `seconds`."""
        if self._file is None:
            await asyncio.sleep(seconds)
            return
        ends = self._clock.monotonic() + seconds
        while self._look() == seen and self._clock.monotonic() < ends:  # noqa: ASYNC110 files have no events
            await asyncio.sleep(LOOK_EVERY)

    def _jittered(self, pause: float) -> float:
        """Between one half and the whole of a pause, so that agents do not come back all at once."""
        return pause * (0.5 + self._entropy(1)[0] / 512)

"""Keeps one transmitter's stream alive and known: made, enabled, verified again and again, and polled.

Started by the control process for each transmitter; works only on the node that holds the lease. Whatever
goes wrong makes the source stale, in words, and is tried again later and later, up to a minute.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec.structs import replace

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.signals.lease import Lease
from ztproxy.administrator.signals.receiver import Receiver
from ztproxy.administrator.signals.sources import Kept, Sources
from ztproxy.net.clock import Clock
from ztproxy.store.interface import StoreUnavailable
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError
from ztproxy.trust.signals.remote import RemoteRefused, Stream
from ztproxy.trust.signals.token import SetRefused

log = logging.getLogger("ztproxy.signals")

LONGEST_BACK_OFF: Final = 60.0  # seconds
IDLE: Final = 1.0  # seconds between looks whether there is something to do

#: What may go wrong outside of us. TimeoutError: nothing of ours waits that long.
BROKEN: Final = (TemporaryProviderError, SignInRefused, RemoteRefused, StoreUnavailable, AuditUnavailable)


class Keeper:
    """Keeps one stream. `run` never returns."""

    def __init__(
        self,
        receiver: Receiver,
        sources: Sources,
        lease: Lease,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._receiver = receiver
        self._remote = receiver.remote
        self._transmitter = receiver.transmitter
        self._sources = sources
        self._lease = lease
        self._clock = clock
        self._entropy = entropy
        self._due = 0.0  # monotonic second of the next look at the stream
        self._ack: list[str] = []
        self._errors: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Keep the stream until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._keep))
            if self._transmitter.delivery == "poll":
                group.create_task(self._again(self._poll))

    async def _again(self, step: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Do a step again and again; after failures later and later."""
        failures = 0
        while True:
            try:
                busy = self._lease.held and bool(await self._lease.while_held(step()))
                failures = 0
            except BROKEN as broken:
                failures, busy = failures + 1, False
                await self._failing(broken)
            except Exception:  # a bug met once must not make us deaf for good
                failures, busy = failures + 1, False
                log.exception("a stream of signals can not be kept")
            if not busy:
                await asyncio.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        """Seconds until the next try, spread so that nodes and transmitters do not meet."""
        if not failures:
            return IDLE
        return min(2.0 ** (failures - 1), LONGEST_BACK_OFF) * (0.75 + self._entropy(1)[0] / 512)

    async def _failing(self, broken: Exception) -> None:
        name = self._transmitter.name
        log.warning("a stream of signals is not well", extra={"source": name, "reason": str(broken)})
        try:
            await self._sources.failing(name, str(broken))
        except StoreUnavailable:
            return  # then everybody's facts are getting old by themselves

    # ------------------------------------------------------------------ the stream

    async def _keep(self) -> bool:
        """Look at the stream when it is time to."""
        now = self._clock.monotonic()
        if now < self._due:
            return False
        kept = await self._sources.kept(self._transmitter.name)
        stream = await self._remote.keep_stream(kept.stream)
        every = _every(self._transmitter.verify_every, stream)
        if kept.expected and self._clock.now() - kept.asked_at >= every:
            await self._sources.failing(self._transmitter.name, "a verification did not arrive")
        kept = replace(kept, stream=stream.id, endpoint=stream.endpoint, every=every)
        if await self._flows(stream.id):
            await self._verify(kept)
        else:
            await self._sources.keep(self._transmitter.name, replace(kept, expected=""))
        self._due = now + every / 1000
        return False

    async def _flows(self, stream_id: str) -> bool:
        """Learn the stream's status; ask for it to flow when somebody has stopped it."""
        if not (await self._remote.metadata()).status_endpoint:
            return True
        status, reason = await self._remote.status(stream_id)
        if status == "enabled":
            source = await self._sources.get(self._transmitter.name)
            if source is not None and source.state in ("paused", "disabled"):
                await self._sources.failing(self._transmitter.name, "enabled again, and not verified yet")
            return True
        await self._sources.told(self._transmitter.name, status, reason)
        return await self._remote.enable(stream_id)

    async def _verify(self, kept: Kept) -> None:
        """Ask for a verification event; its state is kept first, so that it can not come before."""
        name = self._transmitter.name
        if not (await self._remote.metadata()).verification_endpoint:
            await self._sources.keep(name, replace(kept, expected="", asked_at=self._clock.now()))
            return
        state = base64.urlsafe_b64encode(self._entropy(18)).decode()
        await self._sources.keep(name, replace(kept, expected=state, asked_at=self._clock.now()))
        await self._remote.ask_for_verification(kept.stream, state)

    # ------------------------------------------------------------------ polls

    async def _poll(self) -> bool:
        """Ask once, take what comes; what was taken is acknowledged with the next question."""
        name = self._transmitter.name
        endpoint = (await self._sources.kept(name)).endpoint
        if not endpoint:
            return False
        pending = bool(self._ack or self._errors)
        polled = await self._remote.poll(endpoint, self._ack, self._errors, wait=not pending)
        self._ack, self._errors = [], {}
        source = await self._sources.get(name)
        if source is not None and source.state == "ok":
            await self._sources.heard(name)
        failed: Exception | None = None
        for jti, token in polled.sets.items():
            try:
                await self._take(jti, token)
            except Exception as broken:  # noqa: BLE001  one that can not be taken now must not hide the others
                failed = failed or broken
        if failed is not None:
            raise failed
        return True

    async def _take(self, jti: str, token: str) -> None:
        try:
            await self._receiver.receive(token)
        except SetRefused as refused:
            self._errors[jti] = {"err": refused.err, "description": refused.description}
        else:
            self._ack.append(jti)


def _every(wanted: int, stream: Stream) -> int:
    """ms between looks: as often as the stream allows, and often enough that it is not given up."""
    every = max(wanted, stream.min_verification)
    return (
        min(every, max(stream.inactivity // 2, stream.min_verification, 1000)) if stream.inactivity else every
    )

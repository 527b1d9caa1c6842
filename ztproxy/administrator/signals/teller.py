"""Reads the feed of changes and tells receivers what it means; pushes what waits for them.

Started by the control process, works on the node that holds the lease. What was told is remembered in the
store, so that another node goes on where this one stopped: every event is told at least once.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from ztproxy.administrator.signals.lease import Lease
from ztproxy.administrator.signals.streams import Stream, Streams, Told
from ztproxy.administrator.signals.telling import Telling, compliance, established, presented, revoked
from ztproxy.model.subject import Handle, Posture, Session
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Change, Records, Store, StoreUnavailable
from ztproxy.trust.identity.fetch import ask
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError
from ztproxy.trust.signals.token import TYPE
from ztproxy.trust.signals.transmitter import PUSH

log = logging.getLogger("ztproxy.signals")

BATCH: Final = 500
LONGEST_BACK_OFF: Final = 60.0  # seconds
_NEW: Final = 600_000  # ms: a session that began longer ago is no news
_SILENT: Final = ("expired", "signed in again")
_LIMIT: Final = 16 * 1024
_decode_session = msgspec.msgpack.Decoder(Session).decode
_decode_handle = msgspec.msgpack.Decoder(Handle).decode
_decode_posture = msgspec.msgpack.Decoder(Posture).decode


class _News(NamedTuple):
    """What is to be told, if anything, and what is to be remembered of it then."""

    telling: Telling | None
    mark: str = ""  # key of the record "told"
    word: bytes = b""
    kept_until: int = 0


class Teller:
    """Tells all receivers. `portal` is the portal's host, whose handles are no news."""

    def __init__(
        self, store: Store, streams: Streams, told: Sequence[Told], lease: Lease, clock: Clock, portal: str
    ) -> None:
        self._store = store
        self._records: Records = store
        self._streams = streams
        self._told = told
        self._lease = lease
        self._clock = clock
        self._portal = portal

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            for told in self._told:
                group.create_task(self._push(told, http))

    async def _read(self) -> None:
        """Follow the feed; a failure is tried again, from where it was."""
        while True:
            try:
                if self._lease.held:
                    await self._lease.while_held(self._follow())
                    continue
            except StoreUnavailable as away:
                log.warning("signals can not be told", extra={"reason": str(away)})
            except Exception:  # a bug met once must not make us silent for good
                log.exception("signals can not be told")
            await asyncio.sleep(1.0)

    async def _follow(self) -> None:
        """Read on from where somebody stopped, until the lease is gone."""
        stored = await self._records.get("told", "cursor")
        version = await self._store.head() if stored is None else int(stored.value)
        kept = version if stored is not None else -1
        while self._lease.held:
            changes = await self._store.after(version, limit=BATCH)
            if changes is None:  # more happened than the feed keeps: what is missing can not be told any more
                log.error("signals were not told: the feed has gone on too far")
                version = await self._store.head()
                continue
            news = [await self._pass_on(change) for change in changes]
            version = changes[-1].version if changes else version
            if any(news) or kept < 0 or version - kept > BATCH:  # writing it down is a change by itself
                await self._records.put("told", "cursor", str(version).encode())
                kept = version
            if not changes:
                await self._store.wait(version, 1.0)

    async def _pass_on(self, change: Change) -> bool:
        """Tell receivers what it means, if anything. It is remembered only then: nothing is left out."""
        news = await self._news(change)
        if news is None:
            return False
        if news.telling is not None:
            for told in self._told:
                await self._streams.tell(told, news.telling)
        if news.mark:
            await self._records.put("told", news.mark, news.word, expires_at=news.kept_until)
        return True

    async def _news(self, change: Change) -> "_News | None":
        if change.value is None:
            return None
        if change.kind == "session":
            return await self._of_session(_decode_session(change.value))
        if change.kind == "handle":
            return await self._of_handle(_decode_handle(change.value))
        if change.kind == "posture":
            return await self._of_posture(_decode_posture(change.value))
        return None

    async def _of_session(self, session: Session) -> "_News | None":
        key = f"session:{session.id}"
        stored = await self._records.get("told", key)
        word = b"revoked" if session.ended_at else b"established"
        if stored is not None and stored.value in (word, b"revoked"):
            return None
        telling: Telling | None = None
        if session.ended_at:
            telling = None if session.ended_by in _SILENT else revoked(session)
        elif self._clock.now() - session.created_at < _NEW:
            telling = established(session)
        return _News(telling, key, word, session.expires_at + _NEW)

    async def _of_handle(self, handle: Handle) -> "_News | None":
        if handle.host == self._portal or self._clock.now() - handle.created_at > _NEW:
            return None
        stored = await self._records.get("session", handle.session_id)
        if stored is None:
            return None
        return _News(presented(_decode_session(stored.value), handle.created_at))

    async def _of_posture(self, posture: Posture) -> "_News | None":
        key, word = f"device:{posture.device_id}", b"healthy" if posture.healthy else b"unhealthy"
        stored = await self._records.get("told", key)
        if stored is not None and stored.value == word:
            return None
        telling = None
        if stored is not None or not posture.healthy:
            telling = compliance(posture.device_id, posture.reported_at, healthy=posture.healthy)
        return _News(telling, key, word)

    # ------------------------------------------------------------------ pushes

    async def _push(self, told: Told, http: aiohttp.ClientSession) -> None:
        """Deliver what waits for one receiver, in order; later and later while it does not take it."""
        failures = 0
        while True:
            busy = False
            try:
                stream = await self._streams.get(told.name) if self._lease.held else None
                if stream is not None and stream.method == PUSH and stream.status != "paused":
                    busy = bool(await self._lease.while_held(self._deliver(told, stream, http)))
                failures = 0
            except (TemporaryProviderError, SignInRefused, StoreUnavailable) as away:
                failures += 1
                log.warning("a receiver takes no signals", extra={"receiver": told.name, "reason": str(away)})
            except Exception:
                failures += 1
                log.exception("signals can not be pushed")
            if not busy:
                await asyncio.sleep(min(0.25 * 2.0**failures, LONGEST_BACK_OFF))

    async def _deliver(self, told: Told, stream: Stream, http: aiohttp.ClientSession) -> bool:
        """Push a few tokens; False when none waits. A token that is refused for what it is, is taken away."""
        waiting = await self._streams.waiting(told.name, 20)
        headers: dict[str, Any] = {"Content-Type": f"application/{TYPE}"}
        if stream.authorization:
            headers["Authorization"] = stream.authorization
        for key, one in waiting:
            answer = await ask(
                http, "POST", stream.endpoint, limit=_LIMIT, data=one.token, headers=headers, bare=True
            )
            refused = answer.status == 400 and answer.body.get("err") != "authentication_failed"
            if answer.status not in (200, 202) and not refused:
                raise TemporaryProviderError(f"answered {answer.status}")
            if refused:
                log.warning("a receiver refused a signal", extra={"receiver": told.name})
            await self._streams.delivered(key)
        return bool(waiting)

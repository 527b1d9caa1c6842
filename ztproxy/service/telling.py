"""Our own signals, put together for one configuration: whom we tell, with which keys, by which endpoints.

Called by `service.office`. Background work begins when the office opens and ends before it closes.
"""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any, Final

from aiohttp import web

from ztproxy.administrator.signals.lease import RENEW, Lease
from ztproxy.administrator.signals.streams import Streams
from ztproxy.administrator.signals.teller import Teller
from ztproxy.api import transmitter
from ztproxy.config.settings import Settings
from ztproxy.crypto import jose
from ztproxy.crypto.jwk import read_key_set
from ztproxy.net import keyfiles
from ztproxy.net.clock import Clock, entropy
from ztproxy.service.repeat import Repeat
from ztproxy.service.state import StateDirectory
from ztproxy.store.interface import Records, Store, StoreUnavailable
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.signals.token import TYPE

_ACCESS: Final = "at+jwt"
_KEYS: Final = 64  # nodes


class Telling:
    """The transmitter's end of one configuration."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, state: StateDirectory) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._told = {one.name: one for one in settings.told()}
        self._running = AsyncExitStack()
        self._keys: list[dict[str, str]] = []
        self._lease = Lease(store, clock, "telling", entropy(16).hex())
        if self._told:
            self._key = jose.rsa_signing_key(keyfiles.load_or_create_rsa_key(state.keys / "signals.pem"))
            self._keys = [self._key.jwk]
        self._streams = Streams(store, clock, self._sign, settings.portal_origin)

    def routes(self) -> list[web.RouteDef]:
        """Return what is served on the portal's host."""
        return transmitter.routes(
            transmitter.Desk(
                streams=self._streams,
                told=self._told,
                issuer=self._settings.portal_origin,
                host=self._settings.portal.host,
                clock=self._clock,
                entropy=entropy,
                sign=lambda claims: jose.sign(claims, self._key, _ACCESS),
                read=self._read,
                keys=lambda: self._keys,
                wait=self._wait,
            )
        )

    async def start(self) -> None:
        """Begin to tell. Raises StoreUnavailable."""
        if not self._told:
            return
        await self._share()
        await self._lease.renew()
        self._running.push_async_callback(self._lease.release)
        self._running.enter_context(Repeat(RENEW, self._lease.renew))
        self._running.enter_context(Repeat(RENEW, self._share))
        http = await self._running.enter_async_context(http_session())
        told = tuple(self._told.values())
        host = self._settings.portal.host
        teller = Teller(self._store, self._streams, told, self._lease, self._clock, host)
        task = asyncio.create_task(teller.run(http))
        self._running.push_async_callback(_ended, task)

    async def stop(self) -> None:
        """End the background work and let another node take over."""
        await self._running.aclose()

    def _sign(self, claims: dict[str, Any]) -> str:
        return jose.sign(claims, self._key, TYPE)

    def _read(self, token: str) -> dict[str, Any] | None:
        """Claims of an access token that any of our nodes signed."""
        issuer = self._settings.portal_origin
        keys = read_key_set(json.dumps({"keys": self._keys}).encode(), ("RS256",))
        expected = jose.Expected(issuer=issuer, audience=issuer, types=(_ACCESS,), longest_life=3600)
        try:
            return jose.verify(token, keys, expected, self._clock.now())
        except jose.JoseError:
            return None

    async def _share(self) -> None:
        """Every node signs with a key of its own; all of them publish all public halves."""
        await _publish(self._store, self._key)
        found = await self._store.scan("signals-key", limit=_KEYS)
        self._keys = [json.loads(one.value) for one in found]

    async def _wait(self, seconds: float) -> None:
        """Until something was written, by whomever: then there may be something to tell."""
        try:
            await self._store.wait(await self._store.head(), seconds)
            await asyncio.sleep(0.2)
        except StoreUnavailable:
            return


async def _publish(records: Records, key: jose.SigningKey) -> None:
    if await records.get("signals-key", key.kid) is None:
        await records.put("signals-key", key.kid, json.dumps(key.jwk).encode())


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})

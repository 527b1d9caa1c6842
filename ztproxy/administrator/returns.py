"""Beside asking providers again: giving grants back that nobody needs any more, and noting how providers do.

Used by the control process for `administrator.vault` and `administrator.rechecks`. Best effort both: nothing
waits for a provider here, and no failure of it keeps a session alive.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from ztproxy.model.standing import Source
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Records, StoreUnavailable
from ztproxy.trust.identity.provider import Granted, SignInRefused, TemporaryProviderError

log = logging.getLogger("ztproxy.rechecks")

UNDER_WAY: Final = 256  # what is more is only forgotten; it expires at the provider
LONGEST: Final = 10.0  # seconds
NOTED_EVERY: Final = 5_000  # ms between notes that a provider is still well, or still is not

_encode = msgspec.msgpack.Encoder().encode


class Client(Protocol):
    """A provider that takes grants back (trust.identity.oidc)."""

    async def revoke(self, held: Granted) -> None:
        """Give a grant back."""


class Returns:
    """Gives grants back beside everything else."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = clients
        self._under_way: set[asyncio.Task[None]] = set()

    def give_back(self, provider: str, granted: Granted) -> None:
        """Have a grant revoked at the provider it is from, soon or not at all."""
        client = self._clients.get(provider)
        if client is None or len(self._under_way) >= UNDER_WAY:
            return
        task = asyncio.create_task(_revoke(provider, client, granted))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=LONGEST)


async def _revoke(provider: str, client: Client, granted: Granted) -> None:
    try:
        async with asyncio.timeout(LONGEST):
            await client.revoke(granted)
    except (TemporaryProviderError, SignInRefused, TimeoutError) as failed:
        log.info("a grant was not given back", extra={"provider": provider, "reason": str(failed)})


class ProviderSources:
    """Writes down how providers do, for policies and metrics: a Source each, not more often than need be."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._noted: dict[str, Source] = {}
        self._noted_at: dict[str, int] = {}

    async def heard(self, provider: str, why: str) -> None:
        """Note that a provider answered, or `why` that was no answer."""
        now = self._clock.now()
        before = self._noted.get(provider)
        state = "failing" if why else "ok"
        if (
            before is not None
            and before.state == state
            and now - self._noted_at.get(provider, 0) < NOTED_EVERY
        ):
            return
        try:
            heard_at = now if not why else await self._last(provider, before)
            source = Source(provider, "provider", heard_at, "failing" if why else "ok", why[:200])
            self._noted[provider], self._noted_at[provider] = source, now
            await self._records.put("source", provider, _encode(source))
        except StoreUnavailable as failed:
            log.warning("how a provider does is not noted", extra={"reason": str(failed)})

    async def _last(self, provider: str, before: Source | None) -> int:
        """Return when it was well last, as far as any node knows (ms)."""
        if before is not None:
            return before.heard_at
        stored = await self._records.get("source", provider)
        return 0 if stored is None else msgspec.msgpack.decode(stored.value, type=Source).heard_at

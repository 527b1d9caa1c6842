"""A provider's signing keys: fetched once for everybody who waits, again when an unknown key id appears.

Called by `trust.identity.oidc`. Nobody must be able to make us fetch at will: unknown ids cause one request
in half a minute at most.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ztproxy.crypto.jwk import KeyRefused, VerifyKey, read_key_set
from ztproxy.net.clock import Clock
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError

_FRESH: Final = 3600.0  # seconds until keys are fetched again
_USABLE: Final = 24 * 3600.0  # seconds the last good keys serve while the provider does not answer
_BETWEEN: Final = 30.0  # seconds between fetches for unknown key ids
_AFTER_FAILURE: Final = 5.0  # seconds before a failed fetch is tried again


class Keys:
    """The keys of one provider, kept by monotonic time. `fetch` returns the JWKS as received."""

    def __init__(
        self, fetch: Callable[[], Awaitable[bytes]], algorithms: tuple[str, ...], clock: Clock
    ) -> None:
        self._fetch = fetch
        self._algorithms = algorithms
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: tuple[VerifyKey, ...] = ()
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")

    async def naming(self, kid: str) -> tuple[VerifyKey, ...]:
        """Return the provider's keys, newly fetched when none has this id.

        Raises TemporaryProviderError when no usable keys are at hand, SignInRefused for a malformed set.
        """
        if self._clock.monotonic() - self._fetched_at > _FRESH:
            await self._refresh(_AFTER_FAILURE)
        if not any(key.kid == kid or not kid for key in self._keys):
            await self._refresh(_BETWEEN)
        return self._keys

    async def _refresh(self, between: float) -> None:
        """Fetch unless that was tried in the last `between` seconds; whoever waited takes what came."""
        async with self._lock:
            now = self._clock.monotonic()
            if now - self._tried_at >= between:
                self._tried_at = now
                await self._try(now)
        if self._clock.monotonic() - self._fetched_at > _USABLE:
            raise TemporaryProviderError("no signing keys of the provider are at hand")

    async def _try(self, now: float) -> None:
        try:
            self._keys = read_key_set(await self._fetch(), self._algorithms)
        except TemporaryProviderError:
            return  # the last good keys serve on, for a while
        except KeyRefused as error:
            raise SignInRefused("provider-invalid", f"key set: {error}") from error
        self._fetched_at = now

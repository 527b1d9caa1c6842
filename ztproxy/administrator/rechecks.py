"""Asking identity providers again about sessions: once at a time for each, whoever wants it, on all nodes.

Called in the control process for workers (`service.hub`). A yes is a newer session for everybody, through the
feed; a no ends it; a provider that is out of order changes nothing, and policy says how long that is borne.
It must never take an answer that could not be verified for either.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.freshness import ASIDE, confirmed_at
from ztproxy.administrator.sessions import Sessions, alive
from ztproxy.administrator.vault import Found, Held, Vault
from ztproxy.model.messages import Rechecked, RecheckWanted
from ztproxy.model.subject import Session
from ztproxy.net.clock import Clock
from ztproxy.store.interface import StoreUnavailable
from ztproxy.trust.identity.provider import (
    CannotAsk,
    Confirmed,
    Granted,
    GrantEnded,
    SignInRefused,
    TemporaryProviderError,
)

log = logging.getLogger("ztproxy.rechecks")

LONGEST: Final = 20.0  # seconds for all that one provider is asked about one session
LEASE: Final = 25_000  # ms, longer than that: whoever has it is done or dead
PATIENCE: Final = 2.5  # seconds to wait for another node that asks
LOOK_EVERY: Final = 0.1  # seconds
AT_ONCE: Final = 16  # questions to providers under way
WAITING: Final = 4_096  # sessions asked about, or waiting to be
AWAY: Final = 2_000  # ms for which a provider that could not be reached is left alone
FIRST_WAIT: Final = 2_000  # ms after a failure; doubles with each
LONGEST_WAIT: Final = 300_000
_FAILED: Final = (TemporaryProviderError, SignInRefused, TimeoutError)


class Client(Protocol):
    """A provider that can be asked again (trust.identity.oidc)."""

    async def renew(self, held: Granted) -> tuple[Granted, Mapping[str, Any]]:
        """Return what replaces `held`, and the provider's answer."""

    async def confirm(self, held: Granted, subject: str, answer: Mapping[str, Any]) -> Confirmed:
        """Return what the answer says of the person."""


class Outcome(Struct, frozen=True):
    """What came of it; `retry_at` (ms) with "kept"."""

    word: str
    retry_at: int = 0


CONFIRMED: Final = Outcome("confirmed")
ENDED: Final = Outcome("ended")
IMPOSSIBLE: Final = Outcome("impossible")


class Rechecks:
    """`heard(provider, why)` is told how a provider did, "" = well; `counted(result)` counts."""

    def __init__(
        self,
        sessions: Sessions,
        vault: Vault,
        clients: Mapping[str, Client],
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        heard: Callable[[str, str], Awaitable[None]],
        counted: Callable[[str], None],
    ) -> None:
        self._sessions = sessions
        self._vault = vault
        self._clients = clients
        self._clock = clock
        self._entropy = entropy
        self._heard = heard
        self._counted = counted
        self._flights: dict[str, asyncio.Task[Outcome]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._away: dict[str, int] = {}  # provider -> left alone until, ms

    async def answer(self, wanted: RecheckWanted) -> Rechecked:
        """Answer a worker."""
        try:
            outcome = await self.recheck(wanted.session, wanted.seen, wanted.after)
        except (StoreUnavailable, AuditUnavailable) as failed:
            log.error("a session can not be rechecked", extra={"reason": str(failed)})
            outcome = Outcome("kept", self._clock.now() + FIRST_WAIT)
        except Exception:  # the edge: what one provider sent must not break the link of a worker
            log.exception("a session can not be rechecked")
            outcome = Outcome("kept", self._clock.now() + FIRST_WAIT)
        return Rechecked(wanted.ask, outcome.word, outcome.retry_at)  # type: ignore[arg-type]

    async def recheck(self, session_id: str, seen: int, after: int = 0) -> Outcome:
        """Have the provider asked, unless that was done since `seen` and not before `after` (ms).

        Whoever comes while it is asked shares the answer; who needs a later one asks again. Raises
        StoreUnavailable.
        """
        for _ in range(2):
            flight = self._flights.get(session_id)
            if flight is None:
                if len(self._flights) >= WAITING:
                    return Outcome("kept", self._clock.now() + FIRST_WAIT)
                flight = asyncio.create_task(self._flight(session_id, seen, after))
                self._flights[session_id] = flight
                flight.add_done_callback(lambda done: self._landed(session_id, done))
                return await asyncio.shield(flight)
            outcome = await asyncio.shield(flight)
            session = await self._sessions.get(session_id)
            if outcome is not CONFIRMED or session is None or _newer(session, seen, after):
                return outcome
        return Outcome("kept", self._clock.now() + FIRST_WAIT)

    async def close(self) -> None:
        """Let what is under way finish: a token that was changed at the provider must be written down."""
        if self._flights:
            await asyncio.wait(list(self._flights.values()), timeout=LONGEST)

    def _landed(self, session_id: str, flight: asyncio.Task[Outcome]) -> None:
        if self._flights.get(session_id) is flight:
            del self._flights[session_id]
        if not flight.cancelled():
            flight.exception()  # whoever waited was told; nobody may have

    # ------------------------------------------------------------------ one question

    async def _flight(self, session_id: str, seen: int, after: int) -> Outcome:
        async with self._slots:
            began = self._clock.monotonic()
            while True:
                session = await self._sessions.get(session_id)
                if session is None or not alive(session, self._clock.now()):
                    return ENDED
                if _newer(session, seen, after):
                    return CONFIRMED
                found = await self._vault.read(session_id)
                client = self._clients.get(session.provider)
                if found is None or client is None or found.held.provider != session.provider:
                    return self._result(IMPOSSIBLE)
                wait = self._wait(session.provider, found.held)
                if wait:
                    return _kept(found.held, wait)
                now = self._clock.now()
                if now < found.held.leased_until:
                    if self._clock.monotonic() - began > PATIENCE:
                        return _kept(found.held, now + FIRST_WAIT)
                    await asyncio.sleep(LOOK_EVERY)
                    continue
                leased = replace(found.held, leased_until=now + LEASE)
                mine = await self._vault.write(session_id, leased, found.version)
                if mine is not None:
                    return self._result(await self._ask(session, client, mine, after))

    def _wait(self, provider: str, held: Held) -> int:
        """Return until when nobody asks (ms), 0 = ask now."""
        until = max(held.retry_at, self._away.get(provider, 0))
        return until if self._clock.now() < until else 0

    def _result(self, outcome: Outcome) -> Outcome:
        self._counted(outcome.word)
        return outcome

    async def _ask(self, session: Session, client: Client, mine: Found, after: int) -> Outcome:
        asked_at = self._clock.now()
        subject = session.principal.id.partition(":")[2]
        try:
            async with asyncio.timeout(LONGEST):
                granted, answer = await client.renew(mine.held.granted)
            if granted != mine.held.granted:  # before anything else: the one before is worth nothing now
                written = await self._vault.write(
                    session.id, replace(mine.held, granted=granted), mine.version
                )
                if written is None:
                    return await self._overtaken(session, granted)
                mine = written
            async with asyncio.timeout(LONGEST):
                confirmed = await client.confirm(granted, subject, answer)
        except GrantEnded as over:
            await self._sessions.end(session.id, f"ended by provider: {over}")
            await self._heard(session.provider, "")
            return ENDED
        except CannotAsk:
            await self._release(session.id, mine, retry_at=self._clock.now() + ASIDE, unable=True)
            return IMPOSSIBLE
        except _FAILED as failed:
            return await self._failed(session, mine, failed)
        await self._heard(session.provider, "")
        after_all = await self._sessions.confirm(session.id, confirmed, confirmed_at(asked_at, after))
        await self._release(session.id, mine)
        return CONFIRMED if self._lives(after_all) else ENDED

    def _lives(self, session: Session | None) -> bool:
        return session is not None and alive(session, self._clock.now())

    async def _overtaken(self, session: Session, granted: Granted) -> Outcome:
        """What was kept is gone or another's: the session ended, or signed in again, meanwhile."""
        self._vault.give_back(session.provider, granted)
        if not self._lives(await self._sessions.get(session.id)):
            return ENDED
        return Outcome("kept", self._clock.now() + FIRST_WAIT)

    async def _failed(self, session: Session, mine: Found, failed: Exception) -> Outcome:
        why = str(failed) or type(failed).__name__
        log.warning("a provider can not confirm", extra={"provider": session.provider, "reason": why})
        failures, now = mine.held.failures + 1, self._clock.now()
        retry_at = now + self._pause(failures)
        if not isinstance(failed, SignInRefused):
            self._away[session.provider] = now + AWAY
        unable = mine.held.unable
        await self._release(session.id, mine, failures=failures, retry_at=retry_at, unable=unable)
        await self._heard(session.provider, why)
        return _kept(mine.held, retry_at)

    async def _release(
        self, session_id: str, mine: Found, *, failures: int = 0, retry_at: int = 0, unable: bool = False
    ) -> None:
        held = replace(mine.held, leased_until=0, failures=failures, retry_at=retry_at, unable=unable)
        await self._vault.write(session_id, held, mine.version)

    def _pause(self, failures: int) -> int:
        """Exponential, and never the same for two: between half and all of it (ms)."""
        longest = min(FIRST_WAIT << min(failures - 1, 16), LONGEST_WAIT)
        return longest // 2 + longest * int.from_bytes(self._entropy(2), "big") // 131_072


def _kept(held: Held, until: int) -> Outcome:
    """Return that the provider is not asked for now. Once it had no word without the browser, its failing
    afterwards does not bring back what it said before."""
    return IMPOSSIBLE if held.unable else Outcome("kept", until)


def _newer(session: Session, seen: int, after: int) -> bool:
    return session.checked_at > seen and session.checked_at >= after

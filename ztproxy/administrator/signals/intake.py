"""What becomes of a genuine event: once, in order of time for accounts, written down before it is
acknowledged.

Called by the push endpoint and by polling, for tokens that `trust.signals.remote` has verified. It acts
first and remembers the token after: whatever breaks in between, the transmitter sends it again and nothing
is lost. It never does more than the transmitter's configured actions.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct

from ztproxy.administrator.locks import LockRefused
from ztproxy.administrator.signals.places import Found, Places
from ztproxy.administrator.signals.sources import Sources
from ztproxy.administrator.whose import Whose
from ztproxy.model.record import SignalRecord
from ztproxy.model.standing import Compliance, Lock, Risk, Standing
from ztproxy.model.subject import Session
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable
from ztproxy.trust.signals.events import ACCOUNT, STREAM_UPDATED, VERIFICATION, Action, actions_for
from ztproxy.trust.signals.subjects import unprocessable
from ztproxy.trust.signals.token import LEEWAY, SecurityEvent
from ztproxy.trust.signals.transmitter import Transmitter

_ORDER_KEPT: Final = 90 * 86_400_000  # ms that the newest account event of a subject is remembered
_RISKS: Final[dict[str, Risk]] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}


class Locks(Protocol):
    """What is asked of administrator.locks."""

    async def add(self, target: str, value: str, reason: str, by: str, expires_at: int = 0) -> Lock:
        """Set a lock."""

    async def remove(self, id: str, by: str) -> bool:
        """Take a lock away."""

    async def list(self) -> Sequence[Lock]:
        """Return all locks."""


class Standings(Protocol):
    """What is asked of administrator.standing."""

    async def note(
        self,
        target: str,
        value: str,
        *,
        by: str,
        risk: Risk | None = None,
        risk_at: int = 0,
        risk_reason: str = "",
        compliance: Compliance | None = None,
        compliance_at: int = 0,
        ended_before: int = 0,
        recheck_after: int = 0,
    ) -> Standing:
        """Change what is said of somebody; times only move forward."""


class Sessions(Protocol):
    """What is asked of administrator.sessions."""

    async def get(self, session_id: str) -> Session | None:
        """Return the session, ended or not."""

    async def end(self, session_id: str, by: str) -> bool:
        """End a session on every host; False when it was over or unknown."""


class Tools(Struct, frozen=True, kw_only=True):
    """What an intake works with."""

    records: Records
    clock: Clock
    places: Places
    locks: Locks
    standings: Standings
    sessions: Sessions
    sources: Sources
    whose: Whose
    witness: Callable[[SignalRecord], None]
    count: Callable[[str, str, str], None]  # source, event, outcome


class Intake:
    """Takes events in."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def take(self, transmitter: Transmitter, event: SecurityEvent, critical: frozenset[str]) -> str:
        """Do what an event asks for and return the outcome, a word of SignalRecord.

        Raises SetRefused (a verification that was not asked for), StoreUnavailable, AuditUnavailable.
        """
        key = digest(f"{transmitter.name} {event.jti}")
        if await self._tools.records.get("jti", key) is not None:
            await self._tools.sources.heard(transmitter.name)
            self._tools.count(transmitter.name, event.name or "unknown", "duplicate")
            return "duplicate"
        outcome = await self._act(transmitter, event, critical)
        try:
            kept_until = event.issued_at + transmitter.max_age + 2 * LEEWAY
            await self._tools.records.put("jti", key, b"", if_version=0, expires_at=kept_until)
        except Conflict:
            pass  # another node was given it at the same moment; done twice has the same effect
        self._tools.count(transmitter.name, event.name or "unknown", outcome)
        return outcome

    async def _act(self, transmitter: Transmitter, event: SecurityEvent, critical: frozenset[str]) -> str:
        sources = self._tools.sources
        if event.name == VERIFICATION:
            await sources.verified(transmitter.name, event.text("state"))
            return "verified"
        if event.name == STREAM_UPDATED:
            status, reason = event.text("status"), event.text("reason")
            await sources.told(transmitter.name, status, reason)
            self._tell(transmitter, event, f"stream {status}"[:40], Found(), ())
            return "stream"
        await sources.heard(transmitter.name)
        if unprocessable(event.subject, critical):
            self._tell(transmitter, event, "discarded", Found(), ())
            return "discarded"
        return await self._apply(transmitter, event)

    async def _apply(self, transmitter: Transmitter, event: SecurityEvent) -> str:
        actions = actions_for(event.name, event.members, transmitter.actions)
        found = await self._tools.places.find(transmitter, event) if actions else Found()
        if event.name in ACCOUNT and found.named() and not await self._newest(transmitter, event, found):
            self._tell(transmitter, event, "overtaken", found, ())
            return "overtaken"
        failed: StoreUnavailable | None = None
        for action in actions:
            try:
                await self._do(action, transmitter, event, found)
            except StoreUnavailable as away:  # a lock that can not be set is no reason to let sessions live
                failed = failed or away
        if failed is not None:
            raise failed
        outcome = "ignored" if not actions else "done" if found.named() else "unmatched"
        self._tell(transmitter, event, outcome, found, actions if found.named() else ())
        return outcome

    async def _do(self, action: Action, transmitter: Transmitter, event: SecurityEvent, found: Found) -> None:
        if action == "end":
            await self._end(transmitter, event, found)
        elif action == "recheck":
            await self._note(transmitter, found, recheck_after=self._until(event))
        elif action == "note":
            await self._note(transmitter, found, **_facts(event))
        elif action == "lock":
            await self._lock(transmitter, event, found)
        else:
            await self._unlock(transmitter, event, found)

    async def _end(self, transmitter: Transmitter, event: SecurityEvent, found: Found) -> None:
        """First what reaches all workers at once, then session by session, for the lists and the record."""
        until, by = self._until(event), self._by(transmitter)
        for target, values in (("user", found.users), ("device", found.devices)):
            for value in values:
                await self._tools.standings.note(target, value, by=by, ended_before=until)
        await self._tools.whose.log_out(until, found.sids, found.persons)
        ids = list(found.sessions or ())
        for user in found.users:
            ids += await self._tools.whose.sessions_of(user)
        for session_id in ids:
            session = await self._tools.sessions.get(session_id)
            if session is not None and not session.ended_at and session.created_at < until:
                await self._tools.sessions.end(session_id, f"{event.name} of {by}")

    async def _note(self, transmitter: Transmitter, found: Found, **changes: Any) -> None:
        if not changes:
            return
        by, compliance = self._by(transmitter), "compliance" in changes
        parts = (
            ("user", () if compliance else found.users),
            ("workload", () if compliance else found.workloads),
            ("device", found.devices),
            ("session", found.sessions or ()),
        )
        for target, values in parts:
            for value in values:
                await self._tools.standings.note(target, value, by=by, **changes)

    async def _lock(self, transmitter: Transmitter, event: SecurityEvent, found: Found) -> None:
        by, reason = self._by(transmitter), event.text("reason") or event.reason() or event.name
        before = await self._locks_of(transmitter, found)
        for target, value in _lockable(found):
            try:
                await self._tools.locks.add(target, value, f"{event.name}: {reason}"[:200], by)
            except LockRefused as refused:  # too many: it has to be sent again
                raise StoreUnavailable(str(refused)) from refused
        for lock in before:  # in place of those: somebody may be taking them away just now, by older news
            await self._tools.locks.remove(lock.id, by)

    async def _unlock(self, transmitter: Transmitter, event: SecurityEvent, found: Found) -> None:
        """Take away what this source has locked, and nothing that somebody else or later news have."""
        locks = await self._locks_of(transmitter, found)
        latest = await self._tools.records.get("signal-order", _order_key(transmitter, found))
        if event.name in ACCOUNT and latest is not None and int(latest.value) > event.happened_at:
            return
        for lock in locks:
            await self._tools.locks.remove(lock.id, self._by(transmitter))

    async def _locks_of(self, transmitter: Transmitter, found: Found) -> list[Lock]:
        by, places = self._by(transmitter), set(_lockable(found))
        every = await self._tools.locks.list()
        return [lock for lock in every if lock.set_by == by and (lock.target, lock.value) in places]

    async def _newest(self, transmitter: Transmitter, event: SecurityEvent, found: Found) -> bool:
        """Whether no later account event of this source is known about the same; remembers this one."""
        records, key = self._tools.records, _order_key(transmitter, found)
        for _ in range(8):
            stored = await records.get("signal-order", key)
            if stored is not None and int(stored.value) > event.happened_at:
                return False
            value, expires_at = str(event.happened_at).encode(), self._tools.clock.now() + _ORDER_KEPT
            version = 0 if stored is None else stored.version
            try:
                await records.put("signal-order", key, value, if_version=version, expires_at=expires_at)
            except Conflict:
                continue
            return True
        raise StoreUnavailable("news of one subject come too often at once")

    def _until(self, event: SecurityEvent) -> int:
        """Sessions that began before are concerned: clocks may differ, and the safe side is the later one."""
        return min(self._tools.clock.now(), event.issued_at + LEEWAY)

    @staticmethod
    def _by(transmitter: Transmitter) -> str:
        return f"signals:{transmitter.name}"

    def _tell(
        self,
        transmitter: Transmitter,
        event: SecurityEvent,
        outcome: str,
        found: Found,
        actions: tuple[Action, ...],
    ) -> None:
        self._tools.witness(
            SignalRecord(
                id=event.jti,
                at=self._tools.clock.now(),
                source=transmitter.name,
                event=event.name or event.uri,
                outcome=outcome,
                concerns=found.named(),
                actions=actions,
                reason=event.reason(),
            )
        )


def _facts(event: SecurityEvent) -> dict[str, Any]:
    """What an event says that policies can read. An event without a level or status is the worse one."""
    at = event.happened_at
    if event.name == "device-compliance-change":
        good = event.members.get("current_status") == "compliant"
        return {"compliance": "compliant" if good else "not-compliant", "compliance_at": at}
    if event.name == "risk-level-change":
        risk = _RISKS.get(event.text("current_level"), "high")
        return {"risk": risk, "risk_at": at, "risk_reason": event.text("risk_reason")}
    return {}


def _order_key(transmitter: Transmitter, found: Found) -> str:
    return digest(f"{transmitter.name} {found.named()}")


def _lockable(found: Found) -> list[tuple[str, str]]:
    parts = (("user", found.users), ("workload", found.workloads), ("device", found.devices))
    return [(target, value) for target, values in parts for value in values]


def digest(text: str) -> str:
    """Return what a text that strangers chose is called in keys of records."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]

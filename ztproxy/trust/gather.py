"""Everything known about one caller, gathered from memory for one request.

Called by `administrator.access` only. Answers Facts, the code of a refusal, the lock that is on the caller,
or COLD when the feed may hold something newer that settles it. Never asks anybody and never decides what is
allowed.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from ztproxy.model.connector import connector_of
from ztproxy.model.node import node_of
from ztproxy.model.request import ClientCertificate, Evidence
from ztproxy.model.standing import UNSAID, Heard, Lock, Said, Source
from ztproxy.model.subject import Device, Facts, Handle, Posture, Principal, Session
from ztproxy.trust.caller import NOBODY, Caller, Locked
from ztproxy.trust.memory import Memory
from ztproxy.trust.standing import (
    Place,
    ended_by,
    places_of_certificate,
    places_of_session,
    recheck_after,
    said_of_person,
    said_of_workload,
)


class Cold(Enum):
    """The one value that says: ask the control process for what is newer, then gather again."""

    COLD = "cold"


COLD: Final = Cold.COLD

#: How often a session in use is told to the control process at most, and one without idle limit, in ms.
TOUCH_EVERY: Final = 30_000
TOUCH_SELDOM: Final = 900_000
#: A feed older than this (ms) is told to policies; below it is the ordinary second between beats.
QUIET: Final = 2_500
#: Callers kept between requests; beyond it all are gathered anew.
KEPT: Final = 100_000
#: A source heard no longer ago than this (ms) is told to be 0 old, an older one in steps of so many ms; one
#: that was heard so far in the future was not heard.
QUIET_SOURCE: Final = 30_000
STEP: Final = 5_000
AHEAD: Final = 60_000
#: When what has no end ends (ms).
NEVER: Final = 1 << 62


class Gatherer:
    """Gathers callers from a worker's memory.

    `groups` maps workload ids to their configured groups; `feed_limit` is in ms; `sources`
    are the names of those policies may read; `connectors` is the host of connectors, where nobody else is
    anybody. Facts of a session are
    kept as long as its session, device and posture are the very same values and no lock or standing of
    anybody has changed, so nothing is ever stale: time alone only ends locks.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        groups: Mapping[str, tuple[str, ...]],
        feed_limit: int,
        sources: Sequence[str] = (),
        connectors: str | None = None,
    ) -> None:
        self.memory = memory
        self.feed_limit = feed_limit
        self._groups = groups
        self._names = sources
        self._connectors = connectors
        self._heard: tuple[Heard, ...] = ()
        self._heard_in = -1  # the second it was put together in
        self._known: dict[str, Caller] = {}

    def gather(
        self, evidence: Evidence, host: str, now: int, patience: int = 0
    ) -> Caller | Locked | str | Cold:
        """Return who asks, a lock on them, a refusal code, or COLD. `now` in ms, `host` as requested.

        `patience`: how long the feed may be silent (ms) when that is longer than for a new request.
        """
        certificate = evidence.certificate
        if certificate is not None:
            if not certificate.not_before <= now < certificate.not_after:
                return "certificate-expired"
            if self.memory.locked:
                lock = self._lock_on(places_of_certificate(certificate), now)
                if lock is not None:
                    return Locked(NOBODY if evidence.handle else self._shown(certificate, now), lock, True)
            if certificate.kind in ("connector", "node") or host == self._connectors:
                return self._connector(evidence, certificate, host, now, patience)
            if certificate.kind == "workload":
                if evidence.handle is not None:
                    return "credentials-conflict"
                return self._workload(certificate, now, patience)
        if evidence.handle is None:
            if host == self._connectors:
                return "certificate-unsuitable"
            return "facts-unavailable" if self.silent(patience) else NOBODY
        return self._person(evidence.handle, certificate, host, now, patience)

    def silent(self, patience: int = 0) -> bool:
        """Say whether the feed has not been heard for so long that anything might be locked or over."""
        age = self.memory.feed_age()
        return age > self.feed_limit and age > patience

    def _person(
        self, digest: str, certificate: ClientCertificate | None, host: str, now: int, patience: int
    ) -> Caller | Locked | str | Cold:
        memory = self.memory
        known = self._known.get(digest)
        if known is not None and certificate is None and self._holds(known, digest, now):
            return known if known.host == host else "session-ended"
        handle = memory.handles.get(digest)
        if handle is None:
            return COLD
        session = memory.sessions.get(handle.session_id)
        if session is None:  # the feed brings a session before its handles: it was here and is over
            return "session-ended"
        if handle.host != host:
            return "session-ended"  # a cookie belongs to the one host it was given to
        age = memory.feed_age()
        if age > self.feed_limit and age > patience:
            return "facts-unavailable"  # a session might have been cut and we would not know
        if not self._alive(session, now):
            return "session-ended"
        ticket = handle if certificate is None else None
        return self._facts_of(session, digest, certificate, now, 0 if age < QUIET else age, ticket)

    def _holds(self, known: Caller, digest: str, now: int) -> bool:
        """Tell whether all that a caller with a cookie alone was gathered from is the very same, and in time.

        Whenever it is not, what is asked below says what that comes to.
        """
        memory = self.memory
        age = memory.feed_age()
        return (
            (known.looked == memory.changed or self._same(known, digest))
            and self._sources(now) is known.sources
            and age < QUIET
            and age <= self.feed_limit
            and now < known.expires_at
            and (not known.idle_limit or self._in_use(known, now))
        )

    def _same(self, known: Caller, digest: str) -> bool:
        """Look whether it is the very same; while nothing at all changes, that need not be done again.

        With many sessions each look-up here reads what no cache of the processor has any more.
        """
        memory = self.memory
        same = (
            known.ticket is not None
            and memory.handles.get(digest) is known.ticket
            and memory.sessions.get(known.session_id) is known.session
            and memory.devices.get(known.bound_id) is known.device
            and memory.postures.get(known.device_id) is known.posture
            and known.spoken == memory.spoken
        )
        if same:
            known.looked = memory.changed
        return same

    def _in_use(self, known: Caller, now: int) -> bool:
        if now - known.seen_at < known.idle_limit:
            return True
        return now - self.memory.touched.get(known.session_id, 0) < known.idle_limit

    def _alive(self, session: Session, now: int) -> bool:
        if now >= session.expires_at:
            return False
        if not session.idle_limit:
            return True
        limit = session.idle_limit
        return now - session.last_seen_at < limit or now - self.memory.touched.get(session.id, 0) < limit

    def ends(self, session_id: str) -> int:
        """Return when time alone ends a session, as it is known now (ms); NEVER without one."""
        session = self.memory.sessions.get(session_id)
        if session is None:
            return NEVER
        if not session.idle_limit:
            return session.expires_at
        used_at = max(session.last_seen_at, self.memory.touched.get(session_id, 0))
        return min(session.expires_at, used_at + session.idle_limit)

    def device_of(self, session_id: str) -> str:
        """Return the device that a session is bound to now, "" for none."""
        session = self.memory.sessions.get(session_id)
        return session.device_id if session is not None else ""

    def _facts_of(
        self,
        session: Session,
        digest: str,
        certificate: ClientCertificate | None,
        now: int,
        age: int,
        ticket: Handle | None,
    ) -> Caller | Locked | str:
        memory = self.memory
        device = memory.devices.get(session.device_id)
        proof, proved_at = "agent", session.device_proved_at
        if certificate is not None:
            named = memory.devices.get(certificate.subject.rpartition("/")[2])
            if named is None or named.spki != certificate.spki:
                return "device-mismatch"
            if session.device_id and named.id != session.device_id:
                return "device-mismatch"
            if named.owner and named.owner != session.principal.id:
                return "device-mismatch"  # somebody else's device proves nothing, as with the agent's proof
            device, proof, proved_at = named, "mtls", now - now % 5000
        if device is not None and device.revoked_at:
            device = None
        posture = memory.postures.get(device.id) if device is not None else None
        known, sources = self._known.get(digest), self._sources(now)
        if known is not None and not age:
            old = known.facts
            if (
                old.session is session
                and old.device is device
                and old.posture is posture
                and old.device_proved_at == (proved_at if device is not None else 0)
                and known.spoken == memory.spoken
                and old.sources is sources
            ):
                return known
        device_id = device.id if device is not None else ""
        if memory.standings and ended_by(session, device_id, memory.standings) is not None:
            return "session-ended"
        said = said_of_person(session, device_id, memory.standings) if memory.standings else UNSAID
        facts = facts_of(session, device, posture, proof, proved_at, age, said, sources)
        after = recheck_after(session, device_id, memory.standings) if memory.standings else 0
        fresh = Caller(facts, digest, digest, memory.spoken, after, ticket)
        if memory.locked:
            lock = self._lock_on(places_of_session(session), now)
            if lock is not None:
                return Locked(fresh, lock)
        return self._keep(fresh)

    def _lock_on(self, places: Iterable[Place], now: int) -> Lock | None:
        for target, value in places:
            lock = self.memory.lock_on(target, value, now)
            if lock is not None:
                return lock
        return None

    def _sources(self, now: int) -> tuple[Heard, ...]:
        """Return how fresh sources are: the same value as long as it says the same."""
        if self._names and self._heard_in != now // 1000:
            self._heard_in = now // 1000
            known = self.memory.sources
            heard = tuple(
                _heard(known[name], now) for name in self._names if _believable(known.get(name), now)
            )
            if heard != self._heard:
                self._heard = heard
        return self._heard

    def _shown(self, certificate: ClientCertificate, now: int) -> Caller:
        """Return whom a certificate stands for, for the record of a refusal."""
        if certificate.kind in ("connector", "node"):
            return self._program(certificate, 0)
        found = self._workload(certificate, now, NEVER) if certificate.kind == "workload" else NOBODY
        return found if isinstance(found, Caller) else NOBODY

    def _connector(
        self, evidence: Evidence, certificate: ClientCertificate, host: str, now: int, patience: int
    ) -> Caller | str | Cold:
        """Connectors are somebody on their own host only, and so are nodes; nobody else is there."""
        named = connector_of(certificate.subject) if certificate.kind == "connector" else None
        is_node = certificate.kind == "node" and node_of(certificate.subject) is not None
        if (named is None and not is_node) or host != self._connectors:
            return "certificate-unsuitable"
        if evidence.handle is not None:
            return "credentials-conflict"
        if self.silent(patience):
            return "facts-unavailable"  # it might have been revoked and we would not know
        if named is not None:
            enrolled = self.memory.connectors.get("/".join(named))
            if enrolled is None:
                return COLD  # it may have been enrolled this very moment
            if enrolled.revoked_at or enrolled.spki != certificate.spki:
                return "connector-not-enrolled"
        age = self.memory.feed_age()
        return self._program(certificate, 0 if age < QUIET else age)

    def _program(self, certificate: ClientCertificate, age: int) -> Caller:
        """Return the facts of a connector or a node: a workload in no group, on nobody's behalf."""
        name = certificate.subject
        principal = Principal(kind="Workload", id=name, issuer=certificate.bundle, name=name)
        facts = Facts(principal=principal, certificate_expires_at=certificate.not_after, feed_age=age)
        return Caller(facts=facts, key=certificate.fingerprint, spoken=self.memory.spoken)

    def _workload(self, certificate: ClientCertificate, now: int, patience: int) -> Caller | str:
        memory, age, sources = self.memory, self.memory.feed_age(), self._sources(now)
        known = self._known.get(certificate.fingerprint)
        if (
            known is not None
            and age < QUIET
            and known.spoken == memory.spoken
            and known.facts.sources is sources
        ):
            return known
        if age > self.feed_limit and age > patience:
            return "facts-unavailable"  # it might have been locked and we would not know
        principal = Principal(
            kind="Workload",
            id=certificate.subject,
            issuer=certificate.bundle,
            name=certificate.subject,
            groups=self._groups.get(certificate.subject, ()),
        )
        facts = Facts(
            principal=principal,
            certificate_expires_at=certificate.not_after,
            feed_age=0 if age < QUIET else age,
            said=said_of_workload(certificate.subject, memory.standings),
            sources=sources,
        )
        return self._keep(Caller(facts=facts, key=certificate.fingerprint, spoken=memory.spoken))

    def _keep(self, caller: Caller) -> Caller:
        """Keep facts for the caller's next request, unless they tell of a silent feed."""
        if not caller.facts.feed_age:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[caller.key] = caller
        return caller

    def touch(self, caller: Caller, now: int) -> bool:
        """Note a use of the caller's session; True when the control process should hear of it."""
        interval = told_after(caller.idle_limit)
        if now - caller.seen_at < interval:
            return False
        touched = self.memory.touched
        if now - touched.get(caller.session_id, 0) < interval:
            return False
        touched[caller.session_id] = now
        return True


def told_after(idle_limit: int) -> int:
    """Return how long after the last use that was told the next one is (ms).

    A quarter of the idle limit: so much earlier than the limit says an idle session may end, never later.
    """
    if not idle_limit:
        return TOUCH_SELDOM
    return min(max(TOUCH_EVERY, idle_limit // 4), idle_limit // 2)


def facts_of(
    session: Session,
    device: Device | None,
    posture: Posture | None,
    proof: str,
    proved_at: int,
    age: int,
    said: Said = UNSAID,
    sources: tuple[Heard, ...] = (),
) -> Facts:
    """Return the facts of a signed-in person. `proof` and `proved_at` count only with a device."""
    there = device is not None
    return Facts(
        principal=session.principal,
        session=session,
        device=device,
        device_proof=("mtls" if proof == "mtls" else "agent") if there and proved_at else "",
        device_proved_at=proved_at if there else 0,
        posture=posture,
        feed_age=age,
        said=said,
        sources=sources,
    )


def _believable(source: Source | None, now: int) -> bool:
    """Tell whether it was ever heard; what was heard in the future was heard by a clock that is wrong."""
    return source is not None and 0 < source.heard_at <= now + AHEAD


def _heard(source: Source, now: int) -> Heard:
    """Return what policies are told: in steps, so that it is the same for a while, and never too young."""
    age = now - source.heard_at
    return Heard(source.name, 0 if age < QUIET_SOURCE else -(-age // STEP) * STEP, source.state)

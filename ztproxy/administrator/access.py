"""The one door: every action of every protocol passes `Access.authorize`, and only here permits are minted.

Called by the gateway for each request, and by `administrator.paths` to decide a live path again. Order of
the steps: who (trust.gather) -> locks -> policy -> identity for the upstream -> audit -> permit. What can not
be recorded is refused. Synchronous while facts are warm; otherwise an awaitable of the same answer.
"""

import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, final

from msgspec.structs import replace

from ztproxy.administrator import stencil
from ztproxy.administrator.asked import is_anonymous, is_portal, leads_on, unknown
from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.administrator.duties import earlier, raise_alerts
from ztproxy.administrator.evidence import decision_record, preflight_record, refused_record
from ztproxy.administrator.explaining import refusal_of, simple
from ztproxy.administrator.rechecked import ASK, UNASKED, Freshness
from ztproxy.administrator.staleness import as_fresh, patience_of
from ztproxy.administrator.stamping import stamped
from ztproxy.model._seal import SEAL
from ztproxy.model.decision import Decision, Explanation, Refusal
from ztproxy.model.native import mypyc_attr
from ztproxy.model.passage import Passage
from ztproxy.model.permit import Permit
from ztproxy.model.ports import Answer, Door, Ledger, Router
from ztproxy.model.request import AccessRequest, Peer
from ztproxy.model.route import Route
from ztproxy.model.standing import Lock
from ztproxy.model.subject import Facts
from ztproxy.net.clock import Clock
from ztproxy.policy.engine import PolicySet, Subject
from ztproxy.trust.caller import NOBODY, Caller, Locked
from ztproxy.trust.gather import Cold, Gatherer
from ztproxy.trust.memory import Concern
from ztproxy.wire.heads import joined

log = logging.getLogger("ztproxy.access")

#: Permits of callers without a session end at the latest after this (ms); live paths are decided anew anyway.
LONGEST: Final = 24 * 3600 * 1000
#: Wrong credentials bar from public paths, too.
UNFORGIVEN: Final = (
    *("certificate-expired", "credentials-conflict"),
    *("certificate-unsuitable", "connector-not-enrolled"),
)
#: Policy values kept for callers; beyond it all are made anew.
KEPT: Final = 100_000
#: Where compiled code finds it without looking up a name.
_SEAL: Final = SEAL
#: The "decision" of requests that never reach the policies.
NOT_ASKED: Final = Decision(allow=False, kind="default-deny")
#: That of requests that a lock refuses: policies are not asked.
LOCKED: Final = Decision(allow=False, kind="forbid")


@mypyc_attr(allow_interpreted_subclasses=True)
class Identities:
    """Identity lines for upstreams (service.identities)."""

    __slots__ = ()

    @abstractmethod
    def lines(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return ready header lines, each ended by CRLF, or None when they have to be fetched."""

    @abstractmethod
    async def fetch(self, caller: Caller, route: Route, now: int) -> bytes | None:
        """Return header lines; None when nobody would vouch for this caller."""


@final
class _Known:
    """What follows from the facts about a caller, until they or the policies are others."""

    __slots__ = ("facts", "passage", "policies", "subject")

    def __init__(self, facts: Facts, policies: PolicySet, subject: Subject, passage: Passage | None) -> None:
        self.facts: Final = facts
        self.policies: Final = policies
        self.subject: Final = subject
        self.passage: Final = passage  # None when the records of this caller need more care


class Access(Door):
    """The door of one worker under one configuration; the next one has another, its successor.

    `routes` is where a live path is looked up again that was opened under a configuration before.
    """

    def __init__(
        self,
        *,
        policies: PolicySet,
        gatherer: Gatherer,
        recorder: Ledger,
        identities: Identities,
        sync: Callable[[], Awaitable[bool]],
        touched: Callable[[str], None],
        clock: Clock,
        routes: Router | None = None,
        freshness: Freshness = UNASKED,
    ) -> None:
        self.policies = policies
        self._routes = routes
        self._successor: Access | None = None
        self._gatherer = gatherer
        self._memory = gatherer.memory
        self._recorder = recorder
        self._identities = identities
        self._sync = sync
        self._touched = touched
        self._clock = clock
        self.kept = 0  # times a live path went on by facts that are too old for a new request
        self._freshness = freshness
        self._always_fresh = freshness.always
        self._callers: dict[str, _Known] = {}
        self._permits: dict[str, dict[str, stencil.Written]] = {}  # by action and route

    # ------------------------------------------------------------------ the door

    def authorize(self, request: AccessRequest) -> Answer | Awaitable[Answer]:
        """Answer one request; an awaitable only when a fact is cold. Never raises."""
        now = self._clock.now()
        caller = self._gatherer.gather(request.subject, request.context.host, now)
        if isinstance(caller, Caller):
            return self._decide(request, caller, now)
        if isinstance(caller, Cold):
            return self._synced(request)
        return self._unidentified(request, caller, now)

    def reconsider(self, permit: Permit, at: int) -> str:
        """Decide a live path again: "" while it may go on, else the code of the refusal.

        `at` (ms) is its own time, by which limits of its session and certificate are judged: the wall clock,
        unless that was set ahead meanwhile. Policies are asked by the wall clock.
        """
        request = self._placed(permit.request)
        if not leads_on(permit.route, request.resource.route):
            return "access-denied"
        now = self._clock.now()
        if self._memory.locked and self._lock_on(request, now) is not None:
            return "locked"
        patience = patience_of(permit.obligations) if permit.obligations else 0
        caller = self._gatherer.gather(request.subject, request.context.host, at, patience)
        if not isinstance(caller, Caller):
            if isinstance(caller, Locked) and (caller.everywhere or not is_portal(request)):
                return "locked"
            if is_portal(request) or (is_anonymous(permit) and self._is_public(request, now, patience)):
                return ""
            return caller if isinstance(caller, str) else unknown(request)
        known = self._known(caller)
        decision = self.policies.decide(known.subject, request.resource, request.action, request.context, now)
        if decision.allow:
            self.kept += caller.facts.feed_age > self._gatherer.feed_limit
            return self._outdated(request, caller, decision, at)
        if patience and (decided := self._would_be(request, caller, patience, now)).allow:
            self.kept += 1
            return self._outdated(request, caller, decided, at)
        return self._explain(request, caller, known.subject, decision, now)[0].code

    def _outdated(self, request: AccessRequest, caller: Caller, decision: Decision, at: int) -> str:
        """Return "" while what the identity provider said is good enough for a live path, else a code."""
        return "" if is_portal(request) else self._freshness.of_path(caller, decision, at)

    def _would_be(self, request: AccessRequest, caller: Caller, patience: int, now: int) -> Decision:
        """Decide as if what is not too old for a live path were fresh."""
        facts = as_fresh(caller.facts, patience)
        if facts == caller.facts:
            return NOT_ASKED
        who = self.policies.subject(facts)
        return self.policies.decide(who, request.resource, request.action, request.context, now)

    def ends(self, permit: Permit) -> int:
        """Return when time alone may end a live path, as it is known now (ms)."""
        return min(permit.expires_at, self._gatherer.ends(permit.session_id))

    def hangs_on(self, permit: Permit) -> tuple[Concern, ...]:
        """Return what a live path has come to hang on since: another device, a route by another name."""
        device = self._gatherer.device_of(permit.session_id)
        route = self._placed(permit.request).resource.route
        concerns: tuple[Concern, ...] = ()
        if device and device != permit.device_id:
            concerns = (("device", device),)
        if route is not None and route.name != permit.route.name:
            concerns = (*concerns, ("route", route.name))
        return concerns

    def refuse(self, request: AccessRequest | None, peer: Peer, refusal: Refusal) -> None:
        """Record a refusal made before policy was asked (a bad head, a foreign origin).

        Raises AuditUnavailable."""
        self._recorder.decision(refused_record(request, peer, refusal, self._clock.now()))

    def preflight(self, request: AccessRequest, peer: Peer) -> None:
        """Record that the gateway answers a preflight by itself. Raises AuditUnavailable."""
        self._recorder.decision(preflight_record(request, peer, self._clock.now()))

    def succeeded_by(self, door: "Access") -> None:
        """Another configuration is in force: what still waits here is decided there."""
        self._successor = door

    # ------------------------------------------------------------------ steps

    def _placed(self, request: AccessRequest) -> AccessRequest:
        """Return the request for what is at its place now: another configuration may be in force."""
        if self._routes is None:
            return request
        found = self._routes.match(request.context.host, request.context.path)
        return request if found == request.resource else request.replaced(resource=found)

    async def _anew(self, request: AccessRequest) -> Answer:
        """Decide a request that has waited at a door before this one."""
        if self._successor is not None:
            return await self._successor._anew(request)
        answer = self.authorize(self._placed(request))
        return answer if isinstance(answer, Permit | Refusal) else await answer

    async def _synced(self, request: AccessRequest) -> Answer:
        """The cookie is unknown here: hear the newest of the feed, then it is known or it is not."""
        heard = await self._sync()
        if self._successor is not None:
            return await self._anew(request)
        now = self._clock.now()
        caller = self._gatherer.gather(request.subject, request.context.host, now)
        if isinstance(caller, Cold):
            return self._unidentified(request, unknown(request) if heard else "facts-unavailable", now)
        if not isinstance(caller, Caller):
            return self._unidentified(request, caller, now)
        answer = self._decide(request, caller, now)
        return answer if isinstance(answer, Permit | Refusal) else await answer

    def _unidentified(self, request: AccessRequest, code: str | Locked, now: int) -> Answer:
        """Without a believable caller there is what anybody may have: our sign-in pages, and public paths.

        A cookie that has ended takes nothing away that its owner would have without it. Who is locked has
        nothing but the pages on which somebody else may sign in.
        """
        if isinstance(code, Locked):
            if code.everywhere or not is_portal(request):
                return self._locked(request, code.caller, code.lock, now)
            code = "locked"
        if code not in UNFORGIVEN and (is_portal(request) or self._is_public(request, now)):
            answer = self._decide(request, NOBODY, now)
            if isinstance(answer, Permit | Refusal):
                return answer
        return self._refused(request, NOBODY, NOT_ASKED, now, simple(code, request))

    def _lock_on(self, request: AccessRequest, now: int) -> Lock | None:
        """Return the lock that is on what is asked for, whoever asks."""
        return self._memory.lock_on("route", request.resource.id, now)

    def _locked(self, request: AccessRequest, caller: Caller, lock: Lock, now: int) -> Refusal:
        """Refuse because of a lock. Why it is there is for the record only."""
        refusal = replace(simple("locked", request), detail=f"{lock.id}: {lock.reason}")
        return self._refused(request, caller, LOCKED, now, refusal)

    def _is_public(self, request: AccessRequest, now: int, patience: int = 0) -> bool:
        """Say whether anybody may have it now: not while a lock on it might not have been heard of, and never
        the place of connectors, whatever policies say."""
        if request.resource.route is not None and request.resource.route.carries:
            return False
        who = self._known(NOBODY).subject
        decided = self.policies.decide(who, request.resource, request.action, request.context, now)
        return decided.allow and not self._gatherer.silent(patience)

    def _decide(self, request: AccessRequest, caller: Caller, now: int) -> Answer | Awaitable[Answer]:
        if self._memory.locked:
            lock = self._lock_on(request, now)
            if lock is not None:
                return self._locked(request, caller, lock, now)
        known = self._known(caller)
        decision = self.policies.decide(known.subject, request.resource, request.action, request.context, now)
        if not decision.allow:
            refusal, explanation = self._explain(request, caller, known.subject, decision, now)
            return self._refused(request, caller, decision, now, refusal, explanation)
        route = request.resource.route
        if route is None:  # a policy that permits nowhere in particular still leads nowhere
            return self._refused(request, caller, decision, now, simple("access-denied", request))
        if route.portal:
            return self._permit(request, caller, known, decision, route, b"", now)
        if decision.obligations or caller.recheck_after or self._always_fresh:
            verdict = self._freshness.of_request(caller, decision, now)
            if verdict == ASK:
                return self._rechecked(request, caller)
            if verdict:
                return self._refused(request, caller, decision, now, simple(verdict, request))
        return self._identified(request, caller, known, decision, route, now)

    def _identified(
        self,
        request: AccessRequest,
        caller: Caller,
        known: _Known,
        decision: Decision,
        route: Route,
        now: int,
    ) -> Answer | Awaitable[Answer]:
        lines = self._identities.lines(caller, route, now)
        if lines is None:
            return self._vouched(request, caller, decision, route)
        return self._permit(request, caller, known, decision, route, lines, now)

    async def _rechecked(self, request: AccessRequest, caller: Caller) -> Answer:
        """The provider has to be asked before this is decided. It is asked once, and what is known then is
        decided by: to wait again would be to wait for ever."""
        await self._freshness.ask(caller)
        if self._successor is not None:
            return await self._anew(request)
        now = self._clock.now()
        found = self._newest(request, now)
        if not isinstance(found, tuple):
            return found
        newest, _, decision = found
        if decision.allow and (code := self._freshness.settled(newest, decision, now)):
            return self._refused(request, newest, decision, now, simple(code, request))
        answer = self._decide(request, newest, now)
        return answer if isinstance(answer, Permit | Refusal) else await answer

    def _newest(self, request: AccessRequest, now: int) -> tuple[Caller, _Known, Decision] | Answer:
        """Return who asks and what is decided by what is known by now, or the answer without a caller."""
        newest = self._gatherer.gather(request.subject, request.context.host, now)
        if not isinstance(newest, Caller):
            return self._unidentified(request, "session-ended" if isinstance(newest, Cold) else newest, now)
        known, resource, context = self._known(newest), request.resource, request.context
        return newest, known, self.policies.decide(known.subject, resource, request.action, context, now)

    async def _vouched(
        self, request: AccessRequest, caller: Caller, decision: Decision, route: Route
    ) -> Answer:
        """The first request of a caller to this audience: have an assertion signed, then decide again.

        While it was signed the session may have been cut, and no path was open yet that could have been.
        """
        lines = await self._identities.fetch(caller, route, self._clock.now())
        if self._successor is not None:
            return await self._anew(request)
        now = self._clock.now()
        if lines is None:
            return self._refused(request, caller, decision, now, simple("facts-unavailable", request))
        found = self._newest(request, now)
        if not isinstance(found, tuple):
            return found
        newest, known, decision = found
        if self._memory.locked and (lock := self._lock_on(request, now)) is not None:
            return self._locked(request, newest, lock, now)
        if not decision.allow:
            refusal, explanation = self._explain(request, newest, known.subject, decision, now)
            return self._refused(request, newest, decision, now, refusal, explanation)
        if code := self._freshness.settled(newest, decision, now):
            return self._refused(request, newest, decision, now, simple(code, request))
        return self._permit(request, newest, known, decision, route, lines, now)

    def _permit(
        self,
        request: AccessRequest,
        caller: Caller,
        known: _Known,
        decision: Decision,
        route: Route,
        identity: bytes,
        now: int,
    ) -> Answer:
        if route.changes is not None and route.changes.request is not None:
            stamps = stamped(route.changes.request.stamps, caller.facts, route, request.context.request_id)
            if stamps is None:
                return self._refused(request, caller, decision, now, simple("head-too-large", request))
            identity += joined(list(stamps))
        if not self._note_permit(request, caller, known, decision, now):
            return simple("audit-unavailable", request)
        obligations = decision.obligations
        if obligations:
            raise_alerts(request, caller, decision)
        ends = caller.expires_at or now + LONGEST
        if caller.session_id and self._gatherer.touch(caller, now):
            self._touched(caller.session_id)
        return Permit(  # by position, as in `evidence`
            request.context.request_id,
            request,
            route,
            caller.principal_id,
            caller.issuer,
            caller.session_id,
            caller.device_id or caller.bound_id,
            caller.handle,
            earlier(ends, obligations, now) if obligations else ends,
            identity,
            obligations,
            _SEAL,
        )

    # ------------------------------------------------------------------ explaining and recording

    def _explain(
        self, request: AccessRequest, caller: Caller, subject: Subject, decision: Decision, now: int
    ) -> tuple[Refusal, Explanation]:
        if decision.errors and decision.errors[0].startswith("engines disagree"):
            log.critical(
                "policy engines disagree: denied",
                extra={"decision": request.context.request_id, "difference": decision.errors[0]},
            )
        explanation = self.policies.explain(subject, request.resource, request.action, request.context, now)
        return refusal_of(decision, explanation, caller.facts, request.context.request_id), explanation

    def _refused(
        self,
        request: AccessRequest,
        caller: Caller,
        decision: Decision,
        now: int,
        refusal: Refusal,
        explanation: Explanation | None = None,
    ) -> Refusal:
        noted = self._note(request, caller, decision, now, refusal, explanation)
        return refusal if noted else simple("audit-unavailable", request)

    def _note_permit(
        self, request: AccessRequest, caller: Caller, known: _Known, decision: Decision, now: int
    ) -> bool:
        """Write a permit down; False when that is impossible."""
        if known.passage is None:
            return self._note(request, caller, decision, now)
        try:
            written = self._written(request, decision)
            beginning = stencil.beginning(request, caller, now)
        except stencil.TooOdd:
            return self._note(request, caller, decision, now)
        try:
            self._recorder.permit(beginning, known.passage, written)
        except AuditUnavailable:
            return False
        return True

    def _note(
        self,
        request: AccessRequest,
        caller: Caller,
        decision: Decision,
        now: int,
        refusal: Refusal | None = None,
        explanation: Explanation | None = None,
    ) -> bool:
        """Write the decision down; False when that is impossible."""
        record = decision_record(request, caller, decision, self.policies.digest, now, refusal, explanation)
        try:
            self._recorder.decision(record)
        except AuditUnavailable:
            return False
        return True

    def _known(self, caller: Caller) -> _Known:
        """What follows from these very facts: worked out once, used until they or the policies are others."""
        made = caller.made
        if isinstance(made, _Known) and made.policies is self.policies:
            return made
        known = self._callers.get(caller.key)
        if known is not None and known.facts == caller.facts and known.policies is self.policies:
            known = _Known(caller.facts, self.policies, known.subject, known.passage)
        else:
            try:
                passage: Passage | None = stencil.of_caller(caller.facts)
            except stencil.TooOdd:
                passage = None
            known = _Known(caller.facts, self.policies, self.policies.subject(caller.facts), passage)
        if len(self._callers) >= KEPT:
            self._callers.clear()
        self._callers[caller.key] = caller.made = known
        return known

    def _written(self, request: AccessRequest, decision: Decision) -> Passage:
        """The part of a permit's record that says what was decided about what. Raises stencil.TooOdd."""
        resources = self._permits.get(request.action)
        if resources is None:
            resources = self._permits[request.action] = {}
        written = resources.get(request.resource.id)
        if written is None or not written.says(request.context, decision, self.policies):
            passage = stencil.of_permit(request, decision, self.policies.digest)
            written = resources[request.resource.id] = stencil.Written(
                request.context, decision, self.policies, passage
            )
        return written.passage

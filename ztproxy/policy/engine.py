"""The policy set in force: frozen, complete, swapped as a whole. May this caller do this, here and now?

Made by `load`; asked by `administrator.access` for every request. A decision is made anew each time:
there is no cache of decisions, because the worst answer is a permit that was right a moment ago.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cedarpy

from ztproxy.model.decision import Decision, Explanation
from ztproxy.model.request import Context, Resource
from ztproxy.model.route import Route
from ztproxy.model.subject import Facts
from ztproxy.policy import entities
from ztproxy.policy.circumstances import Circumstances
from ztproxy.policy.explain import explanation
from ztproxy.policy.folded import Folder, Remainder
from ztproxy.policy.operations import Env
from ztproxy.policy.opinions import Allowance
from ztproxy.policy.program import DENIED, Policy, Program, Slice, evaluate, reason
from ztproxy.policy.reference import Reference, disagreement
from ztproxy.policy.schema import ACTIONS, METHODS, SCHEMA, action, relaxed
from ztproxy.policy.subject import Subject
from ztproxy.policy.values import Entity, Uid

__all__ = ["ENGINES", "Engine", "Place", "PolicySet", "Subject"]

Engine = Literal["compiled", "reference", "verify"]
ENGINES: Final[tuple[Engine, ...]] = ("compiled", "reference", "verify")

#: Up to here the second opinion is asked about all policies, so that it checks the slicing too;
#: in larger sets only about the slice, so that its cost does not grow with the set.
WHOLE: Final = 32

#: Second opinions on the first decisions of slices, and of what is left of them to ask: so many at once, and
#: one in so many ms. One takes 0.7 ms while its policies have to be read, so 2,000 routes that are all new
#: take some 1.4 per cent of a core until their turn has come.
FIRST: Final = (20, 50)
#: On all others: less than a 500th of a core however many requests there are, and nearly every decision of a
#: worker that has few.
FURTHER: Final = (10, 200)

#: Slices of which it is kept what is left to ask of a caller.
SLICES: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A configured route."""

    entity: Entity
    ours: bool = False  # only policies that name it concern it


class PolicySet:
    """Compiled policies bound to the configured routes."""

    __slots__ = (
        "_circumstances",
        "_engine",
        "_first",
        "_folder",
        "_further",
        "_places",
        "_program",
        "_references",
        "_schema",
        "_slices",
        "_store",
        "_whole",
        "digest",
    )

    def __init__(
        self,
        program: Program,
        routes: Iterable[Route],
        circumstances: Circumstances,
        *,
        engine: Engine,
        digest: str,
        schema: str = SCHEMA,
    ) -> None:
        self.digest = digest
        self._program = program
        self._circumstances = circumstances
        self._engine: Engine = engine
        self._folder = Folder()
        self._first, self._further = Allowance(*FIRST), Allowance(*FURTHER)
        self._whole = engine != "compiled"  # whoever asks for every decision twice wants all of it checked
        self._schema = cedarpy.Schema.from_str(schema if self._whole else relaxed(schema))
        self._places: dict[str, Place] = {}
        #: By kind of caller, then by method, then by route: the last is the only look-up that is another for
        #: each route. Made on first use, so never more than there are of each, whatever arrives on the wire.
        self._slices: dict[str, dict[str, dict[str, Slice]]] = {}
        self._store: dict[Uid, Entity] = dict(ACTIONS)
        self._references: dict[tuple[str, ...], Reference] = {}
        for route in routes:
            place, app = entities.route_entities(route)
            self._places[route.name] = Place(place, route.portal or route.carries)
            self._store |= {place.uid: place, app.uid: app}

    @property
    def policies(self) -> Sequence[Policy]:
        """All policies in the order of the sources, the built-in one last."""
        return self._program.policies

    @staticmethod
    def subject(facts: Facts) -> Subject:
        """Return the caller as policies see it; keep it until the facts change (8 to 10 µs)."""
        return entities.subject(facts)

    def decide(
        self,
        subject: Subject,
        resource: Resource,
        method: str,
        context: Context,
        now: int,
    ) -> Decision:
        """Decide one request. Total: whatever goes wrong is a decision that denies and says so.

        `now`: ms since the epoch.
        """
        part = self._slice(subject.kind, resource, method)
        if part is None:
            return DENIED
        left = subject.left.get(part)
        env = self._environment(subject, part, context, now)
        if isinstance(env, Decision):
            return env
        if self._whole:
            return self._second(part, env, subject)
        if left is None:
            decision, new = self._anew(part, env, subject), not part.confirmed
        else:
            decision, new = left.evaluate(env), not left.confirmed
        if subject.uncertain and not decision.allow:
            return decision  # nobody could confirm it, see `_verified`
        if not (self._first if new else self._further).grant(now):
            return decision
        return self._confirmed(decision, left or part, part, env, subject)

    def explain(
        self,
        subject: Subject,
        resource: Resource,
        method: str,
        context: Context,
        now: int,
    ) -> Explanation:
        """Say why a request is refused and what would change it. For refused requests only."""
        part = self._slice(subject.kind, resource, method)
        if part is None:
            return Explanation((), ())
        env = self._environment(subject, part, context, now)
        if isinstance(env, Decision):
            return Explanation((), ("retry-later",))
        signed_in = self._slice("User", resource, method) if subject.kind == "Anonymous" else None
        return explanation(part, env, evaluate(part, env), may_sign_in=bool(signed_in and signed_in.permits))

    def both(
        self, facts: Facts, resource: Resource, method: str, context: Context, now: int
    ) -> Iterator[tuple[str, Decision]]:
        """Yield (name of the engine, decision) of each engine that can decide: for tests of policies."""
        subject = entities.subject(facts)
        part = self._slice(subject.kind, resource, method)
        if part is None:
            yield "compiled", DENIED
            return
        env = self._environment(subject, part, context, now)
        if isinstance(env, Decision):
            yield "compiled", env
            return
        yield "compiled", evaluate(part, env)
        if not subject.uncertain:
            yield "reference", self._referred(part, env)

    # ------------------------------------------------------------------ steps

    def _anew(self, part: Slice, env: Env, subject: Subject) -> Decision:
        """Evaluate a slice for a caller. What is left to ask of them is found out at their second request."""
        left = subject.left
        if part in left:
            left[part] = self._folder.fold(part, env)
        else:
            if len(left) >= SLICES:
                left.clear()
            left[part] = None
        return evaluate(part, env)

    def _slice(self, kind: str, resource: Resource, method: str) -> Slice | None:
        of_kind = self._slices.get(kind)
        of_method = of_kind.get(method) if of_kind is not None else None
        part = of_method.get(resource.id) if of_method is not None else None
        if part is None:
            return self._first_slice(kind, resource, method)
        return part if resource.type == "Route" else None

    def _first_slice(self, kind: str, resource: Resource, method: str) -> Slice | None:
        place = self._places.get(resource.id)
        if place is None or resource.type != "Route" or method not in METHODS:
            return None
        part = self._program.slice(kind, ACTIONS[action(method)], place.entity, named_only=place.ours)
        self._slices.setdefault(kind, {}).setdefault(method, {})[resource.id] = part
        return part

    def _environment(
        self,
        subject: Subject,
        part: Slice,
        context: Context,
        now: int,
    ) -> Env | Decision:
        """Return what to evaluate in, or why that is impossible."""
        if subject.fault:
            return Decision(False, "error", (), (subject.fault,))
        action, age, sources = part.action, subject.feed_age, subject.sources
        try:
            around = self._circumstances.of(context, action.id, now, age, sources)
        except Exception as error:  # noqa: BLE001 - values no policy can be asked about deny
            return Decision(False, "error", (), (f"context: {reason(error)}",))
        return Env(subject.entity, action, part.resource, around, self._store)

    def _second(self, part: Slice, env: Env, subject: Subject) -> Decision:
        """Decide by the reference engine, or by both."""
        if self._engine == "reference" and not subject.uncertain:
            return self._referred(part, env)
        return self._verified(evaluate(part, env), part, env, subject)

    def _confirmed(
        self, decision: Decision, by: Slice | Remainder, part: Slice, env: Env, subject: Subject
    ) -> Decision:
        """Have a decision confirmed. What it was made by stays new until an opinion agrees."""
        confirmed = self._verified(decision, part, env, subject)
        by.confirmed = confirmed is decision
        return confirmed

    def _verified(self, decision: Decision, part: Slice, env: Env, subject: Subject) -> Decision:
        """Have a decision confirmed. The reference engine knows no UNKNOWN, so of a caller with unknown
        facts only a permit can be confirmed: it was made without reading them."""
        if subject.uncertain and not decision.allow:
            return decision
        difference = disagreement(decision, self._referred(part, env))
        return Decision(False, "error", decision.policies, (difference,)) if difference else decision

    def _referred(self, part: Slice, env: Env) -> Decision:
        """Decide by the reference engine; what it can not be asked about, or not answer, denies."""
        try:
            return self._reference(part, env).decide(env)
        except Exception as error:  # noqa: BLE001 - decide is total
            return Decision(False, "error", (), (f"reference: {reason(error)}",))

    def _reference(self, part: Slice, env: Env) -> Reference:
        ours = self._places[env.resource.id].ours
        key = (
            (env.principal.type, env.action.id, env.resource.id) if ours or len(self.policies) > WHOLE else ()
        )
        found = self._references.get(key)
        if found is None:
            policies = [rule.policy for rule in part.rules] if key else self.policies
            found = self._references[key] = Reference(policies, self._store, self._schema, whole=self._whole)
        return found

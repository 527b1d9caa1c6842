"""The engine's core: policies compiled, sliced and evaluated. Knows Cedar, and nothing of our schema.

Used by `engine`, and by the tests, which run the official corpus through it. The one difference to Cedar
is deliberate: a policy that can not be evaluated is not skipped, it denies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from cedarpy import pst

from ztproxy.model.decision import Decision
from ztproxy.policy.compile import Part, conditions, parts_of, uid_of
from ztproxy.policy.operations import Env
from ztproxy.policy.shapes import Code
from ztproxy.policy.sources import Statement
from ztproxy.policy.values import Entity, EvalError, Record, Uid

#: Annotations of permits that become duties of whoever opens the path.
OBLIGATIONS: Final = ("record", "maxsession", "recheck", "alert", "stale")

DENIED: Final = Decision(allow=False, kind="default-deny")


class _Absent(dict[str, object]):
    """Attributes of an entity nobody knows: `has` finds none, reading one is an error."""

    def __missing__(self, name: str) -> object:
        raise EvalError("missing entity")


_ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Policy:
    """One compiled policy. `id` is its @id, or Cedar's own name for it where there is none."""

    id: str
    permits: bool
    statement: Statement
    holds: Code
    obligations: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] | None = None  # `holds` in its parts, see compile.parts_of; None: not known
    alone: Decision = field(init=False)  # the decision when this policy is the only one that determines it

    def __post_init__(self) -> None:
        object.__setattr__(self, "alone", self._alone())

    def _alone(self) -> Decision:
        kind = "permit" if self.permits else "forbid"
        return Decision(
            allow=self.permits,
            kind=kind,  # type: ignore[arg-type]
            policies=(self.id,),
            obligations=self.obligations,
        )

    @property
    def tree(self) -> pst.Template:
        """The syntax tree."""
        return self.statement.tree

    def annotation(self, name: str) -> str:
        """Return an annotation's text, "" without."""
        return self.tree.annotations.get(name, "")


class Rule(NamedTuple):
    """A policy within a slice: what is left to ask once principal type, action and resource are fixed."""

    above: Uid | None  # `principal in`
    same: Uid | None  # `principal ==`
    holds: Code
    policy: Policy
    parts: tuple[Part, ...] | None = None  # `holds` in its parts, see compile.parts_of; None: not known


@final
class Slice:
    """The policies that can concern one (principal type, action, resource). Equal to nothing but itself."""

    __slots__ = ("action", "confirmed", "forbids", "permits", "resource", "rules")

    def __init__(
        self, action: Entity, resource: Entity, forbids: tuple[Rule, ...], permits: tuple[Rule, ...]
    ) -> None:
        self.action: Final = action.uid
        self.resource: Final = resource
        self.forbids: Final = forbids
        self.permits: Final = permits
        self.rules: Final = (*forbids, *permits)
        self.confirmed = False  # whether a second opinion has agreed with what it decided


def compiled(statement: Statement, name: str) -> Policy:
    """Compile one statement."""
    tree = statement.tree
    permits = tree.effect == "permit"
    found = [(word, tree.annotations[word]) for word in OBLIGATIONS if permits and word in tree.annotations]
    return Policy(
        tree.annotations.get("id") or name,
        permits,
        statement,
        conditions(tree.clauses),
        tuple(found),
        parts_of(tree.clauses),
    )


class Program:
    """Compiled policies with an index by the resources they name."""

    __slots__ = ("_anywhere", "_named", "policies")

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.policies = tuple(compiled(one, f"policy{n}") for n, one in enumerate(statements))
        self._anywhere: list[int] = []
        self._named: dict[Uid, list[int]] = {}
        for number, policy in enumerate(self.policies):
            match policy.tree.resource:
                case pst.ScopeEq(entity) | pst.ScopeIn(entity) | pst.ScopeIsIn(_, entity):
                    assert isinstance(entity, pst.EntityUid)  # templates do not get this far
                    self._named.setdefault(uid_of(entity), []).append(number)
                case _:
                    self._anywhere.append(number)

    def slice(self, kind: str, action: Entity, resource: Entity, *, named_only: bool = False) -> Slice:
        """Return the policies that concern principals of type `kind` doing `action` to `resource`.

        `named_only`: only policies whose scope names the resource or something above it.
        """
        numbers = [] if named_only else list(self._anywhere)
        for uid in resource.lineage:
            numbers += self._named.get(uid, ())
        rules = [self._rule(self.policies[number], kind, action, resource) for number in sorted(numbers)]
        found = [rule for rule in rules if rule is not None]
        return Slice(
            action,
            resource,
            tuple(rule for rule in found if not rule.policy.permits),
            tuple(rule for rule in found if rule.policy.permits),
        )

    @staticmethod
    def _rule(policy: Policy, kind: str, action: Entity, resource: Entity) -> Rule | None:
        tree = policy.tree
        if not _acts(tree.action, action) or not _reaches(tree.resource, resource):
            return None
        match tree.principal:
            case pst.ScopeIs(entity_type) | pst.ScopeIsIn(entity_type, _) if str(entity_type) != kind:
                return None
            case pst.ScopeEq(entity):
                same = _uid(entity)
                return Rule(None, same, policy.holds, policy, policy.parts) if same.type == kind else None
            case pst.ScopeIn(entity) | pst.ScopeIsIn(_, entity):
                return Rule(_uid(entity), None, policy.holds, policy, policy.parts)
        return Rule(None, None, policy.holds, policy, policy.parts)


def _uid(entity: pst.EntityOrSlot) -> Uid:
    assert isinstance(entity, pst.EntityUid)  # templates do not get this far
    return uid_of(entity)


def _acts(scope: pst.ActionConstraint, action: Entity) -> bool:
    match scope:
        case pst.ActionEq(entity):
            return uid_of(entity) == action.uid
        case pst.ActionIn(entities):
            return any(uid_of(entity) in action.lineage for entity in entities)
    return True


def _reaches(scope: pst.PrincipalOrResourceConstraint, resource: Entity) -> bool:
    match scope:
        case pst.ScopeEq(entity):
            return _uid(entity) == resource.uid
        case pst.ScopeIn(entity):
            return _uid(entity) in resource.lineage
        case pst.ScopeIs(entity_type):
            return str(entity_type) == resource.uid.type
        case pst.ScopeIsIn(entity_type, entity):
            return str(entity_type) == resource.uid.type and _uid(entity) in resource.lineage
    return True


def environment(
    principal: Uid, action: Uid, resource: Uid, context: Record, store: Mapping[Uid, Entity]
) -> Env:
    """Return the environment of a request whose entities all stand in `store`, or nowhere."""
    who = store.get(principal)
    what = store.get(resource) or Entity(resource, _ABSENT)
    return Env(who or Entity(principal, _ABSENT), action, what, None, store, context, stranger=who is None)


def evaluate(part: Slice, env: Env) -> Decision:
    """Decide: errors deny, forbids override, and nothing permits by default."""
    forbids = permits = ()  # type: tuple[Policy, ...]
    errors: tuple[str, ...] = ()
    principal, lineage = env.principal, env.lineage
    for above, same, holds, policy, _ in part.rules:
        if above is not None and above not in lineage:
            continue
        if same is not None and same != principal:
            continue
        try:
            if holds.holds(env):
                if policy.permits:
                    permits += (policy,)
                else:
                    forbids += (policy,)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here denies, and is named
            errors += (f"{policy.id}: {reason(error)}",)
    return concluded(forbids, permits, errors)


def concluded(forbids: tuple[Policy, ...], permits: tuple[Policy, ...], errors: tuple[str, ...]) -> Decision:
    """Return the decision that follows from the policies that hold, and those that could not be evaluated."""
    if errors:
        return Decision(False, "error", tuple(policy.id for policy in forbids), errors)
    if forbids:
        return forbids[0].alone if len(forbids) == 1 else _together(forbids)
    if permits:
        return permits[0].alone if len(permits) == 1 else _together(permits)
    return DENIED


def reason(error: Exception) -> str:
    """Return what went wrong, in a few words."""
    if isinstance(error, KeyError):
        return f"missing attribute {error.args[0]}"
    return str(error) if isinstance(error, EvalError) else f"{type(error).__name__}: {error}"[:200]


def _together(policies: tuple[Policy, ...]) -> Decision:
    """The decision of several policies: all their obligations, each once, in a stable order."""
    allow = policies[0].permits
    duties = {duty for policy in policies for duty in policy.obligations}
    return Decision(
        allow=allow,
        kind="permit" if allow else "forbid",
        policies=tuple(policy.id for policy in policies),
        obligations=tuple(sorted(duties)),
    )

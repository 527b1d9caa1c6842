"""Why a request was refused, and what would change it. Only refusals pay for it; output is bounded.

Called by `engine` and `cases`. Forbids speak for themselves; where nothing permitted, the permits that came
nearest are listed with the conditions that failed and the values they read. Conditions and values reveal
policy: they are for the record, while reasons and remedies are for the caller.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from cedarpy import pst

from ztproxy.model.decision import Decision, Explanation, NearMiss
from ztproxy.model.subject import UNKNOWN
from ztproxy.policy.compile import test
from ztproxy.policy.operations import Env, entity
from ztproxy.policy.program import Policy, Rule, Slice
from ztproxy.policy.render import expression, reads, shown, uid_text
from ztproxy.policy.values import Uid, Value

MAX_MISSES: Final = 5
MAX_FAILED: Final = 6
MAX_CONDITION: Final = 400  # characters, values included
MAX_VALUE: Final = 80
MAX_WORDS: Final = 5  # reasons, remedies

#: What helps when a condition on this fact fails: the longest beginning of the path counts.
HELP: Final[dict[tuple[str, ...], str]] = {
    ("principal", "device"): "enrol-device",
    ("principal", "device", "proof"): "recheck-device",
    ("principal", "device", "proved_at"): "recheck-device",
    ("principal", "device", "posture"): "recheck-device",
    ("principal", "device", "posture", "healthy"): "fix-device",
    ("principal", "device", "posture", "checks"): "fix-device",
    ("principal", "session", "auth_time"): "step-up-mfa",
    ("principal", "session", "amr"): "step-up-mfa",
    ("principal", "session", "acr"): "step-up-mfa",
    ("principal", "credential_expires"): "renew-certificate",
    ("context", "now"): "wait-for-window",
    ("context", "local"): "wait-for-window",
}


def explanation(part: Slice, env: Env, decision: Decision, *, may_sign_in: bool = False) -> Explanation:
    """Explain a decision that denies. `may_sign_in`: somebody signed in could be permitted."""
    if decision.kind == "error":
        return Explanation((), ("retry-later",))
    if decision.kind == "forbid":
        return _forbidden(part, env, decision)
    if decision.allow:
        return Explanation((), ())
    misses = sorted((_Miss(rule, env) for rule in part.permits), key=lambda miss: miss.distance)
    near = [miss for miss in misses if miss.in_scope]
    words = [word for miss in near for word in miss.remedies]
    return Explanation(
        reasons=_once(miss.policy.annotation("reason") for miss in near),
        remedies=("sign-in",) if may_sign_in and not words else _once(words),
        near_misses=tuple(miss.told() for miss in misses[:MAX_MISSES]),
    )


def _forbidden(part: Slice, env: Env, decision: Decision) -> Explanation:
    """Remedies are told only to whom some permit is meant for: to others they would not help."""
    forbids = [rule.policy for rule in part.forbids if rule.policy.id in decision.policies]
    meant = any(_in_scope(rule, env) for rule in part.permits)
    return Explanation(
        reasons=_once(policy.annotation("reason") for policy in forbids),
        remedies=_once(word for policy in forbids for word in remedies_of(policy)) if meant else (),
    )


def remedies_of(policy: Policy) -> tuple[str, ...]:
    """Return the words of a policy's @remedy."""
    return tuple(word.strip() for word in policy.annotation("remedy").split(",") if word.strip())


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))[:MAX_WORDS]


class _Miss:
    """A permit that did not permit, and what was in its way."""

    __slots__ = ("_env", "failed", "in_scope", "policy")

    def __init__(self, rule: Rule, env: Env) -> None:
        self.policy = rule.policy
        self._env = env
        self.in_scope = _in_scope(rule, env)
        self.failed = list(_failed(rule.policy, env))

    @property
    def distance(self) -> tuple[bool, int]:
        return not self.in_scope, len(self.failed)

    @property
    def remedies(self) -> tuple[str, ...]:
        """The policy's own words, else what its failed conditions suggest."""
        named = remedies_of(self.policy)
        return named or tuple(word for _, node in self.failed if (word := _help(node, self._env)))

    def told(self) -> NearMiss:
        conditions = [_told(when, node, self._env) for when, node in self.failed[:MAX_FAILED]]
        if not self.in_scope:
            conditions.insert(0, _scope(self.policy))
        return NearMiss(
            policy=self.policy.id,
            failed=tuple(conditions[:MAX_FAILED]),
            remedy=_once(self.remedies) if self.in_scope else (),
            reason=self.policy.annotation("reason")[:MAX_CONDITION],
        )


def _in_scope(rule: Rule, env: Env) -> bool:
    return (rule.above is None or rule.above in env.lineage) and (
        rule.same is None or rule.same == env.principal
    )


def _scope(policy: Policy) -> str:
    match policy.tree.principal:
        case pst.ScopeEq(pst.EntityUid() as uid):
            return f"principal == {uid_text(str(uid.type), uid.id)}"[:MAX_CONDITION]
        case pst.ScopeIn(pst.EntityUid() as uid) | pst.ScopeIsIn(_, pst.EntityUid() as uid):
            return f"principal in {uid_text(str(uid.type), uid.id)}"[:MAX_CONDITION]
    return "principal"


def _failed(policy: Policy, env: Env) -> Iterator[tuple[bool, pst.Expr]]:
    """Yield (is a `when`, condition) for conditions that are in the way.

    A condition that can not be evaluated after another failed is a consequence of it
    (`has device && device.…`), not a reason of its own.
    """
    for clause in policy.tree.clauses:
        when = isinstance(clause, pst.When)
        already = False
        for node in _parts(clause.expr, "and" if when else "or"):
            try:
                stands = test(node).holds(env) is when
            except Exception:  # noqa: BLE001 - what can not be evaluated does not hold
                stands = already
            if not stands:
                already = True
                yield when, node


def _parts(node: pst.Expr, op: str) -> list[pst.Expr]:
    if isinstance(node, pst.BinaryOp) and node.op == op:
        return _parts(node.left, op) + _parts(node.right, op)
    return [node]


def _told(when: bool, node: pst.Expr, env: Env) -> str:
    text = expression(node) if when else f"unless {expression(node)}"
    values = [f"{'.'.join(path)} = {_value(path, env)}" for path in dict.fromkeys(reads(node))]
    return (f"{text} ({', '.join(values)})" if values else text)[:MAX_CONDITION]


def _value(path: tuple[str, ...], env: Env) -> str:
    steps = _walk(path, env)
    if len(steps) <= len(path) - 1 or steps[-1] is None:
        return "absent"
    text = shown(steps[-1])
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _walk(path: tuple[str, ...], env: Env) -> list[Value]:
    """Return the values along a path, as far as they are there; unknown and missing ones end it."""
    roots: dict[str, Value] = {
        "context": env.context,
        "principal": env.principal,
        "action": env.action,
        "resource": env.resource,
    }
    found: list[Value] = [roots[path[0]]]
    for name in path[1:]:
        base = found[-1]
        if type(base) is Uid:
            known = entity(base, env)
            base = known.attributes if known else {}
        if type(base) is not dict or name not in base or base[name] is UNKNOWN:
            break
        found.append(base[name])
    return found


def _help(node: pst.Expr, env: Env) -> str:
    """Return the remedy a failed condition suggests: of the caller's facts first, then of the time."""
    words: dict[str, str] = {}
    for path in reads(node):
        reached = path[: len(_walk(path, env)) + 1]  # up to and including the first step that is missing
        while reached and reached not in HELP:
            reached = reached[:-1]
        if reached:
            words.setdefault(path[0], HELP[reached])
    return words.get("principal") or words.get("context") or ""

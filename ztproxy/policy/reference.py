"""Cedar's own engine (cedarpy, Rust) on the inputs of one decision: the second opinion.

Called by `engine`, to check the compiled closures and for tests of policies. It is twenty times slower
than the closures and knows no UNKNOWN: unknown facts are left out of its inputs, as is what its policies
can not read of caller and resource (`needs`). It never sees anything that was compiled, folded or worked out
for another request.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, final

import cedarpy
import msgspec
from cedarpy import pst

from ztproxy.model.decision import Decision
from ztproxy.policy.compile import uid_of
from ztproxy.policy.literals import record_to_json
from ztproxy.policy.needs import EVERYTHING, Needs, narrowed, needs_of
from ztproxy.policy.operations import Env
from ztproxy.policy.program import Policy
from ztproxy.policy.values import Entity, Uid

#: Sets of entities kept as Cedar holds them; beyond it all are read anew.
KEPT: Final = 256
_ERROR: Final = re.compile(r"error while evaluating policy `(policy[0-9]+)`: (.*)", re.DOTALL)


@final
class Reference:
    """Cedar's engine over a list of policies, with the entities their conditions name."""

    __slots__ = ("_named", "_needs", "_policies", "_read", "_schema", "_set")

    def __init__(
        self,
        policies: Sequence[Policy],
        store: Mapping[Uid, Entity],
        schema: cedarpy.Schema,
        *,
        whole: bool,
    ) -> None:
        """`whole`: everything is told, so that the schema can find what is missing in it. Else of caller and
        resource only what the policies can read, and `schema` must require no attribute. Circumstances are
        told all the same."""
        self._policies = {f"policy{number}": policy for number, policy in enumerate(policies)}
        self._set = cedarpy.PolicySet.from_str("\n".join(policy.statement.text for policy in policies))
        self._schema = schema
        self._read: dict[tuple[str, Uid], cedarpy.Entities] = {}
        clauses = tuple(clause for policy in policies for clause in policy.tree.clauses)
        self._needs = EVERYTHING if whole else needs_of(clauses)
        uids = {uid_of(uid) for uid in pst.entity_uids(clauses)}
        # Cedar takes the actions from the schema
        self._named = [store[uid] for uid in uids if uid in store and uid.type != "Action"]

    def decide(self, env: Env) -> Decision:
        """Return Cedar's answer by our rule: an error denies."""
        try:
            answer = cedarpy.is_authorized(self._request(env), self._set, self._entities(env), self._schema)
        except ValueError as error:
            return Decision(False, "error", (), (f"reference: {error}"[:300],))
        if answer.decision is cedarpy.Decision.NoDecision:
            return Decision(False, "error", (), (f"reference: {answer.diagnostics.errors}"[:300],))
        return self._decision(answer)

    def _request(self, env: Env) -> dict[str, object]:
        return {
            "principal": _named(env.principal),
            "action": _named(env.action),
            "resource": _named(env.resource),
            "context": _text(record_to_json(env.context)),
        }

    def _entities(self, env: Env) -> cedarpy.Entities:
        """Read entities, or return them as read before: that costs more than all the rest of an opinion.

        What may be different in each request is told apart by its very text, so never out of date; what
        is in the store stays as it was when the policies were loaded.
        """
        text = "" if env.stranger else _text(_entity(env.who, self._needs.get("principal", {})))
        key = (text, env.resource)
        found = self._read.get(key)
        if found is None:
            if len(self._read) >= KEPT:
                self._read.clear()
            both = ",".join([text, *self._others(env)] if text else self._others(env))
            found = self._read[key] = cedarpy.Entities.from_json_str(f"[{both}]", self._schema)
        return found

    def _others(self, env: Env) -> list[str]:
        """All entities of a request but the principal."""
        found = {entity.uid: _text(_entity(entity, None)) for entity in self._named}
        if env.resource in env.store:
            found[env.resource] = _text(_entity(env.store[env.resource], self._needs.get("resource", {})))
        if not env.stranger:
            found.pop(env.principal, None)
        return list(found.values())

    def _decision(self, answer: cedarpy.AuthzResult) -> Decision:
        found = sorted(answer.diagnostics.reasons, key=lambda name: int(name[6:]))
        policies = [self._policies[name] for name in found]
        ids = tuple(policy.id for policy in policies)
        if answer.diagnostics.errors:
            forbids = tuple(policy.id for policy in policies if not policy.permits)
            return Decision(False, "error", forbids, tuple(map(self._error, answer.diagnostics.errors)))
        if answer.decision is cedarpy.Decision.Allow:
            duties = {duty for policy in policies for duty in policy.obligations}
            return Decision(True, "permit", ids, (), tuple(sorted(duties)))
        return Decision(False, "forbid" if ids else "default-deny", ids)

    def _error(self, text: str) -> str:
        match = _ERROR.match(text)
        return f"{self._policies[match[1]].id}: {match[2]}"[:300] if match else f"reference: {text}"[:300]


def _named(uid: Uid) -> dict[str, object]:
    return {"type": uid.type, "id": uid.id}


def _entity(entity: Entity, needs: Needs) -> dict[str, object]:
    return {
        "uid": _named(entity.uid),
        "attrs": narrowed(entity.attributes, needs),
        "parents": [_named(uid) for uid in sorted(entity.ancestors)],
        "tags": record_to_json(entity.tags),
    }


def _text(value: dict[str, object]) -> str:
    return msgspec.json.encode(value).decode()


def disagreement(ours: Decision, theirs: Decision) -> str:
    """Return how two engines differ on one request, "" if they do not."""
    if ours.allow != theirs.allow or ours.kind != theirs.kind:
        return f"engines disagree: compiled says {ours.kind}, reference says {theirs.kind}"
    if _failing(ours) != _failing(theirs):
        return "engines disagree: they name different policies as failing"
    if ours.kind != "error" and sorted(ours.policies) != sorted(theirs.policies):
        return "engines disagree: they name different policies as determining"
    return ""


def _failing(decision: Decision) -> set[str]:
    return {error.partition(": ")[0] for error in decision.errors}

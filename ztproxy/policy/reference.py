"""Cedar's own engine (cedarpy, Rust) on the inputs of one decision: the second opinion.

Called by `engine`, to check the compiled closures and for tests of policies. It is a hundred times slower
than the closures and knows no UNKNOWN: unknown facts are left out of its inputs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import cedarpy
from cedarpy import pst
from msgspec import Struct

from ztproxy.model.decision import Decision
from ztproxy.policy.compile import uid_of
from ztproxy.policy.literals import record_to_json
from ztproxy.policy.operations import Env
from ztproxy.policy.program import Policy
from ztproxy.policy.values import Entity, Uid

#: Sets of entities kept as Cedar holds them; beyond it all are read anew.
KEPT: Final = 256
_ERROR: Final = re.compile(r"error while evaluating policy `(policy[0-9]+)`: (.*)", re.DOTALL)


class Inputs(Struct, frozen=True):
    """Everything a decision is made from, in Cedar's JSON form."""

    request: dict[str, object]
    entities: tuple[dict[str, object], ...]


class Reference:
    """Cedar's engine over a list of policies, with the entities their conditions name."""

    __slots__ = ("_named", "_policies", "_read", "_schema", "_set")

    def __init__(
        self,
        policies: Sequence[Policy],
        store: Mapping[Uid, Entity],
        schema: cedarpy.Schema | None,
    ) -> None:
        self._policies = {f"policy{number}": policy for number, policy in enumerate(policies)}
        self._set = cedarpy.PolicySet.from_str("\n".join(policy.statement.text for policy in policies))
        self._schema = schema
        self._read: dict[str, cedarpy.Entities] = {}  # by their very text, so never out of date
        clauses = tuple(clause for policy in policies for clause in policy.tree.clauses)
        uids = {uid_of(uid) for uid in pst.entity_uids(clauses)}
        # Cedar takes the actions from the schema, where there is one
        self._named = [
            store[uid] for uid in uids if uid in store and (schema is None or uid.type != "Action")
        ]

    def inputs(self, env: Env) -> Inputs:
        """Return what is needed to decide this request."""
        entities = {entity.uid: entity for entity in self._named}
        if env[2] in env[4]:
            entities[env[2]] = env[4][env[2]]
        if env[8] is not None:
            entities[env[0]] = env[8]
        if self._schema is None and env[1] in env[4]:
            entities[env[1]] = env[4][env[1]]
        request: dict[str, object] = {
            "principal": env[0]._asdict(),
            "action": env[1]._asdict(),
            "resource": env[2]._asdict(),
            "context": record_to_json(env[3]),
        }
        return Inputs(request, tuple(_entity(entity) for entity in entities.values()))

    def decide(self, inputs: Inputs) -> Decision:
        """Return Cedar's answer by our rule: an error denies."""
        try:
            entities = self._entities(json.dumps(inputs.entities))
            answer = cedarpy.is_authorized(inputs.request, self._set, entities, self._schema)
        except ValueError as error:
            return Decision(False, "error", (), (f"reference: {error}"[:300],))
        if answer.decision is cedarpy.Decision.NoDecision:
            return Decision(False, "error", (), (f"reference: {answer.diagnostics.errors}"[:300],))
        return self._decision(answer)

    def _entities(self, text: str) -> cedarpy.Entities:
        """Read entities, or return them as read before: that is half of what an opinion costs."""
        found = self._read.get(text)
        if found is None:
            if len(self._read) >= KEPT:
                self._read.clear()
            found = self._read[text] = cedarpy.Entities.from_json_str(text, self._schema)
        return found

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


def _entity(entity: Entity) -> dict[str, object]:
    return {
        "uid": entity.uid._asdict(),
        "attrs": record_to_json(entity.attributes),
        "parents": [uid._asdict() for uid in sorted(entity.ancestors)],
        "tags": record_to_json(entity.tags),
    }


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

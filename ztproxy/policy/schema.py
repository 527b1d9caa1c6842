"""The product's own Cedar schema: every name a policy may use, and the enumerations behind its strings.

Read by `load` (validation), `lint` (values the type system does not know) and `reference`. It only ever
grows: a name that policies use is never taken away. `docs/reference/policy.md` shows the same text.
"""

import json
import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final, get_args

from ztproxy.model.standing import Compliance, Risk, State
from ztproxy.policy.values import Entity, Uid

SCHEMA: Final = """\
// Who asks
entity Group;
entity Anonymous;
entity User in [Group] = {
  issuer: String, name: String, email?: String,
  session: Session, device?: Device,
  risk: String, risk_at?: datetime
};
entity Workload in [Group] = {
  issuer: String, name: String, spiffe_id?: String,
  credential_expires: datetime, device?: Device,
  risk: String, risk_at?: datetime
};

type Session = {
  id: String, created_at: datetime, auth_time: datetime,
  amr: Set<String>, acr: String, provider: String,
  risk: String
};
type Device = {
  id: String, name: String, owner: String,
  proof: String, proved_at?: datetime, posture?: Posture,
  risk: String, compliance: String, compliance_at?: datetime
};
type Posture = {
  reported_at: datetime, healthy: Bool, level: String,
  source: String, os: String, checks: Checks
};
type Checks = {
  disk_encrypted?: Check, firewall?: Check, screen_lock?: Check,
  secure_boot?: Check, os_current?: Check, edr?: Check
};
type Check = { result: String, observed_at: datetime };

// What is reached
entity App;
entity Route in [App] = { host: String, labels: Set<String> };

// What is done, and the circumstances
type Local = { hour: Long, minute: Long, weekday: Long };
type Source = { age: Long, state: String };
type Sources = {};
type Http = {
  now: datetime, local: Local, ip: ipaddr, host: String, path: String,
  method: String, protocol: String, feed_age: Long, sources: Sources
};
action "any";
action "http" in ["any"];
action "read", "write" in ["http"];
action "GET", "HEAD", "OPTIONS" in ["read"]
  appliesTo { principal: [User, Workload, Anonymous], resource: [Route], context: Http };
action "POST", "PUT", "PATCH", "DELETE" in ["write"]
  appliesTo { principal: [User, Workload, Anonymous], resource: [Route], context: Http };
"""


def schema_of(sources: Iterable[str]) -> str:
    """Return the schema for these configured sources of facts. One that was never heard has no value."""
    fields = ", ".join(f"{json.dumps(name)}?: Source" for name in sorted(sources))
    return SCHEMA.replace("type Sources = {};", f"type Sources = {{ {fields} }};") if fields else SCHEMA


def relaxed(schema: str) -> str:
    """Return the same schema with no attribute required. Which there can be, and of which types, stays."""
    return _DECLARED.sub(lambda found: _FIELD.sub("?: ", found[0]), schema)


_DECLARED: Final = re.compile(r"^(?:entity|type) [^;]*;", re.MULTILINE)
_FIELD: Final = re.compile(r"\??: ")

#: Actions that requests ask for. Everything else has no policies, so it is refused.
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

#: Action groups policies may name, and what they stand in.
_PARENTS: Final = {"http": "any", "read": "http", "write": "http"}

#: Device checks that policies can read by name.
CHECKS: Final = frozenset({"disk_encrypted", "firewall", "screen_lock", "secure_boot", "os_current", "edr"})

_RISKS: Final = frozenset(get_args(Risk))

#: Strings with a closed list of values: the last steps of an attribute path -> what it can be.
WORDS: Final[dict[tuple[str, ...], frozenset[str]]] = {
    ("context", "protocol"): frozenset({"http", "websocket"}),  # and what routes may upgrade to
    ("context", "method"): frozenset(METHODS),
    ("device", "proof"): frozenset({"", "mtls", "agent"}),
    ("device", "compliance"): frozenset(get_args(Compliance)),
    ("principal", "risk"): _RISKS,
    ("session", "risk"): _RISKS,
    ("device", "risk"): _RISKS,
    ("posture", "level"): frozenset({"self", "attested"}),
    **{(check, "result"): frozenset({"pass", "fail", "unknown"}) for check in sorted(CHECKS)},
}

#: States of a source: `context.sources.NAME.state`.
STATES: Final = frozenset(get_args(State))

#: Numbers we make ourselves, which can not leave these bounds.
RANGES: Final[dict[tuple[str, ...], tuple[int, int]]] = {
    ("context", "local", "hour"): (0, 23),
    ("context", "local", "minute"): (0, 59),
    ("context", "local", "weekday"): (1, 7),
    ("context", "feed_age"): (0, (1 << 63) - 1),
}


def action(name: str) -> Uid:
    """Return the action's entity uid."""
    return Uid("Action", name)


def _actions() -> dict[Uid, Entity]:
    parents = dict(_PARENTS)
    for method in METHODS:
        parents[method] = "read" if method in ("GET", "HEAD", "OPTIONS") else "write"
    found = {action("any"): Entity(action("any"), {})}
    for name in parents:
        above, step = set(), name
        while step in parents:
            step = parents[step]
            above.add(action(step))
        found[action(name)] = Entity(action(name), {}, frozenset(above))
    return found


#: The actions as entities, with everything above each of them.
ACTIONS: Final = MappingProxyType(_actions())

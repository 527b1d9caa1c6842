"""What is written down about every request: appended to journals by workers, sealed by the control process.

Values are frozen as they were at the time: later renames do not rewrite history.
"""

from typing import Final

from msgspec import Struct

#: `decided` and `code` of preflights, which the gateway answers by itself: no access was asked for.
PREFLIGHT: Final = "preflight"

MAX_TEXT: Final = 2048  # characters of one text
MAX_ITEMS: Final = 64  # texts of one list
MAX_RECORD: Final = 1 << 16  # bytes of a record that nobody cut


class DecisionRecord(Struct, frozen=True, tag="decision", tag_field="kind", omit_defaults=True, gc=False):
    """Written before the first byte goes anywhere. Times in ms since the epoch, ages in ms."""

    id: str  # request id
    at: int
    allow: bool
    decided: str  # DecisionKind; "refused" or "preflight" when policy was never asked
    principal: str  # "User::demo:carol"
    name: str = ""
    groups: tuple[str, ...] = ()
    session: str = ""
    device: str = ""
    device_proof: str = ""
    device_proof_age: int = -1  # -1 = no proof
    posture: str = ""  # "healthy", "unhealthy", "missing", "unknown"; "" without a device
    posture_age: int = -1
    feed_age: int = 0
    ip: str = ""
    certificate: str = ""  # fingerprint of the client certificate
    resource: str = ""  # "Route::support"
    action: str = ""  # "GET"
    protocol: str = "http"
    host: str = ""
    path: str = ""  # without query: queries carry secrets
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    policy_set: str = ""  # digest
    code: str = ""  # refusal code
    remedies: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    detail: str = ""  # what exactly is wrong with the request, a word of wire.flaws; the lock that is on it
    standing: tuple[str, ...] = ()  # what signals said: "risk=high", "device.compliance=not-compliant"
    sources: tuple[str, ...] = ()  # of facts, as policies were told of them: "NAME STATE AGE"


class OutcomeRecord(Struct, frozen=True, tag="outcome", tag_field="kind", omit_defaults=True, gc=False):
    """Written when the exchange is over, however it ended."""

    id: str  # request id of the decision
    at: int
    session: str = ""
    status: int = 0  # response status sent to the client, 0 = none
    received: int = 0  # body bytes from the client
    sent: int = 0  # body bytes to the client
    duration: int = 0  # ms from decision to end
    first_byte: int = -1  # ms until the upstream's response head
    end: str = "complete"  # "complete", "client-gone", "upstream-failed", "cut: REASON", a refusal code
    detail: str = ""  # what exactly was wrong with request or response, a word of wire.flaws
    upstream: str = ""  # address of the target that served it, where a route has several


class SessionRecord(Struct, frozen=True, tag="session", tag_field="kind", omit_defaults=True, gc=False):
    """Something happened to a session: started, device bound, ended."""

    id: str  # session id
    at: int
    event: str  # "started", "changed", "device-bound", "ended"
    principal: str = ""
    name: str = ""
    session: str = ""  # session id again, so that every record of a session has the same field
    device: str = ""
    ip: str = ""
    detail: str = ""


class FloodRecord(Struct, frozen=True, tag="flood", tag_field="kind", omit_defaults=True, gc=False):
    """Refusals of callers that nobody knows, counted instead of recorded one by one."""

    at: int  # when this was written
    source: str  # an address or IPv6 /64; "" = sources that were too many to tell apart
    code: str  # refusal code
    count: int
    first: int  # when the first one came
    last: int


class ConfigurationRecord(Struct, frozen=True, tag="configuration", tag_field="kind", omit_defaults=True):
    """Something happened to what decides: a start, a reload, an upgrade, or the refusal of one."""

    id: str
    at: int
    event: str  # "start", "reload", "upgrade"
    outcome: str  # "applied", "unchanged", "refused"
    by: str = ""
    before: str = ""  # digest of the configuration, hex
    after: str = ""
    policy_set: str = ""  # digest of the policies after, as in decisions
    routes: int = 0
    detail: str = ""


class StandingRecord(Struct, frozen=True, tag="standing", tag_field="kind", omit_defaults=True, gc=False):
    """Something was said that outranks policy, or that policy reads: a lock, the end of sessions, a risk."""

    id: str  # of the lock, or the key of the standing
    at: int
    event: str  # "locked", "unlocked", "noted"
    target: str  # one of model.standing.LOCKABLE
    value: str
    by: str = ""
    session: str = ""  # where it is on one session, so that it is listed there
    expires_at: int = 0
    detail: str = ""  # the reason given, or what was noted


class SignalRecord(Struct, frozen=True, tag="signal", tag_field="kind", omit_defaults=True, gc=False):
    """A signal of somebody who is configured to tell us, and what was done about it."""

    id: str  # jti of the token
    at: int
    source: str  # configured name
    event: str  # "session-revoked"; the URI of an event we do not know
    outcome: str  # "done", "ignored", "unmatched", "overtaken", "discarded", "stream …"
    concerns: tuple[str, ...] = ()  # "user:corp:carol", "device:dev_…", "session:ses_…"
    actions: tuple[str, ...] = ()  # "end", "recheck", "note", "lock", "unlock"
    reason: str = ""  # what the source tells administrators


Record = (
    DecisionRecord
    | OutcomeRecord
    | SessionRecord
    | FloodRecord
    | ConfigurationRecord
    | StandingRecord
    | SignalRecord
)

"""Who asks: principals, sessions, devices and their posture. Values are stored, fed to workers and frozen.

Nothing here can be part of a cycle: what there are many of is kept from the collector (`gc=False`).
All times are wall clock milliseconds since the epoch. Each stored type says its record kind and key
(see `store.interface`).
"""

from typing import Literal

from msgspec import Struct, field

from ztproxy.model.standing import UNSAID, Heard, Said

CheckResult = Literal["pass", "fail", "unknown"]


class Principal(Struct, frozen=True, gc=False):
    """A person, workload or nobody in particular.

    `id` is stable and unique per issuer: "PROVIDER:SUB" for people, the SPIFFE ID (or "x509:CN") for
    workloads, "anonymous" for nobody. `name` is for people's eyes and never decides anything.
    """

    kind: Literal["User", "Workload", "Anonymous"]
    id: str
    issuer: str = ""
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()


ANONYMOUS = Principal(kind="Anonymous", id="anonymous", name="anonymous")


class Session(Struct, frozen=True, gc=False):
    """A signed-in person. Record kind "session", key `id`."""

    id: str  # "ses_" + 26 base32 characters; public, names the session in logs and lists
    principal: Principal
    provider: str  # configured name of the identity provider
    created_at: int
    auth_time: int  # when the person proved who they are (OIDC auth_time, else the sign-in)
    amr: tuple[str, ...] = ()  # RFC 8176 values
    acr: str = ""
    last_seen_at: int = 0  # coarse: refreshed after a quarter of the idle limit, half a minute at least
    expires_at: int = 0  # absolute limit
    idle_limit: int = 0  # ms; 0 = none
    device_id: str = ""  # device this session is bound to
    device_proved_at: int = 0  # last proof by that device (agent signature), 0 = never
    ended_at: int = 0  # 0 while alive; an ended session is kept for the review
    ended_by: str = ""  # "sign-out", "cut by …", "expired"
    ip: str = ""  # where the sign-in came from
    user_agent: str = ""
    sid: str = ""  # what the identity provider calls this session (OIDC `sid`), "" when it does not say
    checked_at: int = 0  # when the provider was last asked and confirmed all this; 0 = at the sign-in


class Handle(Struct, frozen=True, gc=False):
    """One host's cookie for a session. Record kind "handle", key = hex SHA-256 of the cookie value."""

    session_id: str
    host: str
    created_at: int


class Device(Struct, frozen=True):
    """An enrolled device. Record kind "device", key `id`."""

    id: str  # "dev_" + 26 base32 characters
    name: str
    spki: str  # lower-case hex SHA-256 of the device key's SubjectPublicKeyInfo
    jwk: dict[str, str] = field(default_factory=dict)  # public key, EC P-256 (RFC 7517)
    owner: str = ""  # principal id it was enrolled for, if any
    enrolled_at: int = 0
    revoked_at: int = 0
    revoked_by: str = ""


class Check(Struct, frozen=True):
    """One thing observed on a device."""

    result: CheckResult
    observed_at: int


class Posture(Struct, frozen=True):
    """The newest posture document of a device. Record kind "posture", key = device id."""

    device_id: str
    reported_at: int  # when we accepted it
    seq: int  # strictly increasing per device (anti-rollback)
    source: str  # collector, "ztproxy-agent"
    level: Literal["self", "attested"]  # "self": signed by the device key; "attested": by hardware
    healthy: bool  # every check of the document passed
    checks: dict[str, Check] = field(default_factory=dict)
    os: str = ""
    document: str = ""  # SHA-256 hex of the signed document as received


class Unknown:
    """The one value of facts we should know and do not (control unreachable, feed too old)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


class Facts(Struct, frozen=True):
    """All that trust gathered about one caller. None = known to be absent; UNKNOWN = not known."""

    principal: Principal
    session: Session | None = None
    device: Device | None | Unknown = None
    device_proof: Literal["", "mtls", "agent"] = ""
    device_proved_at: int = 0
    posture: Posture | None | Unknown = None
    certificate_expires_at: int = 0  # workloads: end of the credential's life
    feed_age: int = 0  # ms since the control process was last heard
    said: Said = UNSAID  # by signals
    sources: tuple[Heard, ...] = ()  # of facts, as far as they were ever heard

"""What speaks against somebody or something: locks set by people, and standing that signals report.

Values are stored, fed to workers and frozen, like those of `model.subject`. All times are wall clock
milliseconds since the epoch.
"""

from typing import Final, Literal

from msgspec import Struct

#: What can be locked, and by which value: "user" and "workload" by principal id, "device" and "session" by
#: their id, "route" by its name, "issuer" by the name of the identity provider or trust bundle, "credential"
#: by the SHA-256 (hex) of the certificate.
LOCKABLE: Final = ("user", "workload", "device", "session", "route", "issuer", "credential")

Risk = Literal["", "low", "medium", "high"]
Compliance = Literal["", "compliant", "not-compliant"]


class Lock(Struct, frozen=True):
    """Nobody passes here: it outranks every policy until it expires. Record kind "lock", key `id`."""

    id: str  # "lck_" + 26 base32 characters
    target: str  # one of LOCKABLE
    value: str
    reason: str
    set_at: int
    set_by: str
    expires_at: int = 0  # 0 = until it is taken away


class Standing(Struct, frozen=True):
    """What signals say of a person, workload, device or session. Record kind "standing", key `key_of(...)`.

    One record ends any number of sessions at once, on every node: those that began before `ended_before`.
    """

    target: str  # "user" | "workload" | "device" | "session"
    value: str  # as in Lock
    risk: Risk = ""
    risk_at: int = 0
    risk_reason: str = ""
    compliance: Compliance = ""  # devices: what a management system says of it
    compliance_at: int = 0
    ended_before: int = 0  # sessions that began before are over
    ended_by: str = ""  # who or what ended them, for the review
    recheck_after: int = 0  # what the identity provider told before has to be asked for anew
    source: str = ""  # who spoke last: configured name of a source of signals, or an administrator


class Said(Struct, frozen=True):
    """What policy may weigh of the standings of one caller. "" = nobody said anything; times 0 likewise."""

    risk: Risk = ""  # of the person or workload
    risk_at: int = 0
    session_risk: Risk = ""
    device_risk: Risk = ""
    compliance: Compliance = ""  # of the device
    compliance_at: int = 0


UNSAID: Final = Said()


State = Literal["ok", "paused", "disabled", "failing"]


class Source(Struct, frozen=True):
    """How fresh a source of facts is. Record kind "source", key `name`."""

    name: str  # configured name
    kind: Literal["signals", "provider", "posture"]
    heard_at: int  # last time it was known to be well
    state: State = "ok"
    detail: str = ""


class Heard(Struct, frozen=True):
    """What policies are told of a source: how long ago it was known to be well (ms), and its state."""

    name: str
    age: int
    state: str


def key_of(target: str, value: str) -> str:
    """Return the key of a Standing record."""
    return f"{target}:{value}"

"""What the control process and a worker say to each other over the unix socket (`net.channel`).

Worker to control: Hello once, then Ask…, Touched, Counted. Control to worker: Fresh and Page… for a snapshot,
Changed…, Beat, Answers.
"""

from typing import Literal

from msgspec import Struct

from ztproxy.model.quota import Spent


class Hello(Struct, frozen=True, tag="hello"):
    """A worker introduces itself and says how far it has come in the feed (0 = it has nothing)."""

    worker: int
    pid: int
    version: int
    journal: str  # name of the journal this worker writes
    stamp: int = 0  # of the change with number `version`: another one there = another history, start anew


class Changed(Struct, frozen=True, tag="changed"):
    """One record as it is now; None = gone."""

    version: int
    kind: str
    key: str
    value: bytes | None
    stamp: int = 0


class Page(Struct, frozen=True, tag="page"):
    """A part of a snapshot: keys and values of records of one kind."""

    kind: str
    records: tuple[tuple[str, bytes], ...]


class Fresh(Struct, frozen=True, tag="fresh"):
    """Forget everything: a snapshot follows, closed by a Beat."""


class Beat(Struct, frozen=True, tag="beat"):
    """Everything up to `version` has been sent, and at `as_of` that was all there was. Comes at least once a
    second; while the store does not answer `as_of` stays what it is. `show`: answer with what is held now."""

    version: int
    stamp: int = 0
    as_of: float = 0.0  # seconds on the monotonic clock, which all processes of a machine share
    show: bool = False


class Shown(Struct, frozen=True, tag="shown"):
    """What a worker holds at a version of the feed: how many records, and their digest (`trust.digest`)."""

    version: int
    records: int
    digest: str


class Sync(Struct, frozen=True, tag="sync"):
    """Answer when everything that is in the store now has been sent to me."""

    ask: int


class Synced(Struct, frozen=True, tag="synced"):
    """Answer to Sync."""

    ask: int


class AssertionWanted(Struct, frozen=True, tag="assertion?"):
    """Sign an identity assertion for an audience. People are named by session (control looks the person
    up itself); workloads by id. `person` and `bound`: whose session it is and the device it is bound to, as
    the worker knows it. Control reads what is said of them first, and vouches for nothing of it."""

    ask: int
    audience: str
    session: str = ""
    workload: str = ""
    issuer: str = ""
    groups: tuple[str, ...] = ()
    device: str = ""
    person: str = ""
    bound: str = ""


class AssertionSigned(Struct, frozen=True, tag="assertion"):
    """Answer to AssertionWanted; `token` is empty when it was refused (the session is gone)."""

    ask: int
    token: str
    expires_at: int  # ms


class RecheckWanted(Struct, frozen=True, tag="recheck?"):
    """Ask the identity provider about a session again, unless that was done since `seen` (its `checked_at`
    as the worker knows it) and not before `after`. Times in ms."""

    ask: int
    session: str
    seen: int
    after: int = 0


class Rechecked(Struct, frozen=True, tag="rechecked"):
    """Answer to RecheckWanted. "kept": the provider can not be reached, ask again from `retry_at` (ms) on;
    "impossible": it can only be asked by way of the person's browser."""

    ask: int
    outcome: Literal["confirmed", "ended", "kept", "impossible"]
    retry_at: int = 0


class CertificateWanted(Struct, frozen=True, tag="certificate?"):
    """Certify that this key is one of this node: it never leaves the worker, and ends with it."""

    ask: int
    key: bytes  # public key, SubjectPublicKeyInfo in DER


class CertificateIssued(Struct, frozen=True, tag="certificate"):
    """Answer to CertificateWanted; `pem` is empty when none could be issued."""

    ask: int
    pem: str  # leaf, then the authority
    not_after: int  # ms


class Carries(Struct, frozen=True, tag="carries"):
    """The names of the connectors that this worker has ready connections of. Said when they change."""

    connectors: tuple[str, ...]


class Touched(Struct, frozen=True, tag="touched"):
    """These sessions were in use at `at` (ms)."""

    sessions: tuple[str, ...]
    at: int


class Counted(Struct, frozen=True, tag="counted"):
    """A worker's metrics, encoded by `telemetry.metrics`."""

    snapshot: bytes


class Charge(Struct, frozen=True, tag="charge"):
    """These tokens of shared rates are spent."""

    ask: int
    spent: tuple[Spent, ...]


class Charged(Struct, frozen=True, tag="charged"):
    """Answer to Charge: tokens that are left, in order, less than nothing where too many were spent."""

    ask: int
    left: tuple[float | None, ...]  # None: the pot can not be reached, and nothing was charged
    nodes: int  # that share rates


Question = AssertionWanted | RecheckWanted | CertificateWanted | Charge
FromWorker = Hello | Sync | Question | Carries | Touched | Counted | Shown
Answer = AssertionSigned | Rechecked | CertificateIssued | Charged
FromControl = Fresh | Page | Changed | Beat | Synced | Answer

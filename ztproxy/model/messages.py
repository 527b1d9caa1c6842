"""What the control process and a worker say to each other over the unix socket (`net.channel`).

Worker to control: Hello once, then Ask…, Touched, Counted. Control to worker: Changed…, Beat, Answers.
"""

from msgspec import Struct


class Hello(Struct, frozen=True, tag="hello"):
    """A worker introduces itself and says which version of the feed it has (0 = nothing)."""

    worker: int
    pid: int
    version: int
    journal: str  # name of the journal this worker writes
    boot: str = ""  # which run of the feed `version` belongs to; another run = start anew


class Changed(Struct, frozen=True, tag="changed"):
    """One record as it is now; None = gone. Sent for the snapshot and for each change after it."""

    version: int
    kind: str
    key: str
    value: bytes | None


class Fresh(Struct, frozen=True, tag="fresh"):
    """Forget everything: a snapshot follows, closed by a Beat."""

    boot: str


class Beat(Struct, frozen=True, tag="beat"):
    """Everything up to `version` has been sent. Comes at least once a second."""

    version: int


class Sync(Struct, frozen=True, tag="sync"):
    """Answer when everything that is in the store now has been sent to me."""

    ask: int


class Synced(Struct, frozen=True, tag="synced"):
    """Answer to Sync."""

    ask: int


class AssertionWanted(Struct, frozen=True, tag="assertion?"):
    """Sign an identity assertion for an audience. People are named by session (control looks the person
    up itself); workloads by id."""

    ask: int
    audience: str
    session: str = ""
    workload: str = ""
    issuer: str = ""
    groups: tuple[str, ...] = ()
    device: str = ""


class AssertionSigned(Struct, frozen=True, tag="assertion"):
    """Answer to AssertionWanted; `token` is empty when it was refused (the session is gone)."""

    ask: int
    token: str
    expires_at: int  # ms


class Touched(Struct, frozen=True, tag="touched"):
    """These sessions were in use at `at` (ms)."""

    sessions: tuple[str, ...]
    at: int


class Counted(Struct, frozen=True, tag="counted"):
    """A worker's metrics, encoded by `telemetry.metrics`."""

    snapshot: bytes


FromWorker = Hello | Sync | AssertionWanted | Touched | Counted
FromControl = Fresh | Changed | Beat | Synced | AssertionSigned

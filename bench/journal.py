"""Micro benchmark of the evidence path: audit, journal, sealer, verify.

    python bench/journal.py [RECORDS]

Prints µs per record, the best of several rounds (the machine's noise only ever adds). The hot path is
`Audit.decision` and `Audit.outcome`; the sealer runs in the control process, `verify` offline.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import astuple

from ztproxy.administrator.audit import Audit
from ztproxy.model.record import DecisionRecord, OutcomeRecord
from ztproxy.recording.journal import JournalWriter
from ztproxy.recording.sealer import Sealer
from ztproxy.recording.verify import verify

ROUNDS = 5
DECISION = DecisionRecord(
    id="0123456789abcdef0123456789abcdef",
    at=1_800_000_000_000,
    allow=True,
    decided="permit",
    principal="User::demo:carol",
    name="Carol",
    groups=("contractors",),
    session="ses_abcdefghijklmnopqrstuvwxyz",
    device="dev_abcdefghijklmnopqrstuvwxyz",
    device_proof="mtls",
    device_proof_age=1234,
    posture="healthy",
    posture_age=5678,
    feed_age=12,
    ip="192.0.2.17",
    certificate="f" * 64,
    resource="Route::support",
    action="GET",
    host="support.example",
    path="/tickets/42/comments",
    policies=("support-team",),
    policy_set="a" * 64,
)
OUTCOME = OutcomeRecord(
    id=DECISION.id,
    at=DECISION.at + 3,
    session=DECISION.session,
    status=200,
    sent=1024,
    duration=3,
    first_byte=2,
)


def best(count: int, make: Callable[[int], Callable[[], object]]) -> float:
    """Return µs per call of what `make` returns for each round."""
    fastest = float("inf")
    for round_ in range(ROUNDS):
        call = make(round_)
        start = time.perf_counter()
        for _ in range(count):
            call()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / count * 1e6


def hot_path(root: Path, count: int) -> None:
    """Time what a worker does per request."""
    payload = b"x" * 650

    def writer(name: str) -> JournalWriter:
        return JournalWriter(root, name, max_segments=1 << 20)

    def decision(round_: int) -> Callable[[], object]:
        audit = Audit(writer(f"decision-{round_}"))
        return lambda: audit.decision(DECISION)

    def outcome(round_: int) -> Callable[[], object]:
        audit = Audit(writer(f"outcome-{round_}"))
        return lambda: audit.outcome(*astuple(OUTCOME))

    def append(round_: int) -> Callable[[], object]:
        journal = writer(f"append-{round_}")
        return lambda: journal.append(payload)

    print(f"audit.decision     {best(count, decision):6.2f} µs")
    print(f"audit.outcome      {best(count, outcome):6.2f} µs")
    print(f"journal.append     {best(count, append):6.2f} µs   (650 bytes)")


def cold_path(root: Path, count: int) -> None:
    """Time sealing, and verifying what was sealed."""
    journals, recordings = root / "journals", root / "recordings"
    journals.mkdir()
    audit = Audit(JournalWriter(journals, "w0-1-1", max_segments=1 << 20))
    sealer = Sealer(
        recordings, journals, root / "log.pem", origin="bench/log", now=lambda: 5, alive=lambda: ["w0-1-1"]
    )
    sealed, spent = 0, 0.0
    while sealed < count:
        for _ in range(1000):
            audit.decision(DECISION)
            audit.outcome(*astuple(OUTCOME))
        start = time.perf_counter()
        sealed += sealer.step()
        spent += time.perf_counter() - start
    sealer.close()
    start = time.perf_counter()
    verdict = verify(recordings)
    assert verdict.ok, verdict.problems
    print(f"sealer.step        {spent / sealed * 1e6:6.2f} µs   per record, 2,000 a step, disk included")
    print(f"verify             {(time.perf_counter() - start) / sealed * 1e6:6.2f} µs   per record")


def main() -> None:
    """Run everything in a directory of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as hot, tempfile.TemporaryDirectory() as cold:
        hot_path(Path(hot), count)
        cold_path(Path(cold), count)


if __name__ == "__main__":
    main()

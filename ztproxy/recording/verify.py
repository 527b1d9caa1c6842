"""Verification: is the log what was sealed? From the files alone, offline, as a stream.

Called by `cli.recordings`, by auditors on a copy, and by tests. Believes nothing but the public key it was
given (or, without one, the key beside the log). Names the first record that was altered, removed, moved
or cut off; after that one nothing further can be said. Never writes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from ztproxy.model.record import FloodRecord
from ztproxy.recording import note
from ztproxy.recording.chain import Chain, Found
from ztproxy.recording.files import (
    CHECKPOINT,
    PUBLIC_KEY,
    Text,
    file_name,
    file_number,
    lines,
    log_files,
)
from ztproxy.recording.line import Malformed, parse_record
from ztproxy.recording.note import Checkpoint, NoteError, PublicKey, WrongKey
from ztproxy.recording.problem import Problem


class SessionProof(Struct, frozen=True):
    """The records of one session among those verified."""

    id: str
    records: int = 0
    first: int = 0  # number of the first record
    last: int = 0


class Verdict(Struct, frozen=True):
    """What verification found."""

    ok: bool
    count: int  # records that are verified: on the chain, unaltered, in their place
    sealed: int  # records the checkpoint speaks of, 0 without a valid one
    sealed_at: int  # ms since the epoch, 0 without a valid checkpoint
    origin: str
    unsealed: int = 0  # records on the chain behind the checkpoint
    gaps: int = 0  # gap records: evidence the log itself says is missing
    floods: int = 0  # refusals that flood records stand for
    key: Literal["given", "beside the log"] = "given"
    problems: tuple[Problem, ...] = ()
    session: SessionProof | None = None


def verify(directory: Path, *, public_key: PublicKey | None = None, session: str | None = None) -> Verdict:
    """Verify a log directory or a copy of one. Raises OSError when it can not be read at all."""
    key, problems = (public_key, []) if public_key else _key_beside(directory)
    sealed = _checkpoint(directory, key, problems)
    chain = Chain(_origin(sealed, key), sealed)
    tally = _Tally(session)
    for found in chain.follow(_texts(directory, chain)):
        tally.add(found)
    problems += [chain.problem] if chain.problem else []
    return Verdict(
        ok=not problems,
        count=chain.count,
        sealed=sealed.count if sealed else 0,
        sealed_at=sealed.sealed_at if sealed else 0,
        origin=_origin(sealed, key) or "",
        unsealed=max(0, chain.count - sealed.count) if sealed else 0,
        gaps=tally.gaps,
        floods=tally.floods,
        key="given" if public_key else "beside the log",
        problems=tuple(problems),
        session=tally.proof,
    )


def _key_beside(directory: Path) -> tuple[PublicKey | None, list[Problem]]:
    try:
        return note.parse_key((directory / PUBLIC_KEY).read_text()), []
    except FileNotFoundError:
        return None, [Problem("key-missing", PUBLIC_KEY, explanation="the public key is not beside the log")]
    except (NoteError, UnicodeDecodeError) as error:
        return None, [Problem("key-altered", PUBLIC_KEY, explanation=str(error))]


def _checkpoint(directory: Path, key: PublicKey | None, problems: list[Problem]) -> Checkpoint | None:
    try:
        data = (directory / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        explanation = "without it nobody can tell whether the end was cut off"
        problems.append(Problem("checkpoint-missing", CHECKPOINT, explanation=explanation))
        return None
    if key is None:
        return None
    try:
        return note.open_note(data, key)
    except WrongKey as error:
        problems.append(Problem("wrong-key", CHECKPOINT, explanation=str(error)))
    except NoteError as error:
        problems.append(Problem("checkpoint-altered", CHECKPOINT, explanation=str(error)))
    return None


def _origin(sealed: Checkpoint | None, key: PublicKey | None) -> str | None:
    return sealed.origin if sealed else key.name if key else None


def _texts(directory: Path, chain: Chain) -> Iterator[Text]:
    """Yield every line; stop where a file between two others is missing."""
    expected = 1
    for number in log_files(directory):
        if number != expected:
            chain.report_missing_file(file_name(expected))
            return
        yield from lines(directory, number)
        expected += 1
    if chain.sealed and file_number(chain.sealed.file) >= expected:
        chain.report_missing_file(file_name(expected))


class _Tally:
    """Counts what the records say about themselves."""

    def __init__(self, session: str | None) -> None:
        self.gaps = self.floods = 0
        self.proof = SessionProof(session) if session else None

    def add(self, found: Found) -> None:
        record = bytes(found.line.record)
        if record.startswith(b'{"kind":"gap"'):
            self.gaps += 1
        elif record.startswith(b'{"kind":"flood"'):
            self.floods += _count_of(record)
        if self.proof and self.proof.id.encode() in record and _session_of(record) == self.proof.id:
            first = self.proof.first or found.line.n
            self.proof = SessionProof(self.proof.id, self.proof.records + 1, first, found.line.n)


def _count_of(record: bytes) -> int:
    try:
        entry = parse_record(record)
    except Malformed:
        return 0
    return entry.count if isinstance(entry, FloodRecord) else 0


def _session_of(record: bytes) -> str:
    try:
        entry = parse_record(record)
    except Malformed:
        return ""
    return getattr(entry, "session", "") or getattr(entry, "principal", "")

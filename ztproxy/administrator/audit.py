"""The audit: writes down every decision, outcome and session event, or says that it can not.

Called by `administrator.access` and the gateway on the hot path and by `administrator.sessions`; one per
process, on that process's journal. Whoever gets AuditUnavailable refuses the request: no evidence, no
service. Never writes a query, a control character or a value without bound.
"""

import re
from typing import Any, Final

import msgspec

from ztproxy.administrator import stencil
from ztproxy.administrator.floods import Floods
from ztproxy.model.passage import Passage
from ztproxy.model.ports import Journal, Ledger
from ztproxy.model.record import (
    MAX_ITEMS,
    MAX_RECORD,
    MAX_TEXT,
    ConfigurationRecord,
    DecisionRecord,
    OutcomeRecord,
    Record,
    SessionRecord,
    SignalRecord,
    StandingRecord,
)
from ztproxy.model.subject import ANONYMOUS
from ztproxy.recording.journal import JournalFull

_NOBODY: Final = f"{ANONYMOUS.kind}::{ANONYMOUS.id}"

_encode: Final = msgspec.json.Encoder().encode

#: Behind these marks stand tokens (queries, fragments) and sessions (parameters); no path that is served has
#: one.
_MARK: Final = re.compile(r"[?#;]").search
#: What may stand before a path where somebody asks for a URL: not a name with a password.
_PLACE: Final = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?[A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:/.*)?", re.S
).fullmatch


class AuditUnavailable(Exception):
    """The record can not be kept. The request must not be served (code "audit-unavailable")."""


class Audit(Ledger):
    """Encodes records and appends them to a journal."""

    __slots__ = ("_floods", "_journal")

    def __init__(self, journal: Journal, floods: Floods | None = None) -> None:
        self._journal: Final = journal
        self._floods = floods or Floods()

    @property
    def counted(self) -> int:
        """Refusals that were counted instead of recorded one by one."""
        return self._floods.counted

    def decision(self, record: DecisionRecord) -> None:
        """Write down a decision, before the first byte goes anywhere. Raises AuditUnavailable.

        Of many refusals alike of callers that nobody knows, only their number is.
        """
        if not record.allow and record.principal == _NOBODY:
            self._refused(record)
        else:
            self._decision(record)

    def sum_up(self, now: int) -> None:
        """Write down what was only counted. Raises AuditUnavailable: then it is counted on."""
        for record in self._floods.summaries(now):
            self._write(record)

    def _refused(self, record: DecisionRecord) -> None:
        sifted = self._floods.sift(record)
        if isinstance(sifted, DecisionRecord):
            self._decision(sifted)
        elif sifted is not None:
            self._write(sifted)

    def _decision(self, record: DecisionRecord) -> None:
        path = record.path
        if not path.isprintable() or len(path) > MAX_TEXT or path[:1] != "/" or _MARK(path):
            record = msgspec.structs.replace(record, path=_redact(path))
        self._write(record)

    def permit(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        """Write a permit down that is encoded already, and bounded. Raises AuditUnavailable."""
        try:
            self._journal.join(beginning, caller, decision)
        except (JournalFull, OSError, ValueError) as error:
            raise AuditUnavailable("the journal takes no more records") from error

    def outcome(
        self,
        decision_id: str,
        at: int,
        session: str,
        status: int,
        received: int,
        sent: int,
        duration: int,
        first_byte: int,
        end: str,
        detail: str,
        target: str,
    ) -> None:
        """Write down how an exchange ended: the fields of `OutcomeRecord`. Raises AuditUnavailable."""
        if end == "complete" and not (detail or target):
            try:
                record = stencil.completed(
                    decision_id, at, session, status, received, sent, duration, first_byte
                )
            except stencil.TooOdd:
                pass
            else:
                self._append(record)
                return
        self._write(
            OutcomeRecord(
                decision_id,
                at,
                session,
                status,
                received,
                sent,
                duration,
                first_byte,
                end,
                detail,
                target,
            )
        )

    def session(self, record: SessionRecord) -> None:
        """Write down what happened to a session. Raises AuditUnavailable."""
        self._write(record)

    def signal(self, record: SignalRecord) -> None:
        """Write down a signal and what was done about it. Raises AuditUnavailable."""
        self._write(record)

    def configuration(self, record: ConfigurationRecord) -> None:
        """Write down what happened to the configuration. Raises AuditUnavailable."""
        self._write(record)

    def standing(self, record: StandingRecord) -> None:
        """Write down what was said of somebody or something. Raises AuditUnavailable."""
        self._write(record)

    def _append(self, record: bytes) -> None:
        try:
            self._journal.append(record)
        except (JournalFull, OSError, ValueError) as error:
            raise AuditUnavailable("the journal takes no more records") from error

    def _write(self, record: Record) -> None:
        try:
            payload = _encode(record)
            if len(payload) > MAX_RECORD:
                payload = _encode(_bounded(record))
        except UnicodeEncodeError:  # half a surrogate pair, as hostile JSON may carry
            payload = _encode(_bounded(record))
        self._append(payload)


def _redact(path: str) -> str:
    """Cut what may be secret or is too long, and say so by an ellipsis; escape what is not printable."""
    found = _MARK(path)
    bare = path if found is None else path[: found.start()]
    if bare != "*" and _PLACE(bare) is None:
        bare = "…"
    return _text(bare) + (f"{found[0]}…" if found is not None else "")


def _text(text: str) -> str:
    short = text[:MAX_TEXT]
    safe = short if short.isprintable() else "".join(map(_escape, short))
    return safe + ("…" if len(text) > MAX_TEXT else "")


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _bounded(record: Any) -> Any:
    """Return the record with every text cut and escaped."""
    changes: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            changes[name] = _text(value)
        elif isinstance(value, tuple):
            changes[name] = tuple(map(_text, value[:MAX_ITEMS])) + ("…",) * (len(value) > MAX_ITEMS)
    return msgspec.structs.replace(record, **changes)

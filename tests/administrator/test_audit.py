"""The audit writes everything down once, cuts what must not be kept, and says when it can not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.model.passage import Passage
from ztproxy.model.ports import Journal
from ztproxy.model.record import MAX_TEXT, DecisionRecord, OutcomeRecord, SessionRecord
from ztproxy.recording.journal import JournalFull, JournalWriter, read
from ztproxy.recording.line import parse_record
from ztproxy.recording.position import Position


class Kept(Journal):
    """A journal in a list."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def append(self, payload: bytes) -> None:
        self.payloads.append(payload)

    def join(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        raise AssertionError("only permits are put together")


def decision(**changes: Any) -> DecisionRecord:
    values: dict[str, Any] = {"id": "1", "at": 5, "allow": True, "decided": "permit", "principal": "User::x"}
    return DecisionRecord(**{**values, **changes})


def written(record: DecisionRecord) -> dict[str, Any]:
    journal = Kept()
    Audit(journal).decision(record)
    assert len(journal.payloads) == 1
    parsed: dict[str, Any] = json.loads(journal.payloads[0])
    return parsed


def test_all_three_kinds_are_kept_as_they_are() -> None:
    journal = Kept()
    audit = Audit(journal)
    records = (
        decision(path="/a/ü", groups=("a", "b")),
        OutcomeRecord("1", 6, status=200),
        SessionRecord("ses_1", 7, "started"),
    )
    audit.decision(records[0])
    audit.outcome(*astuple(records[1]))
    audit.session(records[2])
    assert tuple(map(parse_record, journal.payloads)) == records


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/a?token=secret", "/a?…"),
        ("/a?", "/a?…"),
        ("/a#access_token=secret", "/a#…"),
        ("/a;jsessionid=secret?b", "/a;…"),
        ("https://alice:secret@app.example/a", "…"),
        ("https://alice:sec?ret@app.example/a", "…?…"),
        ("alice:secret@app.example:443", "…"),
        ("http://app.example:80/a@b", "http://app.example:80/a@b"),
        ("app.example:443", "app.example:443"),
        ("*", "*"),
        ("/a\nb\x1b[2J", "/a\\u000ab\\u001b[2J"),
        ("/\u202egpj.exe", "/\\u202egpj.exe"),
        ("/\x7f\x85\u2028", "/\\u007f\\u0085\\u2028"),
        ("/\U000e0001", "/\\U000e0001"),
        ("/\udcff", "/\\udcff"),
        ("/" + "x" * MAX_TEXT, "/" + "x" * (MAX_TEXT - 1) + "…"),
        ("/" + "x" * (MAX_TEXT - 1), "/" + "x" * (MAX_TEXT - 1)),
    ],
)
def test_a_path_keeps_no_query_no_control_character_and_no_unbounded_length(path: str, kept: str) -> None:
    assert written(decision(path=path))["path"] == kept


@given(path=st.text(max_size=60) | st.text("\x00\n\r\x1b?é/", max_size=20))
def test_whatever_the_path_it_is_one_printable_line_without_query(path: str) -> None:
    kept = written(decision(path="/" + path))["path"]
    assert kept.isprintable()
    assert "?" not in kept.removesuffix("?…")


def test_half_a_surrogate_pair_anywhere_is_still_written_down() -> None:
    assert written(decision(name="\ud800Carol"))["name"] == "\\ud800Carol"


def test_a_huge_record_is_cut_not_refused() -> None:
    kept = written(decision(name="n" * 100_000, groups=("g" * 5000,) * 500))
    assert kept["name"] == "n" * MAX_TEXT + "…"
    assert len(kept["groups"]) == 65 and kept["groups"][-1] == "…"


class Broken(Journal):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def append(self, payload: bytes) -> None:
        raise self.error

    def join(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        raise self.error


@pytest.mark.parametrize("error", [JournalFull("full"), OSError(5, "x"), ValueError("too large")])
def test_what_can_not_be_kept_is_said(error: Exception) -> None:
    audit = Audit(Broken(error))
    for write in (
        lambda: audit.decision(decision()),
        lambda: audit.outcome(*astuple(OutcomeRecord("1", 6))),
        lambda: audit.session(SessionRecord("ses_1", 7, "started")),
        lambda: audit.permit(b"{", Passage(b""), Passage(b"")),
    ):
        with pytest.raises(AuditUnavailable):
            write()


def test_a_full_journal_refuses_and_nothing_written_is_lost(tmp_path: Path) -> None:
    audit = Audit(JournalWriter(tmp_path, "w0-1-1", segment_size=4096, max_segments=2))
    count = 0
    with pytest.raises(AuditUnavailable):
        while True:
            audit.decision(decision(id=str(count)))
            count += 1
    entries = read(tmp_path, "w0-1-1", Position(), limit=10_000).entries
    assert [json.loads(entry)["id"] for entry in entries] == [str(n) for n in range(count)]

"""Floods of refusals: the first are written, all are counted, and what is permitted is never touched."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.administrator.floods import Floods
from ztproxy.model.passage import Passage
from ztproxy.model.ports import Journal
from ztproxy.model.record import DecisionRecord, FloodRecord
from ztproxy.recording.journal import JournalFull
from ztproxy.recording.line import parse_record

NOBODY = "Anonymous::anonymous"


class Kept(Journal):
    """A journal in a list, which can be full."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.room = 10**9

    def append(self, payload: bytes) -> None:
        if len(self.records) >= self.room:
            raise JournalFull
        self.records.append(parse_record(payload))

    def join(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        raise AssertionError("refusals are not put together")

    def take(self) -> list[Any]:
        taken, self.records = self.records, []
        return taken


def refused(at: int, ip: str = "192.0.2.7", code: str = "login-required", **changes: Any) -> DecisionRecord:
    values = {"decided": "default-deny", "principal": NOBODY, "ip": ip, "code": code, **changes}
    return DecisionRecord(id=f"{at:032x}", at=at, allow=False, **values)


def audit_of(journal: Kept, **bounds: int) -> Audit:
    return Audit(journal, Floods(**{"singly": 3, "all_singly": 100, "pairs": 10, **bounds}))


def test_the_first_are_written_then_a_flood_begins_then_it_is_summed_up() -> None:
    journal = Kept()
    audit = audit_of(journal)
    for at in range(1, 11):
        audit.decision(refused(at))
    singles, begin = journal.records[:3], journal.records[3:]
    assert singles == [refused(at) for at in (1, 2, 3)]
    assert begin == [FloodRecord(4, "192.0.2.7", "login-required", 1, 4, 4)]
    journal.take()
    audit.sum_up(60)
    assert journal.take() == [FloodRecord(60, "192.0.2.7", "login-required", 6, 5, 10)]
    assert audit.counted == 7
    audit.sum_up(120)
    assert journal.take() == []
    audit.decision(refused(121))  # another interval, another beginning
    assert journal.take() == [refused(121)]


def test_codes_and_sources_are_told_apart_and_a_network_is_one_source() -> None:
    journal = Kept()
    audit = audit_of(journal, singly=1)
    audit.decision(refused(1, "2001:db8:1:2::1"))
    audit.decision(refused(2, "2001:db8:1:2::2"))
    audit.decision(refused(3, "2001:db8:1:2::2", "bad-request"))
    audit.decision(refused(4, "2001:db8:1:3::2"))
    assert [type(record).__name__ for record in journal.take()] == [
        "DecisionRecord",
        "FloodRecord",
        "DecisionRecord",
        "DecisionRecord",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"principal": "User::demo:carol", "session": "ses_carol"},
        {"allow": True, "code": "", "decided": "permit"},
    ],
)
def test_known_callers_and_permitted_requests_are_written_one_by_one(changes: dict[str, Any]) -> None:
    journal = Kept()
    audit = audit_of(journal)
    values = {"allow": False, **changes}
    records = [
        DecisionRecord(**{
            "id": str(at), "at": at, "decided": "forbid", "principal": NOBODY, "ip": "192.0.2.7",
            **values,
        })
        for at in range(50)
    ]  # fmt: skip
    for record in records:
        audit.decision(record)
    assert journal.take() == records
    assert audit.counted == 0


def test_many_sources_share_one_count_and_bounded_records() -> None:
    journal = Kept()
    audit = audit_of(journal, pairs=10, all_singly=15)
    for number in range(5000):
        audit.decision(refused(number + 1, f"2001:db8:{number:x}::1"))
    written = journal.take()
    audit.sum_up(10_000)
    written += journal.take()
    assert len(written) <= 15 + 10 + 2 + 10 + 1
    floods = [record for record in written if isinstance(record, FloodRecord)]
    assert {record.source for record in floods if record.count > 1} == {""}
    assert len(written) - len(floods) + sum(record.count for record in floods) == 5000


def test_a_full_journal_refuses_the_first_and_loses_no_count() -> None:
    journal = Kept()
    audit = audit_of(journal, singly=1)
    journal.room = 2
    for at in range(1, 6):
        audit.decision(refused(at))
    with pytest.raises(AuditUnavailable):
        audit.decision(refused(6, "198.51.100.1"))
    with pytest.raises(AuditUnavailable):
        audit.sum_up(60)
    audit.decision(refused(61))
    journal.room = 10
    audit.sum_up(120)
    assert journal.records[-1] == FloodRecord(120, "192.0.2.7", "login-required", 4, 3, 61)


SOURCES = [f"198.51.100.{number}" for number in range(6)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SOURCES), st.sampled_from(["login-required", "bad-request"]), st.booleans()
        ),
        max_size=200,
    )
)
def test_nothing_is_lost_and_nothing_counted_twice(story: list[tuple[str, str, bool]]) -> None:
    journal = Kept()
    audit = audit_of(journal, singly=2, all_singly=7, pairs=5)
    came: Counter[str] = Counter()
    for at, (source, code, ends) in enumerate(story, 1):
        audit.decision(refused(at, source, code))
        came[code] += 1
        if ends:
            audit.sum_up(at)
    audit.sum_up(1000)
    told: Counter[str] = Counter()
    for record in journal.records:
        told[record.code] += record.count if isinstance(record, FloodRecord) else 1
        assert not isinstance(record, FloodRecord) or record.first <= record.last <= record.at
    assert told == came

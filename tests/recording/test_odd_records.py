"""Journals of workers that were taken over, and a catalogue that breaks: sealing goes on, evidence stays."""

import json
from contextlib import closing

import pytest
from msgspec.structs import astuple
from recording_room import Room, decision, outcome, started

from ztproxy.recording import journal
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.line import render
from ztproxy.recording.verify import verify


@pytest.mark.parametrize("at", [1 << 70, (1 << 64) - 1, -(1 << 70)])
def test_a_record_of_an_impossible_time_holds_up_nothing(room: Room, at: int) -> None:
    """Whoever writes a journal may have been taken over: its records are evidence of that, and no more."""
    writer, sealer = room.writer(), room.sealer()
    odd = {
        "kind": "decision",
        "id": "r",
        "at": at,
        "allow": True,
        "decided": "permit",
        "principal": "User::m",
    }
    writer.append(json.dumps(odd).encode())
    assert sealer.step() == 1
    room.audit("w1-2-2").session(started())
    assert sealer.step() == 1
    sealer.close()
    assert verify(room.directory).ok
    with closing(Catalog.open(room.directory)) as catalog:
        catalog.catch_up(room.directory)
        assert {found.principal for found in catalog.sessions()} == {"User::m", started().principal}


def test_a_catalogue_that_breaks_keeps_no_journal_from_being_sealed_and_removed(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("told to fail")

    monkeypatch.setattr(Catalog, "keep_up", broken)
    audit, sealer = room.audit(), room.sealer()
    audit.decision(decision(1))
    assert sealer.step() == 1
    room.alive.clear()
    assert sealer.step() == 0
    assert journal.names(room.journals) == {}


ODD = (
    b'{"kind":"decision","id":"r","at":5,"allow":true,"decided":"permit","principal":"p","kind":"gap"}',
    b'{"kind":"decision","at":5,"allow":true,"decided":"permit","principal":"p"}',
    b'{"kind":"decision","id":"r","at":"5","allow":true,"decided":"permit","principal":"p"}',
    b'{"kind":"decision",}',
    b'{"kind":"outcome","id":"r","at":5}}',
    b'{"kind":"outcome","id":"r","at":5},{"kind":"outcome","id":"r","at":5}',
    b'{"kind":"outcome","id":"r"}',
    b'{"kinds":"decision","id":"r","at":5,"allow":true,"decided":"permit","principal":"p"}',
    b'{"kind":"decisions","id":"r","at":5,"allow":true,"decided":"permit","principal":"p"}',
    b'{"id":"r","at":5,"allow":true,"decided":"permit","principal":"p"}',
    b'["kind","decision"]',
    b'{"kind":"outcome","id":"r","at":5,"end":"\xff"}',
)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("before", [0, 1, 6, 300])
def test_what_is_no_record_is_a_gap_wherever_it_stands(room: Room, odd: bytes, before: int) -> None:
    """However a captured worker writes it: its neighbours are sealed as they are, and it is named."""
    writer = room.writer(segment_size=1 << 20)
    good = [json.dumps({"kind": "outcome", "id": f"{n}", "at": 5}).encode() for n in range(before + 2)]
    for payload in (*good[:before], odd, *good[before:]):
        writer.append(payload)
    room.sealer().step()
    records = [json.loads(line)["record"] for line in room.lines()]
    [gap] = [record for record in records if record["kind"] == "gap"]
    assert (gap["first"], gap["last"]) == (before + 1, before + 1)
    assert [record["id"] for record in records if record is not gap] == [f"{n}" for n in range(before + 2)]
    assert verify(room.directory).ok


def test_records_need_not_begin_as_ours_do(room: Room) -> None:
    writer = room.writer()
    writer.append(b'{ "kind": "outcome", "id": "r", "at": 5 }')
    writer.append(b'{"id":"r","at":5,"kind":"outcome"}')
    room.sealer().step()
    assert [json.loads(line)["record"]["kind"] for line in room.lines()] == ["outcome", "outcome"]
    assert verify(room.directory).ok


def test_lines_of_many_are_the_lines_of_one(room: Room) -> None:
    """The fast way writes to the byte what `line.render` says."""
    audit, sealer = room.audit(), room.sealer()
    for number in range(30):
        audit.decision(decision(number, name="Zoë"))
        audit.outcome(*astuple(outcome(number)))
    sealer.step()
    lines = room.lines()
    for raw in lines:
        line = json.loads(raw)
        record = raw[raw.index(b'"record":') + 9 : -1]
        assert raw == render(line["n"], bytes.fromhex(line["prev"]), line["src"], record)
    assert len(lines) == 60


def test_a_catalogue_that_can_not_take_a_record_catches_up(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, sealer = room.audit(), room.sealer()
    audit.decision(decision(1))
    sealer.step()
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "note", lambda *_: 1 / 0)
        audit.decision(decision(2))
        assert sealer.step() == 1
    audit.decision(decision(3))
    assert sealer.step() == 1
    assert sealer.step() == 0
    sealer.close()
    with closing(Catalog.open(room.directory)) as catalog:
        assert [found.permitted for found in catalog.sessions()] == [3]
        assert catalog.reached.count == 3

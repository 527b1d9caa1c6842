"""Journals of workers that were taken over, and a catalogue that breaks: sealing goes on, evidence stays."""

import json
from contextlib import closing

import pytest
from recording_room import Room, decision, started

from ztproxy.recording import journal
from ztproxy.recording.catalog import Catalog
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

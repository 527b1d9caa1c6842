"""The catalogue: written seldom and in slices, and yet what the log says; never more than the log says."""

import json
from pathlib import Path
from typing import get_args

from msgspec.structs import astuple
from recording_room import Room, decision, outcome

from ztproxy.recording.catalog import SLICE, Catalog
from ztproxy.recording.glimpse import Glimpse
from ztproxy.recording.line import Entry
from ztproxy.recording.verify import verify
from ztproxy.store.index import Index


def same_as_the_log(room: Room) -> Catalog:
    """Return what is on disk and behind it, after seeing that the log alone gives the same."""
    kept = Catalog.copy(room.directory)
    anew = Catalog(Index.copy(room.directory / "nothing"))
    anew.catch_up(room.directory)
    assert kept.reached == anew.reached
    assert kept.sessions() == anew.sessions()
    for summary in anew.sessions():
        assert list(kept.places(summary.id)) == list(anew.places(summary.id))
    anew.close()
    return kept


def test_it_is_written_in_slices_while_records_go_on(room: Room) -> None:
    audit, sealer, number = room.audit(), room.sealer(file_size=100_000), 0
    for step in range(60):
        room.ms += 900  # every sixth step or so begins to write
        for _ in range(step % 7 * 5):
            number += 1
            audit.decision(decision(number, session=f"ses_{number % 3 * number}"))
            if number > 99:  # ends of requests that began before, some of them before it was written
                audit.outcome(*astuple(outcome(number - 99, session="")))
        sealer.step()
        if step % 10 == 0:
            same_as_the_log(room).close()
    kept = same_as_the_log(room)
    assert sum(summary.open for summary in kept.sessions()) == 99
    assert sum(summary.records for summary in kept.sessions()) == 2 * number - 99
    kept.close()
    sealer.close()
    on_disk = Catalog(Index.copy(room.directory / "index.db"))
    assert on_disk.reached.count == 2 * number - 99
    on_disk.close()


def test_a_kill_while_it_is_written_costs_nothing(room: Room) -> None:
    audit, sealer = room.audit(segment_size=1 << 20), room.sealer()
    for number in range(SLICE * 2):
        audit.decision(decision(number, session=f"ses_{number}"))
    sealer.step()
    kept = sealer._catalog
    assert kept is not None and kept._writing is not None
    kept.close()  # what a kill leaves: nothing of an unfinished transaction
    sealer._catalog = None
    for number in range(SLICE * 2):
        audit.outcome(*astuple(outcome(number, session=f"ses_{number}")))
    sealer.step()
    sealer.close()
    summaries = same_as_the_log(room).sessions()
    assert [(one.records, one.open) for one in summaries] == [(2, 0)] * SLICE * 2


def test_a_request_ends_once(room: Room) -> None:
    audit, sealer = room.audit(), room.sealer()
    audit.decision(decision(1))
    sealer.step()
    for _ in range(3):  # a captured worker may say so as often as it likes
        audit.outcome(*astuple(outcome(1)))
        sealer.step()
    sealer.close()
    [carol] = same_as_the_log(room).sessions()
    assert (carol.open, carol.records, carol.sent) == (0, 4, 300)


def test_a_writer_can_not_break_the_lines_of_others(room: Room) -> None:
    """Entries that are records only together are none, whatever the batch as a whole looks like."""
    writer = room.writer()
    writer.append(b'{"kind":"outcome","id":"1","at":5},{"x":"')
    writer.append(b'"}')
    writer.append(b'{"kind":"outcome","id":"2","at":5,"end":"\xc3')
    writer.append(b'\xa9"}')
    writer.append(b'{"kind":"outcome","id":"3","at":5}}\n{"n":1,"prev":"","src":"","record":{}')
    writer.append('{"kind":"outcome","id":"4","at":5,"end":"é"}'.encode())
    writer.append(b'{"kind":"outcome","id":"5","at":5}')
    room.sealer().step()
    lines = [json.loads(line) for line in room.lines()]
    assert [line["n"] for line in lines] == list(range(1, 8))
    assert [line["record"]["kind"] for line in lines] == ["gap"] * 5 + ["outcome"] * 2
    assert lines[5]["record"]["end"] == "é"
    verdict = verify(room.directory)
    assert verdict.ok and verdict.gaps == 5


def test_every_kind_of_record_is_known() -> None:
    def kinds(union: object) -> set[str]:
        return {kind.__struct_config__.tag for kind in get_args(union)}

    assert kinds(Glimpse) == kinds(Entry)


def test_names_of_people_are_no_oddity(room: Room) -> None:
    audit, sealer = room.audit(), room.sealer()
    for number in range(5):
        audit.decision(decision(number, name="Zoë 東"))
    assert sealer.step() == 5
    [summary] = same_as_the_log(room).sessions()
    assert summary.name == "Zoë 東"
    assert verify(room.directory).gaps == 0


def test_a_log_in_small_files_is_listed_file_by_file(room: Room, tmp_path: Path) -> None:
    audit, sealer = room.audit(), room.sealer(file_size=700)
    for number in range(25):
        audit.decision(decision(number))
    assert sealer.step() == 25
    kept = same_as_the_log(room)
    places = list(kept.places("ses_carol"))
    assert len(places) == 25 and len({file for file, _, _ in places}) > 5
    assert verify(room.directory).ok

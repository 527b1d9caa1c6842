"""Journals of other versions: old ones are sealed whole, later ones wait, nothing is sealed twice."""

import json
import logging

import msgspec
import pytest
from msgspec.structs import astuple
from recording_room import Room, decision, outcome

from ztproxy.recording import journal
from ztproxy.recording.segment import CURRENT, FORMATS, Format
from ztproxy.recording.verify import verify

encode = msgspec.json.Encoder().encode


def kinds(room: Room) -> list[str]:
    return [json.loads(line)["record"]["kind"] for line in room.lines()]


OLD = [form for form in FORMATS if form is not CURRENT]
each_old = pytest.mark.parametrize("form", OLD, ids=[form.suffix for form in OLD])


@each_old
@pytest.mark.parametrize("alive", [True, False])
def test_an_old_journal_is_sealed_whole_beside_a_new_one(room: Room, form: Format, alive: bool) -> None:
    old, new = (
        room.old_writer("w0-1-1", form=form, segment_size=4096),
        room.audit("w1-2-2", segment_size=4096),
    )
    for number in range(40):
        old.append(encode(decision(number)))
        new.decision(decision(100 + number))
    if not alive:
        room.alive.clear()
    sealer = room.sealer()
    assert sealer.step() == 80
    assert sorted(room.ids()) == sorted(f"{n:032x}" for n in (*range(40), *range(100, 140)))
    left = {path.name for path in room.journals.iterdir() if path.suffix != ".spare"}
    last = old._segment
    assert last > 2 and len(left) == (2 if alive else 0)
    assert (f"w0-1-1.{last:06}.{form.suffix}" in left) == alive
    if alive:
        old.append(encode(outcome(1)))
        room.alive.clear()
        assert sealer.step() == 1
        assert list(room.journals.iterdir()) == []
    verdict = verify(room.directory)
    assert verdict.ok and not verdict.gaps


@each_old
def test_an_old_journal_that_is_damaged_is_said_as_before(room: Room, form: Format) -> None:
    old = room.old_writer(form=form)
    for number in range(3):
        old.append(encode(decision(number)))
    path = journal.segment_path(room.journals, "w0-1-1", 1, form)
    data = bytearray(path.read_bytes())
    where = data.index(b"/tickets/1")
    data[where : where + 10] = b"/tickets/7"
    path.write_bytes(data)
    room.alive.clear()
    room.sealer().step()
    assert kinds(room) == ["decision", "gap"]
    assert list(room.journals.iterdir()) == []


@each_old
def test_an_old_entry_cut_short_by_death_is_said(room: Room, form: Format) -> None:
    old = room.old_writer(form=form)
    old.append(encode(decision(1)))
    path = journal.segment_path(room.journals, "w0-1-1", 1, form)
    data = bytearray(path.read_bytes())
    at = old._end + form.head.size
    data[at : at + 4] = b"half"
    path.write_bytes(data)
    room.alive.clear()
    room.sealer().step()
    assert kinds(room) == ["decision", "gap"]


@pytest.mark.parametrize("alive", [True, False])
def test_a_journal_of_a_later_version_is_said_kept_and_not_forgotten(
    room: Room, alive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What a later control process has sealed of it must not be sealed again when that one is back."""
    audit, sealer = room.audit(), room.sealer()
    audit.decision(decision(1))
    sealer.step()
    path = journal.segment_path(room.journals, "w0-1-1", 1)
    unknown = path.rename(path.with_suffix(".journal4"))
    before = unknown.read_bytes()
    if not alive:
        room.alive.clear()
    sealer.close()
    sealer = room.sealer()
    with caplog.at_level(logging.ERROR, "ztproxy.recording"):
        assert [sealer.step() for _ in range(3)] == [0, 0, 0]
        other = room.audit("w1-2-2")
        other.decision(decision(2))
        assert sealer.step() == 1
    [said] = caplog.records
    assert "later version" in said.message and said.journals == ["w0-1-1"]
    assert unknown.read_bytes() == before
    assert b"journal w0-1-1 1\n" in (room.directory / "checkpoint").read_bytes()
    unknown.rename(path)  # the later version is back
    audit.outcome(*astuple(outcome(1)))
    assert sealer.step() == 1
    assert room.sources() == ["w0-1-1:1", "w1-2-2:1", "w0-1-1:2"]
    assert verify(room.directory).ok


def test_a_mark_beyond_what_is_there_is_not_believed(room: Room) -> None:
    audit = room.audit()
    audit.decision(decision(1))
    with journal.segment_path(room.journals, "w0-1-1", 1).open("r+b") as file:
        file.seek(24)
        file.write((2**64 - 1).to_bytes(8, "little"))
    room.alive.clear()
    assert room.sealer().step() == 1
    assert room.sources() == ["w0-1-1:1"]


@pytest.mark.parametrize("more", [0, 1, 40])
def test_what_an_older_version_forgot_is_not_sealed_twice(room: Room, more: int) -> None:
    """It sees no journals of this format, takes them for gone, and leaves them out of its checkpoint."""
    audit, sealer = room.audit(segment_size=4096), room.sealer()
    for number in range(20):
        audit.decision(decision(number))
    sealer.step()
    sealer.close()
    hidden = [path.rename(path.with_name(f"{path.name}-hidden")) for path in room.journals.iterdir()]
    room.alive.clear()
    older = room.sealer()
    other = room.audit("control-2-2")
    for number in (98, 99):
        other.decision(decision(number))
        assert older.step() == 1
    older.close()
    room.alive.clear()
    assert b"journal w0" not in (room.directory / "checkpoint").read_bytes()
    for path in hidden:
        path.rename(path.with_name(path.name.removesuffix("-hidden")))
    for number in range(20, 20 + more):
        audit.decision(decision(number))
    assert room.sealer().step() == more
    sources = [source for source in room.sources() if source.startswith("w0")]
    assert sources == [f"w0-1-1:{entry}" for entry in range(1, 21 + more)]
    assert list(room.journals.iterdir()) == []
    assert verify(room.directory).ok

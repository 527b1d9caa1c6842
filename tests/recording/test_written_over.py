"""Segments that are sealed are written over: whatever a stop leaves of them, nothing is sealed twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recording_room import Room

from ztproxy.model.passage import Passage
from ztproxy.recording import journal
from ztproxy.recording.journal import SPARES, names, segment_path, spare_path
from ztproxy.recording.segment import CURRENT
from ztproxy.recording.verify import verify

NAME = "w0-1-1"


def record(number: int) -> bytes:
    """Return a record; all are as long, so that entries lie where others lay before."""
    return b'{"kind":"outcome","id":"%032x","at":5,"session":"ses_of_carol"}' % number


def numbers(room: Room) -> list[int]:
    """Return which of these records are sealed, -1 for a gap."""
    records = [json.loads(line)["record"] for line in room.lines()]
    return [int(found["id"], 16) if found["kind"] == "outcome" else -1 for found in records]


def files(room: Room) -> list[str]:
    return sorted(path.name for path in room.journals.iterdir())


def inodes(room: Room) -> set[int]:
    return {path.stat().st_ino for path in room.journals.iterdir()}


def test_what_is_sealed_is_written_over(room: Room) -> None:
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    used: set[int] = set()
    for number in range(500):
        writer.append(record(number))
        used |= inodes(room)
        if number % 12 == 11:
            sealer.step()
            assert len(files(room)) <= 2 + SPARES
    sealer.step()
    assert numbers(room) == list(range(500))
    assert names(room.journals)[NAME][-1] > 40 and len(used) <= 2 + SPARES
    assert verify(room.directory).ok


def test_no_more_is_kept_than_is_needed(room: Room) -> None:
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(200):
        writer.append(record(number))
    assert len(files(room)) > 15
    sealer.step()
    assert len(files(room)) == 1 + SPARES
    for number in range(200, 400):
        writer.append(record(number))
    sealer.step()
    assert numbers(room) == list(range(400))


def test_nothing_is_left_of_who_has_ended(room: Room) -> None:
    writer, other, sealer = (
        room.writer(segment_size=1024),
        room.writer("w1-2-2", segment_size=1024),
        room.sealer(),
    )
    for number in range(50):
        writer.append(record(number))
        other.append(record(100 + number))
    sealer.step()
    room.alive.remove(NAME)
    sealer.step()
    assert files(room) and all(name.startswith("w1-2-2.") for name in files(room))
    room.alive.clear()
    sealer.step()
    assert files(room) == []


def test_a_sealer_that_hands_nothing_back_is_no_matter(room: Room) -> None:
    """Versions before removed what they had sealed."""
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(300):
        writer.append(record(number))
        if number % 7 == 0:
            sealer.step()
            for spare in room.journals.glob("*.spare"):
                spare.unlink()
    sealer.step()
    assert numbers(room) == list(range(300))


def test_a_sealer_that_starts_anew_goes_on(room: Room) -> None:
    writer = room.writer(segment_size=1024)
    for number in range(300):
        writer.append(record(number))
        if number % 11 == 0:
            sealer = room.sealer()
            sealer.step()
            sealer.close()
    room.sealer().step()
    assert numbers(room) == list(range(300))


def test_after_close_nothing_is_written_over(room: Room) -> None:
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(30):
        writer.append(record(number))
    sealer.step()
    before = {path.name: path.read_bytes() for path in room.journals.iterdir()}
    writer.close()
    with pytest.raises(journal.JournalFull):
        writer.append(record(99))
    assert {path.name: path.read_bytes() for path in room.journals.iterdir()} == before


MANY = 196  # so many that the last of them lie in a file that was written over


class Outage:
    """A room whose second file was just written over, and what was on disk of it before and after."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.room = room = Room(root)
        self.sealed = 0
        writer, sealer = room.writer(segment_size=1024), room.sealer()
        before: dict[int, tuple[Path, bytes]] = {}
        for number in range(MANY):
            writer.append(record(number))
            if number % 20 == 19 and number < 190:
                sealer.step()
                before |= {path.stat().st_ino: (path, path.read_bytes()) for path in room.journals.iterdir()}
        sealer.close()
        self.now = segment_path(room.journals, NAME, names(room.journals)[NAME][-1])
        self.was, self.old = before[self.now.stat().st_ino]
        self.new = self.now.read_bytes()
        self.last = numbers(room)[-1]
        room.alive.clear()
        assert self.old != self.new and self.last == 179

    def sealed_with(self, place: Path, data: bytes, work: Path) -> list[int]:
        """Return what is sealed after a start with this data at this place."""
        shutil.copytree(self.room.directory.parent, work)
        room = Room(work)
        if place != self.now:
            segment_path(room.journals, NAME, int(self.now.name.split(".")[1])).unlink()
        (room.journals / place.name).write_bytes(data)
        sealer = room.sealer()
        sealer.step()
        sealer.step()
        sealer.close()
        assert verify(room.directory).ok and not files(room)
        found = numbers(room)
        shutil.rmtree(work)
        return found


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Outage:
    return Outage(tmp_path_factory.mktemp("outage") / "room")


@pytest.mark.parametrize("first", ["new", "old"])
def test_a_loss_of_power_repeats_nothing(outage: Outage, tmp_path: Path, first: str) -> None:
    """Some pages of a file are as they were written last, and others as before, in any places."""
    whole = outage.sealed_with(outage.now, outage.new, tmp_path / "whole")
    assert whole == list(range(MANY))
    one, other = (outage.new, outage.old) if first == "new" else (outage.old, outage.new)
    for cut in range(0, 1024, 4):
        found = outage.sealed_with(outage.now, one[:cut] + other[cut:], tmp_path / "work")
        kept = [number for number in found if number >= 0]
        assert kept == list(range(len(kept))), cut  # in order, each once, and none of before again
        assert len(kept) == MANY or found[-1] == -1, cut  # what is lost is said


def test_a_file_whose_new_name_was_lost_repeats_nothing(outage: Outage, tmp_path: Path) -> None:
    """What was written is on disk, and that the file has another name by now is not."""
    for cut in range(0, 1024 + 1, 32):
        for data in (outage.new[:cut] + outage.old[cut:], outage.old[:cut] + outage.new[cut:]):
            found = outage.sealed_with(outage.was, data, tmp_path / "work")
            kept = [number for number in found if number >= 0]
            assert kept == list(range(len(kept)))


def test_an_entry_that_was_begun_is_said(room: Room) -> None:
    """A process that dies while it stores leaves zeros, or a part that its sum does not fit."""
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(40):
        writer.append(record(number))
        sealer.step()
    segment = names(room.journals)[NAME][-1]
    path, end = segment_path(room.journals, NAME, segment), writer._end
    data = path.read_bytes()
    assert segment > 3 and data[end : end + CURRENT.head.size] == bytes(CURRENT.head.size)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(b"\xffthe sum" + (len(record(0))).to_bytes(4, sys.byteorder) + record(40)[:20])
    assert sealer.step() == 0  # it lives: the rest may come
    room.alive.clear()
    assert sealer.step() == 1
    assert numbers(room) == [*range(40), -1]


def test_a_passage_is_written_anew_where_it_was_written_over(room: Room) -> None:
    """The same place in memory is another segment then."""
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    carol, support = Passage(b'"principal":"carol"'), Passage(b'"allow":true,"decided":"permit"')
    for number in range(100):
        writer.join(b'{"kind":"decision","id":"%032x","at":5' % number, carol, support)
        if number % 6 == 5:
            sealer.step()
    sealer.step()
    found = [json.loads(line)["record"] for line in room.lines()]
    assert [int(one["id"], 16) for one in found] == list(range(100))
    assert {one["principal"] for one in found} == {"carol"}


WRITER = """
import sys, pathlib, os, time
from ztproxy.recording.journal import JournalFull, JournalWriter
writer = JournalWriter(pathlib.Path(sys.argv[1]), sys.argv[2], segment_size=4096)
number = 0
while True:
    record = b'{"kind":"outcome","id":"%032x","at":5,"session":"ses_of_carol"}' % number
    try:
        writer.append(record)
    except JournalFull:
        time.sleep(0.001)
        continue
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def test_under_a_sealer_all_that_was_acknowledged_survives_kill_9(room: Room) -> None:
    sealer = room.sealer()
    expected: list[int] = []
    for round_ in range(4):
        name = f"w0-{round_}-1"
        room.alive.add(name)
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(room.journals), name], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        said, end = b"", time.monotonic() + 0.4 + 0.05 * round_
        while time.monotonic() < end or not said:
            said += child.stdout.read() or b""
            sealer.step()
        child.send_signal(signal.SIGKILL)
        os.set_blocking(child.stdout.fileno(), True)
        said += child.stdout.read() or b""
        child.wait()
        child.stdout.close()
        acknowledged = said.count(b"\n")
        room.alive.discard(name)
        while sealer.step():
            pass
        found = numbers(room)[len(expected) :]
        kept = [number for number in found if number >= 0]
        assert acknowledged > 100 and acknowledged <= len(kept) <= acknowledged + 1
        assert kept == list(range(len(kept))) and found in (kept, [*kept, -1])
        expected += found
    assert files(room) == []
    assert verify(room.directory).ok


def test_a_spare_that_is_gone_is_made_anew(room: Room) -> None:
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(40):
        writer.append(record(number))
    sealer.step()
    for segment in (1, 2):
        spare_path(room.journals, NAME, segment).unlink()
    for number in range(40, 80):
        writer.append(record(number))
    sealer.step()
    assert numbers(room) == list(range(80))


def test_a_full_disk_needs_no_room_for_what_is_written_over(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, sealer = room.writer(segment_size=1024), room.sealer()
    for number in range(40):
        writer.append(record(number))
    sealer.step()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(40, 200):
        writer.append(record(number))
        if number % 6 == 0:
            sealer.step()
    sealer.step()
    assert numbers(room) == list(range(200))

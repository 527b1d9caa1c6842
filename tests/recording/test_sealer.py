"""The sealer: each record exactly once, whatever fails and whenever; what is lost is said."""

import errno
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import astuple
from recording_room import Room, decision, outcome, started

from ztproxy.recording import journal, note
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.line import digest
from ztproxy.recording.log import LogDamaged, LogUnavailable
from ztproxy.recording.sealer import Sealer
from ztproxy.recording.segment import CURRENT
from ztproxy.recording.verify import verify

FIRST = CURRENT.start + CURRENT.head.size  # where the first payload of a segment is


def sound(room: Room) -> None:
    verdict = verify(room.directory)
    assert verdict.ok, verdict.problems


def test_records_become_chained_lines(room: Room) -> None:
    audit = room.audit()
    sealer = room.sealer()
    assert sealer.step() == 0
    audit.session(started())
    audit.decision(decision(1))
    assert sealer.step() == 2
    audit.outcome(*astuple(outcome(1)))
    assert (sealer.step(), sealer.step(), sealer.count) == (1, 0, 3)
    lines = [json.loads(line) for line in room.lines()]
    assert [line["n"] for line in lines] == [1, 2, 3]
    assert [line["src"] for line in lines] == ["w0-1-1:1", "w0-1-1:2", "w0-1-1:3"]
    assert [line["record"]["kind"] for line in lines] == ["session", "decision", "outcome"]
    previous = note.first_hash("test/node")
    for line, raw in zip(lines, room.lines(), strict=True):
        assert line["prev"] == previous.hex()
        previous = digest(raw)
    sound(room)


def test_the_checkpoint_covers_exactly_what_is_there(room: Room) -> None:
    audit = room.audit()
    sealer = room.sealer()
    audit.decision(decision(1))
    sealer.step()
    key = note.parse_key((room.directory / "log.pub").read_text())
    sealed = note.open_note((room.directory / "checkpoint").read_bytes(), key)
    assert (sealed.origin, sealed.count, sealed.file) == ("test/node", 1, "log-00000001.jsonl")
    assert sealed.length == (room.directory / sealed.file).stat().st_size
    assert sealed.journals == (("w0-1-1", 1),)
    assert sealed.head == digest(room.lines()[0])


def test_files_are_private(room: Room) -> None:
    room.audit().decision(decision(1))
    room.sealer().step()
    for path in [room.key, *room.directory.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_log_rolls_and_goes_on(room: Room) -> None:
    audit = room.audit()
    sealer = room.sealer(file_size=1000)
    for number in range(20):
        audit.decision(decision(number))
        sealer.step()
    assert len(list(room.directory.glob("log-*.jsonl"))) > 3
    sound(room)
    sealer.close()
    again = room.sealer(file_size=1000)
    audit.decision(decision(20))
    assert again.step() == 1 and again.count == 21
    sound(room)


def test_sealed_segments_make_room(room: Room) -> None:
    audit = room.audit(segment_size=4096, max_segments=3)
    sealer = room.sealer()
    for number in range(200):
        audit.decision(decision(number))
        if number % 5 == 0:
            sealer.step()
    sealer.step()
    assert len(room.lines()) == 200
    assert len(journal.names(room.journals)["w0-1-1"]) == 1


def test_journals_of_the_dead_are_removed_when_sealed(room: Room) -> None:
    one, two = room.audit("w0-1-1"), room.audit("w1-2-2", segment_size=4096)
    sealer = room.sealer()
    for number in range(30):
        one.decision(decision(number))
        two.decision(decision(100 + number))
    (room.journals / "w1-2-2.000009.new").write_bytes(b"")
    room.alive.discard("w1-2-2")
    sealer.step()
    assert set(journal.names(room.journals)) == {"w0-1-1"}
    assert [path.name for path in room.journals.iterdir()] == ["w0-1-1.000001.journal3"]
    assert sorted(room.ids()) == sorted(f"{n:032x}" for n in (*range(30), *range(100, 130)))
    one.decision(decision(31))
    sealer.step()
    assert b"w1-2-2" not in (room.directory / "checkpoint").read_bytes()
    sound(room)


def test_a_journal_whose_process_died_while_control_was_down(room: Room) -> None:
    audit = room.audit()
    for number in range(10):
        audit.decision(decision(number))
    room.alive.clear()
    assert room.sealer().step() == 10
    assert journal.names(room.journals) == {}


def test_what_no_record_is_becomes_a_gap(room: Room) -> None:
    writer = room.writer()
    writer.append(b'{"kind":"decision"},"x":{}')
    writer.append(b"\xff\xfe")
    writer.append(b'{"kind":"outcome",\n"id":"1","at":5}')
    room.sealer().step()
    records = [json.loads(line)["record"] for line in room.lines()]
    assert [record["kind"] for record in records] == ["gap", "gap", "outcome"]
    assert (records[0]["first"], records[0]["last"]) == (1, 1)
    verdict = verify(room.directory)
    assert verdict.ok and verdict.gaps == 2


def damage(room: Room, segment: int, offset: int, data: bytes, name: str = "w0-1-1") -> None:
    with journal.segment_path(room.journals, name, segment).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def gaps(room: Room) -> list[tuple[int, int]]:
    records = [json.loads(line)["record"] for line in room.lines()]
    return [(record["first"], record["last"]) for record in records if record["kind"] == "gap"]


def test_an_entry_cut_short_by_death_is_said(room: Room) -> None:
    audit = room.audit()
    audit.decision(decision(1))
    sealer = room.sealer()
    sealer.step()
    end = sealer._positions["w0-1-1"].offset
    damage(room, 1, end, b"\xffthe sum" + (40).to_bytes(4, sys.byteorder) + b"half an entry")
    assert sealer.step() == 0  # it lives: the rest may come
    room.alive.clear()
    assert sealer.step() == 1
    assert gaps(room) == [(2, 2)]
    assert journal.names(room.journals) == {}
    assert sealer.step() == 0
    sound(room)


def test_a_damaged_entry_costs_the_rest_of_its_segment_and_no_more(room: Room) -> None:
    audit = room.audit(segment_size=4096)
    for number in range(1, 41):
        audit.decision(decision(number))
    later = journal.first_entry(room.journals, "w0-1-1", 2)
    assert later is not None
    damage(room, 1, FIRST + 20, b"\xee")
    room.alive.clear()
    room.sealer().step()
    assert gaps(room) == [(1, later - 1)]
    assert room.ids()[1:] == [f"{n:032x}" for n in range(later, 41)]
    sound(room)


def test_a_damaged_entry_of_the_living_waits_then_counts_as_lost(room: Room) -> None:
    audit = room.audit()
    audit.decision(decision(1))
    audit.decision(decision(2))
    damage(room, 1, FIRST + 20, b"\xee")
    sealer = room.sealer()
    assert sum(sealer.step() for _ in range(40)) == 0
    assert sum(sealer.step() for _ in range(100)) == 1
    assert gaps(room) == [(1, 1)]
    room.alive.clear()
    assert sealer.step() == 0 and journal.names(room.journals) == {}
    sound(room)


def test_what_the_living_wrote_is_sealed_when_all_of_it_can_be_seen(room: Room) -> None:
    """Another machine's order of stores: the length is there, a part of the text is not yet."""
    audit = room.audit()
    audit.decision(decision(1))
    path = journal.segment_path(room.journals, "w0-1-1", 1)
    whole = path.read_bytes()[FIRST + 64 : FIRST + 128]
    damage(room, 1, FIRST + 64, bytes(64))
    sealer = room.sealer()
    assert (sealer.step(), sealer.step()) == (0, 0)
    damage(room, 1, FIRST + 64, whole)
    audit.outcome(*astuple(outcome(1)))
    assert sealer.step() == 2
    assert (gaps(room), room.ids()) == ([], [f"{1:032x}"] * 2)
    sound(room)


@pytest.mark.parametrize("alive", [True, False])
def test_an_entry_that_still_reads_well_is_found_by_its_sum(room: Room, alive: bool) -> None:
    """What is damaged is believed of nobody, whatever it says."""
    audit = room.audit()
    audit.decision(decision(1, path="/aaaa"))
    where = journal.segment_path(room.journals, "w0-1-1", 1).read_bytes().index(b"/aaaa")
    damage(room, 1, where, b"/aaba")
    if not alive:
        room.alive.clear()
    room.sealer().step()
    assert gaps(room) == ([] if alive else [(1, 1)])
    assert f"{1:032x}" not in room.ids()
    sound(room)


@pytest.mark.parametrize("alive", [True, False])
def test_a_removed_segment_is_said(room: Room, alive: bool) -> None:
    audit = room.audit(segment_size=4096)
    for number in range(1, 41):
        audit.decision(decision(number))
    second, third = (journal.first_entry(room.journals, "w0-1-1", n) for n in (2, 3))
    assert second is not None and third is not None
    journal.segment_path(room.journals, "w0-1-1", 2).unlink()
    if not alive:
        room.alive.clear()
    sealer = room.sealer()
    sealer.step()
    assert gaps(room) == [(second, third - 1)]
    assert room.ids()[second:] == [f"{n:032x}" for n in range(third, 41)]
    sound(room)


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("sealed", [0, 1])
def test_a_journal_without_a_readable_header_is_said_after_a_restart_too(
    room: Room, alive: bool, sealed: int
) -> None:
    """Power may have failed before the header was on disk, and after entries were."""
    audit, sealer = room.audit(), room.sealer()
    for number in range(sealed):
        audit.decision(decision(number))
    sealer.step()
    sealer.close()
    audit.decision(decision(5))
    damage(room, 1, 0, bytes(8))
    if not alive:
        room.alive.clear()
    sealer = room.sealer()
    assert [sealer.step() for _ in range(3)] == [1, 0, 0]
    assert gaps(room) == [(sealed + 1, sealed + 1)]
    assert (journal.names(room.journals) == {}) == (not alive)
    sound(room)


@pytest.mark.parametrize("restart", [True, False])
def test_a_removed_first_segment_is_said_after_a_restart_too(room: Room, restart: bool) -> None:
    audit = room.audit(segment_size=4096)
    audit.decision(decision(1))
    sealer = room.sealer()
    sealer.step()
    for number in range(2, 20):
        audit.decision(decision(number))
    second = journal.first_entry(room.journals, "w0-1-1", 2)
    assert second is not None
    journal.segment_path(room.journals, "w0-1-1", 1).unlink()
    if restart:
        sealer.close()
        sealer = room.sealer()
    sealer.step()
    assert gaps(room) == [(2, second - 1)]
    assert sum(sealer.step() for _ in range(3)) == 0
    sound(room)


@pytest.mark.parametrize("alive", [True, False])
def test_a_removed_journal_is_said_once(room: Room, alive: bool) -> None:
    audit = room.audit()
    audit.decision(decision(1))
    sealer = room.sealer()
    sealer.step()
    journal.segment_path(room.journals, "w0-1-1", 1).unlink()
    if not alive:
        room.alive.clear()
    assert sum(sealer.step() for _ in range(5)) == 1
    assert gaps(room) == [(2, 2)]
    sound(room)


def test_only_one_process_seals(room: Room) -> None:
    room.sealer()
    with pytest.raises(LogUnavailable, match="another process"):
        room.sealer()


def test_a_log_keeps_its_name(room: Room) -> None:
    room.sealer().close()
    room.audit().decision(decision(1))
    room.sealer(origin="renamed").step()
    assert verify(room.directory).origin == "test/node"
    sound(room)


def test_damage_under_the_checkpoint_stops_the_sealer(room: Room) -> None:
    audit = room.audit()
    sealer = room.sealer()
    for number in range(3):
        audit.decision(decision(number))
    sealer.step()
    sealer.close()
    log = room.directory / "log-00000001.jsonl"
    good, checkpoint = log.read_bytes(), (room.directory / "checkpoint").read_bytes()
    public = (room.directory / "log.pub").read_bytes()
    for spoil in (
        lambda: log.write_bytes(good[:-5]),
        lambda: log.write_bytes(good[:-20] + b"X" + good[-19:]),
        lambda: log.unlink(),
        lambda: (room.directory / "checkpoint").unlink(),
        lambda: (room.directory / "checkpoint").write_bytes(checkpoint.replace(b"\n3\n", b"\n2\n")),
        lambda: (room.directory / "log.pub").unlink(),
        lambda: (room.directory / "log.pub").write_bytes(b"?"),
    ):
        spoil()
        with pytest.raises(LogDamaged):
            room.sealer()
        log.write_bytes(good)
        (room.directory / "checkpoint").write_bytes(checkpoint)
        (room.directory / "log.pub").write_bytes(public)
    room.key.unlink()
    with pytest.raises(LogUnavailable, match="is missing"):
        room.sealer()
    assert log.read_bytes() == good


def test_a_disk_that_takes_only_a_part_gets_the_rest(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = room.audit()
    for number in range(5):
        audit.decision(decision(number))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    assert room.sealer().step() == 5
    sound(room)


def test_what_was_written_but_not_signed_is_taken_over(room: Room) -> None:
    """After a power cut the lines may be all there is: the journals were in memory only."""
    audit = room.audit()
    sealer = room.sealer()
    audit.decision(decision(1))
    sealer.step()
    before = (room.directory / "checkpoint").read_bytes()
    audit.decision(decision(2))
    audit.decision(decision(3))
    sealer.step()
    sealer.close()
    (room.directory / "checkpoint").write_bytes(before)
    with (room.directory / "log-00000001.jsonl").open("ab") as log:
        log.write(b'{"n":4,"prev":"00')
    room.alive.clear()
    for path in room.journals.iterdir():
        path.unlink()
    again = room.sealer()
    assert (again.count, again.step()) == (3, 0)
    assert room.sources() == ["w0-1-1:1", "w0-1-1:2", "w0-1-1:3"]
    assert verify(room.directory).sealed == 3
    sound(room)


def test_pages_of_what_is_on_disk_are_given_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole ones, each once, and never one that is still written to."""
    given: list[tuple[int, int]] = []
    synced = [0]
    sync, page = os.fdatasync, mmap.PAGESIZE

    def fdatasync(descriptor: int) -> None:
        sync(descriptor)
        synced[0] = os.fstat(descriptor).st_size

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        assert length > 0  # none would mean all to the end
        assert offset + length <= synced[0] == os.fstat(descriptor).st_size
        given.append((offset, offset + length))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    audit = room.audit()
    sealer = room.sealer(file_size=40_000)
    for number in range(200):
        audit.decision(decision(number))
        if number % 30 in (0, 2, 20):  # less than a page, and several
            sealer.step()
    sealer.step()
    sound(room)
    files: list[list[tuple[int, int]]] = []
    for start, end in given:
        assert start % page == end % page == 0
        if not start:
            files.append([])
        assert start == (files[-1][-1][1] if files[-1] else 0)  # goes on where it stopped
        files[-1].append((start, end))
    sizes = [path.stat().st_size for path in sorted(room.directory.glob("log-*.jsonl"))]
    assert len(sizes) > 1
    assert [file[-1][1] for file in files] == [size // page * page for size in sizes if size >= page]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ESPIPE, errno.ENOSYS])
def test_a_file_system_that_keeps_its_pages_seals_as_well(
    room: Room, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    asked = [0]

    def advise(*_: int) -> None:
        asked[0] += 1
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    audit, sealer = room.audit(), room.sealer()
    for number in range(40):
        audit.decision(decision(number))
    assert sealer.step() == 40
    audit.decision(decision(40))
    assert sealer.step() == 1
    assert asked[0]
    sound(room)


def test_a_lost_index_is_made_anew(room: Room) -> None:
    audit = room.audit()
    sealer = room.sealer()
    audit.session(started())
    for number in range(50):
        audit.decision(decision(number))
        sealer.step()
    sealer.close()
    with closing(Catalog.copy(room.directory)) as catalog:
        before = catalog.sessions()
    for spoil in (b"", b"not a database" * 100):
        for path in room.directory.glob("index.db*"):
            path.unlink()
        (room.directory / "index.db").write_bytes(spoil)
        sealer = room.sealer()
        sealer.step()
        sealer.close()
        with closing(Catalog.copy(room.directory)) as catalog:
            assert catalog.sessions() == before
    assert before[0].permitted == before[0].open == 50


# failures


class Killed(BaseException):
    """The process ends here."""


OPERATIONS = (
    "open", "write", "fsync", "fdatasync", "replace", "rename", "unlink", "truncate", "mkdir", "ftruncate",
)  # fmt: skip


@contextmanager
def failing_at(nth: int, failure: BaseException, patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the n-th operation on files fail, a write after half of it. Yields the number of calls."""
    calls = [0]

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == nth:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise failure
            return real(*arguments, **options)

        return operation

    with patch.context() as context:
        for name in OPERATIONS:
            context.setattr(os, name, wrap(name, getattr(os, name)))
        yield calls


def scenario(room: Room) -> Iterator[int]:
    """Append, die, be born, with a step wanted at every yield."""
    one = room.audit("w0-1-1", segment_size=4096)
    two = room.audit("w1-1-1", segment_size=4096)
    for number in range(4):
        one.decision(decision(number))
    yield 4
    for number in range(4, 12):
        one.outcome(*astuple(outcome(number)))
        two.decision(decision(number))
    room.alive.discard("w1-1-1")
    yield 20
    room.audit("w1-2-2").decision(decision(50))
    yield 21
    yield 21


def expected_sources() -> set[str]:
    return {f"w0-1-1:{n}" for n in range(1, 13)} | {f"w1-1-1:{n}" for n in range(1, 9)} | {"w1-2-2:1"}


def run_with_failure(room: Room, nth: int, failure: BaseException, patch: pytest.MonkeyPatch) -> bool:
    """Play the scenario; return whether the failure came."""
    sealer: Sealer | None = None
    appended: Iterator[int] = scenario(room)
    calls = 0
    for _ in appended:
        for _ in range(3):
            try:
                with failing_at(nth - calls, failure, patch) as counted:
                    try:
                        sealer = sealer or room.sealer(file_size=2000)
                        sealer.step()
                    finally:
                        calls += counted[0]
                break
            except (Killed, LogUnavailable):
                if isinstance(failure, Killed) and sealer:
                    sealer.close()
                    sealer = None
    assert sealer is not None
    sealer.step()
    sealer.close()
    return calls >= nth


@pytest.mark.parametrize(
    "failure", [Killed(), OSError(errno.ENOSPC, "No space left on device")], ids=["killed", "disk"]
)
def test_exactly_once_whatever_operation_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    nth = 0
    came = True
    while came:
        nth += 1
        (tmp_path / str(nth)).mkdir()
        room = Room(tmp_path / str(nth))
        came = run_with_failure(room, nth, failure, monkeypatch)
        sources = room.sources()
        assert len(sources) == len(set(sources)), nth
        assert set(sources) == expected_sources(), nth
        assert set(journal.names(room.journals)) == {"w0-1-1", "w1-2-2"}, nth
        sound(room)
        catalog = Catalog.copy(room.directory)
        assert sum(summary.records for summary in catalog.sessions()) == 21
        catalog.close()
        room.close()
    assert nth > 30


WRITER = """
import sys, pathlib
from ztproxy.administrator.audit import Audit, AuditUnavailable
from ztproxy.model.record import DecisionRecord
from ztproxy.recording.journal import JournalWriter
import os, time
audit = Audit(JournalWriter(pathlib.Path(sys.argv[1]), sys.argv[2], segment_size=1 << 16, max_segments=64))
number = 0
while True:
    number += 1
    record = DecisionRecord(f"{sys.argv[2]}/{number}", 5, True, "permit", "User::x", session="ses_x")
    try:
        audit.decision(record)
    except AuditUnavailable:
        number -= 1
        time.sleep(0.001)
        continue
    os.write(1, b"%d\\n" % number)
    if number % 20 == 0: time.sleep(0.001)
"""

SEALER = """
import sys, pathlib, time
from ztproxy.recording.sealer import Sealer
root = pathlib.Path(sys.argv[1])
sealer = Sealer(root / "recordings", root / "journals", root / "keys" / "log.pem", origin="test/node",
                now=lambda: time.time_ns() // 1000000, alive=lambda: set(sys.argv[2:]), file_size=20000)
print("ready", flush=True)
while True:
    sealer.step()
"""


def test_kill_9_of_writers_and_sealers(tmp_path: Path) -> None:
    room = Room(tmp_path)
    acknowledged: dict[str, int] = {}
    for round_ in range(5):
        name = f"w0-{round_}-1"
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(room.journals), name], stdout=subprocess.PIPE
        )
        sealer = subprocess.Popen([sys.executable, "-c", SEALER, str(tmp_path), name], stdout=subprocess.PIPE)
        assert writer.stdout is not None and sealer.stdout is not None
        assert sealer.stdout.readline() == b"ready\n"
        first = writer.stdout.readline()
        time.sleep(0.05 + 0.037 * round_)
        for child in (sealer, writer) if round_ % 2 else (writer, sealer):
            child.send_signal(signal.SIGKILL)
            child.wait()
        acknowledged[name] = len((first + writer.stdout.read()).splitlines())
        writer.stdout.close()
        sealer.stdout.close()
    final = room.sealer()
    while final.step():
        pass
    assert journal.names(room.journals) == {}
    sources = room.sources()
    assert len(sources) == len(set(sources))
    for name, count in acknowledged.items():
        assert count > 0
        found = [identifier for identifier in room.ids() if identifier.startswith(f"{name}/")]
        assert found == [f"{name}/{n}" for n in range(1, len(found) + 1)]
        assert count <= len(found) <= count + 1
    sound(room)
    room.close()

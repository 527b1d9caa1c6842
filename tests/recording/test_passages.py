"""What many records say alike is written once in a segment: they are read, and sealed, as if each said it."""

import json
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple
from recording_room import START, Room, outcome
from xxhash import xxh3_64_intdigest

from ztproxy.model.passage import Passage
from ztproxy.model.record import DecisionRecord
from ztproxy.recording.admit import admit
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.entry import Ending, Joined, whole
from ztproxy.recording.journal import (
    JournalFull,
    JournalWriter,
    locate,
    names,
    read,
    remove,
    segment_path,
)
from ztproxy.recording.line import Malformed, encode_record, parse_record
from ztproxy.recording.passages import KEPT, Passages
from ztproxy.recording.position import Position
from ztproxy.recording.segment import CURRENT, JOIN, LONGEST, PASSAGE
from ztproxy.recording.verify import verify

NAME = "w0-1-1"
CAROL = b'"principal":"User::demo:carol","name":"Carol","session":"ses_carol","device":"dev_laptop"'
BOB = b'"principal":"User::demo:bob","name":"Bob","groups":["a","b"],"session":"ses_bob"'
SUPPORT = b'"allow":true,"decided":"permit","resource":"Route::support","policies":["support-team"]'
WIKI = b'"allow":true,"decided":"permit","resource":"Route::wiki","action":"GET","host":"wiki.example"'


def beginning(number: int, more: bytes = b"") -> bytes:
    return b'{"kind":"decision","id":"%032x","at":%d,"ip":"192.0.2.7"%b' % (number, START + number, more)


def joined(number: int, caller: bytes, decision: bytes) -> bytes:
    return b"%b,%b,%b}" % (beginning(number), caller, decision)


def everything(directory: Path, name: str = NAME) -> list[bytes]:
    batch = read(directory, name, Position(), limit=1 << 30)
    assert not batch.torn and batch.position.entry == len(batch.entries) + 1
    return [whole(entry) for entry in batch.entries]


def entry(kind: int, payload: bytes) -> bytes:
    """Return the bytes of an entry of a first segment, as whoever writes a journal may write it."""
    head = struct.pack("=QI", xxh3_64_intdigest(payload, (1 << 2) + (kind >> 30)), kind | len(payload))
    return (head + payload).ljust(-(-len(head + payload) // 4) * 4, b"\0")


def write(directory: Path, *entries: bytes) -> list[int]:
    """Put entries into an empty journal; return where they lie."""
    path = segment_path(directory, NAME, 1)
    if not path.exists():
        JournalWriter(directory, NAME, segment_size=1 << 16).close()
    places, data = [], path.read_bytes()
    end = CURRENT.start
    for one in entries:
        places.append(end)
        data = data[:end] + one + data[end + len(one) :]
        end += len(one)
    path.write_bytes(data)
    return places


def test_what_is_said_alike_is_written_once_in_each_segment(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096)
    carol, bob, support, wiki = map(Passage, (CAROL, BOB, SUPPORT, WIKI))
    expected = []
    for number in range(100):
        caller, decision = (carol, bob)[number % 2], (support, wiki)[number % 3 == 0]
        writer.join(beginning(number), caller, decision)
        expected.append(joined(number, caller.text, decision.text))
        if number % 10 == 0:
            writer.append(b"something else")
            expected.append(b"something else")
    assert everything(tmp_path) == expected
    segments = names(tmp_path)[NAME]
    assert len(segments) == 4  # 18 KiB of records
    for segment in segments:
        data = segment_path(tmp_path, NAME, segment).read_bytes()
        assert all(data.count(text) == 1 for text in (CAROL, BOB, SUPPORT, WIKI))


def test_an_entry_is_to_the_byte_what_is_said(tmp_path: Path) -> None:
    JournalWriter(tmp_path, NAME, segment_size=4096).join(beginning(1), Passage(CAROL), Passage(SUPPORT))
    data = segment_path(tmp_path, NAME, 1).read_bytes()[CURRENT.start :]
    first, second = entry(PASSAGE, CAROL), entry(PASSAGE, SUPPORT)
    where = struct.pack("=II", CURRENT.start, CURRENT.start + len(first))
    written = first + second + entry(JOIN, where + beginning(1))
    assert data.startswith(written) and not any(data[len(written) :])


TEXTS = st.sampled_from([b"a", b"bcd" * 9, b"e" * 50])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(
        st.tuples(st.binary(min_size=1, max_size=60), st.none() | st.tuples(TEXTS, TEXTS)), max_size=60
    ),
    limit=st.integers(1, 9),
    kept=st.booleans(),
)
def test_any_row_is_read_in_any_bites(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[bytes, tuple[bytes, bytes] | None]],
    limit: int,
    kept: bool,
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    writer = JournalWriter(directory, NAME, segment_size=512, max_segments=1000)
    passages = {text: Passage(text) for text in (b"a", b"bcd" * 9, b"e" * 50)}
    position, found, expected = Position(), list[bytes](), list[bytes]()
    known = Passages() if kept else None
    for text, more in said:
        if more is None:
            writer.append(text)
            expected.append(text)
        else:
            writer.join(text, passages[more[0]], passages[more[1]])
            expected.append(b"%b,%b,%b}" % (text, *more))
        batch = read(directory, NAME, position, limit=limit, passages=known)
        found += map(whole, batch.entries)
        position = batch.position
    while (batch := read(directory, NAME, position, limit=limit, passages=known)).entries:
        found += map(whole, batch.entries)
        position = batch.position
    assert found == expected
    for number in range(1, len(expected) + 1):
        [one] = read(directory, NAME, locate(directory, NAME, number), limit=1).entries
        assert whole(one) == expected[number - 1]


def test_one_passage_in_two_journals(tmp_path: Path) -> None:
    writers = [JournalWriter(tmp_path, f"w{n}-1-1", segment_size=4096) for n in range(2)]
    carol, support = Passage(CAROL), Passage(SUPPORT)
    for number in range(10):
        writers[number % 2].join(beginning(number), carol, support)
    for half, writer in enumerate(writers):
        expected = [joined(number, CAROL, SUPPORT) for number in range(half, 10, 2)]
        assert everything(tmp_path, writer.name) == expected


def test_a_full_journal_refuses_until_a_segment_is_sealed(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096, max_segments=2)
    carol, support, kept = Passage(CAROL), Passage(SUPPORT), 0
    with pytest.raises(JournalFull):
        while True:
            writer.join(beginning(kept), carol, support)
            kept += 1
    assert everything(tmp_path) == [joined(number, CAROL, SUPPORT) for number in range(kept)]
    remove(tmp_path, NAME, 1)
    writer.join(beginning(kept), carol, support)
    [last] = read(tmp_path, NAME, locate(tmp_path, NAME, kept + 1)).entries
    assert whole(last) == joined(kept, CAROL, SUPPORT)
    writer.close()
    with pytest.raises(JournalFull):
        writer.join(beginning(0), carol, support)


def test_what_is_long_is_written_whole(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME)
    long, support = Passage(b'"name":"' + b"x" * LONGEST + b'"'), Passage(SUPPORT)
    for number in range(3):
        writer.join(beginning(number), long, support)
    assert everything(tmp_path) == [joined(number, long.text, SUPPORT) for number in range(3)]
    assert segment_path(tmp_path, NAME, 1).read_bytes().count(SUPPORT) == 3
    small = JournalWriter(tmp_path, "w1-1-1", segment_size=256)
    small.join(b"{", Passage(b"x" * 100), Passage(b"y" * 60))
    assert everything(tmp_path, "w1-1-1") == [b"{,%b,%b}" % (b"x" * 100, b"y" * 60)]
    with pytest.raises(ValueError):
        small.join(b"{", Passage(b"x" * 100), Passage(b"y" * 160))


def referring(first: int, second: int) -> bytes:
    return entry(JOIN, struct.pack("=II", first, second) + beginning(1))


def test_a_record_goes_on_with_nothing_but_passages_before_it(tmp_path: Path) -> None:
    """A record that refers to anything else is damage: it is not read, and nothing is made of it."""
    record = entry(0, b"a record that is whole")
    caller, decision = entry(PASSAGE, CAROL), entry(PASSAGE, SUPPORT)
    first = CURRENT.start + len(record)
    second, at = first + len(caller), first + len(caller) + len(decision)
    good = referring(first, second)
    write(tmp_path, record, caller, decision, good)
    assert everything(tmp_path) == [b"a record that is whole", joined(1, CAROL, SUPPORT)]
    wrong = [
        0,
        1,
        CURRENT.start - 8,
        CURRENT.start,
        first + 1,
        first + 4,
        at,
        at + len(good),
        1 << 20,
        (1 << 32) - 1,
    ]
    for one in wrong:
        for pair in ((one, second), (first, one)):
            write(tmp_path, record, caller, decision, referring(*pair))
            for position in (Position(), Position(1, at, 2)):  # as if it had been read so far
                batch = read(tmp_path, NAME, position)
                assert batch.torn and len(batch.entries) == (position == Position())


@pytest.mark.parametrize(
    "bad", [entry(JOIN, b"1234567"), entry(3 << 30, b"of no kind"), entry(PASSAGE, CAROL)[:-4] + b"????"]
)
def test_what_is_no_entry_is_damage(tmp_path: Path, bad: bytes) -> None:
    write(tmp_path, entry(0, b"a"), bad)
    batch = read(tmp_path, NAME, Position())
    assert batch.torn and batch.entries == [b"a"]


@pytest.mark.parametrize("kind", [0, PASSAGE, JOIN, 3 << 30])
@pytest.mark.parametrize("was", [0, PASSAGE, JOIN])
def test_a_kind_that_was_altered_is_damage(tmp_path: Path, was: int, kind: int) -> None:
    """Its two bits are in the sum like all others."""
    caller, decision = entry(PASSAGE, CAROL), entry(PASSAGE, SUPPORT)
    payload = struct.pack("=II", CURRENT.start, CURRENT.start + len(caller)) + beginning(1)
    one = entry(was, payload)
    write(
        tmp_path,
        caller,
        decision,
        entry(0, b"a"),
        one[:8] + struct.pack("=I", kind | len(payload)) + one[12:],
    )
    assert read(tmp_path, NAME, Position()).torn == (kind != was)


def test_a_small_entry_makes_no_large_line(tmp_path: Path) -> None:
    """Else a few bytes that were written over and over would fill the disk."""
    large, decision = entry(PASSAGE, b'"name":"' + b"x" * LONGEST + b'"'), entry(PASSAGE, SUPPORT)
    write(tmp_path, large, decision, referring(CURRENT.start, CURRENT.start + len(large)))
    assert read(tmp_path, NAME, Position()).torn


def test_a_record_has_no_more_passages_before_it_than_it_needs(tmp_path: Path) -> None:
    """Else a journal of nothing but passages would be read in one go, however long it is."""
    caller, decision = entry(PASSAGE, CAROL), entry(PASSAGE, SUPPORT)
    write(tmp_path, caller, decision, referring(CURRENT.start, CURRENT.start + len(caller)), caller, decision)
    assert not read(tmp_path, NAME, Position()).torn
    write(tmp_path, caller, decision, caller, entry(0, b"a"))
    batch = read(tmp_path, NAME, Position())
    assert batch.torn and batch.entries == []


def test_what_a_reader_remembers_has_a_bound_and_changes_nothing(tmp_path: Path) -> None:
    """As many passages as there are records: each pair of them is another one."""
    writer, known = JournalWriter(tmp_path, NAME, segment_size=4 << 20), Passages()
    many = [Passage(b'"name":"%d"' % number) for number in range(KEPT + 100)]
    for number, passage in enumerate(many):
        writer.join(b"{", passage, many[number // 2])
    position, found = Position(), list[bytes]()
    while (batch := read(tmp_path, NAME, position, limit=100, passages=known)).entries:
        found += map(whole, batch.entries)
        position = batch.position
        assert len(known.known) <= KEPT and len(known.endings) <= KEPT
    assert found == [
        b"{,%b,%b}" % (passage.text, many[number // 2].text) for number, passage in enumerate(many)
    ]


# sealing


def test_they_are_sealed_whole_and_listed_as_read_again(room: Room) -> None:
    audit, sealer = room.audit(segment_size=4096), room.sealer()
    carol, bob, support, wiki = map(Passage, (CAROL, BOB, SUPPORT, WIKI))
    expected = []
    for number in range(120):
        caller, decision = (carol, bob)[number % 2], (support, wiki)[number % 3 == 0]
        audit.permit(beginning(number), caller, decision)
        audit.outcome(*astuple(outcome(number)))
        expected.append(joined(number, caller.text, decision.text))
        if number % 50 == 0:
            sealer.step()
    assert sealer.step() == 2 * 120 - 2 * 101
    records = [raw[raw.index(b'"record":') + 9 : -1] for raw in room.lines()]
    assert records[::2] == expected
    assert room.sources() == [f"{NAME}:{number}" for number in range(1, 241)]
    assert verify(room.directory).ok
    sealer.close()
    with closing(Catalog.open(room.directory)) as catalog, closing(Catalog.copy(room.directory)) as anew:
        anew._start_over()
        anew.catch_up(room.directory)
        for session in ("ses_carol", "ses_bob"):
            assert catalog.session(session) == anew.session(session)
            assert list(catalog.places(session)) == list(anew.places(session))
        found = catalog.session("ses_carol")
        assert found is not None
        assert (found.permitted, found.device, found.ip) == (60, "dev_laptop", "192.0.2.7")


@pytest.mark.parametrize("before", [1, 7])
def test_a_sealer_that_starts_anew_goes_on_within_a_segment(room: Room, before: int) -> None:
    audit, carol, support = room.audit(), Passage(CAROL), Passage(SUPPORT)
    for number in range(before):
        audit.permit(beginning(number), carol, support)
    sealer = room.sealer()
    assert sealer.step() == before
    sealer.close()
    for number in range(before, 10):
        audit.permit(beginning(number), carol, support)
    assert room.sealer().step() == 10 - before
    assert room.sources() == [f"{NAME}:{number}" for number in range(1, 11)]
    assert all(json.loads(line)["record"]["session"] == "ses_carol" for line in room.lines())


def test_a_process_that_ends_behind_a_passage_has_lost_nothing(room: Room) -> None:
    audit = room.audit()
    audit.permit(beginning(1), Passage(CAROL), Passage(SUPPORT))
    path = segment_path(room.journals, NAME, 1)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) + 3 & ~3
    more = entry(PASSAGE, BOB)
    path.write_bytes(data[:end] + more + data[end + len(more) :])
    room.alive.clear()
    sealer = room.sealer()
    assert sealer.step() == 1
    assert sealer.step() == 0 and names(room.journals) == {}
    assert [json.loads(line)["record"]["kind"] for line in room.lines()] == ["decision"]


def test_a_damaged_passage_is_a_gap_for_all_that_goes_on_with_it(room: Room) -> None:
    audit, carol, support = room.audit(), Passage(CAROL), Passage(SUPPORT)
    for number in range(5):
        audit.permit(beginning(number), carol, support)
    path = segment_path(room.journals, NAME, 1)
    path.write_bytes(path.read_bytes().replace(b"User::demo:carol", b"User::demo:karol"))
    room.alive.clear()
    room.sealer().step()
    records = [json.loads(line)["record"] for line in room.lines()]
    assert [record["kind"] for record in records] == ["gap"] and records[0]["reason"] == "an entry is damaged"
    assert b"karol" not in b"".join(room.lines())
    assert verify(room.directory).ok


Parts = tuple[bytes, bytes, bytes]
NO_RECORDS: list[Parts] = [
    (beginning(1), CAROL, SUPPORT + b',"kind":"outcome"'),
    (beginning(1), CAROL, CAROL),
    # what is lacking
    (b'{"kind":"decision","at":5', CAROL, SUPPORT),
    (b"{", CAROL, SUPPORT),
    (beginning(1), b'"name":"x"', SUPPORT),
    (beginning(1), CAROL, b'"allow":true'),
    (beginning(1), b" ", SUPPORT),
    # what would be closed, or opened, elsewhere
    (beginning(1) + b"}", CAROL, SUPPORT),
    (beginning(1) + b',"path":"/', b'"', SUPPORT),
    (beginning(1) + b",", CAROL, SUPPORT),
    (beginning(1), b"," + CAROL, SUPPORT),
    (beginning(1), CAROL + b",", SUPPORT),
    (beginning(1), CAROL + b"}", b"{" + SUPPORT),
    (beginning(1), CAROL, SUPPORT + b"}"),
    (beginning(1), CAROL, SUPPORT + b'},{"x":1'),
    # what is of another type, or no text
    (beginning(1), b'"principal":5', SUPPORT),
    (beginning(1), CAROL, b'"allow":"true","decided":"permit"'),
    (beginning(1, b',"path":"\xff"'), CAROL, SUPPORT),
    (beginning(1), b'"principal":"\xff"', SUPPORT),
    (beginning(1), CAROL, SUPPORT + b',"host":"\xff"'),
    (beginning(1), CAROL, SUPPORT + b',"host":"\xed\xa0\x80"'),
]


def records_of(room: Room, parts: Parts) -> list[dict[str, Any]]:
    """Return what is sealed of these, with a record before and one behind."""
    writer, carol, support = room.writer(), Passage(CAROL), Passage(SUPPORT)
    writer.join(beginning(2), carol, support)
    writer.join(parts[0], Passage(parts[1]), Passage(parts[2]))
    writer.join(beginning(3), carol, support)
    room.sealer().step()
    records = [json.loads(line)["record"] for line in room.lines()]
    assert verify(room.directory).ok
    assert [record.get("id") for record in records[::2]] == [f"{2:032x}", f"{3:032x}"]
    return records


@pytest.mark.parametrize("parts", NO_RECORDS)
def test_what_is_no_record_put_together_is_a_gap(room: Room, parts: Parts) -> None:
    """However a captured worker writes it: its neighbours are sealed as they are."""
    [_, gap, _] = records_of(room, parts)
    assert (gap["kind"], gap["first"], gap["last"]) == ("gap", 2, 2)


ODD: list[Parts] = [
    # what belongs to another part, or to none
    (beginning(1, b',"session":"ses_bob"'), CAROL, SUPPORT),
    (beginning(1, b',"allow":false'), CAROL, SUPPORT),
    (beginning(1), CAROL + b',"path":"/"', SUPPORT),
    (beginning(1), CAROL + b',"allow":true', SUPPORT),
    (beginning(1), CAROL, SUPPORT + b',"session":"ses_bob"'),
    (beginning(1), CAROL, SUPPORT + b',"id":"2"'),
    (beginning(1), CAROL, SUPPORT + b',"unknown":1'),
    (beginning(1), SUPPORT, CAROL),
    (b'{"kind":"outcome","id":"r","at":5', CAROL, SUPPORT),
    # what is closed in another part
    (beginning(1) + b',"path":"', b'","principal":"x"', SUPPORT),
    (beginning(1), b'"principal":"x","sources":["', b'"],' + SUPPORT),
    # several lines
    (beginning(1).replace(b",", b",\n"), CAROL, SUPPORT),
    (beginning(1), b"\n" + CAROL, SUPPORT),
    (beginning(1), CAROL, SUPPORT + b"\r"),
]


@pytest.mark.parametrize("parts", ODD)
def test_what_is_put_together_oddly_is_sealed_as_it_reads(room: Room, parts: Parts) -> None:
    """Every field once, and none that is not one: what anybody finds in the log is what is listed."""
    [_, record, _] = records_of(room, parts)
    assert record == json.loads(encode_record(parse_record(b"%b,%b,%b}" % parts)))
    line = room.lines()[1]
    assert b'"unknown"' not in line and b"\r" not in line and line.count(b'"session":') <= 1


PIECES = st.sampled_from([*b'{}[],:" \\', *b"ax1", *b"\n\xc3\xa9\xff"]).map(lambda byte: bytes([byte]))


@settings(max_examples=300, deadline=None)
@given(
    part=st.integers(0, 2),
    at=st.integers(0, 120),
    cut=st.integers(0, 3),
    put=st.lists(PIECES | st.sampled_from([b'","', b'":', b'"id":"2"', b'"allow":false']), max_size=3),
)
def test_what_is_admitted_is_one_record_that_says_so(part: int, at: int, cut: int, put: list[bytes]) -> None:
    """Whatever is done to one part: all is refused, or the whole reads as the parts were taken for."""
    parts = [beginning(1, b',"path":"/x"'), CAROL, SUPPORT]
    text = parts[part]
    parts[part] = text[:at] + b"".join(put) + text[at + cut :]
    one = Joined(parts[0], Ending(parts[1], parts[2]))
    try:
        [seen] = admit([one])
    except Malformed:
        return
    record = one.whole()
    found = msgspec.json.decode(record, type=DecisionRecord)
    assert b"\n" not in record and record.decode()
    assert list(json.loads(record, object_pairs_hook=list)) == list(json.loads(record).items()), record
    names = ("id", "at", "allow", "decided", "principal", "name", "session", "device", "ip")
    assert tuple(getattr(found, name) for name in names) == seen


WRITER = """
import sys, pathlib, os
from ztproxy.model.passage import Passage
from ztproxy.recording.journal import JournalWriter
writer = JournalWriter(pathlib.Path(sys.argv[1]), sys.argv[2], segment_size=1 << 14, max_segments=100000)
passages = [Passage(b"p%d" % number + b"x" * number) for number in range(50)]
number = 0
while True:
    number += 1
    writer.join(b"%d" % number, passages[number % 50], passages[number % 7])
    os.write(1, b"%d\\n" % number)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    passages = [b"p%d" % number + b"x" * number for number in range(50)]
    for round_ in range(6):
        name = f"w0-{round_}-1"
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.005 + 0.03 * round_)
        child.send_signal(signal.SIGKILL)
        acknowledged = (first + child.stdout.read()).splitlines()
        child.wait()
        child.stdout.close()
        batch = read(tmp_path, name, Position(), limit=1 << 30)
        found = [whole(one) for one in batch.entries]
        assert len(acknowledged) <= len(found) <= len(acknowledged) + (not batch.torn)
        assert found == [
            b"%d,%b,%b}" % (n, passages[n % 50], passages[n % 7]) for n in range(1, len(found) + 1)
        ]

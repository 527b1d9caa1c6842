"""Journals: what was appended is there, whatever happens to the process; what is torn is recognised."""

import errno
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recording_room import OldWriter
from xxhash import xxh3_64_intdigest

from ztproxy.recording import journal
from ztproxy.recording.journal import JournalFull, JournalWriter, locate, names, read
from ztproxy.recording.position import Position
from ztproxy.recording.segment import CURRENT, FIRST, FORMATS, Format

NAME = "w0-123-1800000000000"
each = pytest.mark.parametrize("form", FORMATS, ids=[form.suffix for form in FORMATS])


def writing(form: Format, directory: Path, **options: Any) -> JournalWriter | OldWriter:
    if form is CURRENT:
        return JournalWriter(directory, NAME, **options)
    return OldWriter(directory, NAME, form=form, **options)


def everything(directory: Path, name: str = NAME) -> list[bytes]:
    batch = read(directory, name, Position(), limit=1 << 30)
    assert not batch.torn and batch.position.entry == len(batch.entries) + 1
    return batch.entries


@each
def test_what_is_appended_is_read_at_once(tmp_path: Path, form: Format) -> None:
    writer = writing(form, tmp_path, segment_size=4096)
    assert everything(tmp_path) == []
    for payload in (b"a", b"bc", b"\x00" * 7, b"d" * 1000):
        writer.append(payload)
    assert everything(tmp_path) == [b"a", b"bc", b"\x00" * 7, b"d" * 1000]


def test_an_entry_is_to_the_byte_what_is_said(tmp_path: Path) -> None:
    """Journals outlive versions of the program: whoever changes this changes the format's name."""
    JournalWriter(tmp_path, NAME, segment_size=512).append(b"evidence")
    data = (tmp_path / f"{NAME}.000001.journal3").read_bytes()
    head = b"ZTJRNL3\n" + (1).to_bytes(8, sys.byteorder) + 0x01020304.to_bytes(4, sys.byteorder)
    xxh3 = xxh3_64_intdigest(b"evidence", 1 << 2)
    assert data[:24] == head + zlib.crc32(head, 1).to_bytes(4, sys.byteorder)
    assert data[24:32] == bytes(8)  # nothing of it is sealed
    assert data[32:44] == xxh3.to_bytes(8, sys.byteorder) + (8).to_bytes(4, sys.byteorder)
    assert data[44:52] == b"evidence" and not any(data[52:])


@each
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(min_size=1, max_size=400), max_size=60), limit=st.integers(1, 9))
def test_any_row_of_payloads_is_read_in_any_bites(
    tmp_path_factory: pytest.TempPathFactory, form: Format, payloads: list[bytes], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    writer = writing(form, directory, segment_size=512, max_segments=1000)
    position, found = Position(), []
    for payload in payloads:
        writer.append(payload)
        batch = read(directory, NAME, position, limit=limit)
        found += batch.entries
        position = batch.position
    while (batch := read(directory, NAME, position, limit=limit)).entries:
        found += batch.entries
        position = batch.position
    assert found == payloads
    for entry in range(1, len(payloads) + 1):
        assert read(directory, NAME, locate(directory, NAME, entry), limit=1).entries == [payloads[entry - 1]]


def test_what_came_before_the_next_segment_was_made_is_read_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process goes on, and into its next segment, just after its reader came to the end of this one."""
    writer = JournalWriter(tmp_path, NAME, segment_size=512)
    writer.append(b"1")
    exists, late = Path.exists, [b"2", b"3" * 400, b"4" * 400]

    def asked(path: Path, **how: Any) -> bool:
        while late:
            writer.append(late.pop(0))
        return exists(path, **how)

    monkeypatch.setattr(Path, "exists", asked)
    batch = read(tmp_path, NAME, Position())
    assert batch.entries == [b"1", b"2", b"3" * 400, b"4" * 400]
    assert not batch.torn and not batch.more


def test_a_full_journal_refuses_until_a_segment_is_sealed(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096, max_segments=3)
    kept = 0
    with pytest.raises(JournalFull, match="3 segments wait"):
        while True:
            writer.append(b"x" * 1000)
            kept += 1
    assert len(everything(tmp_path)) == kept
    with pytest.raises(JournalFull):
        writer.append(b"x" * 1000)
    assert len(everything(tmp_path)) == kept
    journal.segment_path(tmp_path, NAME, 1).unlink()
    writer.append(b"y" * 1000)
    last = read(tmp_path, NAME, locate(tmp_path, NAME, kept + 1))
    assert last.entries == [b"y" * 1000]


def test_a_small_record_still_fits_when_a_large_one_does_not(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=512, max_segments=1)
    with pytest.raises(JournalFull):
        for _ in range(10):
            writer.append(b"x" * 100)
    writer.append(b"y")
    assert everything(tmp_path)[-1] == b"y"


def test_a_full_disk_refuses_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096)
    real = os.posix_fallocate

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    kept = 0
    with pytest.raises(JournalFull, match="No space left"):
        while True:
            writer.append(b"x" * 1000)
            kept += 1
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.000001.journal3"]
    with pytest.raises(JournalFull, match="No space left"):
        JournalWriter(tmp_path, "w1-1-1")
    monkeypatch.setattr(os, "posix_fallocate", real)
    writer.append(b"x" * 1000)
    assert len(everything(tmp_path)) == kept + 1


def test_every_page_is_allocated_before_use(tmp_path: Path) -> None:
    JournalWriter(tmp_path, NAME, segment_size=1 << 20)
    status = journal.segment_path(tmp_path, NAME, 1).stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 >= 1 << 20
    assert status.st_mode & 0o777 == 0o600


def test_names_are_used_once_and_are_plain(tmp_path: Path) -> None:
    JournalWriter(tmp_path, NAME, segment_size=4096)
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path, NAME, segment_size=4096)
    for name in ("../x", "", "a b", "A", "-x", "x.1", "x" * 65):
        with pytest.raises(ValueError):
            JournalWriter(tmp_path, name)
    assert names(tmp_path) == {NAME: [1]}


def test_payloads_have_a_size(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096)
    for payload in (b"", b"x" * 4096):
        with pytest.raises(ValueError):
            writer.append(payload)
    writer.append(b"x" * (4096 - CURRENT.start - 2 * CURRENT.head.size))
    assert len(everything(tmp_path)) == 1


def test_after_close_it_refuses(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, NAME, segment_size=4096)
    writer.append(b"a")
    writer.close()
    with pytest.raises(JournalFull):
        writer.append(b"b")
    journal.segment_path(tmp_path, NAME, 1).unlink()
    with pytest.raises(JournalFull):
        writer.append(b"b")


@each
@pytest.mark.parametrize("where", [*range(13), 20, 47])
def test_a_damaged_entry_is_torn_and_never_read(tmp_path: Path, form: Format, where: int) -> None:
    writer = writing(form, tmp_path, segment_size=4096)
    writer.append(b"a" * 40)
    writer.append(b"b" * 40)
    path = journal.segment_path(tmp_path, NAME, 1, form)
    data = bytearray(path.read_bytes())
    data[form.start + where] ^= 0x10
    path.write_bytes(data)
    batch = read(tmp_path, NAME, Position())
    assert batch.torn and batch.entries == [] and batch.position == Position()


@each
def test_a_length_beyond_the_segment_is_torn(tmp_path: Path, form: Format) -> None:
    writer = writing(form, tmp_path, segment_size=4096)
    writer.append(b"a" * 40)
    path = journal.segment_path(tmp_path, NAME, 1, form)
    data = bytearray(path.read_bytes())
    where = form.start + (0 if form is FIRST else 8)
    data[where : where + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read(tmp_path, NAME, Position()).torn


@pytest.mark.parametrize("form", FORMATS[1:], ids=[form.suffix for form in FORMATS[1:]])
def test_an_entry_without_its_length_is_not_there_yet(tmp_path: Path, form: Format) -> None:
    writing(form, tmp_path, segment_size=4096)
    path = journal.segment_path(tmp_path, NAME, 1, form)
    data = bytearray(path.read_bytes())
    if form is not FIRST:
        data[form.start : form.start + 8] = b"\xffthe sum"[:8]  # it is stored before the length
    data[form.start + form.head.size : form.start + form.head.size + 8] = b"halfdone"
    path.write_bytes(data)
    batch = read(tmp_path, NAME, Position())
    assert (batch.entries, batch.torn) == ([], False)
    assert journal.leftover(tmp_path, NAME, batch.position)


@each
@pytest.mark.parametrize("where", [0, 8, 16, 20])
def test_a_damaged_header_is_torn(tmp_path: Path, form: Format, where: int) -> None:
    writer = writing(form, tmp_path, segment_size=512)
    for _ in range(10):
        writer.append(b"x" * 100)
    path = journal.segment_path(tmp_path, NAME, 2, form)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    batch = read(tmp_path, NAME, Position())
    assert batch.torn and len(batch.entries) == 4


WRITER = """
import sys, pathlib, os
from ztproxy.recording.journal import JournalWriter
writer = JournalWriter(pathlib.Path(sys.argv[1]), sys.argv[2], segment_size=1 << 16, max_segments=100000)
number = 0
while True:
    number += 1
    writer.append(b"%d " % number + b"x" * (number % 300))
    os.write(1, b"%d\\n" % number)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
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
        found = batch.entries
        assert len(acknowledged) <= len(found) <= len(acknowledged) + (not batch.torn)
        assert found == [b"%d " % n + b"x" * (n % 300) for n in range(1, len(found) + 1)]

"""Journals: where a process puts its records at the speed of memory, and where the sealer fetches them.

Each process appends to a journal of its own (`JournalWriter`, called by `administrator.audit` on the hot
path); the sealer reads them (`read`) and removes what it has sealed. A journal is a row of preallocated
files mapped into memory: an append is a copy into the kernel's page cache, without a system call, and so
survives the process being killed. Never grows without bound: a full journal refuses, it does not drop.

A segment is a header followed by entries, each aligned to four bytes:

    length u32 | crc32 u32 | payload        length is stored last and 0 means "not there yet"
"""

import mmap
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

from ztproxy.model.ports import Journal
from ztproxy.recording.position import HEADER, Batch, Position

SEGMENT_SIZE: Final = 8 << 20
MAX_SEGMENTS: Final = 16

_head_of: Final[Callable[[bytes, int], tuple[int, int]]] = struct.Struct("=II").unpack_from  # length, crc32
_MAGIC: Final = b"ZTJRNL1\n"
_ORDER: Final = 0x01020304  # journals are read on the machine that wrote them
_CHUNK: Final = 1 << 17
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})\.(\d{6,10})\.journal")


class JournalFull(Exception):
    """The record can not be kept: too much is waiting to be sealed, or the disk is full."""


class JournalWriter(Journal):
    """One process's journal. Used from one thread. `name` is unique per start of the process."""

    __slots__ = (
        "_directory", "_end", "_map", "_max_segments", "_name", "_next", "_segment", "_size", "_unsealed",
        "_words",
    )  # fmt: skip

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        segment_size: int = SEGMENT_SIZE,
        max_segments: int = MAX_SEGMENTS,
    ) -> None:
        """Raise FileExistsError when the name was used before, JournalFull when there is no room."""
        if not _NAME.fullmatch(name):
            raise ValueError("a journal's name is made of lower-case letters, digits and hyphens")
        if segment_size % 4 or not HEADER.size + 64 <= segment_size <= 1 << 30:
            raise ValueError("the segment size is a multiple of 4 up to 1 GiB")
        if names(directory).get(name):
            raise FileExistsError(f"journal {name} exists")
        self._directory = directory
        self._name = name
        self._size = segment_size
        self._max_segments = max_segments
        self._map: mmap.mmap
        self._words: memoryview[int]  # the same, as numbers of four bytes
        self._unsealed: list[Path] = []
        self._segment = 0
        self._next = 1
        self._end = 0
        self._open_segment()

    @property
    def name(self) -> str:
        """Return the journal's name."""
        return self._name

    def append(self, payload: bytes) -> None:
        """Keep one record. When this returns, it outlives the process. Raises JournalFull."""
        start = self._end
        size = len(payload)
        end = start + 8 + size
        if end > self._size or not size:
            self._roll(size)
            start = self._end
            end = start + 8 + size
        words, at = self._words, start >> 2
        words[at + 1] = crc32(payload)
        self._map[start + 8 : end] = payload
        words[at] = size  # last: from here on the entry exists
        self._end = (end + 3) & ~3
        self._next += 1

    def close(self) -> None:
        """Let go of the files; the sealer removes them when everything in them is sealed."""
        self._end = self._size  # an append after this finds no room …
        self._max_segments = 0  # … and gets none
        self._words.release()
        self._map.close()

    def _roll(self, size: int) -> None:
        if not 0 < size <= self._size - HEADER.size - 8:
            raise ValueError("a record is neither empty nor larger than a segment")
        while self._unsealed and not self._unsealed[0].exists():
            del self._unsealed[0]  # the sealer removes segments in order
        if len(self._unsealed) >= self._max_segments:
            raise JournalFull(f"journal {self._name}: {len(self._unsealed)} segments wait to be sealed")
        self._open_segment()

    def _open_segment(self) -> None:
        path = segment_path(self._directory, self._name, self._segment + 1)
        try:
            mapped = _allocate(path, self._size, self._next)
        except OSError as error:
            raise JournalFull(f"journal {self._name}: {error.strerror}") from error
        if self._segment:
            self._words.release()
            self._map.close()
        self._segment += 1
        self._unsealed.append(path)
        self._map = mapped
        self._words = memoryview(mapped).cast("I")
        self._end = HEADER.size


def segment_path(directory: Path, name: str, segment: int) -> Path:
    """Return where a segment lies."""
    return directory / f"{name}.{segment:06}.journal"


def names(directory: Path) -> dict[str, list[int]]:
    """Return the journals in a directory, each with the numbers of its segments in order."""
    found: dict[str, list[int]] = {}
    for path in directory.iterdir():
        if match := _SEGMENT.fullmatch(path.name):
            found.setdefault(match[1], []).append(int(match[2]))
    for segments in found.values():
        segments.sort()
    return found


def read(directory: Path, name: str, position: Position, *, limit: int = 4096) -> Batch:
    """Return up to `limit` entries from `position` on. Raises OSError (also when a segment is gone)."""
    entries: list[bytes] = []
    while True:
        following = segment_path(directory, name, position.segment + 1).exists()  # asked first: after
        try:  # a roll everything is there
            position, torn = _read_segment(directory, name, position, limit, entries)
            if following and not torn and len(entries) < limit:
                first = first_entry(directory, name, position.segment + 1)
                torn = first != position.entry
        except FileNotFoundError:
            if entries:
                return Batch(entries, position)
            raise
        if torn or len(entries) >= limit:
            return Batch(entries, position, more=not torn, torn=torn)
        if not following:
            return Batch(entries, position)
        position = Position(position.segment + 1, HEADER.size, position.entry)


def locate(directory: Path, name: str, entry: int) -> Position:
    """Return the position of an entry (or of the place it will have). Raises OSError, LookupError."""
    for segment in reversed(names(directory).get(name, [])):
        first = first_entry(directory, name, segment)
        if first is not None and first <= entry:
            position = Position(segment, HEADER.size, first)
            while position.entry < entry:
                batch = read(directory, name, position, limit=min(4096, entry - position.entry))
                if not batch.entries:
                    raise LookupError(f"journal {name} has no entry {entry}")
                position = batch.position
            return position
    raise LookupError(f"journal {name} has no entry {entry}")


def first_entry(directory: Path, name: str, segment: int) -> int | None:
    """Return the number of a segment's first entry, None when its header is not readable."""
    head = _pread(segment_path(directory, name, segment), 0, HEADER.size)
    if len(head) < HEADER.size:
        return None
    magic, first, order, check = HEADER.unpack(head)
    if (magic, order) != (_MAGIC, _ORDER) or check != crc32(head[:-4]):
        return None
    return int(first)


def leftover(directory: Path, name: str, position: Position) -> bool:
    """Say whether anything but zeros follows `position` in its segment: the trace of an entry cut short."""
    path = segment_path(directory, name, position.segment)
    offset = position.offset
    while chunk := _pread(path, offset, _CHUNK):
        if any(chunk):
            return True
        offset += len(chunk)
    return False


def _read_segment(
    directory: Path, name: str, position: Position, limit: int, entries: list[bytes]
) -> tuple[Position, bool]:
    """Add the entries of one segment; return where reading stopped and whether an entry was unreadable."""
    offset, wanted, known = position.offset, _CHUNK, len(entries)
    torn = False
    descriptor = os.open(segment_path(directory, name, position.segment), os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = os.fstat(descriptor).st_size
        while len(entries) < limit and offset + 8 <= end:
            taken, needed = _take(os.pread(descriptor, wanted, offset), limit, entries)
            offset += taken
            if not needed:
                break
            torn = needed < 0 or (needed > 8 and offset + needed > end) or not (taken or needed > wanted)
            if torn:
                break
            wanted = max(_CHUNK, needed)
    finally:
        os.close(descriptor)
    return Position(position.segment, offset, position.entry + len(entries) - known), torn


def _take(chunk: bytes, limit: int, entries: list[bytes]) -> tuple[int, int]:
    """Add the entries that lie whole in a chunk; return their bytes, and what it takes to go on.

    That is 0 when nothing follows, -1 when what follows is damaged, else the bytes of what begins there.
    """
    start, end, head_of, checked = 0, len(chunk), _head_of, crc32
    while start + 8 <= end:
        size, check = head_of(chunk, start)
        if not size or len(entries) >= limit:
            return start, 0
        stop = start + 8 + size
        if stop > end:
            return start, 8 + size
        payload = chunk[start + 8 : stop]
        if checked(payload) != check:
            return start, -1
        entries.append(payload)
        start = (stop + 3) & ~3
    return start, 8


def _pread(path: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _allocate(path: Path, size: int, first: int) -> mmap.mmap:
    """Make a segment whose every page has its place on disk: a store into it can not fail later."""
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        head = HEADER.pack(_MAGIC, first, _ORDER, 0)[:-4]
        os.pwrite(descriptor, head + struct.pack("=I", crc32(head)), 0)
        mapped = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return mapped

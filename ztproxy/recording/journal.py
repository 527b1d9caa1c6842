"""Journals: where a process puts its records at the speed of memory, and where the sealer fetches them.

Each process appends to a journal of its own (`JournalWriter`, called by `administrator.audit` on the hot
path); the sealer reads them (`read`) and removes what it has sealed. A journal is a row of preallocated
files mapped into memory: an append is a copy into the kernel's page cache, without a system call, and so
survives the process being killed. Never grows without bound: a full journal refuses, it does not drop.
How a segment looks says `recording.segment`.
"""

import mmap
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from xxhash import xxh3_64_intdigest

from ztproxy.model.ports import Journal
from ztproxy.recording.position import Batch, Position
from ztproxy.recording.segment import CURRENT, FORMATS, HEAD, HEADER, SEALED, Format

SEGMENT_SIZE: Final = 8 << 20
MAX_SEGMENTS: Final = 16

_HEAD: Final = HEAD.size
_store_head: Final = HEAD.pack_into
_ORDER: Final = 0x01020304  # journals are read on the machine that wrote them
_CHUNK: Final = 1 << 17
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})\.(\d{6,10})\.(journal\d*)")
_SUFFIXES: Final = frozenset(form.suffix for form in FORMATS)


class JournalFull(Exception):
    """The record can not be kept: too much is waiting to be sealed, or the disk is full."""


class JournalWriter(Journal):
    """One process's journal. Used from one thread. `name` is unique per start of the process."""

    __slots__ = (
        "_directory", "_end", "_map", "_max_segments", "_name", "_next", "_segment", "_size", "_unsealed",
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
        if segment_size % 4 or not CURRENT.start + 64 <= segment_size <= 1 << 30:
            raise ValueError("the segment size is a multiple of 4 up to 1 GiB")
        if names(directory).get(name):
            raise FileExistsError(f"journal {name} exists")
        self._directory = directory
        self._name = name
        self._size = segment_size
        self._max_segments = max_segments
        self._map: mmap.mmap
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
        end = start + _HEAD + size
        if end > self._size or not size:
            self._roll(size)
            start = self._end
            end = start + _HEAD + size
        self._map[start + _HEAD : end] = payload
        _store_head(self._map, start, xxh3_64_intdigest(payload), size)  # now the entry exists
        self._end = (end + 3) & ~3
        self._next += 1

    def close(self) -> None:
        """Let go of the files; the sealer removes them when everything in them is sealed."""
        self._end = self._size  # an append after this finds no room …
        self._max_segments = 0  # … and gets none
        self._map.close()

    def _roll(self, size: int) -> None:
        if not 0 < size <= self._size - CURRENT.start - _HEAD:
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
            self._map.close()
        self._segment += 1
        self._unsealed.append(path)
        self._map = mapped
        self._end = CURRENT.start


def segment_path(directory: Path, name: str, segment: int, form: Format = CURRENT) -> Path:
    """Return where a segment of this format lies."""
    return directory / f"{name}.{segment:06}.{form.suffix}"


def names(directory: Path) -> dict[str, list[int]]:
    """Return the journals in a directory that can be read, each with the numbers of its segments in order."""
    found: dict[str, list[int]] = {}
    for path in directory.iterdir():
        if (match := _SEGMENT.fullmatch(path.name)) and match[3] in _SUFFIXES:
            found.setdefault(match[1], []).append(int(match[2]))
    for segments in found.values():
        segments.sort()
    return found


def later(directory: Path) -> set[str]:
    """Return the journals in a directory that only a later version of the program can read."""
    matches = (_SEGMENT.fullmatch(path.name) for path in directory.iterdir())
    return {match[1] for match in matches if match and match[3] not in _SUFFIXES}


def read(directory: Path, name: str, position: Position, *, limit: int = 4096) -> Batch:
    """Return up to `limit` entries from `position` on. Raises OSError (also when a segment is gone)."""
    entries: list[bytes] = []
    while True:
        following = _exists(directory, name, position.segment + 1)  # asked first: after
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
        position = Position(position.segment + 1, entry=position.entry)


def locate(directory: Path, name: str, entry: int) -> Position:
    """Return the position of an entry (or of the place it will have). Raises OSError, LookupError."""
    for segment in reversed(names(directory).get(name, [])):
        first = first_entry(directory, name, segment)
        if first is not None and first <= entry:
            position = Position(segment, entry=first)
            while position.entry < entry:
                batch = read(directory, name, position, limit=min(4096, entry - position.entry))
                if not batch.entries:
                    raise LookupError(f"journal {name} has no entry {entry}")
                position = batch.position
            return position
    raise LookupError(f"journal {name} has no entry {entry}")


def first_entry(directory: Path, name: str, segment: int) -> int | None:
    """Return the number of a segment's first entry, None when its header is not readable. Raises OSError."""
    descriptor, form = _open(directory, name, segment)
    try:
        head = os.pread(descriptor, HEADER.size, 0)
    finally:
        os.close(descriptor)
    if len(head) < HEADER.size:
        return None
    magic, first, order, check = HEADER.unpack(head)
    if (magic, order) != (form.magic, _ORDER) or check != crc32(head[:-4]):
        return None
    return int(first)


def leftover(directory: Path, name: str, position: Position) -> bool:
    """Say whether anything but zeros follows `position` in its segment: the trace of an entry cut short."""
    descriptor, form = _open(directory, name, position.segment)
    offset = position.offset or form.start
    try:
        while chunk := os.pread(descriptor, _CHUNK, offset):
            if any(chunk):
                return True
            offset += len(chunk)
    finally:
        os.close(descriptor)
    return False


def remove(directory: Path, name: str, segment: int) -> None:
    """Remove a segment, if it is there."""
    for form in FORMATS:
        segment_path(directory, name, segment, form).unlink(missing_ok=True)


def mark(directory: Path, name: str, position: Position) -> None:
    """Write into a segment that everything before `position` is sealed. Raises OSError.

    For a sealer after an older version, which knows nothing of these journals and forgets their names.
    """
    descriptor, form = _open(directory, name, position.segment, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if form is CURRENT:
            os.pwrite(descriptor, SEALED.pack(position.entry - 1), HEADER.size)
    finally:
        os.close(descriptor)


def marked(directory: Path, name: str, segment: int) -> int:
    """Return the last entry that is marked as sealed, 0 if none is. Raises OSError."""
    descriptor, form = _open(directory, name, segment)
    try:
        found = os.pread(descriptor, SEALED.size, HEADER.size) if form is CURRENT else b""
    finally:
        os.close(descriptor)
    return int(SEALED.unpack(found)[0]) if len(found) == SEALED.size else 0


def _open(directory: Path, name: str, segment: int, access: int = os.O_RDONLY) -> tuple[int, Format]:
    """Open a segment, whatever its format. Raises OSError."""
    for form in FORMATS[:-1]:
        with suppress(FileNotFoundError):
            return os.open(segment_path(directory, name, segment, form), access | os.O_CLOEXEC), form
    form = FORMATS[-1]
    return os.open(segment_path(directory, name, segment, form), access | os.O_CLOEXEC), form


def _exists(directory: Path, name: str, segment: int) -> bool:
    return any(segment_path(directory, name, segment, form).exists() for form in FORMATS)


def _read_segment(
    directory: Path, name: str, position: Position, limit: int, entries: list[bytes]
) -> tuple[Position, bool]:
    """Add the entries of one segment; return where reading stopped and whether an entry was unreadable."""
    descriptor, form = _open(directory, name, position.segment)
    head, wanted, known = form.head, _CHUNK, len(entries)
    offset = position.offset or form.start
    torn = False
    try:
        end = os.fstat(descriptor).st_size
        while len(entries) < limit and offset + head <= end:
            taken, needed = _take(os.pread(descriptor, wanted, offset), form, limit, entries)
            offset += taken
            if not needed:
                break
            torn = needed < 0 or (needed > head and offset + needed > end) or not (taken or needed > wanted)
            if torn:
                break
            wanted = max(_CHUNK, needed)
    finally:
        os.close(descriptor)
    if len(entries) == known:
        return position, torn
    return Position(position.segment, offset, position.entry + len(entries) - known), torn


def _take(chunk: bytes, form: Format, limit: int, entries: list[bytes]) -> tuple[int, int]:
    """Add the entries that lie whole in a chunk; return their bytes, and what it takes to go on.

    That is 0 when nothing follows, -1 when what follows is damaged, else the bytes of what begins there.
    """
    start, end, head, head_at, sum_of = 0, len(chunk), form.head, form.head_at, form.sum_of
    while start + head <= end:
        check, size = head_at(chunk, start)
        if not size or len(entries) >= limit:
            return start, 0
        stop = start + head + size
        if stop > end:
            return start, head + size
        payload = chunk[start + head : stop]
        if sum_of(payload) != check:
            return start, -1
        entries.append(payload)
        start = (stop + 3) & ~3
    return start, head


def _allocate(path: Path, size: int, first: int) -> mmap.mmap:
    """Make a segment whose every page has its place on disk: a store into it can not fail later."""
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        head = HEADER.pack(CURRENT.magic, first, _ORDER, 0)[:-4]
        os.pwrite(descriptor, head + crc32(head).to_bytes(4, sys.byteorder), 0)
        mapped = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return mapped

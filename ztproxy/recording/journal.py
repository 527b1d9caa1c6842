"""Journals: where a process puts its records at the speed of memory, and where the sealer fetches them.

Each process appends to a journal of its own (`JournalWriter`, called by `administrator.audit` on the hot
path); the sealer reads them (`read`) and hands back or removes what it has sealed (`retire`). A journal is a
row of preallocated files mapped into memory: an append is a copy into the kernel's page cache, without a
system call, and so survives the process being killed. What was handed back is written over: the page faults
of a new file cost more than all else that an append does. Never grows without bound: a full journal refuses,
it does not drop. How a segment looks says `recording.segment`.
"""

import mmap
import os
import re
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from xxhash import xxh3_64_intdigest

from ztproxy.model.passage import Passage
from ztproxy.model.ports import Journal
from ztproxy.recording.entry import Entry, Joined
from ztproxy.recording.passages import Passages
from ztproxy.recording.position import Batch, Position
from ztproxy.recording.segment import (
    CURRENT,
    FORMATS,
    HEAD,
    HEADER,
    JOIN,
    JOINED,
    LONGEST,
    PASSAGE,
    RECORD,
    SEALED,
    Format,
)

SEGMENT_SIZE: Final = 2 << 20
MAX_SEGMENTS: Final = 64
SPARES: Final = 2  # segments handed back to a process at a time

_HEAD: Final = HEAD.size
_JOINED: Final = JOINED.size
_RECORD: Final = RECORD  # where compiled code finds them without looking up a name
_PASSAGE: Final = PASSAGE
_JOIN: Final = JOIN
_LONGEST: Final = LONGEST
_EMPTY: Final = CURRENT.start + _HEAD  # bytes of a segment without entries
_OF_JOIN: Final = 3 * (_HEAD + 3) + _JOINED + _HEAD  # bytes of a joined record besides its texts, at most
_ORDER: Final = 0x01020304  # journals are read on the machine that wrote them
_CHUNK: Final = 1 << 16  # bytes read at once: some hundred entries
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SEGMENT: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})\.(\d{6,10})\.(journal\d*)")
_SUFFIXES: Final = frozenset(form.suffix for form in FORMATS)


class JournalFull(Exception):
    """The record can not be kept: too much is waiting to be sealed, or the disk is full."""


class JournalWriter(Journal):
    """One process's journal. Used from one thread. `name` is unique per start of the process."""

    __slots__ = (
        "_directory", "_end", "_map", "_maps", "_max_segments", "_name", "_next", "_seed", "_segment",
        "_size", "_within",
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
        self._maps: dict[int, mmap.mmap] = {}  # of segments that may be handed back, in order
        self._segment = 0
        self._seed = 0  # of sums in this segment
        self._within = object()  # what passages know it by
        self._next = 1
        self._end = 0
        self._open_segment()

    @property
    def name(self) -> str:
        """Return the journal's name."""
        return self._name

    def append(self, payload: bytes) -> None:
        """Keep one record. When this returns, it outlives the process. Raises JournalFull."""
        room = _HEAD + ((len(payload) + 3) & ~3) + _HEAD  # no entry there: that is said, too
        if self._end + room > self._size or not payload:
            self._roll(room if payload else 0)
        self._store(_RECORD, payload)
        self._next += 1

    def join(self, beginning: bytes, caller: Passage, decision: Passage) -> None:
        """Keep one record: a beginning that goes on with two passages. As `append`."""
        room = _OF_JOIN + len(beginning) + caller.size + decision.size
        if room > _LONGEST or CURRENT.start + room > self._size:
            self.append(b"%b,%b,%b}" % (beginning, caller.text, decision.text))
            return
        if self._end + room > self._size:
            self._roll(room)  # before the passages: they have to lie where the record does
        within = self._within
        if caller.within is not within:
            self._write_down(caller)
        if decision.within is not within:
            self._write_down(decision)
        self._store(_JOIN, b"%b%b%b" % (caller.reference, decision.reference, beginning))
        self._next += 1

    def _write_down(self, passage: Passage) -> None:
        at = self._end
        self._store(_PASSAGE, passage.text)
        passage.within = self._within
        passage.reference = at.to_bytes(_JOINED // 2, sys.byteorder)

    def _store(self, kind: int, payload: bytes) -> None:
        """Store what there is room for, and that nothing follows it."""
        size = len(payload)
        check = xxh3_64_intdigest(payload, self._seed + (kind >> 30))
        units = (size + 3) >> 2
        store = _STORES[units] if units < len(_STORES) else _storing(units)
        store(self._map, self._end, check, kind | size, payload)
        self._end += _HEAD + (units << 2)

    def close(self) -> None:
        """Let go of the files; the sealer removes them when everything in them is sealed."""
        self._end = self._size  # an append after this finds no room …
        self._max_segments = 0  # … and gets none
        for mapped in self._maps.values():
            mapped.close()
        self._maps.clear()

    def _roll(self, room: int) -> None:
        if not 0 < room <= self._size - CURRENT.start:
            raise ValueError("a record is neither empty nor larger than a segment")
        self._open_segment()

    def _open_segment(self) -> None:
        number = self._segment + 1
        path = segment_path(self._directory, self._name, number)
        head = _header(number, self._next)
        try:
            mapped = self._handed_back(path, head)
            if mapped is None:
                if len(self._maps) >= self._max_segments:
                    raise JournalFull(f"journal {self._name}: {len(self._maps)} segments wait to be sealed")
                mapped = _allocate(path, self._size, head)
        except OSError as error:
            raise JournalFull(f"journal {self._name}: {error.strerror}") from error
        self._segment = number
        self._seed = number << 2
        self._within = object()
        self._map = self._maps[number] = mapped
        self._end = CURRENT.start

    def _handed_back(self, path: Path, head: bytes) -> mmap.mmap | None:
        """Make the oldest segment handed back the next one; None when there is none. Raises OSError."""
        for number in list(self._maps):  # the sealer retires them in order
            if segment_path(self._directory, self._name, number).exists():
                break
            mapped = self._maps.pop(number)
            with suppress(FileNotFoundError):
                mapped[:_EMPTY] = head.ljust(_EMPTY, b"\0")  # first: what is a segment by its name is read
                spare_path(self._directory, self._name, number).rename(path)
                return mapped
            mapped.close()
        return None


def _header(segment: int, first: int) -> bytes:
    head = HEADER.pack(CURRENT.magic, first, _ORDER, 0)[:-4]
    return head + crc32(head, segment).to_bytes(4, sys.byteorder)


def _storing(units: int) -> Callable[..., None]:
    """Return what stores an entry of so many words: sum, length, payload, and a head without a length."""
    return struct.Struct(f"@QI{(units << 2) + _HEAD}s").pack_into  # the rest of it are zeros


#: Of entries as long as nearly all are.
_STORES: Final = [_storing(units) for units in range(512)]


def spare_path(directory: Path, name: str, segment: int) -> Path:
    """Return where a segment lies that was handed back."""
    return directory / f"{name}.{segment:06}.spare"


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


def read(
    directory: Path, name: str, position: Position, *, limit: int = 4096, passages: Passages | None = None
) -> Batch:
    """Return up to `limit` entries from `position` on. Raises OSError (also when a segment is gone).

    `passages` are kept from one reading of this journal to the next; what it lacks is read again.
    """
    passages = passages or Passages()
    entries: list[Entry] = []
    over = False  # nothing more comes to this segment: the next one is there
    while True:
        try:
            position, torn = _read_segment(directory, name, position, limit, entries, passages)
            if torn or len(entries) >= limit:
                return Batch(entries, position, more=not torn, torn=torn)
            if not over:
                over = _exists(directory, name, position.segment + 1)
                if not over:
                    return Batch(entries, position)
                # What came to this one meanwhile, before the next one was made, is read first.
            elif first_entry(directory, name, position.segment + 1) == position.entry:
                position, over = Position(position.segment + 1, entry=position.entry), False
            else:
                return Batch(entries, position, torn=True)
        except FileNotFoundError:
            if entries:
                return Batch(entries, position)
            raise


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
    if (magic, order) != (form.magic, _ORDER) or check != crc32(head[:-4], segment if form.kinds else 0):
        return None
    return int(first)


def leftover(directory: Path, name: str, position: Position) -> bool:
    """Say whether anything but zeros follows `position` in its segment: the trace of an entry cut short.

    In `CURRENT` such an entry is damaged, and what follows the last one may be of before.
    """
    descriptor, form = _open(directory, name, position.segment)
    offset = position.offset or form.start
    try:
        while not form.kinds and (chunk := os.pread(descriptor, _CHUNK, offset)):
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


def unused(directory: Path) -> list[Path]:
    """Return files of journals that are no segments: handed back, or not yet made."""
    return [path for path in directory.iterdir() if path.suffix in (".spare", ".new")]


def retire(directory: Path, name: str, segment: int) -> None:
    """Hand a sealed segment back to a process that lives, or remove it when that has some already."""
    path = segment_path(directory, name, segment)
    if len(list(directory.glob(f"{name}.*.spare"))) < SPARES and path.exists():
        path.rename(spare_path(directory, name, segment))
    else:
        remove(directory, name, segment)


def mark(directory: Path, name: str, position: Position) -> None:
    """Write into a segment that everything before `position` is sealed. Raises OSError.

    For a sealer after an older version, which knows nothing of these journals and forgets their names.
    """
    descriptor, form = _open(directory, name, position.segment, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if form.sealed:
            os.pwrite(descriptor, SEALED.pack(position.entry - 1), HEADER.size)
    finally:
        os.close(descriptor)


def marked(directory: Path, name: str, segment: int) -> int:
    """Return the last entry that is marked as sealed, 0 if none is. Raises OSError."""
    descriptor, form = _open(directory, name, segment)
    try:
        found = os.pread(descriptor, SEALED.size, HEADER.size) if form.sealed else b""
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
    directory: Path, name: str, position: Position, limit: int, entries: list[Entry], passages: Passages
) -> tuple[Position, bool]:
    """Add the entries of one segment; return where reading stopped and whether an entry was unreadable."""
    descriptor, form = _open(directory, name, position.segment)
    head, wanted, before = form.head.size, _CHUNK, len(entries)
    offset = begin = position.offset or form.start
    passages.turn_to(position.segment)
    torn = False
    try:
        end = os.fstat(descriptor).st_size
        while len(entries) < limit and offset + head <= end:
            chunk = os.pread(descriptor, wanted, offset)
            taken, needed = _take(chunk, offset, descriptor, form, limit, entries, passages)
            offset += taken
            if not needed:
                break
            torn = needed < 0 or (needed > head and offset + needed > end) or not (taken or needed > wanted)
            if torn:
                break
            wanted = max(_CHUNK, needed)
    finally:
        os.close(descriptor)
    if offset == begin:
        return position, torn
    return Position(position.segment, offset, position.entry + len(entries) - before), torn


def _take(
    chunk: bytes,
    offset: int,
    descriptor: int,
    form: Format,
    limit: int,
    entries: list[Entry],
    passages: Passages,
) -> tuple[int, int]:
    """Add the entries that lie whole in a chunk; return their bytes, and what it takes to go on.

    That is 0 when nothing follows, -1 when what follows is damaged, else the bytes of what begins there.
    """
    start, end, head, kinds = 0, len(chunk), form.head.size, form.kinds
    head_at, sum_of, seed = form.head_at, form.sum_of, passages.segment << 2 if kinds else 0
    while start + head <= end:
        check, field = head_at(chunk, start)
        if not field or len(entries) >= limit:
            return start, 0
        kind = field & kinds
        size = field - kind
        stop = start + head + size
        if stop > end:
            return start, head + size
        payload = chunk[start + head : stop]
        if sum_of(payload, seed + (kind >> 30)) != check:
            return start, -1
        if kind == _RECORD:
            entries.append(payload)
            passages.in_a_row = 0
        elif kind == _PASSAGE:
            if not passages.meet(offset + start, payload):
                return start, -1
        else:
            ending = passages.endings.get(payload[:_JOINED])
            if ending is None:
                ending = passages.ending(payload[:_JOINED], descriptor, form, offset + start)
            if ending is None or kind != _JOIN or size + len(ending.text) > _LONGEST:
                return start, -1
            entries.append(Joined(payload[_JOINED:], ending))
            passages.in_a_row = 0
        start = (stop + 3) & ~3
    return start, head


def _allocate(path: Path, size: int, head: bytes) -> mmap.mmap:
    """Make a segment whose every page has its place on disk: a store into it can not fail later."""
    unfinished = path.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.pwrite(descriptor, head, 0)
        mapped = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return mapped

"""The sealed log, writing end: a chain of lines, and a signed checkpoint that says how long it is.

Called by `recording.sealer` only. Order of every batch: lines to disk, then the checkpoint that covers
them. After a kill the checkpoint is therefore at most one batch behind: `Log.open` adopts what goes on
the chain and cuts what does not. Never changes a byte that a checkpoint covers.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs

from ztproxy.recording import note
from ztproxy.recording.entry import Entry
from ztproxy.recording.files import (
    CHECKPOINT,
    PUBLIC_KEY,
    Text,
    file_name,
    file_number,
    line_before,
    lines_from,
    log_files,
)
from ztproxy.recording.keys import LogKeyError, load_key
from ztproxy.recording.line import Malformed, digest, parse, parse_source, render
from ztproxy.recording.note import Checkpoint, NoteError
from ztproxy.recording.summary import Run

FILE_SIZE: Final = 64 << 20
_LOCK: Final = "lock"
_SHA256: Final = sha256()


class LogUnavailable(Exception):
    """The log can not be written. Nothing is lost: records wait in their journals."""


class LogDamaged(LogUnavailable):
    """The log is not what its checkpoint says. It is evidence: nothing is repaired, nothing appended."""


class Log:
    """An open log directory. One per directory, held by a lock."""

    __slots__ = (
        "_directory", "_file", "_file_size", "_head", "_key", "_length", "_lines", "_lock", "_now", "_origin",
        "_released", "_stream", "_unsynced", "count", "journals",
    )  # fmt: skip

    def __init__(
        self,
        directory: Path,
        key: Ed25519PrivateKey,
        sealed: Checkpoint,
        lock: int,
        *,
        now: Callable[[], int],
        file_size: int,
    ) -> None:
        self._directory = directory
        self._key = key
        self._origin = sealed.origin
        self._lock = lock
        self._now = now
        self._file_size = file_size
        self._lines: list[bytes] = []  # not yet written
        self._stream = -1
        self._unsynced = False  # written, but not yet on disk
        self._released = 0  # bytes of the file whose pages were given back
        self._file = file_number(sealed.file)
        self._length = sealed.length  # of the file, with what is not yet written
        self._head = sealed.head
        self.count = sealed.count
        self.journals: dict[str, int] = dict(sealed.journals)  # last entry sealed, per journal

    @classmethod
    def open(
        cls,
        directory: Path,
        key_file: Path,
        *,
        origin: str,
        now: Callable[[], int],
        file_size: int = FILE_SIZE,
    ) -> Self:
        """Open or found a log. `origin` names a new log; an old one keeps its name.

        Raises LogDamaged, LogUnavailable.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _hold(directory)
            try:
                key, state = _recover(directory, key_file, origin, now)
                return cls(directory, key, state, lock, now=now, file_size=file_size)
            except BaseException:
                os.close(lock)
                raise
        except (OSError, LogKeyError, NoteError) as error:
            raise LogUnavailable(f"{directory}: {error}") from error

    def append(self, journal: str, first: int, last: int, record: bytes) -> Run:
        """Add a record that stands for the entries `first` to `last` of a journal."""
        self._make_room()
        source = f"{journal}:{first}" if first == last else f"{journal}:{first}-{last}"
        line = render(self.count + 1, self._head, source, record)
        run = Run(self.count + 1, self._file, self._length, [len(line)])
        self._lines.append(line)
        self._head = digest(line)
        self._reach(journal, last, run)
        return run

    def extend(self, journal: str, first: int, entries: list[Entry]) -> list[Run]:
        """Add the records that the entries of a journal from `first` on are (see `admit`), all at once.

        They are written at once, too, while the processor has them at hand. Raises OSError.
        """
        runs: list[Run] = []
        done = 0
        while done < len(entries):
            self._make_room()
            run = self._chain(journal, first + done, islice(entries, done, None))
            done += len(run.lengths)
            self._reach(journal, first + done - 1, run)
            runs.append(run)
        self._write()
        return runs

    def _chain(self, journal: str, number: int, entries: Iterator[Entry]) -> Run:
        """Make lines of records until the file is full. Every Python operation here counts."""
        lines, lengths, unused = self._lines, list[int](), _SHA256
        n, previous = self.count, self._head.hex()
        offset = self._length
        source = f'","src":"{journal}:'
        for entry in entries:
            n += 1
            head = f'{{"n":{n},"prev":"{previous}{source}{number}","record":'.encode("ascii")
            if isinstance(entry, bytes):
                line = b"%b%b}" % (head, entry)
            else:
                line = b"%b%b%b}" % (head, entry.beginning, entry.ending.text)
            hashed = unused.copy()  # cheaper than to have one made
            hashed.update(line)
            previous = hashed.hexdigest()
            lines.append(line)
            length = len(line)
            lengths.append(length)
            offset += length + 1
            number += 1
            if offset >= self._file_size:
                break
        self._head = bytes.fromhex(previous)
        return Run(self.count + 1, self._file, self._length, lengths)

    def _reach(self, journal: str, last: int, run: Run) -> None:
        self.count += len(run.lengths)
        self._length += sum(run.lengths) + len(run.lengths)
        self.journals[journal] = last

    def _make_room(self) -> None:
        if self._length >= self._file_size or not self._file:
            self._begin_file()

    def flush(self) -> None:
        """Bring the batch to disk, then the checkpoint that covers it. Raises OSError: then reopen."""
        self._sync()
        sealed = Checkpoint(
            self._origin,
            self.count,
            self._head,
            self._now(),
            file_name(self._file) if self._file else "",
            self._length,
            tuple(sorted(self.journals.items())),
        )
        _seal(self._directory, sealed, self._key)

    def close(self) -> None:
        """Let go of the files. What was not flushed is still in the journals."""
        self._close_stream()
        os.close(self._lock)

    def _write(self) -> None:
        if not self._lines:
            return
        if self._stream < 0:
            path = self._directory / file_name(self._file)
            self._stream = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines.append(b"")
        write_all(self._stream, b"\n".join(self._lines))
        self._lines.clear()
        self._unsynced = True

    def _sync(self) -> None:
        self._write()
        if self._unsynced:
            os.fdatasync(self._stream)
            self._unsynced = False
            self._released = release(self._stream, self._released, self._length)

    def _begin_file(self) -> None:
        self._sync()
        self._close_stream()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._stream = os.open(self._directory / file_name(self._file + 1), flags, 0o600)
        sync_directory(self._directory)
        self._file += 1
        self._length = self._released = 0

    def _close_stream(self) -> None:
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, or raise OSError: a nearly full disk takes a part and says so only by the count."""
    view = memoryview(data)
    while view:
        taken = os.write(descriptor, view)  # not within the brackets: mypyc would do it twice
        view = view[taken:]


def release(descriptor: int, start: int, end: int) -> int:
    """Give back the pages of what is on disk, so that the next batch finds them at the processor's hand.

    Returns where to go on: a page that is not full will be written to again. Readers find the rest on disk.
    """
    whole = end // mmap.PAGESIZE * mmap.PAGESIZE
    if whole > start:  # no bytes would mean all to the end
        with suppress(OSError):  # a file system may not know how, and loses nothing by it
            os.posix_fadvise(descriptor, start, whole - start, os.POSIX_FADV_DONTNEED)
    return whole


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hold(directory: Path) -> int:
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LogUnavailable(f"{directory}: another process is sealing this log") from None
    return lock


def _replace(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(path)


def _seal(directory: Path, sealed: Checkpoint, key: Ed25519PrivateKey) -> None:
    _replace(directory / CHECKPOINT, note.sign(sealed, key))


# after a stop of any kind


def _recover(
    directory: Path, key_file: Path, origin: str, now: Callable[[], int]
) -> tuple[Ed25519PrivateKey, Checkpoint]:
    public = directory / PUBLIC_KEY
    known = _known_key(public)
    key = load_key(key_file, create=known is None)
    ours = note.public_key(known.name if known else origin, key)
    if known is None:
        _found(directory, ours)
    elif known != ours:
        raise LogDamaged(f"{public} belongs to another key than {key_file}")
    if not (directory / CHECKPOINT).exists():
        if log_files(directory):
            raise LogDamaged(f"{directory}: the checkpoint is missing")
        empty = Checkpoint(ours.name, 0, note.first_hash(ours.name), now())
        _seal(directory, empty, key)
        return key, empty
    sealed = _checkpoint(directory, ours)
    state = _adopt(directory, sealed)
    if state != sealed:
        state = structs.replace(state, sealed_at=now())
        _seal(directory, state, key)
    return key, state


def _known_key(public: Path) -> note.PublicKey | None:
    try:
        return note.parse_key(public.read_text())
    except FileNotFoundError:
        return None
    except (NoteError, UnicodeDecodeError):
        raise LogDamaged(f"{public} is not a public key of a log") from None


def _found(directory: Path, key: note.PublicKey) -> None:
    if log_files(directory) or (directory / CHECKPOINT).exists():
        raise LogDamaged(f"{directory}: {PUBLIC_KEY} is missing")
    _replace(directory / PUBLIC_KEY, key.text().encode() + b"\n")


def _checkpoint(directory: Path, key: note.PublicKey) -> Checkpoint:
    try:
        sealed = note.open_note((directory / CHECKPOINT).read_bytes(), key)
    except NoteError as error:
        raise LogDamaged(f"{directory}: {error}") from error
    number = file_number(sealed.file)
    expected = note.first_hash(sealed.origin) if not number else None
    if number:
        try:
            line = line_before(directory, number, sealed.length)
        except FileNotFoundError:
            raise LogDamaged(f"{directory}: {sealed.file} is missing") from None
        expected = digest(line) if line is not None else None
    if expected != sealed.head:
        raise LogDamaged(f"{directory}: the end of the log is not what the checkpoint says; verify it")
    return sealed


def _adopt(directory: Path, sealed: Checkpoint) -> Checkpoint:
    """Take what goes on the chain behind the checkpoint (it came from journals); cut what does not."""
    state, journals = sealed, dict(sealed.journals)
    for text in lines_from(directory, max(1, file_number(sealed.file)), sealed.length):
        following = _follow(state, journals, text)
        if following is None:
            break
        state = following
    _cut(directory, state)
    return structs.replace(state, journals=tuple(sorted(journals.items())))


def _follow(state: Checkpoint, journals: dict[str, int], text: Text) -> Checkpoint | None:
    try:
        line = parse(text.data)
        journal, first, last = parse_source(line.src)
    except Malformed:
        return None
    if not text.complete or (line.n, line.prev) != (state.count + 1, state.head.hex()):
        return None
    if first != journals.get(journal, 0) + 1:
        return None
    journals[journal] = last
    name = file_name(text.file)
    return structs.replace(state, count=line.n, head=digest(text.data), file=name, length=text.end)


def _cut(directory: Path, state: Checkpoint) -> None:
    last = file_number(state.file)
    for number in log_files(directory):
        path = directory / file_name(number)
        if number > last:
            path.unlink()
        elif number == last and path.stat().st_size > state.length:
            os.truncate(path, state.length)
    if last:
        descriptor = os.open(directory / state.file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)  # adopted lines must be on disk before a checkpoint covers them
        finally:
            os.close(descriptor)

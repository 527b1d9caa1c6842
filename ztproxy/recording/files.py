"""The files of a log directory: their names, and reading their lines as a stream.

Used by everything in this room. Reads only; never holds a file whole.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

CHECKPOINT: Final = "checkpoint"
PUBLIC_KEY: Final = "log.pub"
INDEX: Final = "index.db"
MAX_LINE: Final = 1 << 26  # bytes; a longer one is garbage, not a record

_LOG: Final = re.compile(r"log-(\d{8})\.jsonl")
_CHUNK: Final = 1 << 20


class Text(Struct, frozen=True):
    """One line as it stands in a file."""

    file: int  # number of the file
    number: int  # of the line in the file, from 1
    offset: int  # of its first byte
    data: bytes  # without the line break
    complete: bool  # has a line break

    @property
    def end(self) -> int:
        """Return the offset behind the line break."""
        return self.offset + len(self.data) + self.complete


def file_name(number: int) -> str:
    """Return the name of a log file."""
    return f"log-{number:08}.jsonl"


def file_number(name: str) -> int:
    """Return the number of a log file, 0 when it is none."""
    match = _LOG.fullmatch(name)
    return int(match[1]) if match else 0


def log_files(directory: Path) -> list[int]:
    """Return the numbers of the log files, in order."""
    return sorted(filter(None, (file_number(path.name) for path in directory.iterdir())))


def lines(directory: Path, file: int, offset: int = 0) -> Iterator[Text]:
    """Yield the lines of one file from `offset` on. Line numbers count from there."""
    with (directory / file_name(file)).open("rb") as stream:
        stream.seek(offset)
        number = 1
        while data := stream.readline(MAX_LINE):
            complete = data.endswith(b"\n")
            yield Text(file, number, offset, data[:-1] if complete else data, complete)
            offset += len(data)
            number += 1


def lines_from(directory: Path, file: int, offset: int) -> Iterator[Text]:
    """Yield the lines from a place to the end of the last file."""
    for number in log_files(directory):
        if number >= file:
            yield from lines(directory, number, offset if number == file else 0)


def line_at(directory: Path, file: int, offset: int, length: int) -> bytes:
    """Return the bytes at a place. Raises OSError."""
    with (directory / file_name(file)).open("rb", buffering=0) as stream:
        return os.pread(stream.fileno(), length, offset)


def line_before(directory: Path, file: int, end: int) -> bytes | None:
    """Return the line that ends (with its break) at byte `end`; None when none does."""
    data = b""
    start = end
    while start > 0 and len(data) < MAX_LINE and b"\n" not in data[:-1]:
        start = max(0, end - max(4096, len(data) * 4))
        data = line_at(directory, file, start, end - start)
        if len(data) < end - start or not data.endswith(b"\n"):
            return None
    return data[:-1].rpartition(b"\n")[2] if data else None

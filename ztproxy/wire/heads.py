"""Where a head ends, and its header lines sorted (RFC 9112 sections 2 to 6): requests and responses alike.

`wire.http1` builds on it. A head is one match of one regular expression; what can never become one is
refused as soon as the line that spoils it is complete.
"""

import re
from collections.abc import Callable
from typing import Final

from ztproxy.wire import flaws
from ztproxy.wire.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    HOST,
    KEPT,
    PASS,
    REFUSE,
    REPEATABLE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    may_trail,
    names_of,
)

MAX_FIELDS: Final = 100  # header lines of one head

CHUNKED: Final = -1  # a body's length when it is chunked

NAME: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}"
TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
FIELD_LINE: Final = NAME + rb":" + TEXT + rb"\r\n"
FIELDS: Final = rb"((?:" + FIELD_LINE + rb")*)\r\n"

Match = re.Match[bytes]
Matcher = Callable[[bytes], Match | None]

_is_field: Final = re.compile(FIELD_LINE).fullmatch
_is_name: Final = re.compile(NAME).fullmatch
_is_length: Final = re.compile(rb"0|[1-9][0-9]{0,17}").fullmatch

# What is wrong when a field that must be single comes again.
_TWICE: Final = {CONTENT_LENGTH: "two-content-length", HOST: "two-hosts"}

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
# Options that say something about the connection and name no further field to remove.
_KNOWN_OPTIONS: Final = frozenset({b"", b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings"})


class BadHead(Exception):
    """The head can not be served; the connection is at an unknown place in its bytes."""

    def __init__(self, flaw: str) -> None:
        super().__init__(flaws.FLAWS[flaw][1])
        self.flaw = flaw  # of wire.flaws


class HeadFinder:
    """Finds the end of a head in bytes that come in any pieces, looking at every line once.

    `wire.http1` makes a request and a response reader of it.
    """

    __slots__ = ("_buffer", "_first", "_flaw", "_limit", "_seen", "_whole")

    def __init__(self, whole: Matcher, first: Matcher, flaw: Callable[[bytes], str], limit: int) -> None:
        self._whole = whole
        self._first = first
        self._flaw = flaw  # what is wrong with a first line that does not match
        self._limit = limit
        self._buffer = bytearray()
        self._seen = 0  # bytes of complete, checked lines

    @property
    def started(self) -> bool:
        """Tell whether some bytes of a head are waiting for the rest."""
        return bool(self._buffer)

    def find(self, data: bytes) -> tuple[Match, bytes] | None:
        """Take bytes; return a complete head and the bytes after it, or None. Raises BadHead."""
        if not self._buffer:
            found = self._whole(data)
            if found is not None and found.end() <= self._limit:
                return found, data[found.end() :]
        return self._slowly(data)

    def _slowly(self, data: bytes) -> tuple[Match, bytes] | None:
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\n", self._seen) + 1) > 0:
            if end > self._limit:
                break
            line = bytes(buffer[self._seen : end])
            if line == b"\r\n" and self._seen:
                return self._complete(end)
            self._check(line)
            self._seen = end
        if len(buffer) > self._limit:
            raise BadHead("long-head")
        return None

    def _check(self, line: bytes) -> None:
        if self._seen == 0 and self._first(line) is None:
            raise BadHead(self._flaw(line))
        if self._seen and _is_field(line) is None:
            raise BadHead(flaws.of_field_line(line))

    def _complete(self, end: int) -> tuple[Match, bytes]:
        found = self._whole(bytes(self._buffer[:end]))
        assert found is not None, "a head is its lines"
        rest = bytes(self._buffer[end:])
        self._buffer = bytearray()
        self._seen = 0
        return found, rest


#: Header lines by what has to be done with them: lines that may pass, values of Cookie or Set-Cookie lines,
#: values of noted fields, what Connection says, and the body's length with the line that says so (ended by
#: CRLF; b"" when nothing was said).
Sorted = tuple[list[bytes], list[bytes], dict[int, bytes], frozenset[bytes], int, bytes]


def sort(block: bytes, kind_of: Callable[[bytes], int]) -> Sorted:
    """Sort the header lines of a head (each ended by CRLF). Raises BadHead."""
    passed: list[bytes] = []
    cookies: list[bytes] = []
    notes: dict[int, bytes] = {}
    lines = block.split(b"\r\n")
    if len(lines) > MAX_FIELDS + 1:  # the last is what follows the last CRLF: nothing
        raise BadHead("many-fields")
    del lines[-1]
    for line in lines:
        colon = line.find(b":")
        kind = kind_of(line[:colon])
        if kind == PASS:
            passed.append(line)
        elif kind > COOKIE:
            value = line[colon + 1 :].strip(b" \t")
            notes[kind] = value if kind not in notes else _again(notes[kind], kind, value)
            if kind > KEPT:
                passed.append(line)
        elif kind == COOKIE:
            cookies.append(line[colon + 1 :].strip(b" \t"))
        elif kind == REFUSE:
            raise BadHead("method-override")
    options = _options(notes, passed)
    body, framing = _framing(notes)
    return passed, cookies, notes, options, body, framing


def joined(lines: list[bytes]) -> bytes:
    """Return lines as bytes, each ended by CRLF."""
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


def upgrade_of(notes: dict[int, bytes], options: frozenset[bytes]) -> str:
    """Return the lower-case value of Upgrade when Connection nominates it, else ""."""
    return notes.get(UPGRADE, b"").lower().decode("latin-1") if b"upgrade" in options else ""


def announced(notes: dict[int, bytes], kind_of: Callable[[bytes], int], options: frozenset[bytes]) -> bytes:
    """Return the Trailer line, ended by CRLF, with those names that may pass after the body; b"" without."""
    value = notes.get(TRAILER)
    if value is None:
        return b""
    names = [name for name in (part.strip(b" \t") for part in value.split(b",")) if _is_name(name)]
    names = [name for name in names if may_trail(kind_of, options, name)]
    return b"Trailer: %b\r\n" % b", ".join(names) if names else b""


def _again(before: bytes, kind: int, value: bytes) -> bytes:
    """Return the joined value of a field that came again (RFC 9110 section 5.3)."""
    if kind in REPEATABLE:
        return before + b", " + value
    raise BadHead(_TWICE.get(kind, "repeated-field"))


def _options(notes: dict[int, bytes], passed: list[bytes]) -> frozenset[bytes]:
    """Return the connection options, and take the fields they nominate out of `passed`."""
    value = notes.get(CONNECTION)
    if value is None:
        return _NO_OPTIONS
    options = names_of(value)
    if not options <= _KNOWN_OPTIONS:
        passed[:] = [line for line in passed if line[: line.find(b":")].lower() not in options]
    return options


def _framing(notes: dict[int, bytes]) -> tuple[int, bytes]:
    """Return how long the body is and the line that says so (section 6.3, without its mercies)."""
    length = notes.get(CONTENT_LENGTH)
    coding = notes.get(TRANSFER_ENCODING)
    if coding is not None:
        if length is not None:
            raise BadHead("length-and-coding")
        if coding.lower() != b"chunked":
            raise BadHead("transfer-coding")
        return CHUNKED, b"Transfer-Encoding: chunked\r\n"
    if length is None:
        return 0, b""
    if not _is_length(length):
        raise BadHead("odd-content-length")
    return int(length), b"Content-Length: %b\r\n" % length

"""HTTP/1.1 heads (RFC 9112), read strictly: what could be read in two ways is refused, never repaired.

`gateway.connection` reads requests with it and `upstream.connection` responses. A reader holds at most one
head; bodies are `wire.body`'s. It never decides who may do what.
"""

import re
from collections.abc import Mapping
from typing import Final, final

from ztproxy.wire import cookies, fields, flaws, target
from ztproxy.wire.heads import CHUNKED, FIELDS, TEXT, BadHead, HeadFinder, announced, joined, sort, upgrade_of
from ztproxy.wire.message import RequestHead, ResponseHead

__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "BadHead",
    "RequestHead",
    "RequestReader",
    "ResponseHead",
    "ResponseReader",
]

UNTIL_CLOSE: Final = -2  # a body's length when closing ends it

#: Header lines up to this many bytes are remembered, sorted, for the next message of a connection. An idle
#: connection holds them about three times over: longer ones would let a few senders fill the memory.
REMEMBERED: Final = 6 << 10

#: First lines up to this many bytes are remembered for all connections, and so many of them: some 5 MB at the
#: most. What all connections together ask for again and again has to fit, else each line is read anew.
_SHORT: Final = 256
_LINES: Final = 4096

_REQUEST_LINE: Final = rb"([A-Z-]{1,32}) ([!-~]+) HTTP/1\.([01])\r\n"
_STATUS_LINE: Final = rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + TEXT + rb"))?\r\n"

_request: Final = re.compile(_REQUEST_LINE + FIELDS).match
_request_line: Final = re.compile(_REQUEST_LINE).fullmatch
_response: Final = re.compile(_STATUS_LINE + FIELDS).match
_status_line: Final = re.compile(_STATUS_LINE).fullmatch

_HOPS: Final = re.compile(rb"[0-9]{1,9}").fullmatch

# Authentication that is bound to the connection, against RFC 9110 section 11: never pooled.
_BOUND: Final = re.compile(rb"(?:^|,)\s*(?:ntlm|negotiate)\b", re.IGNORECASE).search
# TE (RFC 9110 section 10.1.4): every member is a transfer coding, but for this one.
_TRAILERS: Final = re.compile(rb"(?:^|,)[ \t]*trailers[ \t]*(?:,|$)", re.IGNORECASE).search


class RequestReader(HeadFinder):
    """Reads the requests of one connection."""

    __slots__ = ("_known", "_lines")

    def __init__(self, limit: int) -> None:
        """Heads may be at most `limit` bytes long."""
        super().__init__(_request, _request_line, flaws.of_request_line, limit)
        self._known = b""  # what followed the first line of the last head, with the empty line
        self._lines: _RequestLines | None = None  # what was found in it

    def feed(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """Take bytes; return a head and the bytes after it, or None. Raises BadHead."""
        # Header lines repeat from request to request. Reading them is pure: the same lines, the same result.
        if self._lines is not None and not self._buffer:
            end = len(data)
            start = end - len(self._known)  # when nothing follows, as is usual
            if start <= 0 or data[start:] != self._known:
                start = data.find(b"\n") + 1
                end = start + len(self._known)
                if data[start:end] != self._known:
                    start = 0
            if start and end <= self._limit:
                line = _known_line(data[:start]) if start <= _SHORT else _line_of(data[:start])
                if line is not None:
                    return _request_head(line, self._lines), data[end:]
        found = self.find(data)
        if found is None:
            return None
        method, raw_target, minor, block = found[0].groups()
        lines = _request_lines(block)
        if len(block) <= REMEMBERED:
            self._known, self._lines = block + b"\r\n", lines
        return _request_head(_line(method, raw_target, minor, (lines.host, lines.authority)), lines), found[1]


class ResponseReader(HeadFinder):
    """Reads the responses of one connection."""

    __slots__ = ("_head", "_known", "_trusted")

    def __init__(self, limit: int, *, trusted: bool = False) -> None:
        """Heads may be at most `limit` bytes long. `trusted`: our own portal, which sets our cookies."""
        super().__init__(_response, _status_line, flaws.of_status_line, limit)
        self._trusted = trusted
        self._known = b""  # the last head
        self._head: ResponseHead | None = None  # what it says

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Take bytes; return a head and the bytes after it, or None. Raises BadHead."""
        # Within a second an application often answers alike. Reading is pure, as with requests.
        if self._head is not None and not self._buffer and data.startswith(self._known):
            return self._head, data[len(self._known) :]
        found = self.find(data)
        if found is None:
            return None
        minor, status, reason, block = found[0].groups()
        lines = _response_lines(block, self._trusted)
        head = _response_head(minor == b"0", int(status), reason or b"", lines)
        if len(block) <= REMEMBERED:
            self._known, self._head = found[0].group(), head
        return head, found[1]


# ---------------------------------------------------------------------- requests


@final
class _RequestLines:
    """What header lines say, as in RequestHead, and what else has to be known of them."""

    __slots__ = (
        "authority", "body", "bound", "close", "conflict", "cookies", "expects_continue", "fields", "framing",
        "handle", "host", "notes", "options", "other_cookies", "trailers", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        host: tuple[str, str],
        passed: bytes,
        cookie_lines: tuple[bytes, ...],
        ours: cookies.Cookies,
        body: int,
        framing: bytes,
        trailers: bool,
        options: frozenset[bytes],
        notes: dict[int, bytes],
    ) -> None:
        self.host: Final = host[0]
        self.authority: Final = host[1]
        self.fields: Final = passed
        self.cookies: Final = cookie_lines
        self.other_cookies: Final = ours.rest
        self.handle: Final = ours.handle
        self.conflict: Final = ours.conflict
        self.body: Final = body
        self.framing: Final = framing
        self.trailers: Final = trailers
        self.options: Final = options
        self.notes: Final[Mapping[int, bytes]] = notes
        self.expects_continue: Final = fields.EXPECT in notes
        self.bound: Final = fields.AUTHORIZATION in notes and _BOUND(notes[fields.AUTHORIZATION]) is not None
        self.close: Final = b"close" in options
        self.upgrade: Final = upgrade_of(notes, options)


@final
class _Line:
    """What a first line says, as in RequestHead, and what is wrong with it."""

    __slots__ = ("http10", "line", "method", "path", "problem", "target")

    def __init__(self, method: str, target: str, line: bytes, http10: bool, problem: str) -> None:
        self.method: Final = method
        self.target: Final = target
        self.path: Final = target.partition("?")[0]
        self.line: Final = line
        self.http10: Final = http10
        self.problem: Final = problem


_NO_COOKIES: Final = cookies.Cookies(None, b"", conflict=False)


def _request_lines(block: bytes) -> _RequestLines:
    """Judge the header lines of a request. Raises BadHead when framing or host is in doubt."""
    passed, cookie_lines, notes, options, body, framing = sort(block, fields.of_request)
    host = target.host_of(notes.get(fields.HOST, b""))
    if host is None:
        raise BadHead("host")
    expect = notes.get(fields.EXPECT)
    if expect is not None and expect.lower() != b"100-continue":
        raise BadHead("expectation")
    trailers = b"te" in options and _TRAILERS(notes.get(fields.TE, b"")) is not None
    if trailers:
        passed.append(b"TE: trailers\r\nConnection: TE")
    if body == CHUNKED and (line := announced(notes, fields.of_request, options)):
        passed.append(line[:-2])
    ours = cookies.split(cookie_lines) if cookie_lines else _NO_COOKIES
    return _RequestLines(
        host, joined(passed), tuple(cookie_lines), ours, body, framing, trailers, options, notes
    )


def _line(method: bytes, raw_target: bytes, minor: bytes, host: tuple[str, str]) -> _Line:
    problem = ""
    if not raw_target.startswith(b"/"):
        raw_target, problem = target.in_origin_form(raw_target, method, host)
    text = raw_target.decode("ascii")
    line = b"%b %b HTTP/1.1\r\n" % (method, raw_target)
    problem = _problem(method, raw_target, problem)
    return _Line(method.decode("ascii"), text, line, minor == b"0", problem)


def _line_of(line: bytes) -> _Line | None:
    """Judge a first line by itself; None when that needs the whole head: its form is unusual, or wrong."""
    found = _request_line(line)
    if found is None or not found[2].startswith(b"/"):
        return None
    return _line(found[1], found[2], found[3], ("", ""))


_lines: Final[dict[bytes, _Line]] = {}  # by what was read; beyond _LINES all are read anew


def _known_line(line: bytes) -> _Line | None:
    """Judge a first line as `_line_of` does, once while it is remembered: they repeat, from everybody."""
    known = _lines.get(line)
    if known is None:
        known = _line_of(line)
        if known is not None:
            if len(_lines) >= _LINES:
                _lines.clear()
            _lines[line] = known
    return known


def _request_head(line: _Line, lines: _RequestLines) -> RequestHead:
    http10, method = line.http10, line.method
    if http10 and lines.body == CHUNKED:
        raise BadHead("coding-in-http-1.0")
    head = RequestHead(
        method,
        line.target,
        line.path,
        line.line,
        http10,
        not (http10 or lines.close),
        "" if http10 else lines.upgrade,
        line.problem or ("two-session-cookies" if lines.conflict else ""),
        lines.host,
        lines.authority,
        lines.fields,
        lines.cookies,
        lines.other_cookies,
        lines.handle,
        lines.body,
        lines.framing,
        lines.expects_continue,
        lines.bound,
        lines.trailers,
        lines.options,
        lines.notes,
    )
    return _one_hop_less(head) if method == "OPTIONS" and fields.MAX_FORWARDS in head.notes else head


def _one_hop_less(head: RequestHead) -> RequestHead:
    """Count a hop down (RFC 9110 section 7.6.2): an OPTIONS request that may go no further ends here."""
    hops = head.notes[fields.MAX_FORWARDS]
    if not _HOPS(hops) or int(hops) == 0:
        return head.replaced(problem=head.problem or "max-forwards")
    return head.replaced(fields=head.fields + b"Max-Forwards: %d\r\n" % (int(hops) - 1))


def _problem(method: bytes, raw_target: bytes, form: str) -> str:
    if method in (b"CONNECT", b"TRACE"):
        return "method"
    if form:
        return form
    if raw_target != b"*" and not target.is_plain(raw_target):
        return target.flaw_of(raw_target)
    return ""


# ---------------------------------------------------------------------- responses

#: (fields, body, length, upgrade, bound, trailer, options, notes) as in ResponseHead, then close
_ResponseLines = tuple[
    tuple[bytes, int, bytes, str, bool, bytes, frozenset[bytes], Mapping[int, bytes]], bool
]


def _response_lines(block: bytes, trusted: bool) -> _ResponseLines:
    """Judge the header lines of a response. Raises BadHead when framing is in doubt."""
    passed, set_cookies, notes, options, body, framing = sort(block, fields.of_response)
    for value in set_cookies:
        if trusted or not cookies.shadows(value):
            passed.append(b"Set-Cookie: " + value)
    if not framing:
        body = UNTIL_CLOSE
    constant = (
        joined(passed),
        body,
        framing if body >= 0 else b"",
        upgrade_of(notes, options),
        fields.AUTHENTICATE in notes and _BOUND(notes[fields.AUTHENTICATE]) is not None,
        announced(notes, fields.of_response, options) if body == CHUNKED else b"",
        options,
        notes,
    )
    return constant, b"close" in options


def _response_head(http10: bool, status: int, reason: bytes, lines: _ResponseLines) -> ResponseHead:
    constant, close = lines
    if http10 and constant[1] == CHUNKED:
        raise BadHead("coding-in-http-1.0")
    line = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    return ResponseHead(status, line, not (http10 or close), *constant)

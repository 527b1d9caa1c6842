"""HTTP/1.1 heads (RFC 9112), read strictly: what could be read in two ways is refused, never repaired.

`gateway.connection` reads requests with it and `upstream.connection` responses. A reader holds at most one
head; bodies are `wire.body`'s. It never decides who may do what.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from ztproxy.wire import cookies, fields, target

MAX_FIELDS: Final = 100  # header lines of one head

# Values of `body` that are no length.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_NAME: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}"
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
FIELD_LINE: Final = _NAME + rb":" + _TEXT + rb"\r\n"
_REQUEST_LINE: Final = rb"([A-Z-]{1,32}) ([!-~]+) HTTP/1\.([01])\r\n"
_STATUS_LINE: Final = rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + _TEXT + rb"))?\r\n"
_FIELDS: Final = rb"((?:" + FIELD_LINE + rb")*)\r\n"

_Match = re.Match[bytes]
_Matcher = Callable[[bytes], _Match | None]

_is_field: Final = re.compile(FIELD_LINE).fullmatch
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}").fullmatch
# Authentication that is bound to the connection, against RFC 9110 section 11: never pooled.
_BOUND: Final = re.compile(rb"(?:^|,)\s*(?:ntlm|negotiate)\b", re.IGNORECASE).search
_TEXT_HTML: Final = re.compile(rb"\btext/html\b", re.IGNORECASE).search


class BadHead(Exception):
    """The head can not be served; the connection is at an unknown place in its bytes."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # of model.codes


class RequestHead(Struct, frozen=True, gc=False):
    """One request head as it came, sorted into what passes and what we have to know."""

    method: str
    target: str  # as received
    path: str  # target without query
    host: str  # lower-case, without port
    authority: str  # host with port, unless that is 443
    fields: (
        bytes  # header lines that may pass, each ended by CRLF; Host, framing and cookies are not among them
    )
    cookies: tuple[bytes, ...]  # values of the Cookie lines as received
    other_cookies: bytes  # Cookie lines without ours, each ended by CRLF
    handle: str | None  # value of our session cookie
    body: int  # length in bytes, or CHUNKED
    framing: bytes  # the header line that says so, ended by CRLF; b"" when nothing was said
    http10: bool
    keep_alive: bool
    upgrade: str  # lower-case value of Upgrade when Connection nominates it, else ""
    notes: Mapping[int, bytes]  # values of noted fields, by their number in wire.fields
    problem: str = ""  # code of model.codes: well-framed, yet not to be served

    @property
    def navigation(self) -> bool:
        """Tell whether a person's browser asks for a page, so that the answer may be one."""
        if self.method not in ("GET", "HEAD"):
            return False
        mode = self.notes.get(fields.FETCH_MODE)
        if mode is not None:
            return mode == b"navigate"
        return _TEXT_HTML(self.notes.get(fields.ACCEPT, b"")) is not None

    @property
    def expects_continue(self) -> bool:
        """Tell whether the client waits for "100 Continue" before it sends the body."""
        return fields.EXPECT in self.notes

    @property
    def bound(self) -> bool:
        """Tell whether the credentials hold for a connection instead of a request (NTLM, Negotiate)."""
        return _BOUND(self.notes.get(fields.AUTHORIZATION, b"")) is not None


class ResponseHead(Struct, frozen=True, gc=False):
    """One response head, sorted likewise."""

    status: int
    reason: bytes
    fields: bytes
    body: int  # length in bytes, CHUNKED or UNTIL_CLOSE, before HEAD, 204 and 304 are considered
    length: bytes  # Content-Length line ended by CRLF, b"" without one
    keep_alive: bool
    upgrade: str
    notes: Mapping[int, bytes]

    @property
    def bound(self) -> bool:
        """Tell whether the upstream authenticates connections instead of requests."""
        return _BOUND(self.notes.get(fields.AUTHENTICATE, b"")) is not None


class HeadReader:
    """Finds the end of a head in bytes that come in any pieces.

    Every complete line is looked at once, as soon as it is there: what can never become a head is refused
    without waiting for more.
    """

    __slots__ = ("_buffer", "_first", "_limit", "_seen", "_whole")

    def __init__(self, whole: _Matcher, first: _Matcher, limit: int) -> None:
        self._whole = whole
        self._first = first
        self._limit = limit
        self._buffer = bytearray()
        self._seen = 0  # bytes of complete, checked lines

    @property
    def started(self) -> bool:
        """Tell whether some bytes of a head are waiting for the rest."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[_Match, bytes] | None:
        """Take bytes; return a complete head and the bytes after it, or None. Raises BadHead."""
        if not self._buffer:
            found = self._whole(data)
            if found is not None and found.end() <= self._limit:
                return found, data[found.end() :]
        return self._slowly(data)

    def _slowly(self, data: bytes) -> tuple[_Match, bytes] | None:
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
            raise BadHead("head-too-large", f"more than {self._limit} bytes")
        return None

    def _check(self, line: bytes) -> None:
        if self._seen == 0 and self._first(line) is None:
            raise BadHead("bad-request", "malformed first line")
        if self._seen and _is_field(line) is None:
            raise BadHead("bad-request", "malformed header line")

    def _complete(self, end: int) -> tuple[_Match, bytes]:
        found = self._whole(bytes(self._buffer[:end]))
        if found is None:
            raise BadHead("bad-request", "malformed head")
        rest = bytes(self._buffer[end:])
        self._buffer = bytearray()
        self._seen = 0
        return found, rest


_request = re.compile(_REQUEST_LINE + _FIELDS).match
_request_line = re.compile(_REQUEST_LINE).fullmatch
_response = re.compile(_STATUS_LINE + _FIELDS).match
_status_line = re.compile(_STATUS_LINE).fullmatch


def request_reader(limit: int) -> HeadReader:
    """Return a reader of request heads of at most `limit` bytes."""
    return HeadReader(_request, _request_line, limit)


def response_reader(limit: int) -> HeadReader:
    """Return a reader of response heads of at most `limit` bytes."""
    return HeadReader(_response, _status_line, limit)


def read_request(found: _Match) -> RequestHead:
    """Judge a complete request head. Raises BadHead when its framing or host is in doubt."""
    method, raw_target, minor, block = found.groups()
    passed, cookie_lines, notes = _walk(block, fields.of_request)
    http10 = minor == b"0"
    options = _options(notes, passed)
    body, framing = _framing(notes, http10)
    host = target.host_of(notes.get(fields.HOST, b""))
    if host is None:
        raise BadHead("bad-request", "missing or invalid Host")
    if notes.get(fields.EXPECT, b"100-continue").lower() != b"100-continue":
        raise BadHead("bad-request", "unknown expectation")
    ours = cookies.split(cookie_lines) if cookie_lines else _NO_COOKIES
    text = raw_target.decode("ascii")
    return RequestHead(
        method=method.decode("ascii"),
        target=text,
        path=text.partition("?")[0],
        host=host[0],
        authority=host[1],
        fields=_block(passed),
        cookies=tuple(cookie_lines),
        other_cookies=ours.rest,
        handle=ours.handle,
        body=body,
        framing=framing,
        http10=http10,
        keep_alive=not http10 and b"close" not in options,
        upgrade=_upgrade(notes, options) if not http10 else "",
        notes=notes,
        problem=_problem(method, raw_target, conflict=ours.conflict),
    )


def read_response(found: _Match, *, trusted: bool = False) -> ResponseHead:
    """Judge a complete response head. `trusted` lets our own portal set our cookies. Raises BadHead."""
    minor, code, reason, block = found.groups()
    passed, set_cookies, notes = _walk(block, fields.of_response)
    options = _options(notes, passed)
    body, framing = _framing(notes, minor == b"0")
    for value in set_cookies:
        if trusted or not cookies.shadows(value):
            passed.append(b"Set-Cookie: " + value)
    if not framing:
        body = UNTIL_CLOSE
    return ResponseHead(
        status=int(code),
        reason=reason or b"",
        fields=_block(passed),
        body=body,
        length=framing if body >= 0 else b"",
        keep_alive=minor == b"1" and b"close" not in options,
        upgrade=_upgrade(notes, options),
        notes=notes,
    )


_NO_COOKIES: Final = cookies.Cookies(None, b"", conflict=False)
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
# Options that say something about the connection and name no further field to remove.
_KNOWN_OPTIONS: Final = frozenset({b"", b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings"})


def _walk(block: bytes, kind_of: Callable[[bytes], int]) -> tuple[list[bytes], list[bytes], dict[int, bytes]]:
    """Sort header lines into (lines that pass, values of cookie lines, noted values)."""
    passed: list[bytes] = []
    cookie_lines: list[bytes] = []
    notes: dict[int, bytes] = {}
    lines = block.split(b"\r\n")
    lines.pop()  # what follows the last CRLF: nothing
    if len(lines) > MAX_FIELDS:
        raise BadHead("head-too-large", f"more than {MAX_FIELDS} header lines")
    for line in lines:
        colon = line.find(b":")
        kind = kind_of(line[:colon])
        if kind == fields.PASS:
            passed.append(line)
        elif kind == fields.COOKIE:
            cookie_lines.append(line[colon + 1 :].strip(b" \t"))
        elif kind > fields.COOKIE:
            _note(notes, kind, line[colon + 1 :].strip(b" \t"))
            if kind > fields.KEPT:
                passed.append(line)
        elif kind == fields.REFUSE:
            raise BadHead("bad-request", "method override")
    return passed, cookie_lines, notes


def _note(notes: dict[int, bytes], kind: int, value: bytes) -> None:
    if kind not in notes:
        notes[kind] = value
    elif kind in fields.REPEATABLE:
        notes[kind] += b", " + value
    else:
        raise BadHead("bad-request", "a field that must be single came twice")


def _block(lines: list[bytes]) -> bytes:
    return b"\r\n".join(lines) + b"\r\n" if lines else b""


def _options(notes: dict[int, bytes], passed: list[bytes]) -> frozenset[bytes]:
    """Return the connection options, and take the fields they nominate out of `passed`."""
    value = notes.get(fields.CONNECTION)
    if value is None:
        return _NO_OPTIONS
    options = fields.names_of(value)
    if not options <= _KNOWN_OPTIONS:
        passed[:] = [line for line in passed if line[: line.find(b":")].lower() not in options]
    return options


def _framing(notes: dict[int, bytes], http10: bool) -> tuple[int, bytes]:
    """Return how long the body is and the line that says so (RFC 9112 section 6.3, without its mercies)."""
    length = notes.get(fields.CONTENT_LENGTH)
    coding = notes.get(fields.TRANSFER_ENCODING)
    if coding is not None:
        if length is not None or http10 or coding.lower() != b"chunked":
            raise BadHead("bad-request", "ambiguous framing")
        return CHUNKED, b"Transfer-Encoding: chunked\r\n"
    if length is None:
        return 0, b""
    if not _LENGTH(length):
        raise BadHead("bad-request", "odd Content-Length")
    return int(length), b"Content-Length: %b\r\n" % length


def _upgrade(notes: dict[int, bytes], options: frozenset[bytes]) -> str:
    if b"upgrade" not in options:
        return ""
    return notes.get(fields.UPGRADE, b"").lower().decode("latin-1")


def _problem(method: bytes, raw_target: bytes, *, conflict: bool) -> str:
    if method in (b"CONNECT", b"TRACE"):
        return "method-not-supported"
    if not raw_target.startswith(b"/"):
        return "" if raw_target == b"*" and method == b"OPTIONS" else "bad-request"
    if not target.is_plain(raw_target):
        return "ambiguous-path"
    return "credentials-conflict" if conflict else ""

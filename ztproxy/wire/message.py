"""What a head says, as values: the requests and responses that `wire.http1` reads."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ztproxy.wire import fields

_TEXT_HTML: Final = re.compile(rb"\btext/html\b", re.IGNORECASE).search


class RequestHead(Struct, frozen=True, gc=False):
    """One request head as it came, sorted into what passes and what we have to know."""

    method: str
    target: str  # origin-form, or "*"; as received, but for the scheme and authority of a URL
    path: str  # target without query
    line: bytes  # the first line, target in origin form, ended by CRLF
    http10: bool
    keep_alive: bool
    upgrade: str  # lower-case value of Upgrade when Connection nominates it, else ""
    problem: str  # word of wire.flaws: well-framed, yet not to be served; else ""
    host: str  # lower-case, without port
    authority: str  # host with port, unless that is 443
    fields: bytes  # header lines that may pass, each ended by CRLF; no Host, framing or cookies among them
    cookies: tuple[bytes, ...]  # values of the Cookie lines as received
    other_cookies: bytes  # Cookie lines without ours, each ended by CRLF
    handle: str | None  # hex SHA-256 of our session cookie's value
    body: int  # length in bytes, or CHUNKED
    framing: bytes  # the header line that says so, ended by CRLF; b"" when nothing was said
    expects_continue: bool  # the client waits for "100 Continue" before it sends the body
    bound: bool  # the credentials hold for a connection instead of a request (NTLM, Negotiate)
    trailers: bool  # the client takes fields after the body
    options: frozenset[bytes]  # what Connection says
    notes: Mapping[int, bytes]  # values of noted fields, by their number in wire.fields

    @property
    def navigation(self) -> bool:
        """Tell whether a person's browser asks for a page, so that the answer may be one.

        A form that is sent asks for one, too.
        """
        if self.method not in ("GET", "HEAD", "POST"):
            return False
        mode = self.notes.get(fields.FETCH_MODE)
        if mode is not None:
            return mode == b"navigate"
        return _TEXT_HTML(self.notes.get(fields.ACCEPT, b"")) is not None


class ResponseHead(Struct, frozen=True, gc=False):
    """One response head, sorted likewise."""

    status: int
    reason: bytes
    keep_alive: bool
    fields: bytes
    body: int  # length in bytes, CHUNKED or UNTIL_CLOSE, before HEAD, 204 and 304 are considered
    length: bytes  # Content-Length line ended by CRLF, b"" without one
    upgrade: str
    bound: bool  # the upstream authenticates connections instead of requests
    trailer: bytes  # Trailer line ended by CRLF, for clients that take fields after the body
    options: frozenset[bytes]  # what Connection says
    notes: Mapping[int, bytes]

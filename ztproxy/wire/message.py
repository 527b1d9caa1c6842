"""What a head says, as values: the requests and responses that `wire.http1` reads."""

import re
from collections.abc import Mapping
from typing import ClassVar, Final, final

from ztproxy.model.frozen import Frozen
from ztproxy.model.native import mypyc_attr
from ztproxy.wire import fields

_TEXT_HTML: Final = re.compile(rb"\btext/html\b", re.IGNORECASE).search


@final
@mypyc_attr(acyclic=True)
class RequestHead(Frozen):
    """One request head as it came, sorted into what passes and what we have to know."""

    __slots__ = (
        "authority", "body", "bound", "cookies", "expects_continue", "fields", "framing", "handle", "host",
        "http10", "keep_alive", "line", "method", "notes", "options", "other_cookies", "path", "problem",
        "target", "trailers", "upgrade",
    )  # fmt: skip

    FIELDS: ClassVar[tuple[str, ...]] = (
        "method", "target", "path", "line", "http10", "keep_alive", "upgrade", "problem", "host",
        "authority", "fields", "cookies", "other_cookies", "handle", "body", "framing", "expects_continue",
        "bound", "trailers", "options", "notes",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        path: str,
        line: bytes,
        http10: bool,
        keep_alive: bool,
        upgrade: str,
        problem: str,
        host: str,
        authority: str,
        fields: bytes,
        cookies: tuple[bytes, ...],
        other_cookies: bytes,
        handle: str | None,
        body: int,
        framing: bytes,
        expects_continue: bool,
        bound: bool,
        trailers: bool,
        options: frozenset[bytes],
        notes: Mapping[int, bytes],
    ) -> None:
        self.method: Final = method
        self.target: Final = (
            target  # origin-form, or "*"; as received, but for the scheme and authority of a URL
        )
        self.path: Final = path  # target without query
        self.line: Final = line  # the first line, target in origin form, ended by CRLF
        self.http10: Final = http10
        self.keep_alive: Final = keep_alive
        self.upgrade: Final = upgrade  # lower-case value of Upgrade when Connection nominates it, else ""
        self.problem: Final = problem  # word of wire.flaws: well-framed, yet not to be served; else ""
        self.host: Final = host  # lower-case, without port
        self.authority: Final = authority  # host with port, unless that is 443
        self.fields: Final = (
            fields  # header lines that may pass, each ended by CRLF; no Host, framing or cookies among them
        )
        self.cookies: Final = cookies  # values of the Cookie lines as received
        self.other_cookies: Final = other_cookies  # Cookie lines without ours, each ended by CRLF
        self.handle: Final = handle  # hex SHA-256 of our session cookie's value
        self.body: Final = body  # length in bytes, or CHUNKED
        self.framing: Final = (
            framing  # the header line that says so, ended by CRLF; b"" when nothing was said
        )
        self.expects_continue: Final = (
            expects_continue  # the client waits for "100 Continue" before it sends the body
        )
        self.bound: Final = (
            bound  # the credentials hold for a connection instead of a request (NTLM, Negotiate)
        )
        self.trailers: Final = trailers  # the client takes fields after the body
        self.options: Final = options  # what Connection says
        self.notes: Final = notes  # values of noted fields, by their number in wire.fields

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


@final
@mypyc_attr(acyclic=True)
class ResponseHead(Frozen):
    """One response head, sorted likewise."""

    __slots__ = (
        "body", "bound", "fields", "keep_alive", "length", "line", "notes", "options", "status", "trailer",
        "upgrade",
    )  # fmt: skip

    FIELDS: ClassVar[tuple[str, ...]] = (
        "status", "line", "keep_alive", "fields", "body", "length", "upgrade", "bound", "trailer",
        "options", "notes",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        line: bytes,
        keep_alive: bool,
        fields: bytes,
        body: int,
        length: bytes,
        upgrade: str,
        bound: bool,
        trailer: bytes,
        options: frozenset[bytes],
        notes: Mapping[int, bytes],
    ) -> None:
        self.status: Final = status
        self.line: Final = line  # the first line as we write it, ended by CRLF
        self.keep_alive: Final = keep_alive
        self.fields: Final = fields
        self.body: Final = (
            body  # length in bytes, CHUNKED or UNTIL_CLOSE, before HEAD, 204 and 304 are considered
        )
        self.length: Final = length  # Content-Length line ended by CRLF, b"" without one
        self.upgrade: Final = upgrade
        self.bound: Final = bound  # the upstream authenticates connections instead of requests
        self.trailer: Final = (
            trailer  # Trailer line ended by CRLF, for clients that take fields after the body
        )
        self.options: Final = options  # what Connection says
        self.notes: Final = notes

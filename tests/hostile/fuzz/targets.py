"""What must hold for any bytes: one function for each reader of bytes that strangers send.

Each takes bytes and raises when something is wrong: an exception that is none of the reader's own, another
result for other pieces, or a reading that h11 or OpenSSL does not share. Used by `scripts/fuzz` (atheris) and
by `tests/hostile/test_fuzz_targets.py` (hypothesis).
"""

import asyncio
import re
import ssl
import sys
from collections.abc import Callable

import h11
from gateway_fakes import Stage
from hostile_cases import LIMIT, Outcome, play, requests_by_h11

from ztproxy.wire.body import BadBody, ChunkedBody
from ztproxy.wire.clienthello import BadHello, NotTls, server_name
from ztproxy.wire.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    BadHead,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)
from ztproxy.wire.websocket import FrameTracker

HEAD_LIMIT = 4096


def pieces(data: bytes) -> list[list[bytes]]:
    """Return ways to cut bytes, as the bytes themselves choose."""
    singles = [data[i : i + 1] for i in range(len(data))]
    step = 2 + sum(data[:8]) % 13
    return [[data], singles, [data[i : i + step] for i in range(0, len(data), step)]]


# ---------------------------------------------------------------------- heads

Read = tuple[RequestHead | ResponseHead, bytes] | str | None


def read(reader: RequestReader | ResponseReader, parts: list[bytes]) -> Read:
    """Return (head, what follows), the flaw, or None while more is needed."""
    try:
        for number, part in enumerate(parts):
            found = reader.feed(part)
            if found is not None:
                return found[0], found[1] + b"".join(parts[number + 1 :])
    except BadHead as bad:
        return bad.flaw
    return None


def request(data: bytes) -> None:
    """Request heads."""
    whole, *others = [read(RequestReader(HEAD_LIMIT), parts) for parts in pieces(data)]
    assert all(other == whole for other in others), (whole, others)
    if not isinstance(whole, tuple):
        return
    head = whole[0]
    assert isinstance(head, RequestHead)
    reader = RequestReader(HEAD_LIMIT)
    assert read(reader, [data]) == whole == read(reader, [data]), "remembered lines change the result"
    if head.problem:
        return
    event = by_h11(h11.SERVER, data)
    assert isinstance(event, h11.Request), f"h11 refuses what passes: {event}"
    assert event.method.decode() == head.method
    target = head.target.removeprefix("/") if head.target.startswith("/?") else head.target
    assert event.target.decode().endswith(target) or target in ("/", "*")  # of no path "/" is made
    framed(head.body, dict(event.headers))


def response(data: bytes) -> None:
    """Response heads."""
    whole, *others = [read(ResponseReader(HEAD_LIMIT), parts) for parts in pieces(data)]
    assert all(other == whole for other in others), (whole, others)
    if not isinstance(whole, tuple):
        return
    head = whole[0]
    assert isinstance(head, ResponseHead)
    if head.status == 101:
        return  # h11 takes it only when the request offered something
    event = by_h11(h11.CLIENT, data)
    assert isinstance(event, h11.Response | h11.InformationalResponse), f"h11 refuses what passes: {event}"
    assert head.status == event.status_code
    assert head.line == b"HTTP/1.1 %d %b\r\n" % (event.status_code, bytes(event.reason))
    if head.status >= 200:
        headers = dict(event.headers)
        framed(0 if head.body == UNTIL_CLOSE else head.body, headers)


def by_h11(role: type[h11.SERVER] | type[h11.CLIENT], data: bytes) -> object:
    peer = h11.Connection(role, max_incomplete_event_size=LIMIT)
    if role is h11.CLIENT:
        peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a.example")]))
        peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    try:
        return peer.next_event()
    except h11.RemoteProtocolError as refused:
        return refused


def framed(body: int, headers: dict[bytes, bytes]) -> None:
    theirs = CHUNKED if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
    assert body == theirs, (body, theirs)


# ---------------------------------------------------------------------- bodies

Content = tuple[bytes, bytes, bool] | str


def unchunked(parts: list[bytes], *, framed: bool = False) -> Content:
    """Return (what is passed on, what follows, whether it has ended), or the flaw."""
    body = ChunkedBody(framed=framed, trails=lambda name: name.startswith(b"X"))
    out = rest = b""
    try:
        for number, part in enumerate(parts):
            passed, rest = body.feed(part)
            out += passed
            if body.done:
                return out, rest + b"".join(parts[number + 1 :]), True
    except BadBody as bad:
        return bad.flaw
    return out, rest, False


def chunked(data: bytes) -> None:
    """Chunked bodies."""
    for framed in (False, True):
        whole, *others = [unchunked(parts, framed=framed) for parts in pieces(data)]
        assert all(other == whole for other in others), (whole, others)
    bare, clean = unchunked([data]), unchunked([data], framed=True)
    if isinstance(bare, str) or not bare[2]:
        return
    theirs = by_h11_body(data)
    if theirs is None and re.search(rb"(?i)\r\n(?:content-length|transfer-encoding):", data):
        return  # h11 judges framing fields even among the trailers; here they end
    assert theirs == bare[:2], "h11 reads something else"
    assert not isinstance(clean, str)
    again = by_h11_body(clean[0])
    assert again == (bare[0], b""), "what is passed on is not what was read"


def by_h11_body(data: bytes) -> tuple[bytes, bytes] | None:
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    peer.receive_data(b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    content = b""
    try:
        peer.next_event()
        while isinstance(event := peer.next_event(), h11.Data):
            content += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    return (content, peer.trailing_data[0]) if isinstance(event, h11.EndOfMessage) else None


# ---------------------------------------------------------------------- WebSocket frames


def frames(data: bytes) -> None:
    """WebSocket frame boundaries."""
    results = []
    for parts in pieces(data):
        tracker = FrameTracker()
        for part in parts:
            tracker.feed(part)
        results.append((tracker.at_boundary, tracker.closing))
    assert results[0] == results[1] == results[2] == bounds(data), results


def bounds(data: bytes) -> tuple[bool, bool]:
    """Read frames the plain way (RFC 6455 section 5.2)."""
    at, closing = 0, False
    while at < len(data):
        if len(data) - at < 2:
            return False, closing
        size, extra = data[at + 1] & 0x7F, 0
        if size > 125:
            extra = 2 if size == 126 else 8
        end = at + 2 + extra + (4 if data[at + 1] & 0x80 else 0)
        if end > len(data):
            return False, closing
        if extra:
            size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
        closing = closing or data[at] & 15 == 8
        at = end + size
        if size >= 1 << 63:
            return False, closing
    return at == len(data), closing


# ---------------------------------------------------------------------- ClientHello


def clienthello(data: bytes) -> None:
    """Server names, with OpenSSL as second opinion."""
    whole = name_in(data)
    for size in range(0, len(data), 1 + len(data) // 50):
        part = name_in(data[:size])
        assert part is None or part == whole, (size, part, whole)
    theirs = by_openssl(data)
    if theirs is not None and isinstance(whole, str):
        assert whole == theirs.lower(), (whole, theirs)


def name_in(data: bytes) -> str | type[Exception] | None:
    try:
        return server_name(data)
    except (NotTls, BadHello) as refused:
        return type(refused)


def by_openssl(data: bytes) -> str | None:
    """Return the name that OpenSSL finds in a hello it takes; None when it takes none."""
    found: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda tls, name, own: found.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    server = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None  # names that Python can not decode
    try:
        server.do_handshake()
    except (ssl.SSLError, ValueError):
        pass
    finally:
        sys.unraisablehook = before
    return (found[0] or "") if found else None


# ---------------------------------------------------------------------- a whole connection

_runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)


def connection(data: bytes) -> None:
    """A client's bytes through the real gateway to an application that reads with h11."""
    outcomes = []
    for parts in pieces(data)[: 3 if len(data) < 600 else 1]:
        outcome, stage = _runner.run(play(parts))
        outcomes.append(comparable(outcome))
        _runner.run(left_clean(stage))
    assert all(other == outcomes[0] for other in outcomes[1:]), outcomes
    theirs = requests_by_h11(data)
    # A refused request that was read to its end may be followed by others: in order, none but h11's.
    left = iter(theirs)
    assert all(request in left for request in outcomes[0].requests), (outcomes[0].requests, theirs)


def comparable(outcome: Outcome) -> Outcome:
    """Leave out how far an unfinished request had come: that depends on the pieces."""
    complete = outcome.requests[: outcome.complete]
    return Outcome(b"", complete, outcome.complete, outcome.refusals, outcome.ends, outcome.answers, "", 0)


async def left_clean(stage: Stage) -> None:
    """The client goes: nothing stays open, and every permit has its outcome."""
    stage.client.lose()
    await stage.turn()
    assert stage.paths.live == {}
    assert len(stage.ledger.records) == stage.paths.opened
    stage.upstreams.close()
    await stage.turn()
    assert all(made.ended for made in stage.dialler.made)
    assert len(stage.wheel) == 1, "more than the crowd"


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (request, response, chunked, frames, clienthello, connection)
}

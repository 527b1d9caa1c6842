"""Fields after the body: they pass to who takes them, and nothing passes that must be known before it."""

import pytest
from gateway_fakes import Stage, head_of

from ztproxy.wire import fields

NO_OPTIONS: frozenset[bytes] = frozenset()
POST = (
    b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\n"
    b"Connection: X-Hop\r\n\r\n2\r\nhi\r\n0\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n%b\r\n"
TAKES = b"TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n"
OK = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n"
    b"Connection: X-Hop\r\n\r\n2\r\nhi\r\n0\r\n"
)
LINES = b"X-Sum: 1\r\nX-Hop: 2\r\n%b: 3\r\nx-last:4\r\n\r\n"
PASSED = b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nx-last:4\r\n\r\n"

NEVER = [
    b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Trailer", b"TE", b"Upgrade",
    b"Authorization", b"Proxy-Authorization", b"Cookie", b"Set-Cookie", b"WWW-Authenticate",
    b"Zt-Principal", b"zt_assertion", b"ZT.NAME", b"X-Forwarded-For", b"x_forwarded_host", b"Forwarded",
    b"X-Real-IP", b"Remote-User", b"X-HTTP-Method-Override", b"Content-Type", b"content_encoding",
    b"Content-Digest", b"Cache-Control", b"Age", b"Date", b"Location", b"Vary", b"Range", b"If-Match",
    b"Expect", b"Max-Forwards", b"Origin", b"Accept", b"Sec-WebSocket-Key", b"Access-Control-Allow-Origin",
    b"Alt-Svc", b"Keep-Alive", b"HTTP2-Settings", b"X-Auth-Token", b"X-Authorization",
]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_names_that_never_trail(name: bytes) -> None:
    assert not fields.may_trail(fields.of_request, NO_OPTIONS, name)
    assert not fields.may_trail(fields.of_response, NO_OPTIONS, name)


@pytest.mark.parametrize("name", [b"X-Sum", b"Repr-Digest", b"ETag", b"Server-Timing", b"grpc-status"])
def test_names_that_trail(name: bytes) -> None:
    assert fields.may_trail(fields.of_request, NO_OPTIONS, name)
    assert fields.may_trail(fields.of_response, NO_OPTIONS, name)
    assert not fields.may_trail(fields.of_request, frozenset({name.lower()}), name)


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("split", [False, True])
async def test_to_the_upstream(name: bytes, split: bool) -> None:
    stage = Stage()
    data = POST + LINES % name
    for piece in [data[i : i + 1] for i in range(len(data))] if split else [data]:
        await stage.says(piece)
    _, sent, body = head_of(stage.upstream.take())
    assert sent[b"trailer"] == [b"X-Sum"]
    assert b"connection" not in sent
    content, _, last = body.partition(b"0\r\n")
    assert content == b"2\r\nhi\r\n"
    assert last == b"X-Sum: 1\r\nx-last:4\r\n\r\n"


async def test_to_a_client_that_takes_them(stage: Stage) -> None:
    await stage.says(GET % TAKES)
    _, sent, _ = head_of(stage.upstream.take())
    assert (sent[b"te"], sent[b"connection"]) == ([b"trailers"], [b"TE"])
    await stage.answers(OK + LINES % b"Set-Cookie")
    _, got, body = head_of(stage.client.take())
    assert got[b"trailer"] == [b"X-Sum"]
    assert body == PASSED
    assert len(stage.upstreams) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET % b"",
        GET % b"TE: trailers\r\n",  # not nominated: it came from further away
        GET % b"TE: trailersx, x trailers, trailers;q=1\r\nConnection: TE\r\n",
        (GET % TAKES).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_to_nobody_else(stage: Stage, request_bytes: bytes) -> None:
    await stage.says(request_bytes)
    await stage.answers(OK + LINES % b"Set-Cookie")
    _, got, body = head_of(stage.client.take())
    assert b"trailer" not in got
    assert body in (b"2\r\nhi\r\n0\r\n\r\n", b"hi")


async def test_nothing_is_announced_where_nothing_follows(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1\r\nTrailer: X-Sum\r\n\r\nx")
    assert b"trailer" not in head_of(stage.upstream.take())[1]
    await stage.answers(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 0\r\n\r\n")
    await stage.says(GET % TAKES)
    await stage.answers(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 1\r\n\r\nx")
    assert b"Trailer" not in stage.client.take()
    await stage.says((GET % TAKES).replace(b"GET", b"HEAD"))
    await stage.answers(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"Trailer" not in stage.client.take()

"""An upstream that dies at any byte: h11, as the client, never sees a complete answer that is none."""

import h11
import pytest
from gateway_fakes import HOST, Stage

from ztproxy.wire.websocket import accept_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n%b\r\n"
TAKES = b"TE: trailers\r\nConnection: TE\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "length": (GET % b"", OK + b"Content-Length: 10\r\n\r\n0123456789"),
    "no content": (GET % b"", OK + b"Content-Length: 0\r\n\r\n"),
    "chunks": (GET % b"", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n05;x\r\n56789\r\n0\r\n\r\n"),
    "chunk like an end": (GET % b"", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
    "trailers": (GET % TAKES, OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "until close": (GET % b"", OK + b"\r\n0123456789"),
    "HEAD": (b"HEAD" + GET[3:] % b"", OK + b"Content-Length: 10\r\n\r\n"),
    "204": (GET % b"", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": (GET % b"", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
    "hints first": (GET % b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi"),
}


def heard(request: bytes, answer: bytes, closed: bool) -> tuple[int, bool]:
    """Return (status, whether the response is complete) as h11 understands a client's bytes."""
    peer = h11.Connection(h11.CLIENT)
    method = request.partition(b" ")[0]
    peer.send(h11.Request(method=method, target="/", headers=[("Host", HOST)]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(answer)
    if closed:
        peer.receive_data(b"")
    status = 0
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.EndOfMessage):
                return status, True
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return status, False
    except h11.RemoteProtocolError:
        return status, False


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_at_every_byte(kind: str, how: str, pieces: str) -> None:
    request, whole = ANSWERS[kind]
    for at in range(1, len(whole) + 1):  # without a byte it is asked again
        stage = Stage()
        await stage.says(request)
        sent = whole[:at]
        for piece in [sent] if pieces == "whole" else [sent[i : i + 1] for i in range(at)]:
            if piece and not stage.upstream.ended:
                await stage.answers(piece)
        if not stage.upstream.ended:
            stage.upstream.lose(ConnectionResetError() if how == "reset" else None)
        await stage.turn()
        status, complete = heard(request, stage.client.written, closed=bool(stage.client.ended))
        (record,) = stage.ledger.records
        assert stage.paths.live == {}
        ends_itself = kind == "until close" and how == "close" and at >= whole.index(b"\r\n\r\n") + 4
        if ends_itself or (at == len(whole) and kind != "until close"):
            assert (status, complete, record.end) == (record.status, True, "complete"), at
        elif status == 502:
            assert record.status == 502 and record.end.startswith("upstream-"), at
        else:
            assert not complete, at
            assert (stage.client.ended, record.end) == ("abort", "upstream-failed"), at


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_http_1_0_is_told_by_an_aborted_connection(how: str) -> None:
    whole = ANSWERS["chunks"][1]
    for at in range(whole.index(b"\r\n\r\n") + 4, len(whole)):
        stage = Stage()
        await stage.says(b"GET / HTTP/1.0\r\nHost: app.example\r\n\r\n")
        await stage.answers(whole[:at])
        stage.upstream.lose(ConnectionResetError() if how == "reset" else None)
        await stage.turn()
        assert stage.client.ended == "abort"  # no close_notify: TLS knows that something is missing


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_at_every_byte_of_a_handshake(how: str) -> None:
    whole = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(KEY) + b"\r\n\r\n"
    )
    for at in range(1, len(whole)):
        stage = Stage()
        await stage.says(
            GET % (b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   b"Sec-WebSocket-Key: " + KEY + b"\r\n")
        )  # fmt: skip
        await stage.answers(whole[:at])
        stage.upstream.lose(ConnectionResetError() if how == "reset" else None)
        await stage.turn()
        assert stage.client.written.startswith(b"HTTP/1.1 502 ")

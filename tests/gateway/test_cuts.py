"""Every kind of exchange is cut midway: nothing seems complete afterwards, and the record says why."""

import pytest
from gateway_fakes import Stage

GET = b"GET /a HTTP/1.1\r\nHost: app.example\r\n\r\n"
UPLOAD = b"POST /a HTTP/1.1\r\nHost: app.example\r\nContent-Length: 9\r\n\r\nabc"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:a\r\n"
)
DOWNLOAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"


@pytest.mark.parametrize(
    ("asked", "answered", "status"),
    [
        pytest.param(GET, b"", 0, id="long poll, waiting for the upstream"),
        pytest.param(GET, EVENTS, 200, id="server-sent events"),
        pytest.param(GET, DOWNLOAD, 200, id="download"),
        pytest.param(GET, UNTIL_CLOSE, 200, id="download until the connection closes"),
        pytest.param(UPLOAD, b"", 0, id="upload"),
        pytest.param(CHUNKED, b"", 0, id="chunked upload"),
        pytest.param(CHUNKED, EVENTS, 200, id="chunked both ways"),
    ],
)
async def test_a_cut_midway(stage: Stage, asked: bytes, answered: bytes, status: int) -> None:
    await stage.says(asked)
    if answered:
        await stage.answers(answered)
    stage.client.take()
    stage.paths.cut("device-posture-unhealthy")
    assert (stage.client.ended, stage.upstream.ended) == ("abort", "abort")
    assert stage.client.take() == b"", "no last chunk and no page makes it look complete"
    await stage.turn()
    record = stage.ledger.records[0]
    assert (record.end, record.status) == ("cut: device-posture-unhealthy", status)
    assert (len(stage.ledger.records), stage.paths.live, len(stage.upstreams)) == (1, {}, 0)

"""Records say what exactly was wrong; callers are not told, and no byte of theirs is repeated."""

import pytest
from gateway_fakes import Stage

GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "detail"),
    [
        (b"GET / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
         "two-content-length"),
        (b"GET /a/../b HTTP/1.1\r\nHost: app.example\r\n\r\n", "dot-segment"),
        (b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "websocket-handshake"),
    ],
)  # fmt: skip
async def test_a_refused_request(stage: Stage, request_bytes: bytes, detail: str) -> None:
    await stage.says(request_bytes)
    assert [refusal.detail for refusal in stage.door.refusals] == [detail]
    assert detail.encode() not in stage.client.written


async def test_a_slow_head(stage: Stage) -> None:
    await stage.says(b"GET")
    await stage.later(11)
    assert stage.door.refusals[0].detail == "incomplete-head"


async def test_a_broken_body(stage: Stage) -> None:
    await stage.says(POST)
    await stage.says(b"0x5\r\nhello\r\n")
    assert (stage.ledger.records[0].end, stage.ledger.records[0].detail) == ("bad-request", "chunk-size")
    assert b"chunk-size" not in stage.client.written


@pytest.mark.parametrize(
    ("answer", "end", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "upstream-invalid",
         "two-content-length"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "upstream-invalid", "unasked-upgrade"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, "upstream-invalid", "interim-flood"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "upstream-invalid", "chunk-size"),
    ],
)  # fmt: skip
async def test_a_broken_answer(stage: Stage, answer: bytes, end: str, detail: str) -> None:
    await stage.says(GET)
    await stage.answers(answer)
    assert (stage.ledger.records[0].end, stage.ledger.records[0].detail) == (end, detail)
    assert detail.encode() not in stage.client.written


async def test_an_answer_that_breaks_when_it_has_begun(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await stage.answers(b"-1\r\n")
    record = stage.ledger.records[0]
    assert (record.status, record.end, record.detail) == (200, "upstream-failed", "chunk-size")


async def test_an_answer_that_stops_in_its_head(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\n")
    stage.upstream.lose()
    await stage.turn()
    assert stage.ledger.records[0].detail == "incomplete-head"

"""Both directions at once: early answers, full buffers, streams, and what is never pooled or held back."""

import pytest
from gateway_fakes import Stage

POST = b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100\r\n%b\r\n"
GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_an_early_stream_goes_on_beside_the_body(stage: Stage) -> None:
    await stage.says(POST % b"" + b"a" * 30)
    await stage.answers(STREAM + b"1\r\nx\r\n")
    assert stage.client.take().endswith(b"1\r\nx\r\n")
    await stage.says(b"b" * 30)
    assert stage.upstream.take().endswith(b"b" * 30)
    await stage.answers(b"1\r\ny\r\n")
    assert stage.client.take() == b"1\r\ny\r\n"
    await stage.says(b"c" * 40)
    await stage.answers(b"0\r\n\r\n")
    assert stage.client.take() == b"0\r\n\r\n"
    assert stage.ledger.records[0].received == 100
    assert len(stage.upstreams) == 1  # all of the request was sent after all


async def test_an_early_answer_of_an_upstream_that_takes_no_more(stage: Stage) -> None:
    """It answers and reads no further: both directions would wait for each other."""
    await stage.says(POST % b"" + b"a" * 30)
    stage.upstream.protocol.pause_writing()
    assert not stage.client.reading
    await stage.answers(OK.replace(b"200 OK", b"413 No"))
    assert stage.client.take().startswith(b"HTTP/1.1 413 ")
    assert stage.client.reading  # what it still sends is thrown away, so that it can read the answer
    assert stage.upstream.ended == "abort"
    assert len(stage.upstreams) == 0
    await stage.says(b"b" * 70 + GET)
    assert stage.client.ended == "close"
    assert len(stage.door.requests) == 1


async def test_an_early_answer_and_the_rest_in_one_piece_with_the_next_request(stage: Stage) -> None:
    await stage.says(POST % b"" + b"a" * 30)
    await stage.answers(OK)
    assert b"Connection: close" in stage.client.take()
    await stage.says(b"b" * 70 + GET)
    assert len(stage.door.requests) == 1
    assert stage.client.ended == "close"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OK])
async def test_an_upstream_that_answers_without_100_was_not_waited_for(stage: Stage, answer: bytes) -> None:
    await stage.says(POST % b"Expect: 100-continue\r\n")
    assert stage.client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"Expect" not in stage.upstream.take()
    await stage.answers(answer)
    assert stage.client.take().startswith(b"HTTP/1.1 200 ")
    assert len(stage.upstreams) == 0  # the body never came


async def test_a_client_that_does_not_wait_is_not_told_to_go_on(stage: Stage) -> None:
    await stage.says(POST % b"Expect: 100-continue\r\n" + b"a")
    assert stage.client.written == b""
    await stage.says(b"a" * 99)
    await stage.answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert stage.client.take().startswith(b"HTTP/1.1 200 ")
    assert len(stage.upstreams) == 1


async def test_events_go_out_as_they_come_and_may_take_their_time(stage: Stage) -> None:
    await stage.says(GET.replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n"))
    await stage.answers(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    assert stage.client.take().endswith(b"\r\n\r\n")
    for number in range(5):
        await stage.later(290)
        event = b"data: %d\n\n" % number
        await stage.answers(event)
        assert stage.client.take() == b"9\r\n" + event + b"\r\n"
    await stage.later(301)
    assert stage.client.ended == "abort"
    assert stage.ledger.records[0].end == "upstream-timeout"


async def test_a_connection_half_closed_by_the_upstream_still_brings_its_answer(stage: Stage) -> None:
    await stage.says(POST % b"" + b"a" * 100)
    await stage.answers(OK[:-1])
    stage.upstream.protocol.data_received(b"i")  # type: ignore[attr-defined]
    stage.upstream.lose()
    await stage.turn()
    assert stage.client.take().endswith(b"hi")
    assert len(stage.upstreams) == 0


async def test_after_an_early_end_the_connection_meets_nobody_else(stage: Stage) -> None:
    """The rest of a body must never be another caller's request."""
    await stage.says(POST % b"" + b"GET /stolen HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await stage.answers(OK)
    assert stage.upstream.ended == "abort"
    _, other, _ = stage.connect()
    other.data_received(GET)
    await stage.turn()
    assert len(stage.dialler.made) == 2

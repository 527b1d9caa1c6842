"""What is held back until a turn of the loop ends: in order, never to a stranger, and gone with a cut."""

from gateway_fakes import Stage

GET = b"GET %b HTTP/1.1\r\nHost: app.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CLOSING = b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n"


async def _warm(stage: Stage) -> None:
    """Have a connection to the upstream ready."""
    await stage.says(GET % b"/")
    await stage.answers(OK)
    stage.client.take(), stage.upstream.take()


async def test_requests_of_one_turn_go_out_together(stage: Stage) -> None:
    await _warm(stage)
    await stage.says(GET % b"/")
    first = stage.upstream
    _, other, _ = stage.connect()
    other.data_received(GET % b"/more")
    await stage.turn()
    second = stage.upstream
    assert second is not first
    await stage.answers(OK)
    first.protocol.data_received(OK)  # type: ignore[attr-defined]
    await stage.turn()
    first.take(), second.take()
    stage.connection.data_received(GET % b"/1")
    other.data_received(GET % b"/2")
    assert first.written == second.written == b""  # the second had arrived by then
    await stage.turn()
    assert {first.take()[:6], second.take()[:6]} == {b"GET /1", b"GET /2"}


async def test_an_answer_before_the_question_ends_the_upstreams_connection(stage: Stage) -> None:
    """Else the request that still waits would be the next caller's."""
    await _warm(stage)
    stage.connection.data_received(GET % b"/mine")
    upstream = stage.upstream
    upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
    assert upstream.ended == "abort"
    assert len(stage.upstreams) == 0
    await stage.turn()
    assert b"/mine" not in upstream.written


async def test_a_request_that_is_cut_in_the_same_turn_never_leaves(stage: Stage) -> None:
    await _warm(stage)
    stage.connection.data_received(GET % b"/secret")
    stage.connection.cut("locked")
    await stage.turn()
    assert stage.upstream.written == b""
    assert stage.upstream.ended == "abort"
    assert stage.client.written == b""


async def test_the_last_answer_is_written_before_the_connection_closes(stage: Stage) -> None:
    await stage.says(CLOSING)
    stage.upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
    assert stage.client.ended == "close"
    assert stage.client.take().endswith(b"\r\n\r\nhi")


async def test_answers_to_pipelined_requests_stay_in_order(stage: Stage) -> None:
    await _warm(stage)
    stage.connection.data_received(GET % b"/1" + b"nonsense\r\n\r\n")
    await stage.turn()
    stage.upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
    await stage.turn()
    answers = stage.client.take()
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert b"hiHTTP/1.1 400 " in answers

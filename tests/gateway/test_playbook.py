"""Whole exchanges by script: client bytes in; authorize, dial, bytes out, outcome, in that order."""

import asyncio
import base64
import gc
import hashlib
import json

import msgspec
import pytest
from gateway_fakes import CERTIFICATE, DATE, HANDLE, HOST, ROUTE, Stage, head_of, permit_of, refusal, soon

GET = b"GET /a?b=c HTTP/1.1\r\nHost: app.example\r\nAccept: */*\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\n\r\nhi"


async def test_a_request_is_authorized_dialled_relayed_and_recorded_in_that_order(stage: Stage) -> None:
    await stage.says(GET)
    authorize, dial, sent = stage.happened()
    assert authorize == ("authorize", "GET", "/a")
    assert dial == ("dial", "127.0.0.1")
    first, fields, body = head_of(sent[1])
    assert first == b"GET /a?b=c HTTP/1.1"
    assert body == b""
    assert fields == {
        b"host": [b"app.example"],
        b"accept": [b"*/*"],
        b"x-forwarded-for": [b"192.0.2.7"],
        b"x-forwarded-proto": [b"https"],
        b"x-forwarded-host": [b"app.example"],
        b"zt-request-id": [b"0" * 31 + b"1"],
        b"zt-principal": [b"demo:carol"],
        b"zt-assertion": [b"e.y.J"],
    }
    await stage.answers(OK)
    assert stage.happened() == [
        ("outcome", 200, "complete"),
        ("client", b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n" + DATE + b"\r\nhi"),
    ]
    record = stage.ledger.records[0]
    assert (record.id, record.session, record.sent, record.received) == ("0" * 31 + "1", "ses_a", 2, 0)
    assert stage.paths.live == {}
    assert stage.counters.requests == [("app", 200)]


async def test_the_second_request_takes_the_same_connection_and_a_fresh_decision(stage: Stage) -> None:
    for _ in range(2):
        await stage.says(GET)
        await stage.answers(OK)
    assert len(stage.dialler.made) == 1
    assert len(stage.door.requests) == 2
    assert len(stage.upstreams) == 1


async def test_no_permit_no_byte(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(GET)
    (_, answer) = stage.happened()
    assert answer[1].startswith(b"HTTP/1.1 403 ")
    assert json.loads(head_of(answer[1])[2])["code"] == "access-denied"
    assert stage.dialler.made == []
    stage.door.answer = None
    await stage.says(GET)  # the connection is still good
    assert stage.happened()[0][0] == "authorize"


async def test_an_unknown_host_goes_through_the_same_door() -> None:
    stage = Stage(sni="other.example")
    await stage.says(GET.replace(b"app.example", b"other.example"))
    (asked, answer) = stage.happened()
    assert asked[0] == "authorize"
    assert stage.door.requests[0].resource.route is None
    assert answer[1].startswith(b"HTTP/1.1 403 ")


async def test_a_cold_decision_waits_without_reading(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.door.answer = lambda request: soon(permit_of(request, ROUTE), gate)
    await stage.says(GET)
    assert not stage.client.reading
    assert stage.happened() == [("authorize", "GET", "/a")]
    gate.set()
    await stage.turn()
    assert stage.client.reading
    await stage.answers(OK)
    assert stage.client.written.endswith(b"hi")


async def test_a_client_that_leaves_during_a_cold_decision_leaves_nothing(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.door.answer = lambda request: soon(permit_of(request, ROUTE), gate)
    await stage.says(GET)
    stage.client.lose()
    gate.set()
    await stage.turn()
    assert stage.paths.opened == 0
    assert stage.dialler.made == []
    assert stage.arrival.left
    assert len(stage.crowd) == 0
    assert len(stage.wheel) == 1  # the crowd itself


async def test_a_door_that_never_answers_is_a_refusal(stage: Stage) -> None:
    stage.door.answer = lambda request: soon(None, asyncio.Event())
    await stage.says(GET)
    await stage.later(16)
    assert stage.client.written.startswith(b"HTTP/1.1 503 ")


async def test_a_door_that_raises_ends_the_connection(stage: Stage) -> None:
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    def broken(request: object) -> None:
        raise ValueError("bug")

    stage.door.answer = broken
    await stage.says(GET)
    assert stage.client.ended == "abort"
    assert isinstance(reported[0]["exception"], ValueError)


async def test_pipelined_requests_are_served_one_after_the_other(stage: Stage) -> None:
    await stage.says(GET + GET.replace(b"/a", b"/second") + GET.replace(b"/a", b"/third")[:20])
    await stage.answers(OK)
    assert [request.context.path for request in stage.door.requests] == ["/a", "/second"]
    await stage.answers(OK)
    assert len(stage.door.requests) == 2
    await stage.says(GET.replace(b"/a", b"/third")[20:])
    assert stage.door.requests[-1].context.path == "/third"


async def test_hundreds_of_pipelined_refusals_do_not_recurse(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(GET * 3000)
    for _ in range(3100):
        await asyncio.sleep(0)
    assert stage.client.written.count(b"HTTP/1.1 403") == 3000


async def test_bytes_are_held_back_while_an_exchange_runs(stage: Stage) -> None:
    await stage.says(GET)
    await stage.says(GET)
    assert not stage.client.reading
    await stage.answers(OK)
    assert stage.client.reading
    assert len(stage.door.requests) == 2


# ---------------------------------------------------------------------- bodies


async def test_a_body_goes_with_the_head_in_one_write(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5\r\n\r\nhello")
    assert stage.upstream.take().endswith(b"\r\n\r\nhello")
    assert [event[0] for event in stage.happened()] == ["authorize", "dial", "upstream"]
    await stage.answers(OK)
    assert stage.ledger.records[0].received == 5


async def test_a_body_in_pieces(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 6\r\n\r\nab")
    await stage.says(b"cd")
    await stage.says(b"ef")
    assert stage.upstream.written.endswith(b"\r\n\r\nabcdef")
    await stage.answers(OK)
    assert stage.client.written.endswith(b"hi")
    assert len(stage.upstreams) == 1


async def test_chunks_are_framed_anew(stage: Stage) -> None:
    await stage.says(
        b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"005;x=y\r\nhello\r\n0\r\nZt-Principal: root\r\n\r\n"
    )
    assert stage.upstream.written.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert b"root" not in stage.upstream.written


async def test_a_broken_chunk_is_a_400_and_the_upstream_never_sees_an_end(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    await stage.says(b"lo!\r\n")
    assert stage.upstream.ended == "abort"
    assert b"0\r\n\r\n" not in stage.upstream.written
    assert stage.client.written.startswith(b"HTTP/1.1 400 ")
    assert stage.ledger.records[0].end == "bad-request"


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1048577\r\n\r\n")
    assert stage.dialler.made == []
    assert stage.client.written.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in stage.client.written
    assert stage.ledger.records[0].end == "body-too-large"


async def test_a_chunked_body_over_the_limit_is_stopped(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):
        await stage.says(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert stage.upstream.ended == "abort"
    assert stage.client.written.startswith(b"HTTP/1.1 413 ")


async def test_an_early_response_neither_pools_nor_keeps(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100\r\n\r\nabc")
    await stage.answers(OK)
    assert stage.upstream.ended == "abort"
    assert len(stage.upstreams) == 0
    assert b"Connection: close" in stage.client.written
    smuggled = b"GET /admin HTTP/1.1\r\nHost: app.example\r\n\r\n"
    await stage.says(smuggled + b"x" * (97 - len(smuggled)))
    await stage.says(GET)
    assert len(stage.door.requests) == 1
    assert stage.client.ended == "close"


async def test_unsent_request_bytes_make_a_connection_dirty(stage: Stage) -> None:
    await stage.says(GET)
    stage.upstream.unsent = 1
    await stage.answers(OK)
    assert len(stage.upstreams) == 0


async def test_continue_comes_after_the_permit_and_from_us(stage: Stage) -> None:
    post = b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    await stage.says(post)
    assert stage.client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert stage.happened()[0][0] == "authorize"
    assert b"expect" not in stage.upstream.written.lower()
    await stage.says(b"ab")
    await stage.answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert stage.client.take().count(b"HTTP/1.1") == 1
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(post)
    answer = stage.client.take()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"Connection: close" in answer


async def test_the_rest_of_a_small_refused_body_is_skipped(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 10\r\n\r\nabc")
    assert b"Connection: close" not in stage.client.take()
    await stage.says(b"defghij" + GET)
    assert stage.client.take().startswith(b"HTTP/1.1 403 ")
    assert [request.context.path for request in stage.door.requests] == ["/", "/a"]


async def test_the_rest_of_a_large_refused_body_ends_the_connection(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 99000000\r\n\r\nabc")
    assert b"Connection: close" in stage.client.take()
    for _ in range(256):
        await stage.says(b"x" * 65535)
    assert stage.client.ended == ""
    await stage.says(b"x" * 65535)
    assert stage.client.ended == "close"


async def test_a_refused_client_is_not_listened_to_for_long(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 99000000\r\n\r\nabc")
    await stage.later(1)
    await stage.says(b"x")
    await stage.later(1.1)
    assert stage.client.ended == "close"


# ---------------------------------------------------------------------- responses


@pytest.mark.parametrize(
    ("answer", "framing", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"content-length", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"content-length", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;q\r\nhi\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
            b"transfer-encoding",
            b"2\r\nhi\r\n0\r\n\r\n",
        ),
    ],
)
async def test_response_framing(stage: Stage, answer: bytes, framing: bytes | None, body: bytes) -> None:
    await stage.says(GET)
    await stage.answers(answer)
    _, fields, content = head_of(stage.client.take())
    assert content == body
    assert [name for name in fields if name in (b"content-length", b"transfer-encoding")] == (
        [framing] if framing else []
    )
    assert len(stage.upstreams) == 1


async def test_head_has_no_body_whatever_the_length_says(stage: Stage) -> None:
    await stage.says(GET.replace(b"GET", b"HEAD"))
    await stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    assert stage.client.take().endswith(b"Content-Length: 500\r\n" + DATE + b"\r\n")
    assert len(stage.upstreams) == 1


async def test_a_response_until_close_becomes_chunked(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\n\r\nab")
    await stage.answers(b"cd")
    stage.upstream.lose()
    await stage.turn()
    assert stage.client.take().endswith(b"chunked\r\n" + DATE + b"\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert stage.ledger.records[0].sent == 4
    assert stage.client.ended == ""


async def test_a_reset_is_no_end_of_a_response_until_close(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\n\r\nab")
    stage.upstream.lose(ConnectionResetError())
    assert stage.client.ended == "abort"
    assert not stage.client.take().endswith(b"0\r\n\r\n")


async def test_http_1_0_gets_bare_bytes_and_a_close(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.0\r\nHost: app.example\r\nConnection: keep-alive\r\n\r\n")
    await stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    assert stage.client.take() == b"HTTP/1.1 200 OK\r\n" + DATE + b"Connection: close\r\n\r\nhi"
    assert stage.client.ended == "close"


async def test_a_date_is_added_where_none_is_and_kept_where_one_is(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    assert head_of(stage.client.take())[1][b"date"] == [b"Fri, 15 Jan 2027 08:00:00 GMT"]
    await stage.later(1)
    await stage.says(GET)
    await stage.answers(OK)
    assert head_of(stage.client.take())[1][b"date"] == [b"Fri, 15 Jan 2027 08:00:01 GMT"]
    await stage.says(GET)
    await stage.answers(OK.replace(b"Server: x", b"date: yesterday"))
    assert head_of(stage.client.take())[1][b"date"] == [b"yesterday"]
    await stage.says(b"nonsense\r\n")
    assert head_of(stage.client.take())[1][b"date"] == [b"Fri, 15 Jan 2027 08:00:01 GMT"]


async def test_early_hints_pass_and_100_does_not(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert stage.client.take() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    await stage.answers(OK)
    assert stage.client.take().endswith(b"hi")


async def test_endless_interim_responses_end(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 102 Processing\r\n\r\n" * 40)
    assert stage.upstream.ended == "abort"
    assert stage.ledger.records[0].end == "upstream-invalid"


async def test_close_asked_by_the_client(stage: Stage) -> None:
    await stage.says(GET.replace(b"Accept", b"Connection: close\r\nAccept"))
    await stage.answers(OK)
    assert b"Connection: close\r\n" in stage.client.take()
    assert stage.client.ended == "close"


async def test_extra_bytes_after_a_response_never_reach_another_caller(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert b"poison" not in stage.client.take()
    assert len(stage.upstreams) == 0


async def test_bytes_on_an_idle_connection_end_it(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    assert len(stage.upstreams) == 1
    await stage.answers(b"HTTP/1.1 200 OK\r\n")
    assert len(stage.upstreams) == 0
    assert stage.upstream.ended == "abort"


@pytest.mark.parametrize("line", [b"WWW-Authenticate: NTLM", b"WWW-Authenticate: Basic, Negotiate abc="])
async def test_connection_bound_authentication_is_never_pooled(stage: Stage, line: bytes) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n" + line + b"\r\n\r\n")
    assert len(stage.upstreams) == 0
    await stage.says(GET.replace(b"Accept: */*", b"Authorization: Negotiate abc"))
    await stage.answers(OK)
    assert len(stage.upstreams) == 0


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
async def test_content_where_none_belongs_is_not_left_in_a_connection_for_another_caller(
    stage: Stage, method: bytes
) -> None:
    inner = b"GET /admin HTTP/1.1\r\nHost: app.example\r\nZt-Principal: demo:adam\r\n\r\n"
    head = b"Content-Length: %d\r\n\r\n" % len(inner)
    await stage.says(GET.replace(b"GET", method, 1)[:-2] + head + inner)
    await stage.answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert stage.client.take().startswith(b"HTTP/1.1 204 ")
    assert len(stage.upstreams) == 0
    await stage.says(GET)
    await stage.answers(OK)
    assert len(stage.upstreams) == 1


# ---------------------------------------------------------------------- failures


async def test_unreachable(stage: Stage) -> None:
    stage.dialler.refusing = True
    await stage.says(GET)
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.ledger.records[0].end == "upstream-unreachable"
    assert stage.paths.live == {}


RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", RESPONSES)
async def test_an_upstream_dying_at_any_byte(kind: str) -> None:
    whole = RESPONSES[kind]
    head = whole.index(b"\r\n\r\n") + 4
    for at in range(len(whole)):
        stage = Stage()
        await stage.says(GET)
        await stage.answers(whole[:at]) if at else None
        stage.upstream.lose()
        await stage.turn()
        if at == 0:  # not one byte: asked once more
            stage.upstream.lose()
            await stage.turn()
        got = stage.client.take()
        assert stage.paths.live == {}
        if at < head:
            assert got.startswith(b"HTTP/1.1 502 "), at
            assert stage.ledger.records[0].status == 502
        else:
            assert stage.client.ended == "abort", at
            assert stage.ledger.records[0].end == "upstream-failed"
            assert not head_of(got)[2].endswith((b"0\r\n\r\n", b"9"))


async def test_an_idle_connection_that_was_dead_is_tried_once_more_on_a_new_one(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.says(GET)
    stage.upstream.lose(ConnectionResetError())
    await stage.turn()
    assert len(stage.dialler.made) == 2
    stage.upstream.lose(ConnectionResetError())
    await stage.turn()
    assert len(stage.dialler.made) == 2
    assert stage.ledger.records[1].end == "upstream-unreachable"


async def test_a_post_is_never_sent_twice(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1\r\n\r\nx")
    stage.upstream.lose(ConnectionResetError())
    await stage.turn()
    assert len(stage.dialler.made) == 1
    assert stage.ledger.records[1].status == 502


async def test_a_post_does_not_trust_a_connection_that_was_idle_for_long(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.later(2)
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1\r\n\r\nx")
    assert len(stage.dialler.made) == 2


async def test_an_answered_request_is_never_sent_twice(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200")
    stage.upstream.lose()
    await stage.turn()
    assert len(stage.dialler.made) == 1
    assert stage.ledger.records[1].end == "upstream-invalid"


async def test_a_client_that_leaves_takes_the_upstream_along(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK[:-1])
    stage.client.lose()
    assert stage.upstream.ended == "abort"
    assert stage.ledger.records[0].end == "client-gone"
    assert stage.paths.live == {}
    assert len(stage.upstreams) == 0


async def test_a_client_that_leaves_while_dialling(stage: Stage) -> None:
    stage.dialler.gate = asyncio.Event()
    await stage.says(GET)
    stage.client.lose()
    stage.dialler.gate.set()
    await stage.turn()
    assert stage.dialler.made == []
    assert stage.ledger.records[0].end == "client-gone"


async def test_no_evidence_no_complete_response(stage: Stage) -> None:
    stage.ledger.broken = True
    await stage.says(GET)
    await stage.answers(OK)
    assert stage.client.ended == "abort"
    assert not stage.client.written.endswith(b"hi")


async def test_no_record_of_a_refusal_is_another_refusal(stage: Stage) -> None:
    stage.door.broken = True
    await stage.says(b"nonsense\r\n")
    assert stage.client.written.startswith(b"HTTP/1.1 503 ")
    assert b"audit-unavailable" in stage.client.written


# ---------------------------------------------------------------------- time


async def test_a_silent_client_is_let_go_without_a_word(stage: Stage) -> None:
    await stage.later(11)
    assert stage.client.ended == "close"
    assert stage.client.written == b""


async def test_a_slow_head_is_a_408(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.1\r\n")
    await stage.later(5)
    await stage.says(b"Host: app.example\r\n")  # more bytes buy no more time
    await stage.later(6)
    assert stage.client.written.startswith(b"HTTP/1.1 408 ")
    assert stage.client.ended == "close"


async def test_keep_alive_ends(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.later(70)
    assert stage.client.ended == ""
    await stage.later(6)
    assert stage.client.ended == "close"


async def test_a_slow_upstream_is_a_504(stage: Stage) -> None:
    await stage.says(GET)
    await stage.later(61)
    assert stage.client.take().startswith(b"HTTP/1.1 504 ")
    assert stage.upstream.ended == "abort"
    assert stage.ledger.records[0].end == "upstream-timeout"


async def test_a_stream_may_be_slow_but_not_silent(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(5):
        await stage.later(200)
        await stage.answers(b"1\r\nx\r\n")
    assert stage.client.ended == ""
    await stage.later(301)
    assert stage.client.ended == "abort"


async def test_idle_upstream_connections_are_closed(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    await stage.later(46)
    assert stage.upstream.ended == "close"
    assert len(stage.upstreams) == 0


async def test_a_closing_connection_that_can_not_flush_is_aborted(stage: Stage) -> None:
    stage.client.close = lambda: None  # type: ignore[method-assign]
    await stage.later(11)
    await stage.later(11)
    assert stage.client.ended == "abort"


async def test_retiring_waits_for_the_running_exchange(stage: Stage) -> None:
    await stage.says(GET)
    stage.connection.retire()
    assert stage.client.ended == ""
    await stage.answers(OK)
    assert b"Connection: close" in stage.client.written
    assert stage.client.ended == "close"
    idle, connection, _ = stage.connect()
    connection.retire()
    assert idle.ended == "", "a request may be on its way"
    await stage.later(1.5)
    assert idle.ended == "close"


async def test_who_was_told_that_a_connection_stays_has_a_moment_for_another_request(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK[:-1])
    stage.connection.retire()
    await stage.answers(OK[-1:])
    assert b"Connection: close" not in stage.client.take()
    assert stage.client.ended == ""
    await stage.says(GET)
    await stage.answers(OK)
    assert b"Connection: close" in stage.client.take()
    assert stage.client.ended == "close"


async def test_that_moment_is_short(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK[:-1])
    stage.connection.retire()
    await stage.answers(OK[-1:])
    await stage.later(1.1)
    assert stage.client.ended == "close"


async def test_a_retired_connection_serves_the_request_that_was_on_its_way(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK)
    stage.client.take()
    stage.connection.retire()
    await stage.says(GET)
    await stage.answers(OK)
    assert b"Connection: close" in stage.client.written
    assert stage.client.ended == "close"


# ---------------------------------------------------------------------- back-pressure


async def test_a_slow_upstream_stops_the_client(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 10\r\n\r\n")
    stage.upstream.protocol.pause_writing()
    assert not stage.client.reading
    stage.upstream.protocol.resume_writing()
    assert stage.client.reading


async def test_a_slow_client_stops_the_upstream_and_not_its_next_user(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    stage.connection.pause_writing()
    assert stage.upstream.reading  # perhaps at this very moment: see test_ends_that_come_along.py
    await stage.turn()
    assert not stage.upstream.reading
    await stage.answers(b"cd")
    assert stage.upstream.reading
    assert len(stage.upstreams) == 1


async def test_a_client_is_not_read_while_its_upstream_is_dialled(stage: Stage) -> None:
    stage.dialler.gate = asyncio.Event()
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 4\r\n\r\nab")
    assert not stage.client.reading
    await stage.says(b"cd")  # what was under way already
    stage.dialler.gate.set()
    await stage.turn()
    assert stage.client.reading
    assert stage.upstream.written.endswith(b"abcd")


# ---------------------------------------------------------------------- cutting


async def test_a_cut_ends_both_sides_in_the_same_turn(stage: Stage) -> None:
    await stage.says(GET)
    await stage.answers(OK[:-1])
    stage.paths.cut("session-ended")
    assert stage.client.ended == "abort"
    assert stage.upstream.ended == "abort"
    assert stage.ledger.records[0].end == "cut: session-ended"
    await stage.turn()
    assert stage.paths.live == {}
    assert len(stage.ledger.records) == 1


# ---------------------------------------------------------------------- what upstreams are told


async def test_no_header_of_the_client_reaches_an_identity_namespace(stage: Stage) -> None:
    hostile = (
        b"Zt-Principal: root\r\nzt_assertion: x\r\nZt.Name: x\r\nX-Forwarded-For: 1.1.1.1\r\n"
        b"x_forwarded_for: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n"
        b"X-Original-URL: /admin\r\nX-Rewrite-Url: /admin\r\nX-Client-Cert-Dn: root\r\nClient-Cert: x\r\n"
        b"Client_Cert_Chain: x\r\nX-SSL-Client-Verify: SUCCESS\r\nRemote-User: root\r\nREMOTE_USER: root\r\n"
        b"X-Remote-Group: root\r\nX-Auth-Request-Email: root\r\nTxn-Token: x\r\nTE: trailers\r\n"
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nContent_Length: 7\r\n"
        b"Transfer_Encoding: chunked\r\nX-Custom: stays\r\n"
    )
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\n" + hostile + b"\r\n")
    _, fields, _ = head_of(stage.upstream.written)
    assert sorted(fields) == [
        b"host",
        b"x-custom",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"zt-assertion",
        b"zt-principal",
        b"zt-request-id",
    ]
    assert fields[b"zt-principal"] == [b"demo:carol"]
    assert fields[b"x-forwarded-for"] == [b"192.0.2.7"]


async def test_connection_nominates_only_what_the_client_sent(stage: Stage) -> None:
    await stage.says(
        b"GET / HTTP/1.1\r\nHost: app.example\r\nCookie: a=b\r\nX-Secret-Hop: 1\r\n"
        b"Connection: x-secret-hop, cookie, host, zt-principal, x-forwarded-for, zt-request-id\r\n\r\n"
    )
    _, fields, _ = head_of(stage.upstream.written)
    assert b"x-secret-hop" not in fields
    for kept in (b"host", b"zt-principal", b"x-forwarded-for", b"zt-request-id", b"cookie"):
        assert len(fields[kept]) == 1


async def test_our_cookies_end_here_and_others_pass_untouched(stage: Stage) -> None:
    cookie = f'a=1;  b="x y"; __Host-ztproxy={HANDLE};c=;__Host-ztproxy-flow=f; __host-ztproxy=other'.encode()
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\nCookie: " + cookie + b"\r\n\r\n")
    _, fields, _ = head_of(stage.upstream.written)
    assert fields[b"cookie"] == [b'a=1;  b="x y";c=; __host-ztproxy=other']
    assert stage.door.requests[0].subject.handle == hashlib.sha256(HANDLE.encode()).hexdigest()


async def test_a_cookie_line_of_ours_alone_disappears(stage: Stage) -> None:
    await stage.says(
        b"GET / HTTP/1.1\r\nHost: app.example\r\nCookie: __Host-ztproxy=" + HANDLE.encode() + b"\r\n\r\n"
    )
    assert b"cookie" not in head_of(stage.upstream.written)[1]


async def test_two_of_our_cookies_are_a_conflict(stage: Stage) -> None:
    await stage.says(
        b"GET / HTTP/1.1\r\nHost: app.example\r\nCookie: __Host-ztproxy=a\r\nCookie: __Host-ztproxy=b\r\n\r\n"
    )
    assert b"credentials-conflict" in stage.client.written
    assert stage.client.ended == "close"
    assert stage.door.requests == []


async def test_the_portal_is_told_more_and_applications_are_not() -> None:
    stage = Stage(certificate=CERTIFICATE)
    cookie = b"Cookie: __Host-ztproxy=" + HANDLE.encode()
    await stage.says(b"GET /.ztproxy/me HTTP/1.1\r\nHost: app.example:8443\r\n" + cookie + b"\r\n\r\n")
    _, fields, _ = head_of(stage.upstream.written)
    assert fields[b"cookie"] == [cookie[8:]]
    assert fields[b"zt-client-ip"] == [b"192.0.2.7"]
    assert fields[b"zt-host"] == [b"app.example:8443"]
    encoded = fields[b"zt-certificate"][0]
    decoded = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    assert msgspec.json.decode(decoded, type=type(CERTIFICATE)) == CERTIFICATE
    assert b"zt-principal" not in fields
    await stage.answers(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: __Host-ztproxy=new; Secure\r\n\r\n"
    )
    assert b"Set-Cookie: __Host-ztproxy=new" in stage.client.take()
    await stage.says(GET)
    assert b"zt-certificate" not in head_of(stage.upstream.written)[1]


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: __Host-ztproxy=evil",
        b"set-cookie:   __hOST-ZTPROXY=evil; Path=/",
        b"SET-COOKIE: =__Host-ztproxy=evil",
        b"Set-Cookie: __Host-ztproxy",
        b"Set-Cookie: __Secure-ztproxy=evil; Domain=example",
        b"Set-Cookie: __Host-__Host-ztproxy=evil",
        b"Set-Cookie: ztproxy=evil",
        b'Set-Cookie: "__Host-ztproxy"=evil',
        b"Set-Cookie: __Host-ztproxy-flow=evil",
        b"Zt-Request-Id: evil",
        b"Zt_Anything: evil",
        b'Alt-Svc: h3="evil:443"',
        b"Keep-Alive: evil",
        b"Connection: x-evil\r\nX-Evil: 1",
    ],
)
async def test_no_application_sets_our_cookies_or_leads_around_us(stage: Stage, line: bytes) -> None:
    await stage.says(GET)
    await stage.answers(
        b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 0\r\nSet-Cookie: a=ztproxy\r\n\r\n"
    )
    got = stage.client.take()
    assert b"evil" not in got.lower()
    assert b"__Host-ztproxy" not in got
    assert b"Set-Cookie: a=ztproxy\r\n" in got


async def test_host_header_of_the_route() -> None:
    upstream = msgspec.structs.replace(ROUTE.upstream, host_header="inside.example")
    stage = Stage(ROUTE.replaced(upstream=upstream))
    await stage.says(GET)
    _, fields, _ = head_of(stage.upstream.written)
    assert fields[b"host"] == [b"inside.example"]
    assert fields[b"x-forwarded-host"] == [HOST.encode()]


# ---------------------------------------------------------------------- before policy


async def test_host_other_than_the_server_name_is_misdirected() -> None:
    stage = Stage(sni="other.example")
    await stage.says(GET)
    assert stage.happened()[0] == ("refuse", "misdirected")
    assert stage.client.written.startswith(b"HTTP/1.1 421 ")


async def test_a_required_certificate_is_required_per_request() -> None:
    route = ROUTE.replaced(client_certificate="required")
    stage = Stage(route)
    await stage.says(GET)
    assert stage.happened()[0] == ("refuse", "client-certificate-required")
    stage = Stage(route, certificate=CERTIFICATE)
    await stage.says(GET)
    assert stage.door.requests[0].subject.certificate == CERTIFICATE


async def test_a_navigation_is_sent_to_sign_in_and_a_program_is_told(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("login-required")
    await stage.says(GET.replace(b"*/*", b"text/html"))
    assert stage.client.take().startswith(b"HTTP/1.1 303 ")
    await stage.says(GET.replace(b"*/*", b"text/html\r\nSec-Fetch-Mode: cors"))
    assert stage.client.take().startswith(b"HTTP/1.1 401 ")
    await stage.says(GET.replace(b"*/*", b"*/*\r\nSec-Fetch-Mode: navigate"))
    assert stage.client.take().startswith(b"HTTP/1.1 303 ")
    await stage.says(
        b"POST / HTTP/1.1\r\nHost: app.example\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert stage.client.take().startswith(b"HTTP/1.1 401 ")


async def test_answers_that_nobody_takes_hold_back_further_requests(stage: Stage) -> None:
    stage.door.answer = lambda request: refusal("access-denied")
    stage.connection.pause_writing()
    await stage.says(GET * 100)
    assert stage.client.written.count(b"HTTP/1.1 403") == 1
    assert not stage.client.reading
    stage.connection.resume_writing()
    for _ in range(120):
        await stage.turn()
    assert stage.client.written.count(b"HTTP/1.1 403") == 100
    assert stage.client.reading


async def test_a_client_that_is_full_already_pauses_its_next_upstream(stage: Stage) -> None:
    stage.dialler.gate = asyncio.Event()
    await stage.says(GET)
    stage.connection.pause_writing()
    stage.dialler.gate.set()
    await stage.turn()
    assert not stage.upstream.reading
    stage.connection.resume_writing()
    assert stage.upstream.reading


async def test_a_request_leaves_nothing_for_the_collector(stage: Stage) -> None:
    for _ in range(3):
        await stage.says(GET)
        await stage.answers(OK)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            stage.connection.data_received(GET)
            stage.outbox.flush()
            stage.upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
            stage.events.clear()
            stage.door.requests.clear()
            stage.ledger.records.clear()
            stage.counters.requests.clear()
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()

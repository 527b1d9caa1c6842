"""Slow senders, slow readers, old and idle connections: nobody holds more than their share for long."""

from dataclasses import replace

import pytest
from gateway_fakes import ROUTE, Stage

from ztproxy.gateway.limits import Limits
from ztproxy.net.sources import Bounds

GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BEGINNING = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nsome"


def with_limits(stage: Stage, **limits: float) -> None:
    stage.crowd.limits = replace(Limits(), **limits)


# ------------------------------------------------------------------ bodies


async def test_a_body_that_trickles_is_given_up(stage: Stage) -> None:
    await stage.says(POST)
    for _ in range(29):  # each byte would reset the application's patience
        await stage.later(1.0)
        await stage.says(b"x")
    assert stage.client.take() == b""
    await stage.later(1.5)
    answer = stage.client.take()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert stage.upstream.ended == "abort"
    record = stage.ledger.records[0]
    assert (record.status, record.end, record.detail) == (408, "request-timeout", "slow-body")
    assert stage.crowd.slow == 1


async def test_a_body_at_the_least_rate_may_take_its_time(stage: Stage) -> None:
    await stage.says(POST)
    for _ in range(120):
        await stage.later(1.0)
        await stage.says(b"x" * 300)
    assert stage.client.take() == b""
    assert stage.crowd.slow == 0


async def test_chunk_extensions_are_no_progress(stage: Stage) -> None:
    await stage.says(b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(31):
        await stage.later(1.0)
        await stage.says(b"1;" + b"e" * 400 + b"\r\nx\r\n")
    await stage.later(1.0)
    assert stage.client.take().startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_the_application_does_not_take_is_not_late(stage: Stage) -> None:
    await stage.says(POST + b"x")
    stage.upstream.protocol.pause_writing()  # type: ignore[attr-defined]
    assert not stage.client.reading
    await stage.later(31.0)
    await stage.later(10.0)
    assert stage.crowd.slow == 0
    stage.upstream.protocol.resume_writing()  # type: ignore[attr-defined]
    await stage.later(15.0)  # a new look begins when it is read again
    assert stage.crowd.slow == 0
    await stage.later(16.0)
    assert stage.crowd.slow == 1


async def test_an_application_is_not_late_while_it_waits_for_the_rest_of_a_body() -> None:
    stage = Stage(ROUTE.replaced(response_timeout=5.0))
    await stage.says(POST + b"x")
    await stage.later(20.0)
    await stage.says(b"x" * 99_999)
    await stage.later(4.0)
    assert stage.client.take() == b""
    await stage.later(2.0)  # now it has everything
    assert stage.client.take().startswith(b"HTTP/1.1 504 ")


async def test_it_is_when_it_does_not_take_the_body() -> None:
    stage = Stage(ROUTE.replaced(response_timeout=5.0))
    await stage.says(POST + b"x")
    stage.upstream.protocol.pause_writing()  # type: ignore[attr-defined]
    await stage.later(6.0)
    assert stage.client.take().startswith(b"HTTP/1.1 504 ")


async def test_a_complete_body_is_not_watched(stage: Stage) -> None:
    await stage.says(POST)
    await stage.says(b"x" * 100000)
    await stage.later(35.0)
    assert stage.crowd.slow == 0
    await stage.answers(OK)
    assert stage.client.take().startswith(b"HTTP/1.1 200 ")


async def test_a_late_body_after_the_answer_began_breaks_it(stage: Stage) -> None:
    await stage.says(POST + b"x")
    await stage.answers(BEGINNING)
    await stage.later(31.0)
    assert stage.client.ended == "abort"
    assert stage.ledger.records[0].end == "request-timeout"


# ------------------------------------------------------------------ clients that do not read


async def behind(stage: Stage, unsent: int = 70_000) -> None:
    await stage.says(GET)
    await stage.answers(BEGINNING)
    stage.client.unsent = unsent
    stage.connection.pause_writing()
    await stage.turn()


async def test_a_client_that_takes_nothing_is_given_up(stage: Stage) -> None:
    await behind(stage)
    assert not stage.upstream.reading
    await stage.later(29.0)
    assert not stage.client.ended
    await stage.later(2.0)
    assert (stage.client.ended, stage.upstream.ended) == ("abort", "abort")
    assert stage.ledger.records[0].end == "cut: client-too-slow"
    assert stage.paths.live == {}


async def test_a_client_that_takes_a_little_is_waited_for(stage: Stage) -> None:
    await behind(stage)
    for _ in range(4):
        stage.client.unsent -= 8000
        await stage.later(30.0)
    assert not stage.client.ended


async def test_a_client_that_has_caught_up_is_not_watched(stage: Stage) -> None:
    await behind(stage)
    stage.connection.resume_writing()
    await stage.later(60.0)
    assert not stage.client.ended
    assert stage.crowd.slow == 0


async def test_answers_that_nobody_takes_are_bounded_all_together(stage: Stage) -> None:
    with_limits(stage, buffers=200_000)
    clients = []
    for unsent in (50_000, 90_000, 70_000):
        await behind(stage, unsent)
        clients.append(stage.client)
        stage.client, stage.connection, _ = stage.connect()
    await stage.later(1.0)
    assert [client.ended for client in clients] == ["", "abort", ""]


# ------------------------------------------------------------------ the last bytes


def keep_open(stage: Stage) -> None:
    """Let nothing be taken that was written before the connection closed."""
    stage.client.close = lambda: None  # type: ignore[method-assign]
    stage.client.unsent = 70_000


async def test_who_still_takes_the_last_bytes_of_a_closing_connection_gets_them(stage: Stage) -> None:
    keep_open(stage)
    await stage.says(GET[:-2] + b"Connection: close\r\n\r\n")
    await stage.answers(OK)
    for _ in range(8):
        stage.client.unsent -= 8000
        await stage.later(10.1)
    assert not stage.client.ended
    await stage.later(10.1)
    assert stage.client.ended == "abort"
    assert stage.crowd.slow == 0  # all was taken, as far as anybody can tell
    await stage.turn()
    assert not stage.crowd._closing.watched


async def test_who_takes_next_to_nothing_of_them_does_not(stage: Stage) -> None:
    keep_open(stage)
    await stage.says(GET[:-2] + b"Connection: close\r\n\r\n")
    await stage.answers(OK)
    stage.client.unsent -= 2000
    await stage.later(10.1)
    assert stage.client.ended == "abort"


async def test_an_early_answer_is_not_cut_off_with_the_body_that_nobody_wants(stage: Stage) -> None:
    keep_open(stage)
    await stage.says(POST + b"some")
    await stage.answers(OK)
    stage.connection.pause_writing()
    for _ in range(8):
        stage.client.unsent -= 8000
        await stage.later(10.1)
        await stage.says(b"more")
    assert not stage.client.ended


async def test_an_upstream_is_not_late_while_its_answer_is_taken(stage: Stage) -> None:
    await behind(stage, 120_000)
    for _ in range(12):
        stage.client.unsent -= 8000
        await stage.later(30.0)
    assert not stage.client.ended
    stage.connection.resume_writing()
    await stage.later(301.0)
    assert stage.ledger.records[0].end == "upstream-timeout"


# ------------------------------------------------------------------ age


async def test_old_connections_take_no_further_request(stage: Stage) -> None:
    with_limits(stage, connection_age=50.0)
    await stage.says(GET)
    await stage.answers(OK)
    stage.client.take()
    await stage.later(40.0)
    await stage.says(GET)
    await stage.later(11.0)
    assert not stage.client.ended  # what is under way is finished
    await stage.answers(OK)
    assert b"Connection: close" in stage.client.take()
    assert stage.client.ended == "close"


async def test_an_old_idle_connection_is_closed(stage: Stage) -> None:
    with_limits(stage, connection_age=50.0)
    await stage.says(GET)
    await stage.answers(OK)
    await stage.later(51.0)
    await stage.later(1.5)  # a request may have been on its way
    assert stage.client.ended == "close"


# ------------------------------------------------------------------ pressure


async def test_when_places_run_short_those_who_have_most_give_back_idle_ones(stage: Stage) -> None:
    stage.sources.bind(Bounds(connections=20), 0.0)
    attackers = [stage.connect("198.51.100.1")[0] for _ in range(12)]
    honest = [stage.connect(f"203.0.113.{number}")[0] for number in range(7)]
    assert stage.sources.connections == 20
    await stage.later(1.0)
    assert [client.ended for client in attackers].count("abort") == 2
    assert {client.ended for client in [*honest, stage.client]} == {""}
    assert stage.crowd.pressed == 2
    assert stage.sources.connections == 18
    await stage.later(1.0)
    assert stage.crowd.pressed == 2


async def test_who_puts_off_leaving_costs_nobody_else_a_place(stage: Stage) -> None:
    """A client can leave our end of the connection unanswered for seconds: it is still here, and counted."""
    slow = [stage.connect("198.51.100.1") for _ in range(2)]
    for client, connection, _ in slow:
        connection.data_received(b"GET / HT")
        client.close = lambda: None  # type: ignore[method-assign]
    honest = [stage.connect(f"203.0.113.{number}")[0] for number in range(7)]
    await stage.later(3.0)
    stage.sources.bind(Bounds(connections=10), 0.0)
    for _ in range(6):
        await stage.later(1.0)
    assert stage.sources.connections == 10
    assert {client.ended for client in honest} == {""}
    assert stage.crowd.pressed == 2


async def test_without_pressure_everybody_stays(stage: Stage) -> None:
    clients = [stage.connect()[0] for _ in range(10)]
    await stage.later(1.0)
    assert {client.ended for client in clients} == {""}


async def test_under_pressure_a_slow_head_has_less_time_and_work_goes_on(stage: Stage) -> None:
    stage.sources.bind(Bounds(connections=10), 0.0)
    await stage.says(GET)  # at work
    slow = [stage.connect(f"198.51.100.{number}") for number in range(9)]
    for _, connection, _ in slow:
        connection.data_received(b"GET / HT")
    await stage.later(1.0)
    assert {client.ended for client, *_ in slow} == {""}
    await stage.later(2.0)
    assert {client.ended for client, *_ in slow} == {"close"}
    assert all(client.written.startswith(b"HTTP/1.1 408 ") for client, *_ in slow)
    await stage.answers(OK)
    assert stage.client.take().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begin", [b"", b"GET / HT", GET, POST])
async def test_whoever_leaves_is_forgotten(stage: Stage, begin: bytes) -> None:
    if begin:
        await stage.says(begin)
    stage.connection.pause_writing()
    stage.client.lose()
    assert len(stage.crowd) == 0
    assert stage.crowd._young == stage.crowd._bodies.watched == stage.crowd._takers.watched == {}
    await stage.later(100.0)
    assert stage.crowd.slow == 0

"""Upgrades to other protocols than WebSocket: only those a route names, bytes both ways, accounted for."""

import pytest
from gateway_fakes import HANDLE, ROUTE, Stage, head_of

TCP = ROUTE.replaced(upgrades=frozenset({"websocket", "tcp", "spdy/3.1"}))
COOKIE = b"Cookie: __Host-ztproxy=" + HANDLE.encode() + b"\r\n"


def asked(protocol: bytes = b"tcp", lines: bytes = b"", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    head = b"POST /attach HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: " + protocol
    return head + b"\r\n" + length + lines + b"\r\n" + body


def switch(protocol: bytes = b"tcp") -> bytes:
    return b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"


@pytest.fixture
async def open_stage() -> Stage:
    stage = Stage(TCP)
    await stage.says(asked())
    await stage.answers(switch())
    stage.client.take()
    stage.upstream.take()
    return stage


@pytest.mark.parametrize("protocol", [b"tcp", b"TCP", b"SPDY/3.1"])
async def test_a_named_protocol_is_asked_for_permitted_and_piped(protocol: bytes) -> None:
    stage = Stage(TCP)
    await stage.says(asked(protocol))
    assert stage.door.requests[0].context.protocol == protocol.decode().lower()
    _, fields, _ = head_of(stage.upstream.take())
    assert (fields[b"connection"], fields[b"upgrade"]) == ([b"Upgrade"], [protocol])
    await stage.answers(switch(protocol) + b"\x00raw")
    first, fields, body = head_of(stage.client.take())
    assert first == b"HTTP/1.1 101 Switching Protocols"
    assert (fields[b"upgrade"], body) == ([protocol], b"\x00raw")
    await stage.says(b"GET / HTTP/1.1\r\n\r\n")  # no request any more
    assert stage.upstream.take() == b"GET / HTTP/1.1\r\n\r\n"
    assert len(stage.door.requests) == 1
    stage.upstream.lose()
    await stage.turn()
    record = stage.ledger.records[0]
    assert (record.status, record.end, record.received, record.sent) == (101, "complete", 18, 4)
    assert stage.client.ended == "close"
    assert len(stage.upstreams) == 0


async def test_a_body_goes_first() -> None:
    stage = Stage(TCP)
    await stage.says(asked(body=b'{"Tty":true}') + b"early")
    assert stage.upstream.take().endswith(b'\r\n\r\n{"Tty":true}')
    await stage.answers(switch())
    assert stage.upstream.take() == b"early"


async def test_no_switch_before_the_request_is_complete() -> None:
    stage = Stage(TCP)
    await stage.says(asked(body=b"12345")[:-2])
    await stage.answers(switch())
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.ledger.records[0].detail == "upgrade-mismatch"


@pytest.mark.parametrize("protocol", [b"h2c", b"tcp, h2c", b"h2c, tcp", b"tcp/2", b"websocket, tcp", b"xtcp"])
async def test_what_the_route_does_not_name_is_passed_over(protocol: bytes) -> None:
    stage = Stage(TCP)
    await stage.says(asked(protocol, b"HTTP2-Settings: AAMAAABk\r\n"))
    _, fields, _ = head_of(stage.upstream.take())
    assert not {b"upgrade", b"connection", b"http2-settings"} & set(fields)
    assert stage.door.requests[0].context.protocol == "http"
    await stage.answers(switch(protocol))
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.ledger.records[0].detail == "unasked-upgrade"


async def test_upgrade_without_its_nomination_is_no_upgrade() -> None:
    stage = Stage(TCP)
    await stage.says(asked().replace(b"Connection: Upgrade", b"Connection: keep-alive"))
    assert b"upgrade" not in head_of(stage.upstream.take())[1]


@pytest.mark.parametrize("answer", [switch(b"spdy/3.1"), switch(b"websocket"), switch()[:-2].replace(b"Connection: Upgrade\r\n", b"") + b"\r\n"])  # fmt: skip  # noqa: E501
async def test_another_protocol_than_was_asked_for_is_a_502(answer: bytes) -> None:
    stage = Stage(TCP)
    await stage.says(asked())
    await stage.answers(answer)
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.upstream.ended == "abort"


async def test_a_page_of_another_site_gets_none() -> None:
    stage = Stage(TCP)
    await stage.says(asked(lines=COOKIE + b"Origin: https://evil.example\r\n"))
    assert stage.happened()[0] == ("refuse", "origin-not-allowed")


async def test_an_upstream_that_refuses_answers_and_ends_the_connection() -> None:
    stage = Stage(TCP)
    await stage.says(asked() + b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await stage.answers(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert stage.client.ended == "close"
    assert len(stage.door.requests) == 1


async def test_a_cut_ends_both_sides_without_a_byte(open_stage: Stage) -> None:
    stage = open_stage
    stage.paths.cut("session-ended")
    assert (stage.client.take(), stage.client.ended, stage.upstream.ended) == (b"", "abort", "abort")
    assert stage.ledger.records[0].end == "cut: session-ended"


async def test_idle(open_stage: Stage) -> None:
    stage = open_stage
    await stage.later(200)
    await stage.says(b"x")
    await stage.later(200)
    assert stage.client.ended == ""
    await stage.later(101)
    assert stage.ledger.records[0].end == "idle"


async def test_a_reset_is_a_failure(open_stage: Stage) -> None:
    stage = open_stage
    stage.upstream.lose(ConnectionResetError())
    await stage.turn()
    assert stage.ledger.records[0].end == "upstream-failed"
    assert stage.client.ended == "abort"

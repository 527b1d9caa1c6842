"""WebSockets through the gateway by script: handshake, bytes both ways, and ends a browser understands."""

import msgspec
import pytest
from gateway_fakes import CERTIFICATE, HANDLE, ROUTE, Stage, head_of, refusal

from ztproxy.wire.websocket import accept_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: app.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + KEY
    + b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    b"%s\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + accept_of(KEY) + b"\r\n\r\n"
)
COOKIE = b"Cookie: __Host-ztproxy=" + HANDLE.encode() + b"\r\n"
HELLO = b"\x81\x05hello"


@pytest.fixture
async def open_stage(stage: Stage) -> Stage:
    await stage.says(HANDSHAKE % b"")
    await stage.answers(SWITCH)
    stage.client.take()
    stage.upstream.take()
    return stage


async def test_handshake_and_bytes_both_ways(stage: Stage) -> None:
    await stage.says(HANDSHAKE % b"")
    assert stage.door.requests[0].context.protocol == "websocket"
    _, fields, _ = head_of(stage.upstream.take())
    assert fields[b"connection"] == [b"Upgrade"]
    assert fields[b"upgrade"] == [b"websocket"]
    assert fields[b"sec-websocket-key"] == [KEY]
    await stage.answers(SWITCH + HELLO)
    first, fields, body = head_of(stage.client.take())
    assert first == b"HTTP/1.1 101 Switching Protocols"
    assert (fields[b"connection"], fields[b"upgrade"], body) == ([b"Upgrade"], [b"websocket"], HELLO)
    await stage.says(b"\x81\x85maskxxxxx")
    assert stage.upstream.take() == b"\x81\x85maskxxxxx"
    assert stage.ledger.records == []
    assert len(stage.paths.live) == 1


async def test_a_cut_says_why_and_closes_both_sides_at_once(open_stage: Stage) -> None:
    stage = open_stage
    await stage.answers(HELLO)
    stage.client.take()
    stage.happened()
    stage.paths.cut("device-posture-unhealthy")
    reason = b"device-posture-unhealthy"
    assert stage.client.take() == bytes((0x88, 2 + len(reason))) + (1008).to_bytes(2, "big") + reason
    assert stage.client.ended == "close"
    assert stage.upstream.ended == "abort"
    assert stage.happened()[1] == ("outcome", 101, "cut: device-posture-unhealthy")
    await stage.turn()
    assert len(stage.ledger.records) == 1
    assert len(stage.upstreams) == 0


@pytest.mark.parametrize(
    "partial", [HELLO[:1], HELLO[:4], b"\x82\x7e\x01", b"\x82\x7f" + bytes(7) + b"\x09abc"]
)
async def test_a_cut_inside_a_frame_just_closes(open_stage: Stage, partial: bytes) -> None:
    stage = open_stage
    await stage.answers(partial)
    stage.client.take()
    stage.paths.cut("session-ended")
    assert stage.client.take() == b""
    assert stage.client.ended == "abort"


async def test_a_cut_does_not_wait_for_a_client_that_does_not_read(open_stage: Stage) -> None:
    stage = open_stage
    stage.connection.pause_writing()
    await stage.turn()
    assert not stage.upstream.reading
    stage.paths.cut("session-ended")
    assert stage.client.ended == "abort"


async def test_ends(open_stage: Stage) -> None:
    stage = open_stage
    await stage.answers(b"\x88\x02\x03\xe8")
    stage.upstream.lose()
    await stage.turn()
    assert stage.ledger.records[0].end == "complete"
    assert stage.client.ended == "close"


async def test_an_upstream_that_vanishes_is_a_failure(open_stage: Stage) -> None:
    stage = open_stage
    stage.upstream.lose(ConnectionResetError())
    await stage.turn()
    assert stage.ledger.records[0].end == "upstream-failed"
    assert (stage.client.take(), stage.client.ended) == (b"", "close")  # a close frame would be our invention


async def test_an_upstream_that_closes_without_a_word_is_passed_on_as_such(open_stage: Stage) -> None:
    stage = open_stage
    await stage.answers(HELLO)
    stage.upstream.lose()
    await stage.turn()
    assert stage.ledger.records[0].end == "upstream-failed"
    assert (stage.client.take(), stage.client.ended) == (HELLO, "close")


async def test_a_client_that_vanishes(open_stage: Stage) -> None:
    stage = open_stage
    await stage.says(b"\x81\x80mask")
    stage.client.lose()
    assert stage.upstream.ended == "close"  # what was sent still goes out
    record = stage.ledger.records[0]
    assert (record.end, record.received, record.sent) == ("client-gone", 6, 0)


async def test_idle(open_stage: Stage) -> None:
    stage = open_stage
    await stage.later(200)
    await stage.says(b"\x89\x80mask")
    await stage.later(200)
    assert stage.client.ended == ""
    await stage.later(101)
    assert stage.ledger.records[0].end == "idle"
    assert stage.client.ended == "close"


async def test_what_is_still_taken_is_not_idle(open_stage: Stage) -> None:
    stage = open_stage
    stage.client.unsent = 120_000
    stage.connection.pause_writing()
    for _ in range(12):
        stage.client.unsent -= 8000
        await stage.later(30)
    assert stage.client.ended == ""
    stage.connection.resume_writing()
    await stage.later(301)
    assert stage.ledger.records[0].end == "idle"


async def test_frames_sent_before_the_answer_wait_for_it(stage: Stage) -> None:
    await stage.says(HANDSHAKE % b"" + b"\x81\x80mask")
    await stage.says(b"\x89\x80mask")
    assert b"mask" not in stage.upstream.written
    await stage.answers(SWITCH)
    assert stage.upstream.written.endswith(b"\x81\x80mask\x89\x80mask")
    assert stage.client.reading


@pytest.mark.parametrize("who", ["policy", "a dead upstream"])
async def test_what_follows_a_handshake_that_fails_is_no_request(stage: Stage, who: str) -> None:
    """It may be said in the other protocol, and somebody else may have chosen its bytes."""
    if who == "policy":
        stage.door.answer = lambda request: refusal("login-required")
    else:
        stage.dialler.refusing = True
    await stage.says(HANDSHAKE % b"" + b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n")
    assert b"Connection: close" in stage.client.take()
    assert stage.client.ended == "close"
    assert len(stage.door.requests) == 1


async def test_a_refused_handshake_is_an_ordinary_response_and_the_end(stage: Stage) -> None:
    await stage.says(HANDSHAKE % b"" + b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await stage.answers(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert stage.client.take().endswith(b"no")
    assert stage.client.ended == "close"
    assert len(stage.door.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(accept_of(KEY), accept_of(b"x")),
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
    ],
)
async def test_a_false_switch_is_a_502(stage: Stage, answer: bytes) -> None:
    await stage.says(HANDSHAKE % b"")
    await stage.answers(answer)
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")
    assert stage.upstream.ended == "abort"
    assert stage.ledger.records[0].end == "upstream-invalid"


async def test_a_switch_nobody_asked_for_is_a_502(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await stage.answers(SWITCH)
    assert stage.client.take().startswith(b"HTTP/1.1 502 ")


# ---------------------------------------------------------------------- who may open one


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (b"", ""),
        (b"Origin: https://evil.example\r\n", ""),  # without our cookie it carries no authority of ours
        (COOKIE + b"Origin: https://app.example\r\n", ""),
        (COOKIE + b"Origin: https://partner.example:444\r\n", ""),
        (COOKIE, "origin-not-allowed"),
        (COOKIE + b"Origin: null\r\n", "origin-not-allowed"),
        (COOKIE + b"Origin: http://app.example\r\n", "origin-not-allowed"),
        (COOKIE + b"Origin: https://app.example:8443\r\n", "origin-not-allowed"),
        (COOKIE + b"Origin: https://evil.example\r\n", "origin-not-allowed"),
        (COOKIE + b"Origin: https://app.example.evil.example\r\n", "origin-not-allowed"),
        (COOKIE + b"Origin: https://app.example\r\nOrigin: https://evil.example\r\n", "bad-request"),
    ],
)
async def test_origin(lines: bytes, code: str) -> None:
    stage = Stage(ROUTE.replaced(origins=frozenset({"https://partner.example:444"})))
    await stage.says(HANDSHAKE % lines)
    assert [event[1] for event in stage.happened() if event[0] == "refuse"] == ([code] if code else [])


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (b"", ""),  # a program
        (b"Origin: https://app.example\r\n", ""),
        (b"Origin: https://evil.example\r\n", "origin-not-allowed"),
        (b"Origin: null\r\n", "origin-not-allowed"),
    ],
)
async def test_origin_with_a_certificate_that_browsers_show_from_any_page(lines: bytes, code: str) -> None:
    stage = Stage(certificate=msgspec.structs.replace(CERTIFICATE, kind="workload"))
    await stage.says(HANDSHAKE % lines)
    assert [event[1] for event in stage.happened() if event[0] == "refuse"] == ([code] if code else [])


async def test_own_origin_has_the_port_the_browser_used(stage: Stage) -> None:
    handshake = HANDSHAKE % (COOKIE + b"Origin: https://app.example:8443\r\n")
    await stage.says(handshake.replace(b"Host: app.example", b"Host: app.example:8443"))
    assert stage.happened()[0][0] == "authorize"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Version: 13", b"Version: 8"),
        (b"Sec-WebSocket-Version: 13\r\n", b""),
        (KEY, b"c2hvcnQ="),
        (KEY, b"%%%"),
        (b"GET", b"POST"),
        (b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\nContent-Length: 3\r\n"),
    ],
)
async def test_a_malformed_handshake_is_a_400(stage: Stage, old: bytes, new: bytes) -> None:
    await stage.says((HANDSHAKE % b"").replace(old, new))
    assert stage.happened()[0] == ("refuse", "bad-request")
    assert stage.dialler.made == []


async def test_a_route_without_websockets() -> None:
    stage = Stage(ROUTE.replaced(upgrades=frozenset()))
    await stage.says(HANDSHAKE % b"")
    assert stage.happened()[0] == ("refuse", "upgrade-not-allowed")


async def test_other_upgrades_are_ignored(stage: Stage) -> None:
    await stage.says(
        b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    _, fields, _ = head_of(stage.upstream.written)
    assert not {b"upgrade", b"connection", b"http2-settings"} & set(fields)
    assert stage.door.requests[0].context.protocol == "http"

"""WebSocket frame boundaries and closing frames, with wsproto as the other end."""

import wsproto.frame_protocol as wf
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.wire.websocket import FrameTracker, accept_of, close_frame

sizes = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536])


def frame(size: int, masked: bool, opcode: int = 2) -> bytes:
    head = bytes([0x80 | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + b"x" * size


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sizes, st.booleans()), max_size=4), st.lists(st.integers(0, 200_000), max_size=6))
def test_boundaries(frames: list[tuple[int, bool]], places: list[int]) -> None:
    ends, data = {0}, b""
    for size, masked in frames:
        data += frame(size, masked)
        ends.add(len(data))
    tracker = FrameTracker()
    stops = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    at = 0
    for stop in stops:
        tracker.feed(data[at:stop])
        at = stop
        assert tracker.at_boundary == (stop in ends)


def test_byte_by_byte() -> None:
    data = frame(3, False) + frame(200, True) + frame(2, False, opcode=8)
    tracker = FrameTracker()
    boundaries = 0
    for i in range(len(data)):
        assert not tracker.closing or i > len(data) - 4
        tracker.feed(data[i : i + 1])
        boundaries += tracker.at_boundary
    assert boundaries == 3
    assert tracker.closing


def test_an_impossible_length_is_never_a_boundary() -> None:
    tracker = FrameTracker()
    tracker.feed(b"\x82\x7f" + b"\xff" * 8)
    tracker.feed(b"x" * 100)
    assert not tracker.at_boundary


@given(st.text(max_size=200))
def test_close_frames_are_read_by_others(reason: str) -> None:
    if any(0xD800 <= ord(c) < 0xE000 for c in reason):
        return
    protocol = wf.FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(close_frame(1008, reason))
    (event,) = protocol.received_frames()
    assert event.opcode is wf.Opcode.CLOSE
    code, text = event.payload
    assert code == 1008
    assert reason.startswith(text or "")
    assert len((text or "").encode()) <= 123


def test_the_example_of_the_rfc() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

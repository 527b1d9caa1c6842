"""Frames of a connection that is to carry: strict, bounded, and the same however the bytes arrive."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.wire.carrying import (
    LONGEST,
    OF_CONNECTOR,
    OF_GATEWAY,
    BadFrame,
    Frame,
    FrameReader,
    Open,
    Opened,
    Refused,
    Status,
    Wanted,
    written,
)

SAID_BY_CONNECTORS = st.one_of(
    st.builds(
        Status,
        version=st.from_regex(r"\A[0-9A-Za-z.+-]{1,64}\Z"),
        carrying=st.integers(0, 1 << 20),
        draining=st.booleans(),
    ),
    st.builds(Opened),
    st.builds(Refused, st.sampled_from(["not-allowed", "unreachable", "draining", "busy"])),
)
SAID_BY_GATEWAYS = st.one_of(
    st.builds(
        Wanted,
        node=st.from_regex(r"\A[0-9A-Za-z._:-]{1,64}\Z"),
        worker=st.integers(0, 255),
        workers=st.integers(1, 256),
        ready=st.integers(0, 64),
    ),
    st.builds(
        Open,
        scheme=st.sampled_from(["http", "https", "unix"]),
        host=st.text(st.characters(max_codepoint=0x7F, min_codepoint=0x21), min_size=1, max_size=150),
        port=st.integers(0, 65535),
    ),
)


def frames(pieces: list[bytes], said: tuple[type[Frame], ...]) -> list[Frame]:
    """Read all frames, and demand that nothing is left."""
    reader, found = FrameReader(said), []
    for piece in pieces:
        while (one := reader.feed(piece)) is not None:
            frame, piece = one
            found.append(frame)
            if not piece:
                break
    assert reader.feed(b"") is None
    return found


@pytest.mark.parametrize(("said", "of"), [(OF_CONNECTOR, SAID_BY_CONNECTORS), (OF_GATEWAY, SAID_BY_GATEWAYS)])
def test_whole_byte_by_byte_and_in_other_pieces_are_the_same(
    said: tuple[type[Frame], ...], of: st.SearchStrategy[Frame]
) -> None:
    @given(st.lists(of, max_size=5), st.data())
    def check(sent: list[Frame], data: st.DataObject) -> None:
        stream = b"".join(map(written, sent))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert frames([stream], said) == sent
        assert frames([bytes((byte,)) for byte in stream], said) == sent
        assert frames(pieces, said) == sent

    check()


def test_what_follows_is_given_back() -> None:
    reader = FrameReader(OF_CONNECTOR)
    assert reader.feed(written(Opened()) + b"HTTP/1.1 200 OK") == (Opened(), b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("other", [Wanted("n", 0, 1, 1), Open("http", "127.0.0.1", 80)])
def test_a_connector_says_nothing_that_is_the_gateways(other: Frame) -> None:
    with pytest.raises(BadFrame):
        FrameReader(OF_CONNECTOR).feed(written(other)[:1])


@pytest.mark.parametrize("other", [Status("1"), Opened(), Refused("busy")])
def test_a_gateway_says_nothing_that_is_a_connectors(other: Frame) -> None:
    with pytest.raises(BadFrame):
        FrameReader(OF_GATEWAY).feed(written(other)[:1])


def raw(kind: int, content: bytes) -> bytes:
    return struct.pack(">BH", kind, len(content)) + content


HOSTILE = {
    "kind zero": raw(0, b"{}"),
    "kind of nobody": raw(6, b"{}"),
    "tls instead": bytes.fromhex("1603010200"),
    "http instead": b"GET / HTTP/1.1\r\n\r\n",
    "empty": raw(3, b""),
    "not json": raw(3, b"open sesame"),
    "not utf-8": raw(3, b'{"scheme":"http","host":"\xff","port":1}'),
    "an array": raw(3, b'["http","h",1]'),
    "a field too many": raw(3, b'{"scheme":"http","host":"h","port":1,"as":"root"}'),
    "a field too few": raw(3, b'{"scheme":"http","host":"h"}'),
    "another scheme": raw(3, b'{"scheme":"file","host":"h","port":1}'),
    "a port as text": raw(3, b'{"scheme":"http","host":"h","port":"1"}'),
    "a port as a float": raw(3, b'{"scheme":"http","host":"h","port":1.5}'),
    "a port too large": raw(3, b'{"scheme":"http","host":"h","port":65536}'),
    "a port below zero": raw(3, b'{"scheme":"http","host":"h","port":-1}'),
    "no host": raw(3, b'{"scheme":"http","host":"","port":1}'),
    "a long host": raw(3, b'{"scheme":"http","host":"%s","port":1}' % (b"a" * 256)),
    "something behind": raw(3, b'{"scheme":"http","host":"h","port":1} {}'),
    "nested": raw(3, b"[" * LONGEST),
    "too long to say": struct.pack(">BH", 3, LONGEST + 1),
    "many workers": raw(2, b'{"node":"n","worker":0,"workers":257,"ready":1}'),
    "wants the moon": raw(2, b'{"node":"n","worker":0,"workers":1,"ready":65}'),
    "line in a node": raw(2, b'{"node":"n\\n","worker":0,"workers":1,"ready":1}'),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameReader(OF_GATEWAY).feed(data)
    reader = FrameReader(OF_GATEWAY)
    with pytest.raises(BadFrame):
        for byte in data:
            reader.feed(bytes((byte,)))


@given(st.binary(max_size=2000))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    reader = FrameReader(OF_CONNECTOR)
    try:
        while data and (found := reader.feed(data)) is not None:
            assert isinstance(found[0], OF_CONNECTOR)
            data = found[1]
    except BadFrame:
        pass


def test_no_more_is_said_than_is_read() -> None:
    with pytest.raises(ValueError, match="too long"):
        written(Open("unix", "ü" * 1200, 0))

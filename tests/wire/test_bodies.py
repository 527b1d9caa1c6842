"""Bodies: framing whole, byte by byte and re-chunked; what is passed on is clean and complete."""

import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.wire.body import BadBody, Body, ChunkedBody, LengthBody, OpenBody


def run(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes, int] | str:
    out = rest = b""
    try:
        for number, piece in enumerate(pieces):
            passed, rest = body.feed(piece)
            out += passed
            if body.done:
                return out, rest + b"".join(pieces[number + 1 :]), body.received
    except BadBody:
        return "bad"
    return out, rest, body.received


def singles(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def test_length() -> None:
    assert run(LengthBody(5), [b"helloGET"]) == (b"hello", b"GET", 5)
    assert run(LengthBody(5), singles(b"helloGET")) == (b"hello", b"GET", 5)
    assert LengthBody(0).done


chunk = st.binary(min_size=1, max_size=20)


@settings(deadline=None)
@given(
    st.lists(chunk, max_size=5),
    st.sampled_from([b"", b";a", b"; a=b ", b';q="x y"']),
    st.sampled_from([b"", b"X-T: 1\r\n", b"Set-Cookie: a=b\r\nX: y\r\n"]),
    st.binary(max_size=10),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_chunked(
    chunks: list[bytes], extension: bytes, trailers: bytes, rest: bytes, places: list[int]
) -> None:
    data = b"".join(b"0%X%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks)
    data += b"0\r\n" + trailers + b"\r\n" + rest
    clean = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    content = b"".join(chunks)
    for pieces in ([data], singles(data), cut(data, places)):
        assert run(ChunkedBody(), pieces) == (clean, rest, len(content))
        assert run(ChunkedBody(framed=False), pieces) == (content, rest, len(content))


HOSTILE = [
    b"\r\n",
    b"g\r\n",
    b"-1\r\n",
    b"+5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"5 ;a\r\nhello\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5;a\x00\r\nhello\r\n",
    b"5;a\rb\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b"5,5\r\nhello\r\n",
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\n folded\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n\n",
    b"0;" + b"a" * 5000 + b"\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
    b"1;aaaaaaaa\r\nx\r\n" * 3000,
]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_chunks(data: bytes) -> None:
    assert run(ChunkedBody(), [data]) == "bad"
    assert run(ChunkedBody(), singles(data)) == "bad"


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"5", b"0", b"\r\n", b"\n", b"\r", b";", b"hello", b"x", b" ", b"a:b"]), max_size=12
    )
)
def test_what_we_accept_h11_reads_the_same_way(parts: list[bytes]) -> None:
    data = b"".join(parts)
    body = ChunkedBody(framed=False)
    got = run(body, [data])
    assert run(ChunkedBody(framed=False), singles(data)) == got
    if got == "bad" or not body.done:
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    peer.next_event()
    content = b""
    while isinstance(event := peer.next_event(), h11.Data):
        content += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (content, peer.trailing_data[0]) == got[:2]


def test_until_close() -> None:
    body = OpenBody()
    assert body.feed(b"abc") == (b"3\r\nabc\r\n", b"")
    assert body.feed(b"") == (b"", b"")
    assert body.close() == b"0\r\n\r\n"
    assert (body.done, body.received) == (True, 3)
    assert OpenBody(framed=False).feed(b"abc") == (b"abc", b"")


def test_bodies_are_not_held() -> None:
    body = ChunkedBody()
    body.feed(b"100000\r\n")
    for _ in range(16):
        out, _ = body.feed(b"x" * 65536)
        assert len(out) >= 65536

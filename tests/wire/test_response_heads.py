"""Response heads are read as strictly as requests: an upstream is not trusted either."""

import pytest

from ztproxy.wire.http1 import CHUNKED, UNTIL_CLOSE, BadHead, ResponseReader


def read(data: bytes, **options: bool):
    found = ResponseReader(8192, **options).feed(data)
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("lines", "body", "keep"),
    [
        (b"", UNTIL_CLOSE, True),
        (b"Content-Length: 0\r\n", 0, True),
        (b"Content-Length: 7\r\nConnection: close\r\n", 7, False),
        (b"Transfer-Encoding: Chunked\r\n", CHUNKED, True),
    ],
)
def test_framing(lines: bytes, body: int, keep: bool) -> None:
    head = read(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")
    assert (head.body, head.keep_alive) == (body, keep)
    assert not read(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n").keep_alive


@pytest.mark.parametrize("first", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 All \xfc right"])
def test_reasons(first: bytes) -> None:
    assert read(first + b"\r\nContent-Length: 0\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 600 X\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: y\r\n\r\n",
    ],
)
def test_hostile(data: bytes) -> None:
    with pytest.raises(BadHead):
        read(data)


def test_only_our_portal_sets_our_cookies() -> None:
    data = b"HTTP/1.1 200 OK\r\nSet-Cookie: __Host-ztproxy=a\r\nSet-Cookie: b=c\r\n\r\n"
    assert read(data).fields == b"Set-Cookie: b=c\r\n"
    assert b"__Host-ztproxy=a" in read(data, trusted=True).fields

"""Where fuzzing begins: the corpus, and the words of the protocols."""

import ssl
from collections.abc import Iterator

from hostile_cases import ANSWERS, REQUESTS

DICTIONARY = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\t", b" ", b":", b";", b",", b"\x00", b"\x0b", b"\x7f", b"\xff",
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 ", b"HTTP/1.1 204 ", b"HTTP/1.1 304 ", b"HTTP/1.1 103 ",
    b"Host: app.example\r\n", b"Host: ", b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: ", b"Connection: ", b"close", b"keep-alive",
    b"upgrade", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"Trailer: ", b"Cookie: ", b"Set-Cookie: ",
    b"__Host-ztproxy", b"Zt-", b"X-A: b\r\n", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"0x", b"//", b"/../", b"%2F", b"%C3%A9", b"https://app.example", b"*", b"#", b"?",
    b"Max-Forwards: 1\r\n", b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"\x16\x03\x01", b"\x00\x00", b"\x00\x10",
)  # fmt: skip

FRAMES = (
    b"\x81\x05hello",
    b"\x81\x85maskhello",
    b"\x88\x02\x03\xe8",
    b"\x82\x7e\x00\x7e" + b"x" * 126,
    b"\x82\x7f" + bytes(7) + b"\x03abc",
    b"\x89\x00\x8a\x80mask",
)


def seeds(target: str) -> Iterator[bytes]:
    """Return the inputs that a target begins with."""
    if target in ("request", "connection"):
        yield from (case.send for case in REQUESTS if len(case.send) < 1500)
    elif target == "response":
        yield from (case.answer for case in ANSWERS if len(case.answer) < 1500)
    elif target == "chunked":
        bodies = [case.send for case in REQUESTS] + [case.answer for case in ANSWERS]
        for data in bodies:
            if b"chunked" in data and len(data) < 1500:
                yield data.partition(b"\r\n\r\n")[2]
    elif target == "frames":
        yield from FRAMES
    else:
        yield from map(hello, ("app.example", "a", None))


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()

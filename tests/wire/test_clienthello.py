"""The server name in a ClientHello: real ones, fragmented ones, hostile ones."""

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.wire.clienthello import BadHello, NotTls, server_name


def hello(name: str | None = "app.example") -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    context.verify_mode = ssl.CERT_NONE if name is None else ssl.CERT_REQUIRED
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def fragmented(data: bytes, size: int) -> bytes:
    payload = data[5:]
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_real_hellos() -> None:
    assert server_name(hello("App.Example")) == "app.example"
    assert server_name(hello(None)) == ""


def test_every_prefix_asks_for_more() -> None:
    data = hello()
    for size in range(len(data)):
        assert server_name(data[:size]) is None


@pytest.mark.parametrize("size", [1, 3, 50, 200])
def test_fragments(size: int) -> None:
    data = fragmented(hello(), size)
    assert server_name(data) == "app.example"
    for end in range(0, len(data), 7):
        assert server_name(data[:end]) is None


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x80\x2e\x01", b"\x16\x02", b"\x16\x03\x01\x00\x00"]
)
def test_not_tls(data: bytes) -> None:
    with pytest.raises(NotTls):
        server_name(data)


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def sni(name: bytes, kind: int = 0, extra: bytes = b"") -> bytes:
    entry = bytes([kind]) + len(name).to_bytes(2, "big") + name + extra
    return extension(0, len(entry).to_bytes(2, "big") + entry)


def made(extensions: bytes, trailing: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions + trailing
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def test_made_hellos() -> None:
    assert server_name(made(sni(b"a.example"))) == "a.example"
    assert server_name(made(extension(43, b"\x02\x03\x04") + sni(b"a.example"))) == "a.example"
    assert server_name(made(b"")) == ""


@pytest.mark.parametrize(
    "data",
    [
        made(sni(b"")),
        made(sni(b"a\x00.example")),
        made(sni(b"a.example.")),
        made(sni(b"*.example")),
        made(sni(b"a.example", kind=1)),
        made(sni(b"a.example", extra=b"\x00\x00\x01b")),
        made(sni(b"a.example") + sni(b"b.example")),
        made(sni(b"a.example"), trailing=b"x"),
        made(b"\x00\x00\x00\xff"),
        made(b"\x00"),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(BadHello):
        server_name(data)


@settings(max_examples=300)
@given(st.binary(max_size=120), st.integers(0, 60))
def test_total(noise: bytes, at: int) -> None:
    good = made(sni(b"a.example"))
    for data in (noise, good[:at] + noise + good[at + len(noise) :]):
        try:
            name = server_name(data)
        except (NotTls, BadHello):
            continue
        assert name is None or name == name.lower()

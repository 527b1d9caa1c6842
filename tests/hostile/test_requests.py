"""The corpus of hostile requests, each with the code it must get, whole and byte by byte.

Whatever the code, nothing may be dialled and nothing behind the request may be read as a second one.
"""

import json

import pytest
from gateway_fakes import Stage, head_of

H = b"Host: app.example\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n"


def get(lines: bytes = b"", target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + H + lines + b"\r\n"


def post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + H + lines + b"\r\n" + body


CORPUS: list[tuple[str, bytes, str]] = [
    # framing
    ("TE and CL", post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), "bad-request"),
    ("CL and TE", post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "bad-request"),
    ("CL twice, same", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), "bad-request"),
    ("CL twice, different", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), "bad-request"),
    ("CL list", post(b"Content-Length: 5, 5\r\n", b"hello"), "bad-request"),
    ("CL plus", post(b"Content-Length: +5\r\n", b"hello"), "bad-request"),
    ("CL minus", post(b"Content-Length: -5\r\n", b"hello"), "bad-request"),
    ("CL hex", post(b"Content-Length: 0x5\r\n", b"hello"), "bad-request"),
    ("CL leading zero", post(b"Content-Length: 05\r\n", b"hello"), "bad-request"),
    ("CL decimal", post(b"Content-Length: 5.0\r\n", b"hello"), "bad-request"),
    ("CL empty", post(b"Content-Length:\r\n"), "bad-request"),
    ("CL words", post(b"Content-Length: five\r\n"), "bad-request"),
    ("CL underscores", post(b"Content-Length: 1_0\r\n"), "bad-request"),
    ("CL inner space", post(b"Content-Length: 1 0\r\n"), "bad-request"),
    ("CL enormous", post(b"Content-Length: 99999999999999999999\r\n"), "bad-request"),
    ("CL other digits", post("Content-Length: ٥\r\n".encode()), "bad-request"),
    ("TE xchunked", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), "bad-request"),
    (
        "TE chunked twice",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        "bad-request",
    ),
    ("TE list", post(b"Transfer-Encoding: gzip, chunked\r\n"), "bad-request"),
    ("TE chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n"), "bad-request"),
    ("TE identity", post(b"Transfer-Encoding: identity\r\n"), "bad-request"),
    ("TE empty", post(b"Transfer-Encoding:\r\n"), "bad-request"),
    ("TE quoted", post(b'Transfer-Encoding: "chunked"\r\n'), "bad-request"),
    ("TE parameter", post(b"Transfer-Encoding: chunked;a=b\r\n"), "bad-request"),
    ("TE vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n"), "bad-request"),
    ("TE and HTTP/1.0", b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", "bad-request"),
    ("TE space before colon", post(b"Transfer-Encoding : chunked\r\n"), "bad-request"),
    # lines
    ("bare LF", b"GET / HTTP/1.1\nHost: app.example\n\n", "bad-request"),
    ("one bare LF", b"GET / HTTP/1.1\r\n" + H[:-2] + b"\nX: y\r\n\r\n", "bad-request"),
    ("bare LF at the end", b"GET / HTTP/1.1\r\n" + H + b"\n", "bad-request"),
    ("bare CR in value", get(b"X: a\rTransfer-Encoding: chunked\r\n"), "bad-request"),
    ("bare CR as ending", b"GET / HTTP/1.1\rHost: app.example\r\r\n\r\n", "bad-request"),
    ("obs-fold space", get(b"X: a\r\n b\r\n"), "bad-request"),
    ("obs-fold tab", get(b"X: a\r\n\tb\r\n"), "bad-request"),
    ("fold before first", b"GET / HTTP/1.1\r\n " + H + b"\r\n", "bad-request"),
    ("NUL in value", get(b"X: a\x00b\r\n"), "bad-request"),
    ("NUL in name", get(b"X\x00: a\r\n"), "bad-request"),
    ("DEL in value", get(b"X: a\x7f\r\n"), "bad-request"),
    ("escape in value", get(b"X: \x1b[2J\r\n"), "bad-request"),
    ("space before colon", get(b"X : a\r\n"), "bad-request"),
    ("tab before colon", get(b"X\t: a\r\n"), "bad-request"),
    ("space in name", get(b"X Y: a\r\n"), "bad-request"),
    ("no colon", get(b"nonsense\r\n"), "bad-request"),
    ("empty name", get(b": a\r\n"), "bad-request"),
    ("non-ASCII name", get(b"X\xe9: a\r\n"), "bad-request"),
    ("separator in name", get(b"X(Y): a\r\n"), "bad-request"),
    ("leading CRLF", b"\r\n" + get(), "bad-request"),
    # request line
    ("HTTP/0.9", b"GET /\r\n", "bad-request"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad-request"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", "bad-request"),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\n" + H + b"\r\n", "bad-request"),
    ("http/1.1", b"GET / http/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("version junk", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", "bad-request"),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("tabs", b"GET\t/\tHTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("space in target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("lower-case method", b"get / HTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("odd method", b"G\xcbT / HTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("no method", b" / HTTP/1.1\r\n" + H + b"\r\n", "bad-request"),
    ("TLS inside", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n", "bad-request"),
    # host
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", "bad-request"),
    ("no Host, HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", "bad-request"),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad-request"),
    ("two Hosts", get(b"Host: other.example\r\n"), "bad-request"),
    ("two equal Hosts", get(H), "bad-request"),
    ("Host list", b"GET / HTTP/1.1\r\nHost: app.example, other.example\r\n\r\n", "bad-request"),
    ("Host with user", b"GET / HTTP/1.1\r\nHost: x@app.example\r\n\r\n", "bad-request"),
    ("Host with path", b"GET / HTTP/1.1\r\nHost: app.example/x\r\n\r\n", "bad-request"),
    ("Host with dot", b"GET / HTTP/1.1\r\nHost: app.example.\r\n\r\n", "bad-request"),
    ("Host with odd port", b"GET / HTTP/1.1\r\nHost: app.example:99999\r\n\r\n", "bad-request"),
    ("Host elsewhere", b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", "misdirected"),
    # target
    ("absolute form elsewhere", get(target=b"http://other.example/"), "bad-request"),
    ("authority form", get(target=b"app.example:443"), "bad-request"),
    ("asterisk for GET", get(target=b"*"), "bad-request"),
    ("no slash", get(target=b"admin"), "bad-request"),
    ("network path", get(target=b"//evil.example/"), "ambiguous-path"),
    ("double slash", get(target=b"/a//b"), "ambiguous-path"),
    ("dot", get(target=b"/./admin"), "ambiguous-path"),
    ("dot dot", get(target=b"/a/../admin"), "ambiguous-path"),
    ("dot dot at the end", get(target=b"/a/.."), "ambiguous-path"),
    ("encoded dots", get(target=b"/a/%2e%2e/admin"), "ambiguous-path"),
    ("half encoded dots", get(target=b"/a/.%2E/admin"), "ambiguous-path"),
    ("encoded slash", get(target=b"/a%2Fb"), "ambiguous-path"),
    ("encoded backslash", get(target=b"/a%5cb"), "ambiguous-path"),
    ("backslash", get(target=b"/a\\..\\admin"), "ambiguous-path"),
    ("semicolon", get(target=b"/admin;x=/../"), "ambiguous-path"),
    ("encoded semicolon", get(target=b"/admin%3Bx"), "ambiguous-path"),
    ("double encoding", get(target=b"/%252e%252e/admin"), "ambiguous-path"),
    ("encoded letter", get(target=b"/%61dmin"), "ambiguous-path"),
    ("lower-case code", get(target=b"/caf%c3%a9"), "ambiguous-path"),
    ("overlong slash", get(target=b"/..%C0%AF"), "ambiguous-path"),
    ("fragment", get(target=b"/public#/../admin"), "ambiguous-path"),
    ("fragment in query", get(target=b"/public?#/admin"), "ambiguous-path"),
    ("encoded NUL", get(target=b"/a%00.png"), "ambiguous-path"),
    ("encoded CRLF", get(target=b"/a%0D%0AX:%20y"), "ambiguous-path"),
    ("broken code", get(target=b"/a%2"), "ambiguous-path"),
    ("angle brackets", get(target=b"/<script>"), "ambiguous-path"),
    # methods
    ("CONNECT", b"CONNECT app.example:443 HTTP/1.1\r\n" + H + b"\r\n", "method-not-supported"),
    ("TRACE", b"TRACE / HTTP/1.1\r\n" + H + b"\r\n", "method-not-supported"),
    ("method override", post(b"X-HTTP-Method-Override: DELETE\r\nContent-Length: 0\r\n"), "bad-request"),
    ("method override, spelled", post(b"X_HTTP_Method: DELETE\r\nX-Method-Override: PUT\r\n"), "bad-request"),
    # credentials and expectations
    ("two session cookies", get(b"Cookie: __Host-ztproxy=a; __Host-ztproxy=b\r\n"), "credentials-conflict"),
    (
        "two cookie lines",
        get(b"Cookie: __Host-ztproxy=a\r\nCookie: __Host-ztproxy=a\r\n"),
        "credentials-conflict",
    ),
    (
        "spaced session cookies",
        get(b"Cookie: __Host-ztproxy =a;\t__Host-ztproxy=b\r\n"),
        "credentials-conflict",
    ),
    (
        "two flow cookies",
        get(b"Cookie: __Host-ztproxy-flow=a; __Host-ztproxy-flow=b\r\n"),
        "credentials-conflict",
    ),
    ("two Authorizations", get(b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), "bad-request"),
    ("unknown expectation", post(b"Expect: 200-ok\r\nContent-Length: 1\r\n"), "bad-request"),
    # sizes
    ("long target", get(target=b"/" + b"a" * 33000), "head-too-large"),
    ("long header", get(b"X: " + b"a" * 33000 + b"\r\n"), "head-too-large"),
    ("many headers", get(b"".join(b"X-%d: y\r\n" % i for i in range(120))), "head-too-large"),
    ("long header name", get(b"X" * 200 + b": y\r\n"), "bad-request"),
]


def test_the_corpus_is_one() -> None:
    names = [name for name, _, _ in CORPUS]
    assert len(names) == len(set(names)) >= 100


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize(("data", "code"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS])
async def test_hostile_requests(data: bytes, code: str, pieces: str) -> None:
    stage = Stage()
    if pieces == "whole":
        await stage.says(data if code == "misdirected" else data + SMUGGLED)
    else:
        for i in range(len(data)):
            stage.connection.data_received(data[i : i + 1])
    await stage.turn()
    answer = stage.client.written
    first, fields, body = head_of(answer)
    problem = json.JSONDecoder().raw_decode(body.decode())[0]
    assert problem["code"] == code
    assert first.split()[1] == str(problem["status"]).encode()
    assert stage.dialler.made == []
    assert stage.door.requests == []
    assert stage.events[0] == ("refuse", code)
    if code != "misdirected":
        assert b"close" in fields[b"connection"]
        assert b"smuggled" not in answer
        await stage.says(SMUGGLED)
        assert stage.client.written == answer


async def test_every_refusal_is_no_store_and_reveals_nothing() -> None:
    for _, data, _ in CORPUS[:40]:
        stage = Stage()
        await stage.says(data)
        _, fields, body = head_of(stage.client.written)
        assert fields[b"cache-control"] == [b"no-store"]
        assert b"127.0.0.1" not in body
        assert b"server" not in fields

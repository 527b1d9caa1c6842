"""What is wrong with a message has one stable word, and the word never holds a byte of the message."""

import re
from pathlib import Path

import pytest

from ztproxy.model.codes import CODES
from ztproxy.wire.body import BadBody, ChunkedBody
from ztproxy.wire.flaws import FLAWS
from ztproxy.wire.http1 import BadHead, RequestReader, ResponseReader

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/http.md"
H = b"Host: a.example\r\n"


def flaw_of(data: bytes, reader: type[RequestReader | ResponseReader] = RequestReader) -> str:
    try:
        found = reader(4096).feed(data)
    except BadHead as bad:
        return bad.flaw
    assert found is not None
    return getattr(found[0], "problem", "")


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"GET / HTTP/1.1\n" + H + b"\r\n", "bare-lf"),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\n\r\n", "bare-lf"),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", "bare-cr"),
        (b"GET / HTTP/1.1\r\n" + H + b"X: \x00\r\n\r\n", "control-character"),
        (b"GET / HTTP/1.1\r\n" + H + b" X: a\r\n\r\n", "folded-line"),
        (b"GET / HTTP/1.1\r\n" + H + b"X\r\n\r\n", "no-colon"),
        (b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n", "empty-name"),
        (b"GET / HTTP/1.1\r\n" + H + b"X\t: a\r\n\r\n", "space-before-colon"),
        (b"GET / HTTP/1.1\r\n" + H + b"X Y: a\r\n\r\n", "odd-name"),
        (b"GET / HTTP/1.1\r\n" + H + b"X" * 129 + b": a\r\n\r\n", "odd-name"),
        (b"\r\nGET / HTTP/1.1\r\n", "empty-line"),
        (b"GET  / HTTP/1.1\r\n", "request-line"),
        (b"GET /\x7f HTTP/1.1\r\n", "control-character"),
        (b"get / HTTP/1.1\r\n", "method-name"),
        (b"GET /\r\n", "http-version"),
        (b"GET / HTTP/2.0\r\n", "http-version"),
        (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 5000 + b"\r\n\r\n", "long-head"),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n" * 100 + b"\r\n", "many-fields"),
        (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "two-content-length"),
        (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1, 1\r\n\r\n", "odd-content-length"),
        (
            b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length-and-coding",
        ),
        (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n", "transfer-coding"),
        (b"GET / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", "coding-in-http-1.0"),
        (b"GET / HTTP/1.1\r\n\r\n", "host"),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "host"),
        (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", "two-hosts"),
        (b"GET / HTTP/1.1\r\n" + H + b"Expect: x\r\n\r\n", "expectation"),
        (b"GET / HTTP/1.1\r\n" + H + b"Origin: a\r\nOrigin: a\r\n\r\n", "repeated-field"),
        (b"GET / HTTP/1.1\r\n" + H + b"X-HTTP-Method: a\r\n\r\n", "method-override"),
        (
            b"GET / HTTP/1.1\r\n" + H + b"Cookie: __Host-ztproxy=a; __Host-ztproxy=a\r\n\r\n",
            "two-session-cookies",
        ),
        (b"TRACE / HTTP/1.1\r\n" + H + b"\r\n", "method"),
        (b"GET x HTTP/1.1\r\n" + H + b"\r\n", "target-form"),
        (b"GET /a?#b HTTP/1.1\r\n" + H + b"\r\n", "fragment"),
        (b"GET /a\\b HTTP/1.1\r\n" + H + b"\r\n", "backslash"),
        (b"GET /a;b HTTP/1.1\r\n" + H + b"\r\n", "semicolon"),
        (b"GET //a HTTP/1.1\r\n" + H + b"\r\n", "empty-segment"),
        (b"GET /a/.. HTTP/1.1\r\n" + H + b"\r\n", "dot-segment"),
        (b"GET /a/%2E HTTP/1.1\r\n" + H + b"\r\n", "percent-code"),
        (b"GET /a/%c3%a9 HTTP/1.1\r\n" + H + b"\r\n", "percent-code"),
        (b"GET /a/% HTTP/1.1\r\n" + H + b"\r\n", "percent-code"),
        (b"GET /a%2f HTTP/1.1\r\n" + H + b"\r\n", "encoded-delimiter"),
        (b"GET /a%2541 HTTP/1.1\r\n" + H + b"\r\n", "encoded-delimiter"),
        (b"GET /%C0%AF HTTP/1.1\r\n" + H + b"\r\n", "not-utf-8"),
        (b"GET /<a> HTTP/1.1\r\n" + H + b"\r\n", "odd-character"),
    ],
)
def test_requests(data: bytes, flaw: str) -> None:
    assert flaw_of(data) == flaw


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"HTTP/1.1 2000 OK\r\n\r\n", "status-line"),
        (b"HTTP/1.1 200 OK\n\r\n", "bare-lf"),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", "bare-cr"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "space-before-colon"),
    ],
)
def test_responses(data: bytes, flaw: str) -> None:
    assert flaw_of(data, ResponseReader) == flaw


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"x\r\n", "chunk-size"),
        (b"1\r\nab", "chunk-end"),
        (b"1\r\nab\n", "chunk-end"),
        (b"0\r\nno trailer\r\n", "trailer-line"),
        (b"1" * 5000, "long-line"),
        (b"0\r\n" + b"X: y\r\n" * 3000, "surplus"),
    ],
)
def test_bodies(data: bytes, flaw: str) -> None:
    if flaw == "chunk-end" and not data.endswith(b"\n"):
        data += b"\r\n"
    with pytest.raises(BadBody) as bad:
        ChunkedBody().feed(data)
    assert bad.value.flaw == flaw


def test_each_word_has_a_code_is_used_and_is_on_the_page() -> None:
    source = "".join(file.read_text() for file in (ROOT / "ztproxy").rglob("*.py"))
    rows = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    for word, (code, meaning) in FLAWS.items():
        assert code in CODES
        assert re.fullmatch(r"[a-z0-9.-]{4,30}", word)
        assert source.count(f'"{word}"') >= 2, f"{word} is nowhere named"
        assert f"| `{word}` | `{code}` | {meaning} |" in PAGE.read_text(), f"{PAGE.name} lacks {word}"
    assert rows.keys() == FLAWS.keys()

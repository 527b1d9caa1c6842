"""Targets and hosts that can be read in one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.wire.target import host_of, is_plain


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/a",
        b"/a/",
        b"/a/b.c",
        b"/a?",
        b"/?x=//../%2e",
        b"/a?b=c/../d;e\\f",
        b"/.ztproxy/login",
        b"/...",
        b"/a..b/.hidden",
        b"/@scope/name:1,2=3",
        b"/a%20b",
        b"/caf%C3%A9",
        b"/100%25",
        b"/who%3F",
        b"/a%40b",
        b"/[1]|x^y",
        b"/~user/(x)!*'",
    ],
)
def test_plain(target: bytes) -> None:
    assert is_plain(target)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"a",
        b"*",
        b"//",
        b"//evil.example/",
        b"/a//b",
        b"/a//",
        b"/.",
        b"/..",
        b"/./a",
        b"/../a",
        b"/a/.",
        b"/a/..",
        b"/a/./b",
        b"/a/../b",
        b"/a/..?x",
        b"/a;b",
        b"/a;/b",
        b"/;",
        b"/a%3Bb",
        b"/a%2Fb",
        b"/a%2fb",
        b"/a%5Cb",
        b"/a\\b",
        b"/%2E%2E/a",
        b"/%2e/a",
        b"/.%2E/a",
        b"/%61dmin",
        b"/%7Euser",
        b"/caf%c3%a9",
        b"/%00",
        b"/%0D%0A",
        b"/%7F",
        b"/%",
        b"/%2",
        b"/%zz",
        b"/%252E%252E/",
        b"/%2541",
        b"/%C0%AF",
        b"/%C0%AE%C0%AE/",
        b"/%FF",
        b"/a#b",
        b"/a?b#c",
        b'/a"b',
        b"/a<b>",
        b"/{a}",
        b"/`",
        b"/a b",
        b"/\xc3\xa9",
        b"/a\x00",
    ],
)
def test_ambiguous(target: bytes) -> None:
    assert not is_plain(target)


@given(st.binary(max_size=40))
def test_total(target: bytes) -> None:
    is_plain(target)
    is_plain(b"/" + target)


@given(st.text("ab./%2Ee;\\", max_size=12))
def test_plain_paths_have_one_reading(text: str) -> None:
    """What is accepted is what it would be after decoding and resolving, for every way to do both."""
    from posixpath import normpath
    from urllib.parse import quote, unquote

    target = "/" + text
    if not is_plain(target.encode()):
        return
    slash = "/" if target != "/" and target.endswith("/") else ""
    assert normpath(target) + slash == target
    assert quote(unquote(target), safe="/%") == target.replace("%25", "%")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"app.example", ("app.example", "app.example")),
        (b"APP.Example:8443", ("app.example", "app.example:8443")),
        (b"app.example:443", ("app.example", "app.example")),
        (b"127.0.0.1:80", ("127.0.0.1", "127.0.0.1:80")),
        (b"[::1]:8443", ("[::1]", "[::1]:8443")),
    ],
)
def test_hosts(value: bytes, expected: tuple[str, str]) -> None:
    assert host_of(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b"app.example.",
        b".app.example",
        b"app..example",
        b"-a.example",
        b"a-.example",
        b"app.example:",
        b"app.example:0",
        b"app.example:65536",
        b"app.example:08",
        b"app.example:443:1",
        b"a b",
        b"app.example/x",
        b"user@app.example",
        b"app.example, other.example",
        b"app_x.example",
        b"app.example\x00",
        b"\xc3\xa4pp.example",
        b"a" * 64 + b".example",
        b"a." * 130 + b"b",
    ],
)
def test_bad_hosts(value: bytes) -> None:
    assert host_of(value) is None

"""Paths, redirects and cookies between two worlds that call the same thing by different names."""

from typing import Any

import pytest
from gateway_fakes import ROUTE, Stage, head_of
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.gateway.rewriting import location, path_of, refresh, set_cookie, target_of
from ztproxy.model.changes import Changes, Rewrite
from ztproxy.wire.target import is_plain

OURS = b"app.example:8443"
OWN = frozenset({"inside.example:8080", "inside.example", "10.0.0.7:8080"})
HOSTS = frozenset({"inside.example", "app.internal", "10.0.0.7"})


def rewrite(outer: str = "/", inner: str = "/") -> Rewrite:
    return Rewrite(outer, inner, OWN, HOSTS)


APP = rewrite("/app/")
BASE = rewrite("/app/", "/base/")


@pytest.mark.parametrize(
    ("turned", "target", "expected"),
    [
        (APP, "/app/", "/"),
        (APP, "/app", "/"),
        (APP, "/app?a=/b", "/?a=/b"),
        (APP, "/app/x/y?q", "/x/y?q"),
        (APP, "/app/app/", "/app/"),
        (BASE, "/app/x", "/base/x"),
        (BASE, "/app", "/base/"),
        (rewrite("/", "/base/"), "/x?y", "/base/x?y"),
        (rewrite("/", "/base/"), "/", "/base/"),
        (rewrite("/a/b/", "/c/"), "/a/b", "/c/"),
    ],
)
def test_targets(turned: Rewrite, target: str, expected: str) -> None:
    assert target_of(turned, target) == expected


prefixes = st.sampled_from(["/", "/a/", "/a/b/", "/a.b/~c/"])
rests = st.text(st.sampled_from("ab/.;%25EF~?&=\\#é"), max_size=12)


@given(prefixes, prefixes, rests)
def test_no_swap_of_prefixes_makes_a_path_ambiguous(outer: str, inner: str, rest: str) -> None:
    turned = rewrite(outer, inner)
    for target in (outer + rest, outer[:-1] + rest):
        matches = target.startswith(outer) or target[len(outer) - 1 :][:1] in ("", "?")
        if matches and target.startswith("/") and is_plain(target.encode()):
            result = target_of(turned, target)
            assert is_plain(result.encode()), result
            assert result.startswith(inner)


@given(prefixes, prefixes, rests)
def test_callers_get_back_the_paths_they_gave(outer: str, inner: str, rest: str) -> None:
    path = (outer + rest).partition("?")[0]
    if is_plain(path.encode()):
        turned = rewrite(outer, inner)
        assert path_of(turned, target_of(turned, path).encode()) == path.encode()


@pytest.mark.parametrize(
    ("turned", "value", "expected"),
    [
        (APP, b"/x", b"https://app.example:8443/app/x"),
        (APP, b"/", b"https://app.example:8443/app/"),
        (APP, b"/x?y#z", b"https://app.example:8443/app/x?y#z"),
        (BASE, b"/base/x", b"https://app.example:8443/app/x"),
        (BASE, b"/base", b"https://app.example:8443/app"),
        (BASE, b"/base?x", b"https://app.example:8443/app?x"),
        (BASE, b"/other", b"/other"),
        (BASE, b"/basement", b"/basement"),
        (BASE, b"http://inside.example:8080/base/x", b"https://app.example:8443/app/x"),
        (BASE, b"HTTP://Inside.Example/base/x", b"https://app.example:8443/app/x"),
        (BASE, b"//inside.example/base/x", b"https://app.example:8443/app/x"),
        (BASE, b"https://inside.example/other", b"https://app.example:8443/other"),
        (BASE, b"http://app.example:8443/base/x", b"https://app.example:8443/app/x"),
        (APP, b"http://10.0.0.7:8080", b"https://app.example:8443/app/"),
        (APP, b"http://10.0.0.7:8080?q", b"https://app.example:8443/app/?q"),
        (APP, b"https://elsewhere.example/x", b"https://elsewhere.example/x"),
        (APP, b"//elsewhere.example/x", b"//elsewhere.example/x"),
        (APP, b"http://inside.example@elsewhere.example/", b"http://inside.example@elsewhere.example/"),
        (APP, b"http://inside.example\\@elsewhere.example/", b"http://inside.example\\@elsewhere.example/"),
        (APP, b"x/y", b"x/y"),
        (APP, b"../x", b"../x"),
        (APP, b"?x", b"?x"),
        (APP, b"", b""),
        (rewrite(), b"/x", b"/x"),
        (rewrite(), b"http://inside.example/x", b"https://app.example:8443/x"),
    ],
)
def test_locations(turned: Rewrite, value: bytes, expected: bytes) -> None:
    assert location(turned, value, OURS) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"/base//evil.example",
        b"http://inside.example//evil.example",
        b"http://10.0.0.7:8080/base//evil.example",
    ],
)
def test_no_swap_makes_a_redirect_to_somebody_else(value: bytes) -> None:
    for turned in (rewrite("/", "/base/"), rewrite(), BASE):
        assert location(turned, value, OURS).startswith((b"https://app.example:8443/", b"/base//"))
        assert not location(turned, value, OURS).startswith(b"//")


@pytest.mark.parametrize(
    ("turned", "value", "expected"),
    [
        (APP, b"a=b; Path=/", b"a=b; Path=/app"),
        (APP, b"a=b; path=/x/; HttpOnly", b"a=b; Path=/app/x/; HttpOnly"),
        (BASE, b"a=b; Path=/base", b"a=b; Path=/app"),
        (BASE, b"a=b; Path=/base/", b"a=b; Path=/app"),
        (BASE, b"a=b; Path=/other", b"a=b; Path=/other"),
        (rewrite("/", "/base/"), b"a=b; Path=/base/", b"a=b; Path=/"),
        (rewrite(), b"a=b; Path=/x/", b"a=b; Path=/x/"),
        (APP, b"__Host-a=b; Path=/; Secure", b"__Host-a=b; Path=/; Secure"),
        (APP, b"a=b; Domain=inside.example; Secure", b"a=b; Secure"),
        (APP, b"a=b; DOMAIN=.Inside.Example", b"a=b"),
        (APP, b"a=b; domain=example", b"a=b; domain=example"),  # our host belongs to it, too
        (APP, b"a=b; domain=internal", b"a=b"),
        (APP, b"a=b; Domain=10.0.0.7", b"a=b"),
        (APP, b"a=b; Domain=app.example", b"a=b; Domain=app.example"),
        (APP, b"a=b; Domain=side.example", b"a=b; Domain=side.example"),
        (APP, b"path=/; a", b"path=/; a"),
        (APP, b"a=b", b"a=b"),
    ],
)
def test_cookies(turned: Rewrite, value: bytes, expected: bytes) -> None:
    assert set_cookie(turned, value, OURS) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"5; url=/x", b"5; url=https://app.example:8443/app/x"),
        (b"0;URL='http://inside.example/x'", b"0;URL='https://app.example:8443/app/x'"),
        (b"5", b"5"),
        (b"5; url=https://elsewhere.example", b"5; url=https://elsewhere.example"),
    ],
)
def test_refresh(value: bytes, expected: bytes) -> None:
    assert refresh(APP, value, OURS) == expected


def stage(turned: Rewrite, **changes: Any) -> Stage:
    return Stage(ROUTE.replaced(prefix=turned.outer, changes=Changes(turned), **changes))


async def test_what_is_authorized_is_what_was_asked_and_what_is_sent_is_what_the_upstream_knows() -> None:
    one = stage(BASE)
    await one.says(b"GET /app/x?q HTTP/1.1\r\nHost: app.example\r\n\r\n")
    assert one.door.requests[0].context.path == "/app/x"
    assert one.upstream.written.startswith(b"GET /base/x?q HTTP/1.1\r\n")
    await one.answers(
        b"HTTP/1.1 302 Found\r\nLocation: /base/y\r\nX-Path: /base/z\r\nSet-Cookie: a=b; Path=/base/\r\n"
        b"content-location:http://inside.example/base/w\r\nContent-Length: 0\r\n\r\n"
    )
    _, fields, _ = head_of(one.client.take())
    assert fields[b"location"] == [b"https://app.example/app/y"]
    assert fields[b"content-location"] == [b"https://app.example/app/w"]
    assert fields[b"set-cookie"] == [b"a=b; Path=/app"]
    assert fields[b"x-path"] == [b"/base/z"]
    assert fields[b"content-length"] == [b"0"]


async def test_ambiguous_paths_are_refused_before_any_prefix_is_taken_off() -> None:
    for path in ("/app/../x", "/app//x", "/app/%2e%2e/x", "/app/%2E/x", "/app/.", "/app/x;y", "/app/%2Fx"):
        one = stage(APP)
        await one.says(f"GET {path} HTTP/1.1\r\nHost: app.example\r\n\r\n".encode())
        assert b"ambiguous-path" in one.client.take(), path
        assert one.dialler.made == []


async def test_a_redirect_in_a_handshake_is_turned_and_so_is_its_cookie() -> None:
    one = stage(APP)
    await one.says(
        b"GET /app/ws HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert one.upstream.written.startswith(b"GET /ws HTTP/1.1\r\n")
    await one.answers(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=b; Path=/\r\n\r\n"
    )
    assert b"Set-Cookie: a=b; Path=/app\r\n" in one.client.take()

"""Pages of other origins: preflights are answered here; listed origins may read answers, refusals too."""

from typing import Any

import pytest
from gateway_fakes import ROUTE, Stage, head_of, refusal

from ztproxy.model.changes import Changes, Cors

RULES = Cors(
    frozenset({"https://page.example", "https://other.example:8443"}),
    b"Access-Control-Allow-Methods: GET, PUT\r\nAccess-Control-Allow-Credentials: true\r\n"
    b"Access-Control-Max-Age: 600\r\n",
    b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Total\r\n",
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Accept\r\naccess-control-allow-origin: *\r\n\r\nhi"


def stage(rules: Cors | None = RULES, **changes: Any) -> Stage:
    return Stage(ROUTE.replaced(changes=Changes(cors=rules) if rules else None, **changes))


def asking(origin: str = "https://page.example", path: str = "/a", more: str = "") -> bytes:
    return (
        f"OPTIONS {path} HTTP/1.1\r\nHost: app.example\r\nOrigin: {origin}\r\n"
        f"Access-Control-Request-Method: PUT\r\n{more}\r\n"
    ).encode()


def getting(origin: str) -> bytes:
    return f"GET /a HTTP/1.1\r\nHost: app.example\r\nOrigin: {origin}\r\n\r\n".encode()


async def test_a_preflight_is_answered_here_and_recorded() -> None:
    one = stage()
    await one.says(asking())
    recorded, answered = one.happened()
    assert recorded == ("preflight", "/a")
    first, fields, body = head_of(answered[1])
    assert (first, body) == (b"HTTP/1.1 204 No Content", b"")
    assert fields == {
        b"access-control-allow-origin": [b"https://page.example"],
        b"access-control-allow-methods": [b"GET, PUT"],
        b"access-control-allow-credentials": [b"true"],
        b"access-control-max-age": [b"600"],
        b"vary": [b"Origin"],
        b"date": [b"Fri, 15 Jan 2027 08:00:00 GMT"],
    }
    assert one.counters.preflights == 1
    await one.says(asking())  # the connection is still good
    assert one.client.written.count(b"HTTP/1.1 204 ") == 2
    assert one.dialler.made == [] and one.door.requests == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://page.example.evil.example",
        "http://page.example",
        "https://PAGE.example",
    ],
)
async def test_an_origin_that_is_not_listed_is_told_nothing(origin: str) -> None:
    one = stage()
    await one.says(asking(origin))
    got = one.client.take()
    assert got.startswith(b"HTTP/1.1 403 ") and b"origin-not-allowed" in got
    assert b"allow-origin" not in got.lower() and b"Vary: Origin" in got
    assert one.happened()[0] == ("refuse", "origin-not-allowed")


async def test_a_preflight_that_can_not_be_recorded_is_not_answered() -> None:
    one = stage()
    one.door.broken = True
    await one.says(asking())
    assert one.client.take().startswith(b"HTTP/1.1 503 ")
    assert one.counters.preflights == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"OPTIONS /a HTTP/1.1\r\nHost: app.example\r\nOrigin: https://page.example\r\n\r\n",
        b"OPTIONS /a HTTP/1.1\r\nHost: app.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
        asking().replace(b"OPTIONS", b"GET"),
        asking().replace(b"OPTIONS", b"PUT"),
    ],
)
async def test_what_is_no_preflight_is_decided_like_everything(request_: bytes) -> None:
    one = stage()
    await one.says(request_)
    assert len(one.door.requests) == 1


async def test_a_route_without_rules_decides_preflights_like_everything() -> None:
    one = stage(None)
    await one.says(asking())
    assert one.door.requests[0].action == "OPTIONS"
    await one.answers(OK)
    assert b"access-control-allow-origin: *" in one.client.take()


async def test_objections_come_before_preflights() -> None:
    one = Stage(ROUTE.replaced(changes=Changes(cors=RULES)), sni="other.example")
    await one.says(asking())
    assert one.client.take().startswith(b"HTTP/1.1 421 ")
    one = stage()
    await one.says(asking(path="/a//b"))
    assert b"ambiguous-path" in one.client.take()


async def test_listed_origins_may_read_answers_and_the_upstream_has_no_say() -> None:
    one = stage()
    await one.says(getting("https://other.example:8443"))
    await one.answers(OK.replace(b"\r\n\r\n", b"\r\nACCESS-Control-Expose-Headers: *\r\n\r\n"))
    _, fields, _ = head_of(one.client.take())
    assert fields[b"access-control-allow-origin"] == [b"https://other.example:8443"]
    assert fields[b"access-control-allow-credentials"] == [b"true"]
    assert fields[b"access-control-expose-headers"] == [b"X-Total"]
    assert fields[b"vary"] == [b"Accept", b"Origin"]


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example", ""])
async def test_others_may_not(origin: str) -> None:
    one = stage()
    await one.says(getting(origin) if origin else b"GET /a HTTP/1.1\r\nHost: app.example\r\n\r\n")
    await one.answers(OK)
    _, fields, _ = head_of(one.client.take())
    assert not [name for name in fields if name.startswith(b"access-control-")]
    assert fields[b"vary"] == [b"Accept", b"Origin"]  # caches must not give this answer to listed ones


async def test_every_origin_without_credentials() -> None:
    one = stage(Cors(frozenset(), b"Access-Control-Allow-Methods: GET\r\n"))
    await one.says(asking("null"))
    _, fields, _ = head_of(one.client.take())
    assert fields[b"access-control-allow-origin"] == [b"*"]
    assert b"vary" not in fields
    await one.says(getting("https://any.example"))
    await one.answers(OK)
    assert head_of(one.client.take())[1][b"access-control-allow-origin"] == [b"*"]


async def test_a_page_may_read_why_it_was_refused() -> None:
    one = stage()
    one.door.answer = lambda request: refusal("login-required")
    await one.says(getting("https://page.example"))
    first, fields, _ = head_of(one.client.take())
    assert first.startswith(b"HTTP/1.1 401 ")
    assert fields[b"access-control-allow-origin"] == [b"https://page.example"]
    await one.says(getting("https://evil.example"))
    assert b"access-control-allow-origin" not in head_of(one.client.take())[1]
    one = stage(None)
    one.door.answer = lambda request: refusal("login-required")
    await one.says(getting("https://page.example"))
    assert b"vary" not in head_of(one.client.take())[1]


async def test_early_hints_gain_nothing() -> None:
    one = stage()
    await one.says(getting("https://page.example"))
    await one.answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert one.client.take() == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


async def test_a_preflight_with_content_does_not_spoil_what_follows() -> None:
    one = stage()
    await one.says(asking(more="Content-Length: 2\r\n") + b"hi" + getting("https://page.example"))
    await one.turn()
    assert one.client.take().startswith(b"HTTP/1.1 204 ")
    assert len(one.door.requests) <= 1
    if one.door.requests:
        assert one.door.requests[0].action == "GET"

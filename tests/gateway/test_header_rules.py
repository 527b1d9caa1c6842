"""Fields that a route sets and removes: callers can not smuggle theirs in, upstreams can not keep theirs."""

import pytest
from gateway_fakes import ROUTE, Stage, head_of, permit_of

from ztproxy.config.headers import stamps
from ztproxy.model.changes import Changes, RequestFields, ResponseFields

RULES = Changes(
    request=RequestFields(
        stamps({"X-User": "${principal.id}", "X-Env": "prod"}), frozenset({b"x-user", b"x-env", b"x-debug"})
    ),
    response=ResponseFields(
        b"X-Frame-Options: DENY\r\n", frozenset({b"x-frame-options", b"server", b"x-secret"})
    ),
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nX-FRAME-Options: ALLOWALL\r\nA: b\r\n\r\nhi"


@pytest.fixture
def stage() -> Stage:
    stage = Stage(ROUTE.replaced(changes=RULES))
    ours = b"Zt-Principal: demo:carol\r\nX-User: demo:carol\r\nX-Env: prod\r\n"
    stage.door.answer = lambda request: permit_of(request, request.resource.route, identity=ours)
    return stage


async def test_what_callers_send_under_our_names_never_arrives(stage: Stage) -> None:
    hostile = (
        b"X-User: root\r\nx_user: root\r\nX.USER: root\r\nX-uSER:root\r\nX-Env:\r\nX_Debug: 1\r\n"
        b"X-Debug-2: 1\r\n"
    )
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\n" + hostile + b"\r\n")
    sent = stage.upstream.written
    _, fields, _ = head_of(sent)
    assert b"root" not in sent
    assert fields[b"x-user"] == [b"demo:carol"]
    assert fields[b"x-env"] == [b"prod"]
    assert fields[b"x-debug-2"] == [b"1"]
    assert not {b"x_user", b"x.user", b"x_debug", b"x-debug"} & set(fields)


async def test_nor_by_nominating_ours_away(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: x-user, x-env\r\n\r\n")
    assert head_of(stage.upstream.written)[1][b"x-user"] == [b"demo:carol"]


async def test_nor_after_the_body(stage: Stage) -> None:
    head = b"POST / HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-User\r\n\r\n"
    await stage.says(head + b"2\r\nhi\r\n")
    await stage.says(b"0\r\nX-User: root\r\nX-Sum: 1\r\n\r\n")
    assert stage.upstream.written.endswith(b"2\r\nhi\r\n0\r\n\r\n")
    await stage.answers(OK)
    await stage.says(head + b"2\r\nhi\r\n0\r\nX-User: root\r\n\r\n")  # all at once
    assert b"root" not in stage.upstream.written


async def test_responses_lose_and_gain_fields(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    await stage.answers(OK)
    _, fields, body = head_of(stage.client.take())
    assert fields[b"x-frame-options"] == [b"DENY"]
    assert b"server" not in fields
    assert fields[b"a"] == [b"b"]
    assert fields[b"content-length"] == [b"2"]
    assert body == b"hi"


async def test_removed_fields_do_not_come_back_as_trailers(stage: Stage) -> None:
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    await stage.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Secret: told\r\n\r\n"
    )
    assert b"told" not in stage.client.take()


async def test_a_route_without_rules_passes_everything_that_may() -> None:
    stage = Stage()
    await stage.says(b"GET / HTTP/1.1\r\nHost: app.example\r\nX-User: me\r\n\r\n")
    assert head_of(stage.upstream.written)[1][b"x-user"] == [b"me"]

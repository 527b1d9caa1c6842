"""Rates and quotas in the gateway: who is slowed down, who is not, what is told and what is recorded."""

import re
from typing import Any

import pytest
from gateway_fakes import HOST, PORTAL, ROUTE, Stage, head_of, permit_of, refusal
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.gateway.quotas import Claim, Excess, Quotas, Table
from ztproxy.model.quota import Quota, Rate
from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.net.sources import Bounds

GET = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def stage_with(*quotas: Quota, **bounds: Any) -> Stage:
    stage = Stage(ROUTE.replaced(quotas=quotas), PORTAL)
    stage.sources.bind(Bounds(**bounds), stage.clock.seconds)
    return stage


async def exchange(stage: Stage) -> bytes:
    """One request, answered at once if it gets that far."""
    stage.client.take()
    await stage.says(GET)
    if stage.paths.live:
        await stage.answers(OK)
    return stage.client.take()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def retry_after(answer: bytes) -> int:
    return int(head_of(answer)[1][b"retry-after"][0])


# ------------------------------------------------------------------ sources


async def test_a_source_that_asks_too_fast() -> None:
    stage = stage_with(requests_per_source=Rate(0.5, 2))
    assert [status(await exchange(stage)) for _ in range(2)] == [200, 200]
    stage.happened()
    answer = await exchange(stage)
    assert (status(answer), retry_after(answer)) == (429, 2)
    assert stage.happened() == [("refuse", "too-many-requests"), ("client", answer), ("client", "close")]
    assert stage.door.refusals[0].detail == "source-requests"
    assert stage.counters.limits == ["source-requests"]
    assert stage.counters.refusals == ["too-many-requests"]


async def test_another_connection_of_the_source_helps_nothing() -> None:
    stage = stage_with(requests_per_source=Rate(0.5, 1))
    assert status(await exchange(stage)) == 200
    stage.client, stage.connection, _ = stage.connect()
    assert status(await exchange(stage)) == 429
    stage.client, stage.connection, _ = stage.connect()
    await stage.later(2.0)
    assert status(await exchange(stage)) == 200


async def test_pipelined_requests_are_counted_one_by_one() -> None:
    stage = stage_with(requests_per_source=Rate(0.5, 3))
    stage.door.answer = lambda _: refusal("access-denied")
    stage.connection.data_received(GET * 10)
    for _ in range(30):
        await stage.turn()
    assert re.findall(rb"HTTP/1.1 (\d+)", stage.client.take()) == [b"403"] * 3 + [b"429"]
    assert stage.client.ended == "close"


async def test_refusals_cost_like_anything_else() -> None:
    stage = stage_with(requests_per_source=Rate(0.5, 2))
    stage.door.answer = lambda _: refusal("login-required")
    assert [status(await exchange(stage)) for _ in range(3)] == [401, 401, 429]
    assert len(stage.door.requests) == 2  # nobody is asked about the third


async def test_a_source_is_slowed_down_before_it_learns_anything() -> None:
    """Known and unknown hosts and paths get the same answer, to the byte."""
    answers = set()
    for path, host in ((b"/", HOST), (b"/a/../b", HOST), (b"/", "nowhere.example")):
        stage = stage_with(requests_per_source=Rate(0.5, 1))
        assert not stage.source.requests.take(stage.clock.seconds)  # type: ignore[union-attr]
        await stage.says(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host.encode()))
        answers.add(stage.client.take())
        assert stage.door.requests == []
    assert len(answers) == 1


# ------------------------------------------------------------------ callers and routes


async def test_a_caller_above_its_rate_is_told_when_to_come_back() -> None:
    stage = stage_with(Quota("principal", Rate(0.1, 1)))
    assert status(await exchange(stage)) == 200
    stage.happened()
    answer = await exchange(stage)
    assert (status(answer), retry_after(answer)) == (429, 10)
    assert b"Connection: close" not in answer
    assert stage.happened() == [
        ("authorize", "GET", "/"),
        ("outcome", 429, "too-many-requests"),
        ("client", answer),
    ]
    assert stage.ledger.records[-1].detail == "principal"
    assert stage.counters.limits == ["principal"]
    await stage.later(10.0)
    assert status(await exchange(stage)) == 200


async def test_who_may_not_come_in_learns_nothing_of_quotas() -> None:
    stage = stage_with(Quota("route", Rate(0.1, 1)))
    assert status(await exchange(stage)) == 200
    stage.door.answer = lambda _: refusal("access-denied")
    answer = await exchange(stage)
    assert status(answer) == 403
    assert b"etry-" not in answer
    assert stage.counters.limits == []


async def test_one_caller_leaves_the_others_their_share() -> None:
    stage = stage_with(Quota("principal", Rate(0.1, 1)))
    assert [status(await exchange(stage)) for _ in range(2)] == [200, 429]
    stage.door.answer = lambda request: permit_of(
        request, request.resource.route, principal_id="demo:dave", session_id="ses_b"
    )
    assert status(await exchange(stage)) == 200


async def test_a_session_on_many_connections_is_one() -> None:
    stage = stage_with(Quota("session", concurrent=2))
    for _ in range(2):
        await stage.says(GET)
        stage.client, stage.connection, _ = stage.connect()
    await stage.says(GET)
    answer = stage.client.take()
    assert (status(answer), retry_after(answer)) == (429, 1)
    assert len(stage.paths.live) == 2
    stage.paths.cut("session-ended")  # gives back what they held
    await stage.turn()
    assert status(await exchange(stage)) == 200


async def test_a_full_route_is_overloaded_for_everybody() -> None:
    stage = stage_with(Quota("route", concurrent=1))
    await stage.says(GET)
    first = stage.client, stage.connection
    stage.client, stage.connection, _ = stage.connect()
    answer = await exchange(stage)
    assert status(answer) == 503
    assert b'"code":"overloaded"' in answer
    first[0].lose()  # the client goes away: its share is free
    await stage.turn()
    assert status(await exchange(stage)) == 200


async def test_a_websocket_holds_its_share_until_it_ends() -> None:
    stage = stage_with(Quota("principal", concurrent=1))
    await stage.says(
        b"GET /ws HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await stage.answers(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    stage.client, stage.connection, _ = stage.connect()
    assert status(await exchange(stage)) == 429
    stage.paths.cut("session-ended")
    await stage.turn()
    assert status(await exchange(stage)) == 200


async def test_a_refused_request_with_a_body_leaves_the_connection_in_order() -> None:
    stage = stage_with(Quota("principal", Rate(1.0, 1)))
    assert status(await exchange(stage)) == 200
    await stage.says(POST + b"he")
    assert status(stage.client.take()) == 429
    await stage.later(1.0)
    await stage.says(b"llo")
    assert status(await exchange(stage)) == 200


async def test_without_its_record_a_refusal_ends_the_connection() -> None:
    stage = stage_with(Quota("principal", Rate(0.1, 1)))
    assert status(await exchange(stage)) == 200
    stage.ledger.broken = True
    assert await exchange(stage) == b""
    assert stage.client.ended == "abort"


# ------------------------------------------------------------------ strangers


def stranger(request: AccessRequest) -> Any:
    return permit_of(request, request.resource.route, principal_id="anonymous", session_id="")


async def test_strangers_are_told_apart_by_source() -> None:
    stage = stage_with(Quota("principal", Rate(0.1, 1)))
    stage.door.answer = stranger
    assert [status(await exchange(stage)) for _ in range(2)] == [200, 429]
    stage.source.name = "198.51.100.1"
    assert status(await exchange(stage)) == 200


async def test_sign_in_is_bounded_for_strangers_only() -> None:
    portal = PORTAL.replaced(quotas=(Quota("source", Rate(0.1, 1), strangers=True),))
    stage = Stage(ROUTE, portal)
    page = b"GET /.ztproxy/login HTTP/1.1\r\nHost: app.example\r\n\r\n"

    async def ask() -> int:
        await stage.says(page)
        if stage.paths.live:
            await stage.answers(OK)
        return status(stage.client.take())

    assert [await ask() for _ in range(3)] == [200] * 3  # carol is signed in
    stage.door.answer = stranger
    assert [await ask() for _ in range(3)] == [200, 429, 429]
    assert stage.counters.limits == ["sign-in"] * 2
    stage.door.answer = None
    assert await ask() == 200


# ------------------------------------------------------------------ the table


def claims(quotas: Quotas, route: Any, number: int, now: float = 0.0) -> Claim | Excess:
    permit = permit_of(_request(), route, principal_id=f"p{number}", session_id="")
    return quotas.claim(permit, "192.0.2.7", now)


def _request() -> AccessRequest:
    return AccessRequest(Evidence(), Resource("Route", "app", ROUTE), "GET", Context("0" * 32, "", "", "/"))


def test_callers_are_bounded_and_who_has_something_under_way_is_not_forgotten() -> None:
    quota = Quota("principal", concurrent=1)
    route = ROUTE.replaced(quotas=(quota,))
    table = Table(quota, keys=4)
    quotas = Quotas([route], {quota: table})
    held = claims(quotas, route, 0)
    for number in range(1, 100):
        claim = claims(quotas, route, number)
        assert isinstance(claim, Claim)
        claim.release()
        assert len(table) <= 4
    assert isinstance(claims(quotas, route, 0), Excess)
    assert isinstance(held, Claim)
    held.release()
    assert isinstance(claims(quotas, route, 0), Claim)


def test_a_quota_that_stays_goes_on_counting_in_a_new_world() -> None:
    quota, gone = Quota("route", Rate(0.1, 1)), Quota("principal", Rate(0.1, 1))
    before = Quotas([ROUTE.replaced(quotas=(quota, gone))], {})
    route = ROUTE.replaced(quotas=(quota,))
    after = Quotas([route], before.tables)
    assert list(after.tables) == [quota]
    assert isinstance(claims(before, route, 0), Claim)
    assert isinstance(claims(after, route, 1), Excess)


def test_what_one_quota_refuses_is_not_charged_to_another() -> None:
    loose, tight = Quota("principal", Rate(0.1, 2)), Quota("route", concurrent=1)
    route = ROUTE.replaced(quotas=(loose, tight))
    quotas = Quotas([route], {})
    held = claims(quotas, route, 0)
    assert isinstance(held, Claim)
    for _ in range(10):
        assert claims(quotas, route, 0) == Excess("overloaded", "route", 1)
    held.release()
    assert isinstance(claims(quotas, route, 0), Claim)
    assert isinstance(claims(quotas, route, 0), Excess)


def test_nobody_is_asked_to_wait_for_ever() -> None:
    quota = Quota("principal", Rate(1 / 1_000_000, 1))
    route = ROUTE.replaced(quotas=(quota,))
    quotas = Quotas([route], {})
    claims(quotas, route, 0)
    assert claims(quotas, route, 0) == Excess("too-many-requests", "principal", 3600)


@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([0.0, 0.125, 1.0])), max_size=60),
)
def test_no_caller_and_no_route_has_more_than_its_share(
    burst: int, concurrent: int, story: list[tuple[int, bool, float]]
) -> None:
    each, all_ = Quota("principal", Rate(1.0, burst), concurrent), Quota("route", concurrent=4)
    route = ROUTE.replaced(quotas=(each, all_))
    quotas, now = Quotas([route], {}), 0.0
    running: dict[int, list[Claim]] = {0: [], 1: [], 2: []}
    admitted = dict.fromkeys(running, 0)
    for who, ends, step in story:
        now += step
        if ends and running[who]:
            running[who].pop().release()
            continue
        claim = claims(quotas, route, who, now)
        if isinstance(claim, Claim):
            running[who].append(claim)
            admitted[who] += 1
        assert len(running[who]) <= concurrent
        assert sum(map(len, running.values())) <= 4
        assert admitted[who] <= burst + now + 1e-6


@pytest.mark.parametrize("per", ["principal", "session", "source"])
def test_names_of_callers_do_not_meet(per: Any) -> None:
    """A principal that is named like a source is not that source."""
    quota = Quota(per, Rate(0.1, 1))
    route = ROUTE.replaced(quotas=(quota,))
    quotas = Quotas([route], {})
    known = permit_of(_request(), route, principal_id="192.0.2.7", session_id="")
    nobody = permit_of(_request(), route, principal_id="anonymous", session_id="")
    assert isinstance(quotas.claim(known, "198.51.100.1", 0.0), Claim)
    assert isinstance(quotas.claim(nobody, "192.0.2.7", 0.0), Claim)

"""Public paths: open to everybody, by exactly these paths and methods, through the one door and on record."""

from typing import Any

import pytest
from door_fakes import DIGEST, NOW, POLICIES, PORTAL, SESSION, STATUS, SUPPORT, WORKLOAD, World
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.request import AccessRequest, Context, Evidence, Resource
from ztproxy.policy.load import load
from ztproxy.policy.routes import RouteTable
from ztproxy.policy.shorthand import render_public
from ztproxy.wire.http1 import RequestReader

PUBLIC = render_public("support", ["/assets/", "/health", "/a.b~c-d_e"])
ROUTES = [SUPPORT, STATUS, PORTAL]
TABLE = RouteTable(ROUTES, PORTAL)


@pytest.fixture
def world() -> World:
    world = World()
    world.access.policies = load([("p.cedar", POLICIES), ("public", PUBLIC)], ROUTES, engine="verify")
    return world


def request(path: str, action: str = "GET", protocol: Any = "http", **evidence: Any) -> AccessRequest:
    context = Context("0" * 32, "192.0.2.1", "support.test", path, protocol)
    return AccessRequest(Evidence(**evidence), Resource("Route", "support", SUPPORT), action, context)


async def ask(world: World, *args: Any, **evidence: Any) -> Any:
    answer = world.access.authorize(request(*args, **evidence))
    return answer if isinstance(answer, Permit | Refusal) else await answer


async def test_anybody_gets_in_and_it_is_on_record(world: World) -> None:
    permit = await ask(world, "/assets/style.css")
    assert isinstance(permit, Permit)
    assert (permit.principal_id, permit.session_id) == ("anonymous", "")
    record = world.records[0]
    assert (record.allow, record.decided, record.policies) == (True, "permit", ("support-public",))
    assert record.path == "/assets/style.css"


@pytest.mark.parametrize(
    ("path", "method", "protocol", "open_"),
    [
        ("/assets/", "GET", "http", True),
        ("/assets/a/b", "HEAD", "http", True),
        ("/health", "OPTIONS", "http", True),
        ("/a.b~c-d_e", "GET", "http", True),
        ("/assets", "GET", "http", False),
        ("/assetsx", "GET", "http", False),
        ("/health/", "GET", "http", False),
        ("/healthx", "GET", "http", False),
        ("/Assets/a", "GET", "http", False),
        ("/aXb~c-d_e", "GET", "http", False),
        ("/x/assets/a", "GET", "http", False),
        ("/", "GET", "http", False),
        ("/assets/a", "POST", "http", False),
        ("/assets/a", "DELETE", "http", False),
        ("/assets/a", "PURGE", "http", False),
        ("/assets/ws", "GET", "websocket", False),
        ("/assets/ws", "GET", "spdy/3.1", False),
    ],
)
async def test_by_exactly_these_paths_and_methods(
    world: World, path: str, method: str, protocol: str, open_: bool
) -> None:
    assert isinstance(await ask(world, path, method, protocol), Permit) is open_
    assert [record.allow for record in world.records] == [open_]


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../x",
        "/assets/./x",
        "/assets/..",
        "/assets//x",
        "/assets/%2E%2E/x",
        "/assets/%2e%2e/x",
        "/assets/..%2Fx",
        "/assets%2Fx",
        "/assets/%5C..%5Cx",
        "/assets/..;/x",
        "/assets;x/",
        "/%61ssets/x",
        "/assets/%252E%252E/x",
        "/assets/%C0%AF",
        "/assets/\\..\\x",
        "//assets/x",
        "/assets/x#/../y",
        "/x/?/assets/",
        "/x?/assets/",
        "/.ztproxy/assets/",
        "http://other.test/assets/x",
        "/x/../assets/x",
    ],
)
async def test_no_other_spelling_gets_in(world: World, target: str) -> None:
    found = RequestReader(8192).feed(f"GET {target} HTTP/1.1\r\nHost: support.test\r\n\r\n".encode())
    assert found is not None
    head = found[0]
    if head.problem:
        return  # refused before the door
    resource = TABLE.match(head.host, head.path)
    if resource.route is PORTAL:
        return
    assert isinstance(await ask(world, head.path), Refusal), head.path


@given(st.text(st.sampled_from("/.ahelthsx~%2F?*"), max_size=14))
def test_what_is_open_is_what_was_written(rest: str) -> None:
    world = World()
    world.access.policies = load([("public", PUBLIC)], ROUTES)
    for path in (f"/{rest}", f"/assets{rest}", f"/health{rest}"):
        answer = world.access.authorize(request(path))
        assert isinstance(answer, Permit) is (path.startswith("/assets/") or path == "/health"), path


async def test_a_cookie_that_ended_or_is_unknown_takes_nothing_away(world: World) -> None:
    for digest in (DIGEST, "0" * 64):
        if digest == DIGEST:
            world.put("session", "ses_1", replace(SESSION, expires_at=NOW - 1))
        permit = await ask(world, "/assets/a", handle=digest)
        assert isinstance(permit, Permit)
        assert (permit.principal_id, permit.session_id, permit.handle) == ("anonymous", "", "")
        refusal = await ask(world, "/private", handle=digest)
        assert isinstance(refusal, Refusal) and refusal.code == "session-ended"
    assert [record.principal for record in world.records] == ["Anonymous::anonymous"] * 4
    assert [record.allow for record in world.records] == [True, False, True, False]


@pytest.mark.parametrize("handle", [None, DIGEST])
async def test_an_outage_of_the_feed_closes_public_doors_too(world: World, handle: str | None) -> None:
    """A lock on the route might have been set meanwhile, and nobody here would know."""
    assert isinstance(permit := await ask(world, "/assets/a"), Permit)
    world.clock.advance(60)
    for path in ("/assets/a", "/private"):
        refusal = await ask(world, path, handle=handle)
        assert isinstance(refusal, Refusal) and refusal.code == "facts-unavailable"
    assert world.access.reconsider(permit, world.clock.now()) == "facts-unavailable"


async def test_wrong_credentials_are_still_wrong(world: World) -> None:
    expired = replace(WORKLOAD, not_after=NOW - 1)
    refusal = await ask(world, "/assets/a", certificate=expired)
    assert isinstance(refusal, Refusal) and refusal.code == "certificate-expired"
    refusal = await ask(world, "/assets/a", certificate=WORKLOAD, handle=DIGEST)
    assert isinstance(refusal, Refusal) and refusal.code == "credentials-conflict"


async def test_who_is_signed_in_is_known_there_too(world: World) -> None:
    permit = await ask(world, "/assets/a", handle=DIGEST)
    assert (permit.session_id, permit.handle) == ("ses_1", DIGEST)
    assert permit.identity == b"Zt-Assertion: x\r\n"


async def test_a_forbid_wins(world: World) -> None:
    forbid = '@id("nobody") forbid (principal, action, resource == Route::"support");'
    world.access.policies = load([("public", PUBLIC), ("f", forbid)], ROUTES, engine="verify")
    for evidence in ({}, {"handle": DIGEST}, {"handle": "0" * 64}):
        assert isinstance(await ask(world, "/assets/a", **evidence), Refusal)


async def test_what_somebody_opened_ends_with_their_session_and_the_rest_goes_on(
    world: World,
) -> None:
    world.put("session", "ses_1", replace(SESSION, expires_at=NOW - 1))
    anonymous = await ask(world, "/assets/a", handle=DIGEST)
    assert world.access.reconsider(anonymous, world.clock.now()) == ""
    world.put("session", "ses_1", SESSION)
    assert world.access.reconsider(anonymous, world.clock.now()) == ""
    carols = await ask(world, "/assets/a", handle=DIGEST)
    assert world.access.reconsider(carols, world.clock.now()) == ""
    world.put("session", "ses_1", None)
    assert world.access.reconsider(carols, world.clock.now()) == "session-ended"
    assert world.access.reconsider(anonymous, world.clock.now()) == ""
    world.access.policies = load([("p.cedar", POLICIES)], ROUTES, engine="verify")
    assert world.access.reconsider(anonymous, world.clock.now()) == "session-ended"


async def test_nothing_passes_unrecorded(world: World) -> None:
    world.audit_fails = True
    for evidence in ({}, {"handle": "0" * 64}):
        refusal = await ask(world, "/assets/a", **evidence)
        assert isinstance(refusal, Refusal) and refusal.code == "audit-unavailable"


async def test_other_methods_when_named() -> None:
    world = World()
    hook = render_public("support", ["/hook"], ["POST"])
    world.access.policies = load([("public", hook)], ROUTES, engine="verify")
    assert isinstance(await ask(world, "/hook", "POST"), Permit)
    assert isinstance(await ask(world, "/hook", "GET"), Refusal)


@pytest.mark.parametrize("path", ["x", "", '/a"b', "/a*", "/a\\b"])
def test_what_is_no_path_is_not_rendered(path: str) -> None:
    with pytest.raises(ValueError, match="no plain path"):
        render_public("support", [path])

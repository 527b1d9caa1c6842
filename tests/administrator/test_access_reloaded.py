"""The one door when another configuration is in force: live paths, and who waits at the door before."""

from typing import Any

import pytest
from door_fakes import DIGEST, NOW, POLICIES, PORTAL, STATUS, SUPPORT, Lines, Recorder, World
from msgspec.structs import replace

from ztproxy.administrator.access import Access
from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.ports import Router
from ztproxy.model.request import NOWHERE, Resource
from ztproxy.model.route import Route
from ztproxy.model.subject import Handle
from ztproxy.policy.load import load
from ztproxy.trust.caller import Caller
from ztproxy.trust.gather import Gatherer


@pytest.fixture
def world() -> World:
    return World()


class Places(Router):
    """What is where now."""

    def __init__(self, *routes: Route) -> None:
        self.routes = routes

    def match(self, host: str, path: str) -> Resource:
        found = (Resource("Route", one.name, one) for one in self.routes if one.host == host)
        return next(found, NOWHERE)


def next_door(world: World, policies: str, *routes: Route) -> Access:
    """A door of another configuration, over the same memory."""
    return Access(
        policies=load([("p.cedar", policies)], [*routes, PORTAL]),
        gatherer=Gatherer(world.memory, groups={}, feed_limit=10_000),
        recorder=Recorder(world),
        identities=Lines(world),
        sync=world.sync,
        touched=world.touched.append,
        clock=world.clock,
        routes=Places(*routes, PORTAL),
    )


ELSEWHERE = replace(SUPPORT.upstream, port=2)
OTHERS = '@id("others") permit (principal is User, action, resource == Route::"other");'


@pytest.mark.parametrize(
    ("changes", "policies", "goes_on"),
    [
        ({}, POLICIES, True),
        ({"upstream": ELSEWHERE}, POLICIES, True),
        ({"name": "other"}, OTHERS, True),
        ({"name": "other", "upstream": ELSEWHERE}, OTHERS, False),
        ({"host": "moved.test"}, POLICIES, False),
        ({}, "", False),
    ],
)
async def test_a_live_path_is_decided_by_what_is_at_its_place_now(
    world: World, changes: dict[str, Any], policies: str, goes_on: bool
) -> None:
    permit = await world.ask()
    assert isinstance(permit, Permit)
    routes = (SUPPORT.replaced(**changes), STATUS)
    assert (next_door(world, policies, *routes).reconsider(permit, NOW) == "") is goes_on


@pytest.mark.parametrize("cold", ["facts", "assertion"])
async def test_who_waits_at_the_old_door_is_answered_by_the_next(world: World, cold: str) -> None:
    """Else what was allowed before a reload could still be opened after it, and nobody would look again."""
    following = next_door(world, '@id("no") forbid (principal, action, resource);', SUPPORT, STATUS)

    def reloaded() -> None:
        world.access.succeeded_by(following)

    if cold == "facts":
        world.put("handle", DIGEST, None)

        async def sync() -> bool:
            reloaded()
            world.put("handle", DIGEST, Handle(session_id="ses_1", host="support.test", created_at=NOW))
            return True

        world.access._sync = sync
    else:
        world.signed = None

        async def fetch(caller: Caller, route: Route, now: int) -> bytes | None:
            reloaded()
            world.signed = b"Zt-Assertion: x\r\n"
            return world.signed

        world.fetch = fetch  # type: ignore[method-assign]
    refused = await world.ask()
    assert isinstance(refused, Refusal)
    assert [record.allow for record in world.records] == [False]

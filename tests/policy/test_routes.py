"""The routing table: look-ups by host and whole path segments, and what is ours on every host."""

from types import ModuleType

import pytest

from ztproxy.model.request import NOWHERE
from ztproxy.model.route import Route
from ztproxy.policy import routes as module
from ztproxy.policy.routes import RouteTable


@pytest.fixture
def portal(the: ModuleType) -> Route:
    return the.route("portal", host="portal.example", portal=True)


def table(the: ModuleType, portal: Route | None, *places: tuple[str, str]) -> RouteTable:
    routes = [the.route(f"{host}{prefix}", host=host, prefix=prefix) for host, prefix in places]
    return RouteTable(routes, portal)


def test_the_longest_prefix_of_whole_segments_wins(the: ModuleType, portal: Route) -> None:
    routes = table(the, portal, ("a", "/"), ("a", "/x/"), ("a", "/x/y/z/"), ("b", "/api/"))
    for host, path, name in [
        ("a", "/", "a/"),
        ("a", "/x", "a/x/"),
        ("a", "/x/", "a/x/"),
        ("a", "/xy", "a/"),
        ("a", "/xy/z", "a/"),
        ("a", "/x/y", "a/x/"),
        ("a", "/x/y/", "a/x/"),
        ("a", "/x/y/z", "a/x/y/z/"),
        ("a", "/x/y/zz", "a/x/"),
        ("a", "/x/y/z/w/v", "a/x/y/z/"),
        ("a", "//x/", "a/"),
        ("b", "/api", "b/api/"),
        ("b", "/api/v1", "b/api/"),
    ]:
        found = routes.match(host, path)
        assert (found.type, found.id) == ("Route", name), (host, path)
        assert found.route is not None
        assert found is routes.match(host, path), "made once, not per request"


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("c", "/"),
        ("", "/"),
        ("A", "/"),
        ("b", "/"),
        ("b", "/apis"),
        ("a", "*"),
        ("a", ""),
        ("a", "x/"),
        ("a.", "/"),
    ],
)
def test_everything_else_leads_nowhere(the: ModuleType, portal: Route, host: str, path: str) -> None:
    routes = table(the, portal, ("a", "/"), ("b", "/api/"))
    assert routes.match(host, path) is NOWHERE


def test_the_portal_has_its_host_and_its_path_everywhere(the: ModuleType, portal: Route) -> None:
    routes = table(the, portal, ("a", "/"), ("b", "/api/"))
    ours = [("a", "/.ztproxy/login"), ("b", "/.ztproxy/"), ("a", "/.ztproxy"), ("portal.example", "/"),
            ("portal.example", "/anything/at/all")]  # fmt: skip
    for host, path in ours:
        found = routes.match(host, path)
        assert (found.id, found.route) == ("portal", portal)
    assert routes.match("a", "/.ztproxyx").id == "a/"
    assert routes.match("a", "/x/.ztproxy/").id == "a/"
    assert routes.match("unknown", "/.ztproxy/login") is NOWHERE
    assert routes.match("portal.example", "nonsense") is NOWHERE


def test_without_a_portal_its_path_is_still_nobodys(the: ModuleType) -> None:
    routes = table(the, None, ("a", "/"))
    assert routes.match("a", "/.ztproxy/login") is NOWHERE
    assert routes.match("", "/") is NOWHERE


@pytest.mark.parametrize(
    "places",
    [
        [("a", "/x/"), ("a", "/x/")],
        [("a", "/x")],
        [("a", "x/")],
        [("a", "/x//")],
        [("a", "//")],
        [("a", "/.ztproxy/")],
        [("a", "/.ztproxy/x/")],
        [("portal.example", "/x/")],
    ],
)
def test_places_that_can_not_be(the: ModuleType, portal: Route, places: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"portal|two routes|slash"):
        table(the, portal, *places)


def test_the_portal_may_be_among_the_routes(the: ModuleType, portal: Route) -> None:
    routes = RouteTable([the.route("a", host="a"), portal], portal)
    assert routes.match("a", "/").id == "a"


def test_what_is_remembered_is_what_would_be_found(the: ModuleType, portal: Route) -> None:
    routes = table(the, portal, ("a", "/"), ("a", "/x/"), ("b", "/x/"), ("c", "/"))
    asked = [(host, f"/{part}/{number}") for number in range(1500) for part in "xy" for host in "abcd"]
    assert len(asked) > 2 * module.REMEMBERED, "so it forgets in between"
    for _ in range(2):
        for host, path in asked:
            name = {"a": "a/x/" if path[1] == "x" else "a/", "b": "b/x/" if path[1] == "x" else "", "c": "c/"}
            assert routes.match(host, path).id == name.get(host, ""), (host, path)


def test_hostile_paths_take_little_memory(the: ModuleType, portal: Route) -> None:
    routes = table(the, portal, ("a", "/x/"))
    for number in range(module.REMEMBERED + 10):
        assert routes.match("a", f"/x/{number}").id == "a/x/"
        assert routes.match("a", f"/{number}/{'y' * module.LONGEST}") is NOWHERE
        assert routes.match(f"h{number}", "/x/") is NOWHERE
    kept = routes._remembered
    assert set(kept) == {"a", "portal.example"}, "never by hosts that callers think of"
    assert sum(map(len, kept.values())) == 10
    assert all(len(path) <= module.LONGEST for paths in kept.values() for path in paths)

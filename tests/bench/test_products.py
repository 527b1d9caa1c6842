"""What the proxies under test are given, as far as it can be seen without starting them."""

from pathlib import Path

import msgspec

from bench.load import app_paths
from bench.products import policies
from bench.products.ztproxy import cookies, sign_in
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import Posture, Session
from ztproxy.net.clock import SystemClock
from ztproxy.policy.load import load
from ztproxy.store.sqlite import SqliteStore


def test_fifty_routes_have_two_hundred_rules_that_load():
    upstream = Upstream("http", "127.0.0.1", 9001)
    routes = [Route(f"app{n}", f"app{n}", "localhost", f"/app{n}/", upstream) for n in range(50)]
    made = load([("bench.cedar", policies.text(50))], routes, timezone=policies.noon())
    assert len(made.policies) == 4 * 50 + 1  # and the portal's own


def test_paths_are_spread_over_all_routes():
    for routes in (1, 50, 2000):
        paths = app_paths(routes)
        assert len(set(paths)) == 50
        assert len({path.split("/")[1] for path in paths}) == min(routes, 50)
    assert app_paths(2000)[-1] == "/app1960/tickets/49"


async def test_the_store_holds_who_signed_in(tmp_path: Path):
    sign_in(tmp_path / "ztproxy.db", cookies(3))
    store = await SqliteStore.open(tmp_path / "ztproxy.db", SystemClock().now)
    try:
        kinds = {kind: await store.scan(kind) for kind in ("session", "handle", "device", "posture")}
        assert {kind: len(found) for kind, found in kinds.items()} == dict.fromkeys(kinds, 3)
        assert await store.head() == 12  # so a worker's snapshot is complete
        session = msgspec.msgpack.decode(kinds["session"][0].value, type=Session)
        posture = await store.get("posture", session.device_id)
        assert posture is not None
        assert msgspec.msgpack.decode(posture.value, type=Posture).healthy
    finally:
        await store.close()

"""The pool's plan, checked against a slow and obvious model."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ztproxy.model.resource import Upstream
from ztproxy.upstream.pool import Pool

UPSTREAMS = [
    Upstream(scheme="http", host="a", port=1),
    Upstream(scheme="https", host="a", port=1),
    Upstream(scheme="https", host="a", port=1, server_name="b"),
    Upstream(scheme="https", host="a", port=1, ca="/ca.pem"),
    Upstream(scheme="https", host="a", port=1, certificate="/a.pem", key="/a.key"),
    Upstream(scheme="https", host="a", port=1, certificate="/b.pem", key="/b.key"),
    Upstream(scheme="http", host="a", port=1, host_header="x"),
]
upstreams = st.sampled_from(UPSTREAMS)


class PoolMachine(RuleBasedStateMachine):
    """Connections are numbers; the model is one list of (upstream, connection, since)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pool[int] = Pool(per_upstream=3, total=6)
        self.model: list[tuple[Upstream, int, float]] = []
        self.now = 0.0
        self.last = 0

    def of(self, upstream: Upstream) -> list[tuple[Upstream, int, float]]:
        return [entry for entry in self.model if entry[0] == upstream]

    @rule(upstream=upstreams)
    def give(self, upstream: Upstream) -> None:
        self.last += 1
        room = len(self.of(upstream)) < 3 and len(self.model) < 6
        assert self.pool.give(upstream, self.last, self.now) is room
        if room:
            self.model.append((upstream, self.last, self.now))

    @rule(upstream=upstreams, age=st.sampled_from([0.5, 3.0, 100.0]))
    def take(self, upstream: Upstream, age: float) -> None:
        newest = self.of(upstream)[-1:]
        expected = newest[0][1] if newest and newest[0][2] >= self.now - age else None
        assert self.pool.take(upstream, self.now - age) == expected
        if expected is not None:
            self.model.remove(newest[0])

    @rule(upstream=upstreams, number=st.integers(0, 30))
    def remove(self, upstream: Upstream, number: int) -> None:
        self.pool.remove(upstream, number)
        self.model = [entry for entry in self.model if entry[:2] != (upstream, number)]

    @rule()
    def time(self) -> None:
        self.now += 1

    @invariant()
    def same(self) -> None:
        assert sorted(self.pool) == sorted(connection for _, connection, _ in self.model)
        assert len(self.pool) == len(self.model)


TestPool = PoolMachine.TestCase

"""What is said of somebody, as workers hold it: found by what it is on, gone when it is taken away."""

import msgspec
from msgspec.structs import replace

from ztproxy.model.messages import Changed
from ztproxy.model.standing import LOCKABLE, Lock, Source, Standing, key_of
from ztproxy.net.clock import FixedClock
from ztproxy.trust.memory import Concern, Memory

NOW = 1_800_000_000_000
LOCK = Lock(id="lck_1", target="user", value="corp:alice", reason="r", set_at=NOW, set_by="x")


def told(memory: Memory, kind: str, key: str, value: object) -> tuple[Concern, ...]:
    encoded = None if value is None else msgspec.msgpack.encode(value)
    return memory.apply(Changed(version=memory.version + 1, kind=kind, key=key, value=encoded))


def fresh() -> Memory:
    return Memory(FixedClock(ms=NOW).monotonic)


def test_a_lock_is_found_by_what_it_is_on_and_by_nothing_like_it() -> None:
    memory = fresh()
    assert told(memory, "lock", "lck_1", LOCK) == (("principal", "corp:alice"),)
    assert memory.lock_on("user", "corp:alice", NOW) == LOCK
    for like in ("corp:Alice", "corp:alic", "corp:alice ", "corp:alicee", "corp:аlice", ""):
        assert memory.lock_on("user", like, NOW) is None
    assert memory.lock_on("workload", "corp:alice", NOW) is None
    assert told(memory, "lock", "lck_1", None) == (("principal", "corp:alice"),)
    assert memory.lock_on("user", "corp:alice", NOW) is None
    assert not memory.locks
    assert not memory.locked


def test_each_target_concerns_its_own_paths() -> None:
    said = {
        target: told(fresh(), "lock", "l", replace(LOCK, id="l", target=target, value="v"))
        for target in LOCKABLE
    }
    assert said == {
        "user": (("principal", "v"),),
        "workload": (("principal", "v"),),
        "device": (("device", "v"),),
        "session": (("session", "v"),),
        "route": (("route", "v"),),
        "issuer": (("issuer", "v"),),
        "credential": (("credential", "v"),),
    }


def test_a_lock_that_moves_concerns_both_and_two_locks_on_one_hold_until_the_last_is_gone() -> None:
    memory = fresh()
    told(memory, "lock", "lck_1", LOCK)
    told(memory, "lock", "lck_2", replace(LOCK, id="lck_2"))
    moved = replace(LOCK, target="route", value="wiki")
    assert told(memory, "lock", "lck_1", moved) == (("principal", "corp:alice"), ("route", "wiki"))
    assert memory.lock_on("user", "corp:alice", NOW)
    told(memory, "lock", "lck_2", None)
    assert memory.lock_on("user", "corp:alice", NOW) is None
    assert memory.lock_on("route", "wiki", NOW) == moved


def test_only_its_own_expiry_ends_a_lock_to_the_millisecond_and_another_one_on_it_holds_on() -> None:
    memory = fresh()
    told(memory, "lock", "lck_1", replace(LOCK, expires_at=NOW + 10))
    assert memory.lock_on("user", "corp:alice", NOW + 9)
    assert memory.lock_on("user", "corp:alice", NOW + 10) is None
    told(memory, "lock", "lck_2", replace(LOCK, id="lck_2"))
    assert memory.lock_on("user", "corp:alice", NOW + 10**12)


def test_standing_concerns_whom_it_is_about_and_counts_as_spoken() -> None:
    memory = fresh()
    standing = Standing(target="device", value="dev_1", compliance="not-compliant")
    before = memory.spoken
    key = key_of("device", "dev_1")
    assert told(memory, "standing", key, standing) == (("device", "dev_1"),)
    assert memory.standings[key] == standing
    assert told(memory, "standing", key, None) == (("device", "dev_1"),)
    assert memory.spoken == before + 2
    assert told(memory, "source", "idp", Source(name="idp", kind="provider", heard_at=NOW)) == ()
    assert memory.sources["idp"].heard_at == NOW
    assert told(memory, "lock", "lck_never", None) == ()


def test_a_snapshot_forgets_locks_that_are_not_in_it() -> None:
    memory = fresh()
    told(memory, "lock", "lck_1", LOCK)
    memory.become(memory.another())
    assert memory.lock_on("user", "corp:alice", NOW) is None


def unreadable(memory: Memory, kind: str, key: str) -> tuple[Concern, ...]:
    later = msgspec.msgpack.encode({"id": 7, "principal": ["another", "shape"], "heard_at": "soon"})
    return memory.apply(Changed(version=memory.version + 1, kind=kind, key=key, value=later))


def test_what_can_not_be_read_vouches_for_nobody() -> None:
    memory = fresh()
    for kind in ("session", "handle", "device", "posture", "source"):
        unreadable(memory, kind, "one")
    told(memory, "source", "s", Source(name="s", kind="posture", heard_at=NOW))
    assert unreadable(memory, "source", "s") == ()
    assert not (memory.sessions or memory.handles or memory.devices or memory.postures or memory.sources)


def test_a_standing_that_can_not_be_read_counts_as_the_worst_one_of_the_same_and_of_nobody_else() -> None:
    memory = fresh()
    told(memory, "standing", "user:corp:alice", Standing("user", "corp:alice", ended_before=5))
    assert unreadable(memory, "standing", "user:corp:alice") == (("principal", "corp:alice"),)
    worst = memory.standings["user:corp:alice"]
    assert (worst.risk, worst.compliance) == ("high", "not-compliant")
    assert worst.ended_before > NOW
    assert list(memory.standings) == ["user:corp:alice"]


def test_a_lock_that_is_not_understood_leaves_nothing_known_until_it_is_gone() -> None:
    for spoil in (
        lambda memory: unreadable(memory, "lock", "lck_1"),
        lambda memory: told(memory, "lock", "lck_1", replace(LOCK, target="group")),
    ):
        memory = fresh()
        memory.heard(1)
        assert memory.feed_age() == 0
        spoil(memory)
        assert memory.feed_age() > 1 << 62
        other = memory.another()
        other.become(memory)
        other.heard(2)
        assert other.feed_age() > 1 << 62, "a snapshot forgets it"
        told(memory, "lock", "lck_1", None)
        assert memory.feed_age() == 0
        spoil(memory)
        told(memory, "lock", "lck_1", LOCK)
        assert memory.feed_age() == 0
        assert memory.lock_on("user", "corp:alice", NOW)

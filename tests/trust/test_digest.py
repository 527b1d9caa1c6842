"""One number for what a memory holds: the same for the same, whatever way it came; another for all else."""

import random  # noqa: TID251 - seeded: tests have to be repeatable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.model.messages import Changed
from ztproxy.model.subject import ANONYMOUS, Handle, Session
from ztproxy.trust.digest import digest, holding
from ztproxy.trust.memory import Memory


def session(number: int, **more: object) -> Changed:
    value = Session(id=f"ses_{number}", principal=ANONYMOUS, provider="t", created_at=1, auth_time=1, **more)
    return Changed(0, "session", value.id, msgspec.msgpack.encode(value))


def handle(number: int) -> Changed:
    return Changed(0, "handle", f"h{number}", msgspec.msgpack.encode(Handle(f"ses_{number}", "app", 1)))


RECORDS = [one for number in range(150) for one in (session(number), handle(number))]


async def of(*changes: Changed) -> tuple[int, str]:
    memory = Memory(lambda: 0.0)
    for change in changes:
        memory.apply(change)
    return await digest(holding(memory))


async def test_the_order_in_which_it_came_and_what_was_there_before_do_not_matter() -> None:
    wanted = await of(*RECORDS)
    mixed = random.Random(1).sample(RECORDS, len(RECORDS))
    assert (
        await of(*mixed)
        == wanted
        == await of(session(3, last_seen_at=9), handle(999), *mixed, Changed(0, "handle", "h999", None))
    )
    assert wanted[0] == 300


async def test_whatever_is_another_makes_another_number() -> None:
    wanted = await of(*RECORDS)
    lock = Changed(0, "lock", "lck_1", b"\xc1")
    others = [
        await of(*RECORDS[1:]),
        await of(*RECORDS, session(150)),
        await of(*RECORDS, session(7, last_seen_at=1)),
        await of(*RECORDS, session(7, ended_at=1)),
        await of(*RECORDS, Changed(0, "handle", "h0", RECORDS[3].value)),
        await of(*RECORDS, lock),
    ]
    assert len({wanted, *others}) == 1 + len(others)


async def test_two_records_that_changed_places_are_told_apart() -> None:
    one, other = handle(1), handle(2)
    swapped = (Changed(0, "handle", one.key, other.value), Changed(0, "handle", other.key, one.value))
    assert await of(one, other) != await of(*swapped)


@given(st.permutations(RECORDS[:12]), st.integers(0, 11))
async def test_one_that_is_missing_is_missed(changes: list[Changed], missing: int) -> None:
    assert await of(*changes) == await of(*RECORDS[:12])
    assert await of(*changes[:missing], *changes[missing + 1 :]) != await of(*RECORDS[:12])

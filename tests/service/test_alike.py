"""What the store and workers hold, compared: alike after whatever way, and told apart by one record."""

import asyncio
from pathlib import Path

from feed_room import Control, encode, linked, session, until

from ztproxy.net.clock import SystemClock
from ztproxy.service.alike import state
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.memory import Memory


async def test_who_holds_the_same_shows_the_same(tmp_path: Path) -> None:
    """One worker had everything from the feed, the other a snapshot; then one has a record too many."""
    store = await SqliteStore.open(tmp_path / "s.db", SystemClock().now)
    control = Control(store, tmp_path / "c")
    await control.start()
    early, late = Memory(SystemClock().monotonic), Memory(SystemClock().monotonic)
    async with linked(tmp_path / "c", early, lambda _: None) as first:
        await first.ready.wait()
        for number in range(700):
            await store.put(
                "session", f"ses_{number}", encode(session(number, ended_at=int(number % 3 == 0)))
            )
        async with linked(tmp_path / "c", late, lambda _: None) as second:
            await second.ready.wait()
            await until(lambda: early.version == late.version == 700)
            asked = await asyncio.gather(*(state(control.hub, store) for _ in range(3)))
            for one in asked:
                assert one.store is not None
                held = [*one.workers, one.store]
                assert len(held) == 3
                assert {(each.version, each.records, each.digest) for each in held} == {
                    (700, 466, one.store.digest)
                }
            late.sessions["ses_0"] = session(0)
            found = await state(control.hub, store)
            assert len({each.digest for each in found.workers}) == 2
            assert found.store == asked[0].store
    assert (await state(control.hub, store)).workers == ()
    await control.stop()
    await store.close()

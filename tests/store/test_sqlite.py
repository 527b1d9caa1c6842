"""What is particular to SQLite: the file, its damage, its locks, and that an acknowledgement is on disk."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ztproxy.store.interface import Conflict, StoreUnavailable
from ztproxy.store.sqlite import SqliteStore


def now() -> int:
    return 1_800_000_000_000


async def test_the_file_is_private_also_when_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "zt.db"
    for _ in range(2):
        async with await SqliteStore.open(path, now) as store:
            await store.put("session", "k", b"v")
            for file in tmp_path.iterdir():
                assert file.stat().st_mode & 0o077 == 0, file
        path.chmod(0o644)


async def test_it_waits_for_the_disk(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        db = store._writer.tables._db
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


async def test_writes_that_come_together_wait_for_the_disk_together(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        commits: list[str] = []
        store._writer.tables._db.set_trace_callback(
            lambda said: commits.append(said) if said == "COMMIT" else None
        )
        versions = await asyncio.gather(*(store.put("session", f"k{n}", b"v") for n in range(100)))
        assert versions == list(range(1, 101))
        assert len(commits) <= 2
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        assert len(await store.scan("session")) == 100


async def test_one_of_several_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        await store.put("session", "taken", b"old")
        results = await asyncio.gather(
            store.put("session", "a", b"v"),
            store.put("session", "taken", b"new", if_version=0),
            store.delete("session", "taken", if_version=7),
            store.put("session", "b", b"v"),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [int, Conflict, Conflict, int]
        assert [one.key for one in await store.scan("session")] == ["a", "b", "taken"]
        changes = await store.after(1)
        assert changes is not None
        assert [change.key for change in changes] == ["a", "b"]


async def test_a_write_nobody_waits_for_any_more_harms_no_other(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        writes = [asyncio.create_task(store.put("session", f"k{n}", b"v")) for n in range(3)]
        await asyncio.sleep(0)
        writes[1].cancel()
        assert [await writes[0], bool(await writes[2])] == [1, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a database, but long enough" * 100, "damaged or not a database"), (b"x" * 10, "not a database")],
)
async def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "zt.db").write_bytes(content)
    with pytest.raises(StoreUnavailable, match=message):
        await SqliteStore.open(tmp_path / "zt.db", now)
    assert (tmp_path / "zt.db").read_bytes() == content


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "zt.db") as db:
        db.execute("CREATE TABLE cats (name)")
    db.close()
    with pytest.raises(StoreUnavailable, match="another program"):
        await SqliteStore.open(tmp_path / "zt.db", now)


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    await (await SqliteStore.open(tmp_path / "zt.db", now)).close()
    with sqlite3.connect(tmp_path / "zt.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreUnavailable, match=r"newer version \(schema 99, known 2\)"):
        await SqliteStore.open(tmp_path / "zt.db", now)


async def test_damaged_pages_are_told(tmp_path: Path) -> None:
    path = tmp_path / "zt.db"
    async with await SqliteStore.open(path, now) as store:
        for index in range(200):
            await store.put("session", f"{index}", os.urandom(500))
    data = bytearray(path.read_bytes())
    data[4096 * 8 : 4096 * 20] = b"\xee" * (4096 * 12)
    path.write_bytes(data)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await SqliteStore.open(path, now)


async def test_a_locked_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztproxy.store._sqlite.BUSY_SECONDS", 0.1)
    path = tmp_path / "zt.db"
    async with await SqliteStore.open(path, now) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            await store.put("session", "k", b"v")
        other.execute("ROLLBACK")
        other.close()
        assert await store.put("session", "k", b"v") == 1


async def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        await SqliteStore.open(tmp_path / "nowhere" / "zt.db", now)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "zt.db", now)
    await store.close()
    await store.close()
    for call in (store.get("session", "k"), store.put("session", "k", b"v"), store.head()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call


async def test_a_cancelled_write_is_whole_or_absent(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        for index in range(50):
            write = asyncio.create_task(store.put("session", f"{index}", b"v"))
            await asyncio.sleep(0 if index % 2 else 0.0005)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
        await store.put("session", "last", b"v")
        changes = await store.after(0)
        assert changes is not None
        assert {change.key for change in changes} == {found.key for found in await store.scan("session")}


async def test_a_write_wakes_waiters_even_if_its_caller_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ztproxy.store.sqlite.POLL_SECONDS", 60)
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        other = sqlite3.connect(tmp_path / "zt.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiter = asyncio.create_task(store.wait(0, 30))
        start = time.monotonic()
        write = asyncio.create_task(store.put("session", "k", b"v"))
        await asyncio.sleep(0.1)  # the write is under way, behind the other one
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
        other.execute("ROLLBACK")
        other.close()
        assert await waiter is True
        assert time.monotonic() - start < 10
        assert await store.get("session", "k") is not None


async def test_pruning_keeps_the_table_of_changes_bounded(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "zt.db", now, keep=5) as store:
        for index in range(20):
            await store.put("session", f"{index}", b"v")
        rows = store._writer.tables._db.execute("SELECT count(*) FROM change").fetchone()[0]
        assert rows == 5
    async with await SqliteStore.open(tmp_path / "zt.db", now, keep=5) as store:
        assert await store.put("session", "k", b"v") == 21


async def test_an_error_names_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztproxy.store._sqlite.BUSY_SECONDS", 0.05)
    async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
        other = sqlite3.connect(tmp_path / "zt.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as told:
            await store.put("handle", "secret-key", b"secret-value")
        other.execute("ROLLBACK")
        other.close()
        assert "secret" not in str(told.value)


WRITER = """
import asyncio, sys, pathlib, time
from ztproxy.store.sqlite import SqliteStore
async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), lambda: time.time_ns() // 1000000)
    number = 0
    while True:
        number += 1
        await store.put("session", f"{sys.argv[2]}-{number}", b"v" * number)
        print(number, flush=True)
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged = 0
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "zt.db"), str(round_)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.05 + 0.03 * round_)
        child.send_signal(signal.SIGKILL)
        count = len((first + child.stdout.read()).splitlines())
        child.wait()
        child.stdout.close()
        assert count > 0
        async with await SqliteStore.open(tmp_path / "zt.db", now) as store:
            for number in range(1, count + 1):
                found = await store.get("session", f"{round_}-{number}")
                assert found is not None and found.value == b"v" * number
            acknowledged += count
            assert acknowledged <= await store.head() <= acknowledged + round_ + 1

"""Records and Feed on Redis: for several nodes that share their state.

Keeps the contract that `store.sqlite` keeps. Every write is one Lua script,
so record, order, expiry and change are written together or not at all. All keys carry one hash tag and so
live in one slot of a cluster. Never believes Redis to be durable without having looked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from secrets import randbits
from typing import Any, Final, Self, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from ztproxy.store._redis_scripts import AFTER, DELETE, POSITION, PUT, SCAN, SWEEP, WRITTEN
from ztproxy.store.interface import Change, Conflict, Place, StoreUnavailable, Versioned
from ztproxy.store.redis_client import Reached, RedisOptions, Unanswered, Unfit, reach, told

KEEP: Final = 100_000  # changes kept for readers that fell behind
SWEEP_SECONDS: Final = 1.0
SWEEP_BATCH: Final = 256
BLOCK_SECONDS: Final = 2.0  # longest single blocking read
LOOK_SECONDS: Final = 1.0  # for finding out what came of a write without an answer
_LAST: Final = (1 << 64) - 1  # after all stamps of a version


class RedisStore:
    """`Records` and `Feed` on a Redis server or cluster. `await RedisStore.open(...)`, later `close()`."""

    __slots__ = (
        "_block",
        "_client",
        "_keep",
        "_keys",
        "_now",
        "_patience",
        "_reached",
        "_replicas",
        "_scripts",
        "_sweeper",
    )

    def __init__(
        self, reached: Reached, now: Callable[[], int], name: str, keep: int, timeout: float, replicas: int
    ) -> None:
        self._reached = reached
        self._replicas = replicas
        self._client = client = reached.client
        self._block = min(BLOCK_SECONDS, timeout / 2)
        self._patience = int(timeout * 800)  # ms for replicas, well within the time for an answer
        self._now = now
        self._keep = keep
        self._keys = [f"{{ztproxy:{name}}}:{part}" for part in ("head", "feed", "expiry", "record", "order")]
        self._scripts = {
            script: client.register_script(script)
            for script in (PUT, DELETE, SWEEP, SCAN, POSITION, AFTER, WRITTEN)
        }
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    @classmethod
    async def open(
        cls,
        options: RedisOptions,
        now: Callable[[], int],
        *,
        name: str = "main",
        keep: int = KEEP,
        durable: bool = True,
        replicas: int = 0,
    ) -> Self:
        """Connect. `name` separates installations on one server.

        `durable` demands a server that writes to disk before it answers (appendonly yes, appendfsync
        always); without it an acknowledged write may be lost when the server dies.
        `replicas` must have a write before it is acknowledged, and be near for anything to count as fresh;
        not for a cluster.
        Raises StoreUnavailable when it can not be reached or may lose what it acknowledged; the store does so
        later for a server that it connects to then, be it the same one with other settings or a successor.
        """
        reached = reach(options, partial(_vet, durable=durable))
        store = cls(reached, now, name, keep, options.timeout, replicas)
        try:
            await store.head()  # connects
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the connections."""
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper
        await self._reached.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Records

    async def get(self, kind: str, key: str) -> Versioned | None:
        """Return the live record, or None."""
        member = _member(kind, key)
        async with told():
            packed = await cast("Awaitable[bytes | None]", self._client.hget(self._keys[3], member))
        return _unpack(member, packed, self._now())

    async def some(self, places: Sequence[Place]) -> Sequence[Versioned]:
        """Return those live records that there are."""
        return [found for place in places if (found := await self.get(*place)) is not None]

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, expires_at: int = 0
    ) -> int:
        """Write and publish in one step."""
        expected = "" if if_version is None else if_version
        arguments = [_member(kind, key), value, expected, expires_at, self._now(), self._keep, randbits(62)]
        return _accepted(kind, await self._write(PUT, arguments))

    async def scan(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Versioned]:
        """Return live records of a kind with keys greater than `after`, in key order."""
        lower, upper = b"(" + _member(kind, after), b"(" + kind.encode() + b"\x01"
        found: list[Versioned] = []
        now = self._now()
        while len(found) < limit:
            flat = await self._run(SCAN, [lower, upper, limit])
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            found += filter(None, (_unpack(member, packed, now) for member, packed in pairs))
            if len(pairs) < limit:
                break
            lower = b"(" + pairs[-1][0]
        return found[:limit]

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        """Delete and publish; False when nothing was there."""
        expected = "" if if_version is None else if_version
        arguments = [_member(kind, key), expected, self._now(), self._keep, randbits(62)]
        return bool(_accepted(kind, await self._write(DELETE, arguments)))

    # Feed

    async def head(self) -> int:
        """Return the number of the newest change."""
        async with told():
            return int(await self._client.get(self._keys[0]) or 0)

    async def position(self) -> tuple[int, int]:
        """Return number and stamp of the newest change."""
        version, _, stamp = (await self._run(POSITION, [self._replicas])).partition(b"-")
        return int(version), int(stamp)

    async def after(
        self, version: int, *, stamp: int | None = None, limit: int = 1000
    ) -> Sequence[Change] | None:
        """Return changes after `version` in order; None when they are not kept, or of another history."""
        known = "" if stamp is None else stamp
        entries = await self._run(AFTER, [self._replicas, version, known, limit])
        return None if entries is None else [_change(entry) for entry in entries]

    async def wait(self, version: int, seconds: float) -> bool:
        """Return True as soon as the head is past `version`, False after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            remaining = deadline - loop.time()
            if remaining <= 0:
                return await self.head() > version
            block = max(1, int(min(remaining, self._block) * 1000))
            async with told():
                if await self._client.xread({self._keys[1]: f"{version}-{_LAST}"}, count=1, block=block):
                    return True

    async def sweep(self) -> int:
        """Delete and publish every expired record; return how many."""
        total = 0
        while True:
            swept = int(await self._run(SWEEP, [self._now(), SWEEP_BATCH, self._keep, randbits(62)]))
            total += swept
            if swept < SWEEP_BATCH:
                return total

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with suppress(StoreUnavailable):  # callers of the store see the same trouble themselves
                await self.sweep()

    async def _write(self, script: str, arguments: Sequence[str | bytes | int]) -> Any:
        """Run a script that writes; it is done when as many replicas as demanded have it, too.

        WAIT speaks of what its own connection wrote, so both go over one.
        """
        if not self._replicas:
            try:
                return await self._run(script, arguments)
            except Unanswered:
                if (version := await self._written(arguments[-1])) is None:
                    raise
                return [0, version]
        async with told():
            pipe = self._client.pipeline(transaction=False)
            pipe.eval(script, len(self._keys), *self._keys, *arguments)
            pipe.execute_command("WAIT", self._replicas, self._patience)
            answer, reached = await pipe.execute()
        if reached < self._replicas:
            raise StoreUnavailable(
                f"Redis: {reached} of {self._replicas} replicas have the write; it may be lost"
            )
        return answer

    async def _written(self, stamp: str | bytes | int) -> int | None:
        """Return the version that a write with this stamp made; None when it is not there, or nobody tells.

        So what was done is not reported as failed: its caller would not witness it, or do it once more.
        """
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                version: int | None = await self._run(WRITTEN, [0, stamp])
                return version
        return None

    async def _run(self, script: str, arguments: Sequence[str | bytes | int]) -> Any:
        async with told():
            return await self._scripts[script](keys=self._keys, args=arguments)


async def _vet(connection: AbstractConnection, *, durable: bool) -> None:
    """Refuse a server that may forget what it acknowledged. Raises Unfit."""
    await connection.send_command("INFO", "memory")
    if b"maxmemory_policy:allkeys" in await connection.read_response():
        raise Unfit("it may evict records: set maxmemory-policy to noeviction")
    if not durable:
        return
    await connection.send_command("CONFIG", "GET", "append*")
    try:
        flat = await connection.read_response()
    except ResponseError as error:
        raise Unfit("it does not tell whether it is durable (CONFIG GET refused)") from error
    settings = dict(zip(flat[::2], flat[1::2], strict=True))
    if (settings.get(b"appendonly"), settings.get(b"appendfsync")) != (b"yes", b"always"):
        raise Unfit("it is not durable: set appendonly yes and appendfsync always")


def _member(kind: str, key: str) -> bytes:
    return f"{kind}\0{key}".encode()


def _unpack(member: bytes, packed: bytes | None, now: int) -> Versioned | None:
    if packed is None:
        return None
    kind, _, key = member.decode().partition("\0")
    version, expires, value = packed.split(b" ", 2)
    if 0 < int(expires) <= now:
        return None
    return Versioned(kind, key, int(version), value, int(expires))


def _change(entry: tuple[bytes, list[bytes]]) -> Change:
    number, fields = entry
    kind, _, key = fields[1].decode().partition("\0")
    version, _, stamp = number.partition(b"-")
    return Change(int(version), kind, key, fields[3] if len(fields) > 2 else None, int(stamp))


def _accepted(kind: str, answer: Sequence[int]) -> int:
    if answer[0] < 0:
        raise Conflict(f"{kind} has version {answer[1]}, not the expected one")
    return int(answer[1])

"""Records and Feed on Redis: for several nodes that share their state.

Keeps the contract that `store.sqlite` keeps. Every write is one Lua script,
so record, order, expiry and change are written together or not at all. All keys carry one hash tag and so
live in one slot of a cluster. Never believes Redis to be durable without having looked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self, cast

from redis.exceptions import RedisError

from ztproxy.store.interface import Change, Conflict, StoreUnavailable, Versioned
from ztproxy.store.redis_client import Client, Reached, RedisOptions, reach, told

KEEP: Final = 100_000  # changes kept for readers that fell behind
SWEEP_SECONDS: Final = 1.0
SWEEP_BATCH: Final = 256
BLOCK_SECONDS: Final = 2.0  # longest single blocking read

# KEYS: 1 head  2 changes (stream)  3 expiries (zset)  4 records (hash)  5 members in key order (zset)
# A member is "KIND\0KEY"; a record is "VERSION EXPIRES_AT VALUE".
_COMMON: Final = """
local function live(member, now)
  local packed = redis.call('HGET', KEYS[4], member)
  if not packed then return 0 end
  local version, expires = string.match(packed, '^(%d+) (%d+) ')
  expires = tonumber(expires)
  if expires > 0 and expires <= now then return 0 end
  return tonumber(version)
end
local function publish(member, keep, value)
  local version = redis.call('INCR', KEYS[1])
  local id = string.format('%d-0', version)
  if value then
    redis.call('XADD', KEYS[2], 'MAXLEN', keep, id, 'm', member, 'v', value)
  else
    redis.call('XADD', KEYS[2], 'MAXLEN', keep, id, 'm', member)
  end
  return version
end
local function remove(member, keep)
  redis.call('HDEL', KEYS[4], member)
  redis.call('ZREM', KEYS[5], member)
  redis.call('ZREM', KEYS[3], member)
  publish(member, keep, nil)
end
"""

# ARGV: member, value, if_version or "", expires_at, now, keep
_PUT: Final = (
    _COMMON
    + """
local found = live(ARGV[1], tonumber(ARGV[5]))
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= found then return {-1, found} end
local version = publish(ARGV[1], ARGV[6], ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1], string.format('%d ', version) .. ARGV[4] .. ' ' .. ARGV[2])
redis.call('ZADD', KEYS[5], 0, ARGV[1])
if ARGV[4] == '0' then redis.call('ZREM', KEYS[3], ARGV[1])
else redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1]) end
return {0, version}
"""
)

# ARGV: member, if_version or "", now, keep
_DELETE: Final = (
    _COMMON
    + """
local found = live(ARGV[1], tonumber(ARGV[3]))
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= found then return {-1, found} end
if found == 0 then return {0, 0} end
remove(ARGV[1], ARGV[4])
return {0, 1}
"""
)

# ARGV: now, batch, keep
_SWEEP: Final = (
    _COMMON
    + """
local members = redis.call('ZRANGE', KEYS[3], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
for _, member in ipairs(members) do remove(member, ARGV[3]) end
return #members
"""
)

# ARGV: lower bound, upper bound, limit
_SCAN: Final = """
local members = redis.call('ZRANGE', KEYS[5], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
local found = {}
for _, member in ipairs(members) do
  found[#found + 1] = member
  found[#found + 1] = redis.call('HGET', KEYS[4], member)
end
return found
"""

# ARGV: version, limit
_AFTER: Final = """
local head = tonumber(redis.call('GET', KEYS[1]) or '0')
local version = tonumber(ARGV[1])
if version == head then return {} end
if version > head then return false end
local changes = redis.call('XRANGE', KEYS[2], string.format('%d-0', version + 1), '+', 'COUNT', ARGV[2])
if #changes == 0 or changes[1][1] ~= string.format('%d-0', version + 1) then return false end
return changes
"""


class RedisStore:
    """`Records` and `Feed` on a Redis server or cluster. `await RedisStore.open(...)`, later `close()`."""

    __slots__ = ("_block", "_client", "_keep", "_keys", "_now", "_reached", "_scripts", "_sweeper")

    def __init__(self, reached: Reached, now: Callable[[], int], name: str, keep: int, block: float) -> None:
        self._reached = reached
        self._client = client = reached.client
        self._block = block
        self._now = now
        self._keep = keep
        self._keys = [f"{{ztproxy:{name}}}:{part}" for part in ("head", "feed", "expiry", "record", "order")]
        self._scripts = {
            script: client.register_script(script) for script in (_PUT, _DELETE, _SWEEP, _SCAN, _AFTER)
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
    ) -> Self:
        """Connect. `name` separates installations on one server.

        `durable` demands a server that writes to disk before it answers (appendonly yes, appendfsync
        always); without it an acknowledged write may be lost when the server dies.
        Raises StoreUnavailable when it can not be reached or may lose what it acknowledged.
        """
        reached = reach(options)
        try:
            async with told():
                await _check_server(reached.client, durable=durable)
        except BaseException:
            await reached.close()
            raise
        return cls(reached, now, name, keep, min(BLOCK_SECONDS, options.timeout / 2))

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

    async def put(
        self, kind: str, key: str, value: bytes, *, if_version: int | None = None, expires_at: int = 0
    ) -> int:
        """Write and publish in one step."""
        expected = "" if if_version is None else if_version
        arguments = [_member(kind, key), value, expected, expires_at, self._now(), self._keep]
        return _accepted(kind, await self._run(_PUT, arguments))

    async def scan(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Versioned]:
        """Return live records of a kind with keys greater than `after`, in key order."""
        lower, upper = b"(" + _member(kind, after), b"(" + kind.encode() + b"\x01"
        found: list[Versioned] = []
        now = self._now()
        while len(found) < limit:
            flat = await self._run(_SCAN, [lower, upper, limit])
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            found += filter(None, (_unpack(member, packed, now) for member, packed in pairs))
            if len(pairs) < limit:
                break
            lower = b"(" + pairs[-1][0]
        return found[:limit]

    async def delete(self, kind: str, key: str, *, if_version: int | None = None) -> bool:
        """Delete and publish; False when nothing was there."""
        expected = "" if if_version is None else if_version
        arguments = [_member(kind, key), expected, self._now(), self._keep]
        return bool(_accepted(kind, await self._run(_DELETE, arguments)))

    # Feed

    async def head(self) -> int:
        """Return the number of the newest change."""
        async with told():
            return int(await self._client.get(self._keys[0]) or 0)

    async def after(self, version: int, *, limit: int = 1000) -> Sequence[Change] | None:
        """Return changes after `version` in order; None when they are no longer kept."""
        entries = await self._run(_AFTER, [version, limit])
        return None if entries is None else [_change(entry) for entry in entries]

    async def wait(self, version: int, seconds: float) -> bool:
        """Return True as soon as the head is past `version`, False after `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            if await self.head() > version:
                return True
            remaining = deadline - loop.time()
            if remaining <= 0:
                return False
            block = max(1, int(min(remaining, self._block) * 1000))
            async with told():
                await self._client.xread({self._keys[1]: f"{version}-0"}, count=1, block=block)

    async def sweep(self) -> int:
        """Delete and publish every expired record; return how many."""
        total = 0
        while True:
            swept = int(await self._run(_SWEEP, [self._now(), SWEEP_BATCH, self._keep]))
            total += swept
            if swept < SWEEP_BATCH:
                return total

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with suppress(StoreUnavailable):  # callers of the store see the same trouble themselves
                await self.sweep()

    async def _run(self, script: str, arguments: Sequence[str | bytes | int]) -> Any:
        async with told():
            return await self._scripts[script](keys=self._keys, args=arguments)


async def _check_server(client: Client, *, durable: bool) -> None:
    """Refuse a server that may forget what it acknowledged."""
    memory = await client.info("memory")
    if str(memory.get("maxmemory_policy", "")).startswith("allkeys"):
        raise StoreUnavailable("Redis may evict records: set maxmemory-policy to noeviction")
    if not durable:
        return
    try:
        settings = await client.config_get("append*")
    except RedisError as error:
        raise StoreUnavailable("Redis does not tell whether it is durable (CONFIG GET refused)") from error
    if (settings.get("appendonly"), settings.get("appendfsync")) != ("yes", "always"):
        raise StoreUnavailable("Redis is not durable: set appendonly yes and appendfsync always")


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
    return Change(int(number.partition(b"-")[0]), kind, key, fields[3] if len(fields) > 2 else None)


def _accepted(kind: str, answer: Sequence[int]) -> int:
    if answer[0] < 0:
        raise Conflict(f"{kind} has version {answer[1]}, not the expected one")
    return int(answer[1])

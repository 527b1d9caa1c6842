"""The pot of rates that several nodes keep together, on Redis. One script call settles many callers.

The bucket is that of `net.rate`, on the server's clock. Callers' names are hashed: a store of tokens need not
know who asks. Loses nothing that matters when it is lost; so it is told by None, not by an exception.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Self

from msgspec.structs import replace
from redis.exceptions import RedisClusterException, RedisError

from ztproxy.model.quota import Grant, Wish
from ztproxy.store.redis_client import Reached, RedisOptions, reach

ANSWER_SECONDS: Final = 0.5

# KEYS: one hash per caller (l: tokens left, a: time in µs). ARGV, for each: rate per second, burst, wish
_DRAW: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local out = {}
for i, key in ipairs(KEYS) do
  local rate, burst, wish = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local known = redis.call('HMGET', key, 'l', 'a')
  local left, at = tonumber(known[1] or burst), tonumber(known[2] or now)
  left = math.min(burst, left + math.max(0, now - at) / 1000000 * rate)
  local given = math.min(wish, math.floor(left))
  left = left - given
  redis.call('HSET', key, 'l', string.format('%.9f', left), 'a', string.format('%.0f', math.max(now, at)))
  redis.call('PEXPIRE', key, math.ceil((burst - left) / rate * 1000) + 1000)
  out[2*i-1] = given
  out[2*i] = math.ceil(math.max(0, 1 - left) / rate * 1000)
end
return out
"""


class RedisPot:
    """Implements `gateway.leases.Pot`. `RedisPot.open(...)`, later `close()`."""

    __slots__ = ("_draw", "_prefix", "_reached")

    def __init__(self, reached: Reached, name: str) -> None:
        self._reached = reached
        self._draw = reached.client.register_script(_DRAW)
        self._prefix = f"{{ztproxy:{name}:rates}}:"

    @classmethod
    def open(cls, options: RedisOptions, *, name: str = "main") -> Self:
        """Use the servers of a store; connects when asked to draw, and does not wait long.

        Raises StoreUnavailable for what is no address.
        """
        quick = min(ANSWER_SECONDS, options.timeout)
        return cls(reach(replace(options, timeout=quick, connect_timeout=quick)), name)

    async def close(self) -> None:
        """Close the connections."""
        await self._reached.close()

    async def draw(self, wishes: Sequence[Wish]) -> Sequence[Grant] | None:
        """Take tokens out; None when the server does not answer."""
        keys = [self._prefix + hashlib.sha256(wish.key.encode()).hexdigest() for wish in wishes]
        numbers = [(repr(wish.rate.per_second), wish.rate.burst, wish.tokens) for wish in wishes]
        try:
            flat = await self._draw(keys=keys, args=[number for three in numbers for number in three])
        except (RedisError, RedisClusterException, OSError):
            return None
        return [
            Grant(int(tokens), int(wait) / 1000) for tokens, wait in zip(flat[::2], flat[1::2], strict=True)
        ]

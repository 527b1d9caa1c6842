"""The pot of rates that several nodes keep together, on Redis. One script call charges many callers.

Made by `service.rates`. The buckets are those of `net.rate`, on the server's clock, each until it is full
again; keys tell nobody who asks. Nodes that draw are counted, so that each knows its share when the server is
away. Loses nothing that matters when it is lost.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Self

from msgspec.structs import replace

from ztproxy.model.quota import Spent
from ztproxy.store.interface import Balance, StoreUnavailable
from ztproxy.store.redis_client import Reached, RedisOptions, reach, told

ANSWER_SECONDS: Final = 0.5
NODE_SECONDS: Final = 10  # without a word, after which a node does not count

# KEYS: the set of nodes, then one value per caller: "LEFT AT", AT in µs
# ARGV: our node, µs until a node is gone; for each caller: rate per second, burst, tokens, left
_CHARGE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
local silent = string.format('%.0f', now - tonumber(ARGV[2]))
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', silent, 'BYSCORE')) do
  redis.call('ZREM', KEYS[1], node)
end
local out = {tostring(#redis.call('ZRANGE', KEYS[1], 0, -1))}
for i = 2, #KEYS do
  local rate, burst = tonumber(ARGV[4*i-5]), tonumber(ARGV[4*i-4])
  local tokens, left = tonumber(ARGV[4*i-3]), tonumber(ARGV[4*i-2])
  local known = redis.call('GET', KEYS[i])
  local at = now
  if known then
    local before, when = string.match(known, '(%S+) (%S+)')
    at = math.max(now, tonumber(when))
    left = math.min(burst, tonumber(before) + (at - tonumber(when)) / 1000000 * rate) - tokens
  else
    left = math.min(burst, left)
  end
  local full = math.ceil((burst - left) / rate * 1000) + 1000
  redis.call('SET', KEYS[i], string.format('%.9f %.0f', left, at), 'PX', string.format('%.0f', full))
  out[i] = string.format('%.9f', left)
end
return out
"""


class RedisPot:
    """Implements `store.interface.Pot`. `RedisPot.open(...)`, later `close()`."""

    __slots__ = ("_charge", "_node", "_prefix", "_reached")

    def __init__(self, reached: Reached, name: str, node: str) -> None:
        self._reached = reached
        self._charge = reached.client.register_script(_CHARGE)
        self._prefix = f"{{ztproxy:{name}}}:rates:"
        self._node = node

    @classmethod
    def open(cls, options: RedisOptions, *, node: str, name: str = "main") -> Self:
        """Use the servers of a store; connects when asked to charge, and does not wait long.

        `node` is this node's own word. Raises StoreUnavailable for what is no address.
        """
        quick = min(ANSWER_SECONDS, options.timeout)
        return cls(reach(replace(options, timeout=quick, connect_timeout=quick)), name, node)

    async def close(self) -> None:
        """Close the connections."""
        await self._reached.close()

    async def charge(self, spent: Sequence[Spent]) -> Balance:
        """Take what was spent, and return what is left."""
        keys = [self._prefix + "nodes", *[self._prefix + one.key for one in spent]]
        args = [self._node, str(NODE_SECONDS * 1_000_000)]
        for one in spent:
            args += map(repr, (one.rate.per_second, one.rate.burst, one.tokens, one.left))
        try:
            async with told(), asyncio.timeout(2 * ANSWER_SECONDS):
                nodes, *left = await self._charge(keys=keys, args=args)
        except TimeoutError:
            raise StoreUnavailable("Redis: no answer in time") from None
        return Balance(tuple(map(float, left)), max(1, int(nodes)))

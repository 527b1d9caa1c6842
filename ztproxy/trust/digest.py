"""One number for all that a memory holds: whoever holds the same has the same, in whatever order it came.

Worked out when somebody asks (`service.link` for a worker, `service.alike` for the store), a few records at a
time. A sum of hashes, so that a record that is missing, another or there twice makes another number; it finds
mistakes and guards against nobody: who can write to the store can make two states of one number.
"""

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from ztproxy.trust.memory import Memory

STEP: Final = 200  # records between which others have their turn: about a millisecond
_BYTES: Final = 16
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


Holding = dict[str, list[tuple[str, Any]]]


def holding(memory: Memory) -> Holding:
    """Return what it holds now, by kind: its values never change."""
    tables: Holding = {kind: list(table.items()) for kind, table in memory.tables().items()}
    return tables | {"unread": [(key, None) for key in memory.unread]}


async def digest(held: Holding) -> tuple[int, str]:
    """Return how many records these are, and their digest in hex."""
    total, count = 0, 0
    for kind, records in held.items():
        for key, value in records:
            total += _hash(kind, key, value)
            count += 1
            if count % STEP == 0:
                await asyncio.sleep(0)
    return count, (total % (1 << 8 * _BYTES)).to_bytes(_BYTES, "big").hex()


def _hash(kind: str, key: str, value: object) -> int:
    return int.from_bytes(hashlib.blake2b(_encode((kind, key, value)), digest_size=_BYTES).digest(), "big")

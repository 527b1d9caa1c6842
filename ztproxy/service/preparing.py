"""Heavy work beside the loop: in a thread that lets the loop in at once.

Used by worker and control to load a configuration while they serve by another.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

#: Seconds after which a thread that computes lets another in. The customary 5 ms would be added to every
#: turn of the loop.
SLICE: Final = 0.0003


async def aside(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SLICE)
    try:
        return await asyncio.to_thread(work)
    finally:
        sys.setswitchinterval(before)

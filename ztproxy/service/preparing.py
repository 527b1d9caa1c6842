"""Heavy work beside the loop: in a thread that lets the loop in at once.

Used by worker and control to load a configuration, the first one and others while they serve by one. To read
thousands of policies takes several times the memory that they come to. glibc gives each thread memory of its
own, so what is free again does not lie scattered among what requests use; and it goes back to the machine.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ztproxy.service.ebb import give_back

T = TypeVar("T")

#: Seconds after which a thread that computes lets another in. The customary 5 ms would be added to every
#: turn of the loop.
SLICE: Final = 0.0003


async def aside(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SLICE)
    try:
        return await asyncio.to_thread(_tidily, work)
    finally:
        sys.setswitchinterval(before)


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread while there is no loop yet."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_tidily, work).result()


def _tidily(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        give_back()

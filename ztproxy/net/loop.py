"""The loop that every long-running program of ours runs on.

Called by the processes of `service` and by the connector, first and once.
"""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import uvloop


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine on uvloop until it ends."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # few cycles are made per request; pauses cost more than memory
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(_report)
        runner.run(main)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught, but not what peers do to their own connections: anybody could fill the log."""
    if not (isinstance(context.get("exception"), OSError) and "transport" in context):
        loop.default_exception_handler(context)

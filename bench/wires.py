"""A wire to a server that can be held, as when a network is parted, or cut, as when it is taken away.

Runs in a thread of its own, so that whoever holds it may block. Used by `bench.nodes`.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from bench.machine import free_port


class Wire:
    """Carries bytes from `port` to another port of loopback."""

    def __init__(self, to: int) -> None:
        self.port, self._to = free_port(), to
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open = asyncio.Event()
        self._severed = False
        self._carrying: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._listen())

    def hold(self) -> None:
        """Carry nothing any more, in no direction, on no connection, and break none."""
        self._run(self._set(False))

    def sever(self) -> None:
        """Break every connection, in the middle of whatever is said, and every new one."""
        self._run(self._sever())

    def heal(self) -> None:
        """Carry on, with what was held first."""
        self._run(self._set(True))

    def end(self) -> None:
        """Close everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _set(self, through: bool) -> None:
        self._severed = False
        self._open.set() if through else self._open.clear()

    async def _sever(self) -> None:
        self._severed = True
        for task in self._carrying:
            task.cancel()

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._severed:
            writer.transport.abort()
            return
        self._carrying.add(task)
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._carrying.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()  # one end is gone: neither is of use

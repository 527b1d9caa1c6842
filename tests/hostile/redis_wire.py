"""A wire to a real Redis that carries one command and one answer after the other, and fails as it is told.

The client is the product's own; what it sees is what a network does: connections that end before or after a
command was heard, answers that come in half, late or never.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

#: What can happen at a command.
Fault = Literal["unheard", "half heard", "unanswered", "half answered", "late", "heard late", "slow"]
SOON = 0.02  # seconds, well within any patience


class RedisWire:
    """Listens on `port` of loopback. `fault(number)` says what happens at the number-th command, if anything.

    `patience` is that of the client (seconds): "late" answers and commands that are "heard late" take longer.
    """

    def __init__(self, to: int, patience: float) -> None:
        self._to, self._late = to, patience * 1.5
        self._connections: set[asyncio.Task[None]] = set()
        self.fault: Callable[[int], Fault | None] = lambda _: None
        self.carried = 0
        self.faults = 0
        self.held = 0  # commands that will be heard later

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                while await self._carry(reader, writer, far_reader, far_writer):
                    pass
            finally:
                far_writer.close()  # what was sent on it arrives
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> bool:
        """Carry one command and its answer; False when the connection ends here."""
        command = await message(reader)
        self.carried += 1
        fault = self.fault(self.carried)
        self.faults += fault is not None
        if fault == "unheard":
            return False
        if fault == "half heard":
            far_writer.write(command[: len(command) // 2])
            return False
        if fault == "heard late":
            self.held += 1
            await asyncio.sleep(self._late)
        far_writer.write(command)
        try:
            answer = await message(far_reader)
        finally:
            self.held -= fault == "heard late"
        if fault == "unanswered":
            return False
        if fault == "half answered":
            writer.write(answer[: len(answer) // 2])
            await asyncio.sleep(SOON)  # it is there, and then the connection ends
            return False
        if fault in ("late", "slow"):
            await asyncio.sleep(self._late if fault == "late" else SOON)
        writer.write(answer)
        return True


async def message(reader: asyncio.StreamReader) -> bytes:
    """Return one message of the Redis protocol (RESP2), whole. Raises asyncio.IncompleteReadError."""
    line = await reader.readuntil(b"\r\n")
    kind, count = line[:1], line[1:-2]
    if kind == b"$" and count != b"-1":
        return line + await reader.readexactly(int(count) + 2)
    if kind == b"*":
        return line + b"".join([await message(reader) for _ in range(int(count))])
    return line

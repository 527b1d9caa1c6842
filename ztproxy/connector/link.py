"""One connection of a connector to a proxy: asks to carry, waits ready, is asked, carries.

Made by `connector.links`, which decides how many there are. Whatever the proxy asks, `connector.allowed` has
the last word here; what the proxy says wrongly ends this one connection.
"""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, cast

import aiofastnet

from ztproxy.connector.allowed import leads_astray
from ztproxy.model.endpoints import CARRY
from ztproxy.net.alive import keep_alive
from ztproxy.net.splice import Half
from ztproxy.wire.carrying import (
    OF_GATEWAY,
    PROTOCOL,
    BadFrame,
    Frame,
    FrameReader,
    Open,
    Opened,
    Reason,
    Refused,
    Status,
    Wanted,
    written,
)
from ztproxy.wire.http1 import BadHead, ResponseReader

if TYPE_CHECKING:
    from ztproxy.connector.links import Keeper, Links

log = logging.getLogger("ztproxy.connector")

HEAD_LIMIT: Final = 16384  # bytes of the proxy's answer
#: After so many seconds a proxy is told that its question is being worked on; a second later it asks others.
PATIENCE: Final = 0.3


class Link(asyncio.Protocol):
    """The protocol of a connection to a proxy. `keeper` is told what becomes of it."""

    def __init__(self, keeper: "Keeper") -> None:
        self.wanted: Wanted | None = None  # what its worker said last
        self.old = False  # there is a newer certificate
        self.status = 0  # of the proxy's answer
        self.carries = False
        self.ended = False
        self._keeper = keeper
        self._head: ResponseReader | None = ResponseReader(HEAD_LIMIT)
        self._frames = FrameReader(OF_GATEWAY)
        self._opening: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask like everybody else."""
        self.transport = cast("asyncio.Transport", transport)
        self._keeper.made(self)
        keep_alive(transport)
        host = self._keeper.proxy.authority
        self.transport.write(
            f"GET {CARRY} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n"
            f"User-Agent: ztproxy-connector/{self._keeper.version}\r\n\r\n".encode("ascii")
        )

    def data_received(self, data: bytes) -> None:
        """The proxy's answer, then frames."""
        try:
            if self._head is not None:
                found = self._head.feed(data)
                if found is None:
                    return
                head, data = found
                self.status = head.status
                if head.status != 101 or head.upgrade != PROTOCOL:
                    self.close()
                    return
                self._head = None
                self.say_status()
            while data and not self.transport.is_closing() and (one := self._frames.feed(data)) is not None:
                frame, data = one
                self._take(frame, data)
        except (BadHead, BadFrame) as bad:
            log.warning(
                "a proxy does not keep to the protocol",
                extra={"proxy": self._keeper.proxy.authority, "why": str(bad)},
            )
            self.close()

    def eof_received(self) -> bool:
        """The proxy closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, before it carried anything."""
        self.ended = True
        if self._opening is not None:
            self._opening.cancel()
        self._keeper.lost(self)

    # ------------------------------------------------------------------ what the keeper does

    @property
    def ready(self) -> bool:
        """Tell whether it waits to be asked."""
        return self.wanted is not None and self._opening is None and not self.transport.is_closing()

    def say_status(self) -> None:
        """Say how the connector is."""
        home = self._keeper.home
        self._say(Status(home.version, len(home.carrying), self._keeper.draining))

    def close(self) -> None:
        """End now: nothing is carried yet."""
        self.transport.abort()

    # ------------------------------------------------------------------ being asked

    def _take(self, frame: Frame, rest: bytes) -> None:
        """Take a frame; `rest` is what came behind it. Who asks waits for the answer before the next word."""
        if isinstance(frame, Wanted):
            self._wants(frame)
        elif self._opening is not None or rest:
            raise BadFrame("asked while at work")
        elif isinstance(frame, Open):
            self._asked(frame)

    def _wants(self, frame: Wanted) -> None:
        before = self.wanted or frame
        if frame.worker >= frame.workers or (before.node, before.worker) != (frame.node, frame.worker):
            raise BadFrame("wants something for another worker")
        self.wanted = frame
        self._keeper.wants(self, frame)

    def _asked(self, frame: Open) -> None:
        home = self._keeper.home
        if self._keeper.draining:
            self._refuse("draining")
        elif not home.allowed.permits(frame.scheme, frame.host, frame.port):
            self._keeper.forbade(frame)
            self._refuse("not-allowed")
        elif len(home.carrying) >= home.limits.carrying:
            self._refuse("busy")
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open(frame))
            self._keeper.taken(self)

    async def _open(self, frame: Open) -> None:
        """Dial the application; the rest happens in the moment in which that stands."""
        loop = asyncio.get_running_loop()
        sign = loop.call_later(PATIENCE, self._say_at_work)
        try:
            async with asyncio.timeout(self._keeper.home.limits.dial):
                await self._dial(frame)
        except (OSError, ValueError) as failed:  # of time and of names that can be none, too
            log.info(
                "an application can not be reached",
                extra={"asked": [frame.host, frame.port], "why": f"{type(failed).__name__}: {failed}"},
            )
            if not self.carries and not self.ended:
                self._opening = None
                self._refuse("unreachable")
                self._keeper.again(self)
        finally:
            sign.cancel()

    async def _dial(self, frame: Open) -> None:
        def ours() -> Application:
            return Application(self, frame, self._keeper.home)

        loop = asyncio.get_running_loop()
        if frame.scheme == "unix":
            await aiofastnet.create_unix_connection(loop, ours, frame.host)
            return
        found = await loop.getaddrinfo(frame.host, frame.port, type=socket.SOCK_STREAM)
        addresses = [at[0] for *_, at in found if not leads_astray(frame.host, str(at[0]))]
        for number, address in enumerate(addresses):
            try:
                await aiofastnet.create_connection(loop, ours, str(address), frame.port)
            except OSError:
                if number + 1 == len(addresses):
                    raise
            else:
                return
        raise OSError("the name leads nowhere that may be dialled")

    def stands(self, application: "Application", asked: Open) -> None:
        """The application's connection stands: from the next byte on there are no frames."""
        if self.ended or self.transport.is_closing():
            application.transport.abort()
            return
        if not self._keeper.home.allowed.permits(asked.scheme, asked.host, asked.port):
            application.transport.abort()  # the list has changed meanwhile
            self.close()
            return
        self._say(Opened())
        self.carries = True
        link = Half(self._keeper.home.over, self._keeper.home.outbox)
        link.join(self.transport, application)
        self.transport.set_protocol(link)
        self._keeper.carries(self, link, asked)

    def _say_at_work(self) -> None:
        """Nothing, if it stands meanwhile and we have only not been told: the bytes are the application's."""
        if not self.carries:
            self.say_status()

    def _refuse(self, reason: Reason) -> None:
        self._say(Refused(reason))

    def _say(self, frame: Frame) -> None:
        self.transport.write(written(frame))


class Application(Half):
    """The application's half, which begins in the moment it stands."""

    def __init__(self, link: Link, asked: Open, home: "Links") -> None:
        super().__init__(home.over, home.outbox)
        self._link: Link | None = link
        self._asked = asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part before a byte of it can come."""
        super().connection_made(transport)
        link, self._link = self._link, None
        assert link is not None
        link.stands(self, self._asked)

"""The connector's verbs: enrol, run, check. Called by the command line.

A small program of its own: it shares formats with the proxy, and has no store, no policy and no authority.
What it may carry to is in its own file, and who it is in its own folder. SIGHUP has the file read anew; one
that is not sound changes nothing.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ztproxy import __version__
from ztproxy.config.problems import ConfigProblems
from ztproxy.connector.allowed import Allowed
from ztproxy.connector.configuration import Configuration
from ztproxy.connector.enrolment import enrol
from ztproxy.connector.links import Limits, Links, Proxy
from ztproxy.connector.renewal import Renewal
from ztproxy.connector.state import ConnectorError, Folder, Identity
from ztproxy.net.clock import SystemClock, entropy
from ztproxy.net.descriptors import use_all_descriptors
from ztproxy.telemetry.log import configure

__all__ = ["ConnectorError", "enrol", "run"]

log = logging.getLogger("ztproxy.connector")


async def run(configuration: Configuration, again: Callable[[], Configuration]) -> None:
    """Carry until SIGTERM or SIGINT, then let what is carried end. On SIGHUP `again` reads the file anew; it
    raises ConfigProblems. Raises ConnectorError."""
    use_all_descriptors()  # each connection that carries takes two
    folder = Folder(configuration.state)
    connector = Running(configuration, folder, folder.identity())
    with _signals(lambda: connector.reload(again)) as stop:
        await connector.run(stop)
    log.info("stopped")


class Running:
    """A connector that runs."""

    def __init__(self, configuration: Configuration, folder: Folder, identity: Identity) -> None:
        self._configuration = configuration
        self._folder = folder
        self._identity = identity
        self._context = folder.context(configuration.ca)
        self._links = Links(
            proxies_of(configuration, identity),
            lambda: self._context,
            Allowed(configuration.allow),
            limits_of(configuration),
            version=__version__,
            refused=lambda: self._renewal.doubt(),
        )
        self._renewal = Renewal(
            folder, ca=configuration.ca, clock=SystemClock(), entropy=entropy, renewed=self._renewed
        )

    def reload(self, again: Callable[[], Configuration]) -> None:
        """Take up what the file says now; if anything is wrong with it, nothing changes."""
        try:
            self._take_up(again())
        except ConfigProblems as error:
            for problem in error.problems:
                log.error("not reloaded", extra={"why": str(problem)})
        except ConnectorError as error:
            log.error("not reloaded", extra={"why": str(error)})

    def _take_up(self, said: Configuration) -> None:
        """Raises ConnectorError before anything has changed."""
        if said.state != self._configuration.state:
            raise ConnectorError("`state` says who this connector is: that takes a restart")
        context = self._folder.context(said.ca)
        proxies, allowed = proxies_of(said, self._identity), Allowed(said.allow)
        self._configuration, self._context = said, context
        self._renewal.ca = said.ca
        self._links.limits = limits_of(said)
        self._links.allow(allowed)
        self._links.dial(proxies, said.drain / 1000)
        self._links.refresh()  # what is ready was verified by the authorities of before
        if not said.proxies:
            self._renewal.doubt()  # the portal may tell other ones by now
        configure(said.log.level, said.log.format)
        log.info(
            "reloaded", extra={"proxies": [str(one.authority) for one in proxies], "allows": len(allowed)}
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Carry and renew until told to stop. Raises ConnectorError."""
        identity = self._identity
        log.info(
            "the connector is up",
            extra={"connector": identity.key, "proxies": list(identity.proxies)},
        )
        carrying = asyncio.create_task(self._links.run(), name="connector-links")
        renewing = asyncio.create_task(self._renewal.run(), name="connector-renewal")
        stopping = asyncio.create_task(stop.wait(), name="connector-stop")
        tasks = (carrying, renewing, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                log.info("stopping: what is carried may end", extra={"carrying": len(self._links.carrying)})
                await self._links.drain(self._configuration.drain / 1000)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in (carrying, renewing):
            if not task.cancelled():
                task.result()

    def _renewed(self) -> None:
        """New connections use the new certificate, and old ones that are ready are replaced."""
        try:
            self._context = self._folder.context(self._configuration.ca)
        except ConnectorError:
            log.exception("the new certificate can not be used")
            return
        self._links.refresh()
        self._identity = self._folder.identity()
        self._dial()

    def _dial(self) -> None:
        """The portal may have told other proxies; the file's own go first."""
        try:
            proxies = proxies_of(self._configuration, self._identity)
        except ConnectorError as error:
            log.error("the proxies stay those that were", extra={"why": str(error)})
        else:
            self._links.dial(proxies, self._configuration.drain / 1000)


def limits_of(configuration: Configuration) -> Limits:
    """Return what bounds a connector."""
    said = configuration.limits
    return Limits(carrying=said.carrying, dial=said.dial / 1000, handshake=said.handshake / 1000)


def proxies_of(configuration: Configuration, identity: Identity) -> list[Proxy]:
    """Return where to dial. Raises ConnectorError."""
    return [proxy_of(text, identity.host) for text in configuration.proxies or identity.proxies]


def proxy_of(text: str, name: str) -> Proxy:
    """Return the proxy at HOST:PORT or [HOST]:PORT. Raises ConnectorError."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ConnectorError(f"the portal tells of a proxy {text[:100]!r}, which is no place to dial")
    return Proxy(host.strip("[]"), int(port), name)


@contextmanager
def _signals(reload: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Give what is set when we are told to stop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield stop
    finally:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(name)

"""What a worker serves by: the assembly in force, and the next one while it is made ready beside it.

Made by `service.worker`. `prepare` does what takes time and changes nothing; `commit` swaps one reference in
one turn of the loop, so every request meets one configuration as a whole.
"""

import asyncio
from typing import Final

from ztproxy.config.settings import Settings
from ztproxy.gateway.connection import Connection
from ztproxy.gateway.world import InForce
from ztproxy.net.listener import Listener
from ztproxy.net.tls import distrusted
from ztproxy.policy.engine import PolicySet
from ztproxy.service.assemble import Assembly, Contexts, Lasting, assemble, contexts_of
from ztproxy.service.configuration import unseal
from ztproxy.service.preparing import aside
from ztproxy.telemetry.log import configure

PATIENCE: Final = 10.0  # seconds a commit waits for live paths to be decided again


class Serving:
    """One worker's configuration."""

    def __init__(self, settings: Settings, policies: PolicySet, contexts: Contexts, lasting: Lasting) -> None:
        self._lasting = lasting
        self._policies = policies
        self._next: tuple[Settings, PolicySet, Contexts] | None = None
        self.now = assemble(settings, policies, contexts, lasting)
        self.in_force = InForce(self.now.world)

    async def prepare(self, descriptor: int) -> None:
        """Make the next configuration ready. Raises ConfigProblems, OSError, ValueError."""
        self._next = None
        file, state, before = self.now.settings.file, self._lasting.state, self._policies

        def build() -> tuple[Settings, PolicySet, Contexts]:
            settings, policies = unseal(descriptor, file, before)
            return settings, policies, contexts_of(settings, state)

        self._next = await aside(build)

    def forget(self) -> None:
        """What was made ready will not be needed."""
        self._next = None

    async def commit(self, listener: Listener) -> None:
        """Serve by what was made ready, and decide all live paths by it. Raises ValueError: there is none."""
        if self._next is None:
            raise ValueError("nothing is prepared")
        (settings, policies, contexts), self._next = self._next, None
        before, self._policies = self.now, policies
        self._swap(assemble(settings, policies, contexts, self._lasting, before), listener)
        before.retire()
        configure(settings.log.level, settings.log.format)
        await self._decide_again()

    def _swap(self, after: Assembly, listener: Listener) -> None:
        before, self.now = self.now, after
        self.in_force.world = after.world
        before.door.succeeded_by(after.door)
        listener.adopt(after.contexts, after.settings.limits.handshake_timeout / 1000)
        if gone := distrusted(before.contexts.bundles, after.contexts.bundles):
            listener.drop_handshakes()
            for connection in connections(self._lasting):  # who was let in by one has to show another
                certificate = connection.peer.tls.certificate
                if certificate is not None and certificate.bundle in gone:
                    connection.cut("certificate-untrusted")
        after.start(self._lasting)
        for connection in connections(self._lasting):
            if connection.idle:  # it would keep what is no longer in force until its next request
                connection.world = after.world

    async def _decide_again(self) -> None:
        """Have all live paths decided again, and wait until that is done, as long as it should take."""
        paths, clock = self._lasting.paths, self._lasting.clock
        paths.all_changed()
        until = clock.monotonic() + PATIENCE
        while paths.waiting and clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def connections(lasting: Lasting) -> list[Connection]:
    """Return everybody who is connected: connections put themselves on the wheel."""
    return [one for one in lasting.wheel if isinstance(one, Connection)]


def first(settings: Settings, policies: PolicySet, lasting: Lasting) -> Serving:
    """Return what a worker begins with. Raises OSError, ValueError."""
    return Serving(settings, policies, contexts_of(settings, lasting.state), lasting)

"""One transmitter's way in: a token comes, is verified with its keys, and what it says is done.

Called by the push endpoint and by polling, so that both are told the same.
"""

import logging
from collections.abc import Callable

from ztproxy.administrator.signals.intake import Intake
from ztproxy.trust.signals.remote import Remote
from ztproxy.trust.signals.token import SetRefused

log = logging.getLogger("ztproxy.signals")


class Receiver:
    """Takes tokens of one transmitter. `count(source, event, outcome)`."""

    def __init__(self, remote: Remote, intake: Intake, count: Callable[[str, str, str], None]) -> None:
        self.remote = remote
        self.transmitter = remote.transmitter
        self._intake = intake
        self._count = count

    async def receive(self, token: str) -> str:
        """Return what came of a token.

        Raises SetRefused; TemporaryProviderError, SignInRefused and RemoteRefused when its keys are not to be
        had; StoreUnavailable, AuditUnavailable.
        """
        name = self.transmitter.name
        try:
            event = await self.remote.verify(token)
            return await self._intake.take(self.transmitter, event, (await self.remote.metadata()).critical)
        except SetRefused as refused:
            self._count(name, "unknown", refused.err)
            log.warning("a signal was refused", extra={"source": name, "reason": str(refused)})
            raise

"""Whether anybody or anything here goes by a name: who locks somebody is told when it is nobody known.

Called by `api.locks` after a lock is in force. It decides nothing: people may be locked before they come.
"""

from collections.abc import Iterable

from ztproxy.administrator.devices import Devices
from ztproxy.administrator.sessions import Sessions

_PAGE = 1000


class Acquaintance:
    """What there is. `issuers` are the names of identity providers and trust bundles."""

    def __init__(self, sessions: Sessions, devices: Devices, issuers: Iterable[str]) -> None:
        self._sessions = sessions
        self._devices = devices
        self._issuers = frozenset(issuers)

    async def known(self, target: str, value: str) -> bool:
        """Tell whether a target of a lock is known; what nobody could know counts as known."""
        if target == "user":
            return await self._user(value)
        if target == "session":
            return await self._sessions.get(value) is not None
        if target == "device":
            return await self._devices.get(value) is not None
        return target != "issuer" or value in self._issuers

    async def _user(self, principal: str) -> bool:
        after = ""
        while page := await self._sessions.list(after=after, limit=_PAGE, ended=True):
            if any(session.principal.id == principal for session in page):
                return True
            after = page[-1].id
        return False

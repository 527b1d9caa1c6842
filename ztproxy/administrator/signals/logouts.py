"""What an identity provider's back-channel logout ends: the session it names, or all of the person.

Called by `api.logout` with verified logout tokens.
"""

from collections.abc import Iterable
from typing import Final

from ztproxy.administrator.signals.intake import Sessions, Standings, digest
from ztproxy.administrator.whose import Whose
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records
from ztproxy.trust.identity.logout import Logout

_LEEWAY: Final = 60_000  # ms


class Logouts:
    """Ends sessions of providers' people."""

    def __init__(
        self, records: Records, clock: Clock, whose: Whose, sessions: Sessions, standings: Standings
    ) -> None:
        self._records = records
        self._clock = clock
        self._whose = whose
        self._sessions = sessions
        self._standings = standings

    async def end(self, provider: str, logout: Logout) -> bool:
        """End those that are meant; False when this very token was used before.

        Raises StoreUnavailable, AuditUnavailable. The token is remembered last: a failure can be tried again.
        """
        key = digest(f"logout {provider} {logout.jti}")
        if await self._records.get("jti", key) is not None:
            return False
        by = f"logout of {provider}"
        until = min(self._clock.now(), logout.issued_at + _LEEWAY)
        people = [f"{provider}:{logout.sub}"] if logout.sub else []
        if logout.sid:
            await self._whose.log_out(until, [(provider, logout.sid)], people)
        else:
            await self._standings.note("user", people[0], by=by, ended_before=until)
        for session_id in await self._meant(provider, logout):
            await self._sessions.end(session_id, by)
        try:
            expires_at = logout.expires_at + 2 * _LEEWAY
            await self._records.put("jti", key, b"", if_version=0, expires_at=expires_at)
        except Conflict:
            return False
        return True

    async def _meant(self, provider: str, logout: Logout) -> Iterable[str]:
        """Sessions with that `sid`; of the person, those that began before and, with a `sid`, have none."""
        found = dict.fromkeys(await self._whose.sessions_with(provider, logout.sid) if logout.sid else ())
        person = f"{provider}:{logout.sub}"
        for session_id in await self._whose.sessions_of(person) if logout.sub else ():
            session = await self._sessions.get(session_id)
            if session is None or (logout.sid and session.sid):
                continue
            if session.created_at < logout.issued_at + _LEEWAY:
                found[session_id] = None
        return [one for one in found if await self._belongs(one, person if logout.sub else "")]

    async def _belongs(self, session_id: str, person: str) -> bool:
        """A `sid` that goes with a `sub` is of that person, or of nobody."""
        session = await self._sessions.get(session_id)
        return session is not None and person in ("", session.principal.id)

"""Whose sessions: found by person, by the provider's `sid` and by e-mail address, without a look at all of
them.

Written by `administrator.sessions` when one starts, read by `administrator.signals` and back-channel
logout. Record kind "whose"; an entry is as good as the session it names, so whoever finds one reads that,
too. What a logout named is kept for a while: no index finds a sign-in that is still under way. Values that
people chose stand here as digests.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from ztproxy.model.subject import Session
from ztproxy.store.interface import Conflict, Records, StoreUnavailable

#: Sessions of one person, and people of one address, that are looked at.
MOST: Final = 1000
_KIND: Final = "whose"
_PAGE: Final = 200
#: How long (ms) a logout is remembered: longer than any sign-in is under way.
REMEMBERED: Final = 3_600_000
_ATTEMPTS: Final = 16


class Whose:
    """The index, in `records`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def note(self, session: Session) -> None:
        """Make a new session findable."""
        person = session.principal
        await self._put(_person(person.id), session.id, session.expires_at)
        if session.sid:
            await self._put(_sid(session.provider, session.sid), session.id, session.expires_at)
        if person.email:
            await self._put(_email(person.email), person.id, session.expires_at)

    async def sessions_of(self, principal_id: str) -> Sequence[str]:
        """Return ids of sessions of a person, ended ones too."""
        return [found async for found in self._below(_person(principal_id))]

    async def sessions_with(self, provider: str, sid: str) -> Sequence[str]:
        """Return ids of sessions that a provider knows by this `sid`."""
        return [found async for found in self._below(_sid(provider, sid))]

    async def people_with(self, email: str) -> Sequence[str]:
        """Return principal ids of people who signed in with this e-mail address."""
        return [found async for found in self._below(_email(email))]

    async def log_out(self, until: int, sids: Iterable[tuple[str, str]], people: Iterable[str]) -> None:
        """Remember that sign-ins which were begun before `until` (ms) are overdue.

        Those by sessions of providers, as (provider, `sid`), and those of people, whatever session it was.
        """
        for provider, sid in sids:
            await self._later(_out(_sid(provider, sid)), until)
        for person in people:
            await self._later(_out(_person(person)), until)

    async def logged_out(self, session: Session) -> int:
        """Return until when (ms) a sign-in for this session is overdue, 0 = it is not."""
        keys = [_out(_person(session.principal.id))]
        if session.sid:
            keys.append(_out(_sid(session.provider, session.sid)))
        found = [await self._records.get(_KIND, key) for key in keys]
        return max(0 if stored is None else int(stored.value) for stored in found)

    async def _later(self, key: str, until: int) -> None:
        """Of two times the later one stays."""
        for _ in range(_ATTEMPTS):
            stored = await self._records.get(_KIND, key)
            if stored is not None and int(stored.value) >= until:
                return
            version, expires_at = 0 if stored is None else stored.version, until + REMEMBERED
            try:
                await self._records.put(
                    _KIND, key, str(until).encode(), if_version=version, expires_at=expires_at
                )
            except Conflict:
                continue
            return
        raise StoreUnavailable("one session is logged out too often at once")

    async def _put(self, prefix: str, value: str, expires_at: int) -> None:
        await self._records.put(_KIND, prefix + _digest(value), value.encode(), expires_at=expires_at)

    async def _below(self, prefix: str) -> AsyncIterator[str]:
        after, found = prefix, 0
        while page := await self._records.scan(_KIND, after=after, limit=_PAGE):
            for stored in page:
                if not stored.key.startswith(prefix) or found >= MOST:
                    return
                found += 1
                yield stored.value.decode()
            after = page[-1].key


def _person(principal_id: str) -> str:
    return f"person/{_digest(principal_id)}/"


def _sid(provider: str, sid: str) -> str:
    return f"sid/{_digest(f'{provider} {sid}')}/"


def _email(email: str) -> str:
    return f"email/{_digest(email.casefold())}/"


def _out(prefix: str) -> str:
    return f"out/{prefix.rstrip('/')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]

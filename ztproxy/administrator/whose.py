"""Whose sessions: found by person, by the provider's `sid` and by e-mail address, without a look at all of
them.

Written by `administrator.sessions` when one starts, read by `administrator.signals` and back-channel
logout. Record kind "whose"; an entry is as good as the session it names, so whoever finds one reads that,
too. Values that people chose stand here as digests.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from ztproxy.model.subject import Session
from ztproxy.store.interface import Records

#: Sessions of one person, and people of one address, that are looked at.
MOST: Final = 1000
_KIND: Final = "whose"
_PAGE: Final = 200


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]

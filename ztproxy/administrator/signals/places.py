"""Where a subject of an event is found among our people, devices and sessions, by the match rule of SSF 1.0.

Called by `administrator.signals.intake`. Reads only. A transmitter can reach people of the providers it is
configured for, and nobody else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

from ztproxy.administrator.standing import LONGEST
from ztproxy.administrator.whose import Whose
from ztproxy.crypto.spiffe import SpiffeError, parse_id
from ztproxy.model.subject import Device, Session
from ztproxy.trust.signals.subjects import Aliases, Complex, Simple, each
from ztproxy.trust.signals.token import SecurityEvent
from ztproxy.trust.signals.transmitter import Transmitter

_DEVICE_EVENTS: Final = frozenset({"device-compliance-change"})
_PRINCIPALS: Final[dict[str, str]] = {"USER": "user", "DEVICE": "device", "SESSION": "session"}


class Found(Struct, frozen=True):
    """Whom an event is about. `sessions` is None unless it is about some sessions and not their person.

    `sids` and `persons` are what such sessions are known by before they begin: sign-ins under way.
    """

    users: tuple[str, ...] = ()  # principal ids
    workloads: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sessions: tuple[str, ...] | None = None
    sids: tuple[tuple[str, str], ...] = ()  # (provider, its name of a session)
    persons: tuple[str, ...] = ()  # principal ids

    def named(self) -> tuple[str, ...]:
        """Return all of them as records name them."""
        parts = (("user", self.users), ("workload", self.workloads), ("device", self.devices))
        sessions = tuple(f"session:{one}" for one in self.sessions or ())
        return tuple(f"{kind}:{one}" for kind, ids in parts for one in ids) + sessions


class Sessions(Protocol):
    """What is asked of administrator.sessions."""

    async def get(self, session_id: str) -> Session | None:
        """Return the session, ended or not."""


class Devices(Protocol):
    """What is asked of administrator.devices."""

    async def get(self, device_id: str) -> Device | None:
        """Return a device, revoked or not."""

    async def list(self) -> Sequence[Device]:
        """Return all devices."""


class Places:
    """Finds subjects. `issuers`: issuer -> configured provider."""

    def __init__(
        self, whose: Whose, sessions: Sessions, devices: Devices, issuers: Mapping[str, str], domain: str
    ) -> None:
        self._whose = whose
        self._sessions = sessions
        self._devices = devices
        self._issuers = issuers
        self._domain = domain

    async def find(self, transmitter: Transmitter, event: SecurityEvent) -> Found:
        """Return whom an event is about, as far as we know them."""
        subject, part = event.subject, _part(event)
        if isinstance(subject, Complex):
            return await self._complex(transmitter, subject, part)
        if part == "device":
            return Found(devices=await self._device_ids(transmitter, subject))
        users = () if part == "session" else await self._users(transmitter, subject)
        workloads = _workloads(subject, self._domain) if part != "session" else ()
        if users or workloads:
            return Found(users=users, workloads=workloads)
        if part not in ("", "session"):
            return Found()
        names = tuple(each(subject))
        sessions = await self._session_ids(transmitter, names)
        return Found(sessions=sessions or None, sids=_sids(transmitter, names))

    async def _complex(self, transmitter: Transmitter, subject: Complex, part: str) -> Found:
        user, device, session = (subject.get(name) for name in ("user", "device", "session"))
        if part == "device":
            return Found(devices=await self._device_ids(transmitter, device) if device else ())
        users = await self._users(transmitter, user) if user else ()
        workloads = _workloads(user, self._domain) if user else ()
        if part == "user" or (session is None and (device is None or workloads)):
            return Found(users=users, workloads=workloads)
        devices = await self._device_ids(transmitter, device) if device else ()
        if user is None and session is None:
            return Found(devices=devices)
        names = tuple(each(session)) if session else ()
        if user is None:
            found = await self._session_ids(transmitter, names)
        else:
            found = await self._narrowed(transmitter, users, names)
        if device is not None:
            found = await self._on(found, devices)
        return Found(sessions=found, sids=_sids(transmitter, names), persons=users)

    async def _users(self, transmitter: Transmitter, subject: Simple | Aliases) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for one in each(subject):
            for user in await self._people(transmitter, one):
                if user.partition(":")[0] in transmitter.providers and len(user) <= LONGEST:
                    found[user] = None
        return tuple(found)

    async def _people(self, transmitter: Transmitter, one: Simple) -> Iterable[str]:
        if one.format == "iss_sub":
            issuer, sub = one.values
            provider = transmitter.issuers.get(issuer) or self._issuers.get(issuer)
            return (f"{provider}:{sub}",) if provider else ()
        if one.format == "email":
            return await self._whose.people_with(one.values[0])
        if one.format == "account" and one.values[0].startswith("acct:"):
            return await self._whose.people_with(one.values[0].removeprefix("acct:"))
        return ()

    async def _device_ids(self, transmitter: Transmitter, subject: Simple | Aliases) -> tuple[str, ...]:
        names = {name for one in each(subject) for name in _device_names(one, self._domain)}
        found = {name for name in names if await self._devices.get(name) is not None}
        if transmitter.device_names and len(found) < len(names):
            found |= {device.id for device in await self._devices.list() if device.name in names}
        return tuple(sorted(found))

    async def _session_ids(self, transmitter: Transmitter, names: Iterable[Simple]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for name in (one.values[0] for one in names if one.format == "opaque"):
            for provider in transmitter.providers:
                found.update(dict.fromkeys(await self._whose.sessions_with(provider, name)))
            own = await self._sessions.get(name) if name.startswith("ses_") else None
            if own is not None and own.provider in transmitter.providers:
                found[own.id] = None
        return tuple(found)

    async def _narrowed(
        self, transmitter: Transmitter, users: Iterable[str], names: Sequence[Simple]
    ) -> tuple[str, ...]:
        """The people's sessions that are the named one, or of which the provider never told us a name."""
        wanted = {one.values[0] for one in names if one.format == "opaque"}
        found = []
        for user in users:
            for session_id in await self._whose.sessions_of(user):
                session = await self._sessions.get(session_id)
                if session is not None and (
                    not wanted or not session.sid or {session.sid, session.id} & wanted
                ):
                    found.append(session.id)
        return tuple(found)

    async def _on(self, session_ids: Iterable[str], devices: Sequence[str]) -> tuple[str, ...]:
        """Those of the sessions that are on one of the devices, or on none that we know."""
        found = []
        for session_id in session_ids:
            session = await self._sessions.get(session_id)
            if session is not None and (not session.device_id or session.device_id in devices):
                found.append(session_id)
        return tuple(found)


def _sids(transmitter: Transmitter, names: Iterable[Simple]) -> tuple[tuple[str, str], ...]:
    opaque = [one.values[0] for one in names if one.format == "opaque"]
    return tuple((provider, name) for provider in transmitter.providers for name in opaque)


def _part(event: SecurityEvent) -> str:
    """Which part of its subject an event is about: "user", "device", "session", or "" for what it names."""
    if event.name in _DEVICE_EVENTS:
        return "device"
    if event.name == "risk-level-change":
        return _PRINCIPALS.get(event.text("principal"), "")
    return "" if event.name.startswith("session") else "user"


def _workloads(subject: Simple | Aliases, domain: str) -> tuple[str, ...]:
    """SPIFFE IDs of workloads; those below /device/ of our own trust domain are devices."""
    found = []
    for one in each(subject):
        text = one.values[0] if one.format == "uri" else ""
        try:
            own = str(parse_id(text)) if text.startswith("spiffe://") else ""
        except SpiffeError:
            continue
        if 0 < len(own) <= LONGEST and not own.startswith(f"spiffe://{domain}/device/"):
            found.append(own)
    return tuple(found)


def _device_names(one: Simple, domain: str) -> tuple[str, ...]:
    if one.format == "opaque":
        return one.values
    if one.format == "iss_sub":
        return one.values[1:]
    prefix = f"spiffe://{domain}/device/"
    if one.format == "uri" and one.values[0].startswith(prefix):
        return (one.values[0].removeprefix(prefix),)
    return ()

"""Sessions of people: started at sign-in, a handle per host, bound to a device, ended everywhere at once.

Called by the portal, the API and the control process; workers only read what this writes, through the feed.
A session on which a lock is, or that a standing ended, is none here either.
It must never hand out a handle or a code in the clear twice, and never revive a session that is over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.administrator.locks import LockTable
from ztproxy.administrator.standing import KEEP_RISK, read_standings, renew, standings_of
from ztproxy.administrator.vault import Vault
from ztproxy.administrator.whose import Whose
from ztproxy.crypto.ids import handle_digest, new_session_id, new_token
from ztproxy.model.record import SessionRecord
from ztproxy.model.standing import Lock, Standing, key_of
from ztproxy.model.subject import Handle, Session
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable, Versioned
from ztproxy.trust.gather import told_after
from ztproxy.trust.identity.provider import Confirmed, SignIn
from ztproxy.trust.standing import ended_by, keys_of, places_of_session

#: How long a one-time host handoff code is good for, in ms.
CODE_LIFETIME: Final = 60_000
_ATTEMPTS: Final = 16
_PAGE: Final = 500
_TOGETHER: Final = 32  # writes at once: they wait for the disk together

_decode_session = msgspec.msgpack.Decoder(Session).decode
_decode_handle = msgspec.msgpack.Decoder(Handle).decode
_encode = msgspec.msgpack.Encoder().encode


class Limits(Struct, frozen=True):
    """How long sessions live, in ms. `review` is how long an ended one is kept to be looked at, `risk` how
    long a person's risk is from when they signed in last."""

    idle: int
    absolute: int
    review: int = 90 * 24 * 3600 * 1000
    risk: int = KEEP_RISK


class Code(Struct, frozen=True):
    """A one-time handoff of a session to another host. Record kind "code", key = hex SHA-256 of the code."""

    session_id: str
    host: str
    flow: str  # digest of the flow cookie of the browser that asked, on that host


class OtherDevice(Exception):
    """The session is bound to another device already."""


class SignInLocked(Exception):
    """Nobody signs in here: a lock is on the person or on who vouches for them."""

    def __init__(self, lock: Lock) -> None:
        super().__init__(f"locked: {lock.id}")
        self.lock = lock


class SignInOverdue(Exception):
    """Since this sign-in was begun, sessions of this kind were ended: it proves nothing any more.

    One that is begun at `until` (ms) or later is none of them.
    """

    def __init__(self, until: int) -> None:
        super().__init__("sessions were ended since it was begun")
        self.until = until


_decode_code = msgspec.msgpack.Decoder(Code).decode


def alive(session: Session, now: int) -> bool:
    """Whether the session can be used at `now` (ms)."""
    if session.ended_at or now >= session.expires_at:
        return False
    return not session.idle_limit or now - session.last_seen_at < session.idle_limit


class Sessions:
    """All sessions, in `records`.

    `witness` writes the audit record and raises when it can not: a session is witnessed before it is usable.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock,
        entropy: Callable[[int], bytes],
        witness: Callable[[SessionRecord], None],
        limits: Limits,
        vault: Vault | None = None,
    ) -> None:
        self._records = records
        self._clock = clock
        self._entropy = entropy
        self._witness = witness
        self._limits = limits
        self._locks = LockTable(records, clock)
        self._whose = Whose(records)
        self._vault = vault

    async def start(
        self, sign_in: SignIn, *, ip: str = "", user_agent: str = "", replaces: str = "", on: str = ""
    ) -> Session:
        """Start a session under a new id; the one it `replaces` in that browser ends with all its handles.

        `on`: id of the device that was proved with it. Raises SignInLocked, SignInOverdue.
        """
        session = self._new(sign_in, ip, user_agent)
        try:
            await self._admit(session, sign_in, on)
        except (SignInLocked, SignInOverdue) as refused:
            self._give_back(sign_in)
            self._tell(session, "refused", device=on, detail=str(refused))
            raise
        self._tell(session, "started", detail=f"provider {session.provider}")
        await self._records.put(
            "session", session.id, _encode(session), if_version=0, expires_at=self._kept_until(session)
        )
        await self._whose.note(session)
        await self._keep(session, sign_in)
        await self._look_again(session, sign_in, on)
        await renew(self._records, session.principal.id, self._clock.now(), self._limits.risk)
        if replaces:
            await self.end(replaces, "signed in again")
        return session

    async def _admit(self, session: Session, sign_in: SignIn, on: str) -> None:
        """Raises SignInLocked, SignInOverdue."""
        lock = await self._locks.on(places_of_session(session))
        if lock is not None:
            raise SignInLocked(lock)
        await self._check_ends(session, sign_in, on)

    async def _check_ends(self, session: Session, sign_in: SignIn, on: str) -> None:
        """Raises SignInOverdue."""
        as_begun = replace(session, created_at=sign_in.began, device_id=on)
        standing = ended_by(as_begun, on, await read_standings(self._records, keys_of(as_begun)))
        until = await self._whose.logged_out(session)
        if standing is not None or sign_in.began < until:
            raise SignInOverdue(max(until, standing.ended_before if standing is not None else 0))

    async def _look_again(self, session: Session, sign_in: SignIn, on: str) -> None:
        """Whoever ends sessions now finds this one; what was ended before that is found here.

        Raises SignInOverdue.
        """
        try:
            await self._check_ends(session, sign_in, on)
        except SignInOverdue:
            await self.end(session.id, "ended while signing in")
            raise

    def _new(self, sign_in: SignIn, ip: str, user_agent: str) -> Session:
        now = self._clock.now()
        return Session(
            id=new_session_id(self._entropy),
            principal=sign_in.principal,
            provider=sign_in.provider,
            created_at=max(now, sign_in.began),  # by the clock of another node
            auth_time=min(sign_in.auth_time, now),
            amr=sign_in.amr,
            acr=sign_in.acr,
            last_seen_at=now,
            expires_at=now + self._limits.absolute,
            idle_limit=self._limits.idle,
            ip=ip,
            user_agent=user_agent[:256],
            sid=sign_in.sid,
            checked_at=min(sign_in.asked_at, now),
        )

    async def _keep(self, session: Session, sign_in: SignIn) -> None:
        """Keep what the provider can be asked again with, for as long as the session can live.

        The session is there first, so that nothing is kept for one that never was.
        """
        if self._vault is None:
            return
        await self._vault.put(session.id, session.provider, sign_in.granted, session.expires_at)
        after = await self.get(session.id)
        if after is None or after.ended_at:  # by somebody who found nothing to forget yet
            await self._vault.forget(session.id)

    def _give_back(self, sign_in: SignIn) -> None:
        if self._vault is not None and sign_in.granted is not None:
            self._vault.give_back(sign_in.provider, sign_in.granted)

    async def confirm(self, session_id: str, confirmed: Confirmed, at: int) -> Session | None:
        """Note what the provider says now, asked at `at` (ms); the session keeps its id, None = unknown."""
        before = await self.get(session_id)
        if before is None:
            return None
        if changes := _differences(before, _confirmed(before, confirmed, at)):
            self._tell(before, "changed", device=before.device_id, detail=changes)
        return await self._change(session_id, lambda session: _confirmed(session, confirmed, at))

    async def confirm_anew(self, session_id: str, sign_in: SignIn) -> Session | None:
        """Note that the person's browser brought a new sign-in of the same person at the same provider."""
        session = await self.live(session_id)
        if session is None:
            return None
        await self._keep(session, sign_in)
        said = Confirmed(sign_in.principal, sign_in.amr, sign_in.acr, sign_in.auth_time)
        return await self.confirm(session_id, said, sign_in.asked_at)

    async def get(self, session_id: str) -> Session | None:
        """Return the session, ended or not."""
        stored = await self._records.get("session", session_id)
        return None if stored is None else _decode_session(stored.value)

    async def find(self, handle: str, host: str) -> Session | None:
        """Return the live session this cookie value stands for on this host."""
        stored = await self._records.get("handle", handle_digest(handle))
        if stored is None:
            return None
        known = _decode_handle(stored.value)
        return await self.live(known.session_id) if known.host == host else None

    async def live(self, session_id: str, *, person: str = "", device: str = "") -> Session | None:
        """Return the session if it can be used now.

        `person` and `device` are guesses whose it is and on what: what is said of them is read with it.
        Nothing follows from a wrong one but another way to the store, for what does concern the session.
        """
        session, standings = await self._with_standings(session_id, person, device)
        if session is None or not alive(session, self._clock.now()):
            return None
        if await self._locks.on(places_of_session(session)) is not None:
            return None
        return session if ended_by(session, "", standings) is None else None

    async def _with_standings(
        self, session_id: str, person: str, device: str
    ) -> tuple[Session | None, dict[str, Standing]]:
        """Return a session, and the standings that may end it among others."""
        guessed = [key_of("session", session_id)]
        guessed += [key_of(*one) for one in (("user", person), ("device", device)) if one[1]]
        found = await self._records.some([("session", session_id), *(("standing", key) for key in guessed)])
        session = next((_decode_session(one.value) for one in found if one.kind == "session"), None)
        standings = standings_of(found)
        if session is not None and (missed := [key for key in keys_of(session) if key not in guessed]):
            standings |= await read_standings(self._records, missed)
        return session, standings

    async def new_handle(self, session_id: str, host: str, *, drops: str = "") -> str:
        """Return a new cookie value for a host; the value it `drops` there stops working.

        Raises LookupError when the session is over.
        """
        session = await self.live(session_id)
        if session is None:
            raise LookupError("the session is over")
        if drops:
            await self._records.delete("handle", handle_digest(drops))
        value = new_token(self._entropy)
        handle = Handle(session_id=session_id, host=host, created_at=self._clock.now())
        await self._records.put(
            "handle", handle_digest(value), _encode(handle), if_version=0, expires_at=session.expires_at
        )
        return value

    async def new_code(self, session_id: str, host: str, flow: str) -> str:
        """Return a one-time code that hands the session to `host` in the browser with that `flow` digest."""
        code = new_token(self._entropy)
        value = _encode(Code(session_id=session_id, host=host, flow=flow))
        expires_at = self._clock.now() + CODE_LIFETIME
        await self._records.put("code", handle_digest(code), value, if_version=0, expires_at=expires_at)
        return code

    async def redeem(self, code: str, host: str, flow: str) -> Session | None:
        """Return the live session a code hands over, once; any use spends it, a wrong one too."""
        key = handle_digest(code)
        stored = await self._records.get("code", key)
        if stored is None or not await self._spend("code", stored):
            return None
        known = _decode_code(stored.value)
        if known.host != host or not compare_digest(known.flow.encode(), flow.encode()):
            return None
        return await self.live(known.session_id)

    async def _spend(self, kind: str, stored: Versioned) -> bool:
        """Delete exactly this record; False when somebody else was faster or it is out of date."""
        if stored.expires_at and self._clock.now() >= stored.expires_at:
            return False
        try:
            return await self._records.delete(kind, stored.key, if_version=stored.version)
        except Conflict:
            return False

    async def bind_device(self, session_id: str, device_id: str, proved_at: int) -> Session | None:
        """Note a proof by a device; the first one binds the session to it for good.

        Return the session, None when it is over. Raises OtherDevice.
        """
        session = await self.live(session_id)
        if session is None or await self._locks.on([("device", device_id)]) is not None:
            return None
        if session.device_id and session.device_id != device_id:
            raise OtherDevice(session.device_id)
        if not session.device_id:
            self._tell(session, "device-bound", device=device_id)
        return await self._change(session_id, lambda now: _bound(now, device_id, proved_at))

    async def end(self, session_id: str, by: str) -> bool:
        """End a session on every host; False when it was over or unknown.

        The end is written before it is witnessed: a failing audit must not keep a session alive.
        """
        now = self._clock.now()
        ended = False

        def change(session: Session) -> Session:
            nonlocal ended
            ended = not session.ended_at
            return replace(session, ended_at=now, ended_by=by) if ended else session

        session = await self._change(session_id, change)
        if ended and session is not None:
            try:
                self._tell(session, "ended", device=session.device_id, detail=by)
            finally:
                if self._vault is not None:
                    await self._vault.forget(session_id)
        return ended

    async def granted(self, after: str = "") -> Sequence[str]:
        """Return ids of sessions for which something to ask providers with is kept, a page at a time."""
        return [] if self._vault is None else await self._vault.kept(after)

    async def drop_grant(self, session_id: str) -> None:
        """Forget what is kept for a session that is over: whoever ended it may not have come to that."""
        if self._vault is None or await self._vault.read(session_id) is None:
            return
        session = await self.get(session_id)
        if session is None or session.ended_at:
            await self._vault.forget(session_id)

    async def touch(self, uses: Mapping[str, int]) -> Sequence[str]:
        """Note when sessions were in use (ms); return those of which it could not be noted now.

        One that was over by then stays over; one that was seen shortly before is not written again.
        """
        failed: list[str] = []

        async def note(session_id: str, at: int) -> None:
            try:
                await self._change(session_id, lambda session: _seen(session, at))
            except StoreUnavailable:
                failed.append(session_id)
            except msgspec.MsgspecError:
                return  # nobody can use one that can not be read

        left = list(uses.items())
        while left and not failed:
            some, left = left[:_TOGETHER], left[_TOGETHER:]
            await asyncio.gather(*(note(session_id, at) for session_id, at in some))
        return [*failed, *(session_id for session_id, _ in left)]

    async def list(self, *, after: str = "", limit: int = 100, ended: bool = False) -> Sequence[Session]:
        """Return sessions in the order of their ids, live ones only unless `ended` are wanted too."""
        now = self._clock.now()
        found = []
        async for session in self._each(after):
            if ended or alive(session, now):
                found.append(session)
            if len(found) >= limit:
                break
        return found

    async def _each(self, after: str = "") -> AsyncIterator[Session]:
        while page := await self._records.scan("session", after=after, limit=_PAGE):
            for stored in page:
                try:
                    session = _decode_session(stored.value)
                except msgspec.MsgspecError:  # one that nobody can read hides no other
                    continue
                yield session
            after = page[-1].key

    async def _change(self, session_id: str, change: Callable[[Session], Session]) -> Session | None:
        """Apply a change to the newest state, again when somebody else was faster."""
        for _ in range(_ATTEMPTS):
            stored = await self._records.get("session", session_id)
            if stored is None:
                return None
            session = _decode_session(stored.value)
            changed = change(session)
            if changed == session:
                return session
            try:
                await self._records.put(
                    "session",
                    session_id,
                    _encode(changed),
                    if_version=stored.version,
                    expires_at=self._kept_until(changed),
                )
            except Conflict:
                continue
            return changed
        raise StoreUnavailable("a session is changed too often at once")

    def _kept_until(self, session: Session) -> int:
        return (session.ended_at or session.expires_at) + self._limits.review

    def _tell(self, session: Session, event: str, *, device: str = "", detail: str = "") -> None:
        principal = session.principal
        self._witness(
            SessionRecord(
                id=session.id,
                at=self._clock.now(),
                event=event,
                principal=f"{principal.kind}::{principal.id}",
                name=principal.name,
                session=session.id,
                device=device,
                ip=session.ip,
                detail=detail,
            )
        )


def _bound(session: Session, device_id: str, proved_at: int) -> Session:
    if session.ended_at:
        return session
    if session.device_id and session.device_id != device_id:
        raise OtherDevice(session.device_id)
    newest = max(proved_at, session.device_proved_at)
    return replace(session, device_id=device_id, device_proved_at=newest)


def _seen(session: Session, at: int) -> Session:
    if not alive(session, at) or at - session.last_seen_at < told_after(session.idle_limit):
        return session
    return replace(session, last_seen_at=at)


def _confirmed(session: Session, said: Confirmed, at: int) -> Session:
    """A later word changes what is known of the person, never who it is, nor when they proved it last: an
    older time of proof is believed, a newer one takes a sign-in."""
    principal = said.principal or session.principal
    if session.ended_at or at <= session.checked_at or principal.id != session.principal.id:
        return session
    return replace(
        session,
        principal=principal,
        amr=session.amr if said.amr is None else said.amr,
        acr=session.acr if said.acr is None else said.acr,
        auth_time=session.auth_time if said.auth_time is None else min(said.auth_time, session.auth_time),
        checked_at=at,
    )


def _differences(before: Session, after: Session) -> str:
    """Return in words what a confirmation changes, for the record."""
    left = set(before.principal.groups) - set(after.principal.groups)
    joined = set(after.principal.groups) - set(before.principal.groups)
    words = [f"-{group}" for group in sorted(left)] + [f"+{group}" for group in sorted(joined)]
    words += [
        name
        for name in ("name", "email")
        if getattr(before.principal, name) != getattr(after.principal, name)
    ]
    words += [name for name in ("amr", "acr", "auth_time") if getattr(before, name) != getattr(after, name)]
    return ", ".join(words)[:2000]

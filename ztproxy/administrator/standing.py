"""Standing: what is said of people, workloads, devices and sessions, one record each, for policy to read.

Written by the administrator's API and by signals; workers read what this writes, through the feed. Times only
move forward, so news that arrives late or twice changes nothing. What speaks against somebody is in force
before it is witnessed, what speaks for somebody only after. It must never revive a session that is over.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from ztproxy.model.record import StandingRecord
from ztproxy.model.standing import Compliance, Risk, Standing, key_of
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records, StoreUnavailable, Versioned

#: Clocks of nodes and sources may differ by this much (ms): sessions that began so little after "now"
#: are ended too, and nobody can end those of the future.
SKEW: Final = 2_000
LONGEST: Final = 512  # characters of a value, a reason or a name

#: How long (ms) a person's risk is kept unless configured.
KEEP_RISK: Final = 400 * 86_400_000

_ATTEMPTS: Final = 16
_PAGE: Final = 1000
_TARGETS: Final = frozenset({"user", "workload", "device", "session"})
_WORSE: Final = {"": 0, "low": 0, "medium": 1, "high": 2, "compliant": 0, "not-compliant": 1}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Standing).decode


class Standings:
    """All standings, in `records`.

    `keep` (ms) is how long the end of sessions is kept, longer than any session lives; `keep_risk` the same
    of a person's risk, from when they signed in last (`renew`) or something was said of them. `witness`
    writes the audit record and raises when it can not.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock,
        witness: Callable[[StandingRecord], None],
        keep: int,
        keep_risk: int = KEEP_RISK,
    ) -> None:
        self._records = records
        self._clock = clock
        self._witness = witness
        self._keep = keep
        self._keep_risk = max(keep, keep_risk)

    async def note(
        self,
        target: str,
        value: str,
        *,
        by: str,
        risk: Risk | None = None,
        risk_at: int = 0,
        risk_reason: str = "",
        compliance: Compliance | None = None,
        compliance_at: int = 0,
        ended_before: int = 0,
        recheck_after: int = 0,
    ) -> Standing:
        """Take in what was said; return how things stand. What is not given stays as it was.

        Times in ms; of a risk or compliance without one it is now. Raises ValueError for what nobody is.
        """
        if target not in _TARGETS or not value or len(value) > LONGEST:
            raise ValueError(f"nothing can be said of this {target[:20]!r}")
        latest = self._clock.now() + SKEW
        by = by[:LONGEST]

        def change(before: Standing) -> Standing:
            after = before
            if risk is not None:
                after = _risk(after, risk, min(risk_at or self._clock.now(), latest), risk_reason)
            if compliance is not None:
                after = _compliance(after, compliance, min(compliance_at or self._clock.now(), latest))
            if min(ended_before, latest) > after.ended_before:
                after = replace(after, ended_before=min(ended_before, latest), ended_by=by)
            after = replace(after, recheck_after=max(after.recheck_after, min(recheck_after, latest)))
            return after if after == before else replace(after, source=by)

        return await self._change(target, value, change)

    async def end_sessions(self, target: str, value: str, by: str) -> Standing:
        """End every session of somebody, or on a device, that began up to now."""
        return await self.note(target, value, by=by, ended_before=self._clock.now() + SKEW)

    async def get(self, target: str, value: str) -> Standing | None:
        """Return what is said of somebody, if anything."""
        return await read_standing(self._records, target, value)

    async def _change(self, target: str, value: str, change: Callable[[Standing], Standing]) -> Standing:
        """Apply a change to the newest state, again when somebody else was faster."""
        key = key_of(target, value)
        for _ in range(_ATTEMPTS):
            stored = await self._records.get("standing", key)
            before = Standing(target=target, value=value) if stored is None else _decode(stored.value)
            after = change(before)
            if after == before:
                return before
            opens = _opens(before, after)
            if opens:
                self._tell(before, after)
            try:
                await self._records.put(
                    "standing",
                    key,
                    _encode(after),
                    if_version=0 if stored is None else stored.version,
                    expires_at=self._kept_until(after),
                )
            except Conflict:
                continue
            if not opens:
                self._tell(before, after)
            return after
        raise StoreUnavailable("a standing is changed too often at once")

    def _kept_until(self, standing: Standing) -> int:
        """Return when nobody can be concerned any more. What policy reads of workloads and devices stays:
        nothing tells that they are still there, and sources speak of changes only."""
        if standing.target == "session" or not (standing.risk or standing.compliance):
            return self._clock.now() + self._keep
        return self._clock.now() + self._keep_risk if standing.target == "user" else 0

    def _tell(self, before: Standing, after: Standing) -> None:
        said = [
            f"{name} {getattr(after, name)}"
            for name in ("risk", "risk_reason", "compliance", "ended_before", "recheck_after")
            if getattr(after, name) != getattr(before, name)
        ]
        self._witness(
            StandingRecord(
                id=key_of(after.target, after.value),
                at=self._clock.now(),
                event="noted",
                target=after.target,
                value=after.value,
                by=after.source,
                session=after.value if after.target == "session" else "",
                detail=", ".join(said) or "as before",
            )
        )


async def renew(records: Records, user: str, now: int, keep: int) -> None:
    """Keep the risk of a person who is here, `keep` ms from now; written only when half of that is gone."""
    stored = await records.get("standing", key_of("user", user))
    if stored is None or now + keep // 2 < stored.expires_at or not _decode(stored.value).risk:
        return
    with suppress(Conflict):  # somebody said something new, which counts from now, too
        await records.put(
            "standing", stored.key, stored.value, if_version=stored.version, expires_at=now + keep
        )


async def read_standing(records: Records, target: str, value: str) -> Standing | None:
    """Return what is said of somebody, if anything."""
    stored = await records.get("standing", key_of(target, value))
    return None if stored is None else _decode(stored.value)


async def read_standings(records: Records, keys: Iterable[str] | None = None) -> dict[str, Standing]:
    """Return the standings of these keys that there are; without keys all of them."""
    if keys is not None:
        return standings_of(await records.some([("standing", key) for key in keys]))
    found: dict[str, Standing] = {}
    after = ""
    while page := await records.scan("standing", after=after, limit=_PAGE):
        for stored in page:
            with suppress(msgspec.MsgspecError):  # one that nobody can read hides no other
                found[stored.key] = _decode(stored.value)
        after = page[-1].key
    return found


def standings_of(stored: Iterable[Versioned]) -> dict[str, Standing]:
    """Return the standings among records, by their keys."""
    return {one.key: _decode(one.value) for one in stored if one.kind == "standing"}


def _risk(before: Standing, risk: Risk, at: int, reason: str) -> Standing:
    """Of two reports the later one counts; of two of the same moment the worse."""
    if at < before.risk_at or (at == before.risk_at and _WORSE[risk] <= _WORSE[before.risk]):
        return before
    return replace(before, risk=risk, risk_at=at, risk_reason=reason[:LONGEST])


def _compliance(before: Standing, compliance: Compliance, at: int) -> Standing:
    same = at == before.compliance_at and _WORSE[compliance] <= _WORSE[before.compliance]
    if at < before.compliance_at or same:
        return before
    return replace(before, compliance=compliance, compliance_at=at)


def _opens(before: Standing, after: Standing) -> bool:
    """Tell whether a change may let somebody in who was out: any other word that is no worse."""
    words = ((before.risk, after.risk), (before.compliance, after.compliance))
    return any(was != now and _WORSE[now] <= _WORSE[was] for was, now in words)

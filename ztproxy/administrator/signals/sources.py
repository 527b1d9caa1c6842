"""How fresh what each transmitter tells us is: its `Source` record, and the verification that is under way.

Called by `intake`, `keeper` and polling. Silence is told from a lost stream by verification events: a
source was heard when a genuine token came, or a poll was answered while its stream was enabled.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.model.standing import Source
from ztproxy.net.clock import Clock
from ztproxy.store.interface import Conflict, Records
from ztproxy.trust.signals.token import SetRefused

State = Literal["ok", "paused", "disabled", "failing"]

#: Between writes of a source that is well, in ms: every write goes to every worker.
BETWEEN: Final = 4_000
_STATES: Final[dict[str, State]] = {"enabled": "ok", "paused": "paused", "disabled": "disabled"}
_encode = msgspec.msgpack.Encoder().encode
_decode_source = msgspec.msgpack.Decoder(Source).decode


class Kept(Struct, frozen=True):
    """What is known of the stream of a transmitter. Record kind "signal-stream", key = its name."""

    stream: str = ""
    endpoint: str = ""  # of polls
    expected: str = ""  # state of the verification under way
    asked_at: int = 0
    every: int = 0  # ms between verifications that this stream allows and needs


_decode_kept = msgspec.msgpack.Decoder(Kept).decode


class Sources:
    """All transmitters' freshness, in `records`."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def get(self, name: str) -> Source | None:
        """Return what is known of a source."""
        stored = await self._records.get("source", name)
        return None if stored is None else _decode_source(stored.value)

    async def begin(self, name: str) -> None:
        """Make a source known that was never heard, so that policies see it and its age."""
        try:
            source = Source(name=name, kind="signals", heard_at=0, state="failing", detail="never heard")
            await self._records.put("source", name, _encode(source), if_version=0)
        except Conflict:
            return

    async def heard(self, name: str) -> None:
        """Note a sign of life. It does not make a stream flow that is known to be stopped."""
        await self._change(name, "heard")

    async def verified(self, name: str, state: str) -> None:
        """Note a verification event. Raises SetRefused when its state is not the one that was asked for."""
        kept = await self.kept(name)
        if state and state != kept.expected:
            raise SetRefused("invalid_state", "the state is not the one that was asked for")
        if state:
            await self.keep(name, replace(kept, expected=""))
        await self._change(name, "ok")

    async def told(self, name: str, status: str, reason: str = "") -> None:
        """Note what a stream's status is: "enabled", "paused", "disabled"; anything else is failing."""
        await self._change(name, _STATES.get(status, "failing"), reason)

    async def failing(self, name: str, why: str) -> None:
        """Note that nothing can be heard of it."""
        await self._change(name, "failing", why)

    async def kept(self, name: str) -> Kept:
        """Return what is known of its stream."""
        stored = await self._records.get("signal-stream", name)
        return Kept() if stored is None else _decode_kept(stored.value)

    async def keep(self, name: str, kept: Kept) -> None:
        """Write down what is known of its stream."""
        await self._records.put("signal-stream", name, _encode(kept))

    async def _change(self, name: str, word: str, detail: str = "") -> None:
        for _ in range(8):
            stored = await self._records.get("source", name)
            before = None if stored is None else _decode_source(stored.value)
            after = _after(before, name, word, detail[:200], self._clock.now())
            if after is None:
                return
            version = 0 if stored is None else stored.version
            try:
                await self._records.put("source", name, _encode(after), if_version=version)
            except Conflict:
                continue
            return


def _after(before: Source | None, name: str, word: str, detail: str, now: int) -> Source | None:
    """The source as it is now, None when that is not worth a write. A stopped stream stays stopped until
    told.
    """
    was = before or Source(name=name, kind="signals", heard_at=0, state="failing")
    state: State = was.state
    if word == "heard":
        state = "ok" if was.state in ("ok", "failing") else was.state
    elif word in ("ok", "paused", "disabled", "failing"):
        state = word  # type: ignore[assignment]
    well = state == "ok"
    same = before is not None and state == was.state and (well or detail == was.detail)
    if same and (not well or now - was.heard_at < BETWEEN):
        return None
    return Source(
        name=name,
        kind="signals",
        heard_at=max(now, was.heard_at) if well else was.heard_at,
        state=state,
        detail="" if well else detail or was.detail,
    )

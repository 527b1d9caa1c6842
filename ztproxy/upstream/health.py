"""Active checks: every worker asks every target of a route how it is, now and then.

Started by `upstream.upstreams` when its assembly goes into service. These are the program's own questions,
not requests of callers: they need no permit, carry nobody's identity, and their connections never enter the
pool. Only the status of an answer counts; redirects are not followed and bodies are not read.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from ztproxy.model.resource import HealthCheck, Upstream
from ztproxy.net.clock import entropy
from ztproxy.net.dial import Carriage, Dialled, Dialler, Unreachable
from ztproxy.wire.http1 import BadHead, ResponseReader

if TYPE_CHECKING:
    from ztproxy.upstream.spread import Group

HEAD_LIMIT: Final = 16384  # bytes of an answer's head


async def watch(dialler: Dialler, group: "Group", index: int, check: HealthCheck) -> None:
    """Ask one target for ever, and tell its group when the answer has changed."""
    upstream = group.upstreams[index]
    request = request_of(check)
    streak = Streak(check, healthy=group.balancer.healthy(index))
    pause = min(check.interval, 1.0) * _fraction()  # workers and targets start at different moments
    while True:
        await asyncio.sleep(pause)
        status, wrong = await ask(dialler, upstream, request, check.patience)
        if streak.note(good=status in check.statuses):
            group.checked(index, healthy=streak.healthy, answer=wrong or str(status))
        pause = check.interval * (0.9 + 0.2 * _fraction())


async def ask(dialler: Dialler, upstream: Upstream, request: bytes, patience: float) -> tuple[int, str]:
    """Return the status of an answer and ""; or 0, and why none came in time that is HTTP."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.timeout(patience):
            question = await dialler.dial(upstream, lambda: _Question(answer), patience=patience)
            try:
                question.transport.write(request)
                status = await answer
            finally:
                question.transport.abort()
    except Unreachable as failed:
        return 0, str(failed)
    except TimeoutError:
        return 0, "no answer in time"
    return status, "" if status else "no answer that is HTTP"


def request_of(check: HealthCheck) -> bytes:
    """Return the bytes of the question."""
    return (
        f"GET {check.path} HTTP/1.1\r\nHost: {check.host}\r\nUser-Agent: ztproxy-health\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


class Streak:
    """How many answers of one kind in a row change what is believed."""

    __slots__ = ("_against", "_check", "healthy")

    def __init__(self, check: HealthCheck, *, healthy: bool) -> None:
        self.healthy = healthy
        self._check = check
        self._against = 0  # answers in a row that say the opposite

    def note(self, *, good: bool) -> bool:
        """Take an answer; True when it changes what is believed."""
        if good is self.healthy:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self._check.healthy_after if good else self._check.unhealthy_after):
            return False
        self.healthy = good
        self._against = 0
        return True


class _Question(Dialled):
    """One question and its answer's status."""

    def __init__(self, answer: asyncio.Future[int]) -> None:
        self.carried: Carriage | None = None
        self._answer = answer
        self._reader = ResponseReader(HEAD_LIMIT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the head; interim ones pass."""
        if self._answer.done():
            return
        try:
            while data and (found := self._reader.feed(data)) is not None:
                head, data = found
                if head.status >= 200:
                    self._answered(head.status)
                    return
        except BadHead:
            self._answered(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """No answer will come any more."""
        if self.carried is not None:
            self.carried.lost()
        self._answered(0)

    def _answered(self, status: int) -> None:
        if not self._answer.done():
            self._answer.set_result(status)


def _fraction() -> float:
    return int.from_bytes(entropy(2)) / 65536

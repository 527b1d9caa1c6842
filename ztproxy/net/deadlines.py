"""Many numbers with a deadline each, in one wheel: to set, drop or find one costs the same among any many.

Used by `administrator.paths`. Time is cut into short spans; a deadline is an entry in the span that follows
it. Whoever is dropped or set anew leaves its old entry behind, which means nothing and goes with its span: so
deadlines far away are set for an earlier look and set again then. Has no clock and calls nobody.
"""

from typing import Final

SPAN: Final = 0.05  # seconds; no deadline is told early, and none later than this after it


class Deadlines:
    """What is due when. `now` and `when` are seconds of one clock that never goes back."""

    __slots__ = ("_at", "_spans", "_where")

    def __init__(self, now: float) -> None:
        self._at = int(now / SPAN)  # the last span that was told
        self._spans: dict[int, list[int]] = {}
        self._where: dict[int, int] = {}  # number -> the span of its one entry that counts

    def __len__(self) -> int:
        return len(self._where)

    def set(self, number: int, when: float) -> None:
        """Have the number told once `when` is over, and not when it was set for before."""
        span = max(int(when / SPAN), self._at) + 1
        self._where[number] = span
        entries = self._spans.get(span)
        if entries is None:
            self._spans[span] = [number]
        else:
            entries.append(number)

    def drop(self, number: int) -> None:
        """Forget a number, whether or not it is set."""
        self._where.pop(number, None)

    def due(self, now: float) -> list[int]:
        """Return, and forget, every number whose deadline is over."""
        before, at = self._at, int(now / SPAN)
        if at <= before:
            return []
        self._at = at
        over: list[int] = []
        if at - before > len(self._spans):  # after a long pause most spans are empty
            spans = sorted(span for span in self._spans if span <= at)
        else:
            spans = list(range(before + 1, at + 1))
        for span in spans:
            for number in self._spans.pop(span, ()):
                if self._where.get(number) == span:
                    del self._where[number]
                    over.append(number)
        return over

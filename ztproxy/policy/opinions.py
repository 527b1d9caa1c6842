"""How many second opinions there are: a few at once, and from there on one in so many milliseconds.

Asked by `engine` for each decision. Time is that of the requests; nothing here looks at a clock.
"""

from typing import Final, final


@final
class Allowance:
    """Gives `most` at once, then one each `every` ms, and `most` again after having given none for long.

    A clock that is set ahead gives no more than that. Of one that is set back only the time that passes
    from there on counts, so it neither stops this until it has caught up, nor gives anything by itself.
    """

    __slots__ = ("_every", "_free", "_span")

    def __init__(self, most: int, every: int) -> None:
        self._every: Final = every
        self._span: Final = most * every
        self._free = 0  # when all of it would be there again (ms)

    def grant(self, now: int) -> bool:
        """Say whether there is one at this time (ms), and take it."""
        lacking = min(max(self._free - now, 0), self._span)
        granted = lacking + self._every <= self._span
        self._free = now + lacking + (self._every if granted else 0)
        return granted

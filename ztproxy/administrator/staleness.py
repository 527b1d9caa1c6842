"""What @stale says: how long a live path goes on while facts that its decision needs are out of date.

Pure; used by `administrator.access`. New requests are never let in by old facts, whatever is said here.
"""

from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from ztproxy.model.durations import milliseconds
from ztproxy.model.subject import Facts

#: As long as the path itself.
WITHOUT_END: Final = 1 << 62


@lru_cache(maxsize=256)
def patience_of(obligations: tuple[tuple[str, str], ...]) -> int:
    """Return how old facts may be (ms) for a path that these let open; the strictest of several counts.

    0, as without @stale: no older than for a new request.
    """
    found = [_patience(value) for name, value in obligations if name == "stale"]
    return min(found) if found else 0


def _patience(value: str) -> int:
    if value == "refuse":
        return WITHOUT_END
    word, _, duration = value.partition(" ")
    return milliseconds(duration) if word == "keep" else 0


def as_fresh(facts: Facts, patience: int) -> Facts:
    """Return the facts as if all that is no older than `patience` had been heard just now."""
    sources = tuple(replace(one, age=0, state="ok") if one.age <= patience else one for one in facts.sources)
    return replace(facts, feed_age=0 if facts.feed_age <= patience else facts.feed_age, sources=sources)

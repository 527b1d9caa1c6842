"""When the identity provider has to be asked again about a session: from policy, configuration and signals.

Pure. Used by `administrator.access` where a decision or a word of a signal says so. Never asks anybody.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from ztproxy.model.durations import milliseconds
from ztproxy.model.subject import Session

SKEW: Final = 2_000  # ms that clocks may differ by, as in `standing`
ASIDE: Final = 30_000  # ms for which a provider that needs the browser is left alone about a session
#: Nothing is due before this (ms).
NEVER: Final = 1 << 62


class Rule(NamedTuple):
    """Ask again `every` so often (ms, 0 = only when a signal says so); while the provider can not be reached,
    what it said last is good for `keep` longer, and for `changed` at the most if a signal says it changed."""

    every: int = 0
    keep: int = 0
    changed: int = 0


class Line(NamedTuple):
    """Times in ms: from `ahead` on the provider is asked beside the requests, from `due` on requests wait for
    its answer, from `over` on there has to be one."""

    ahead: int
    due: int
    over: int


FRESH: Final = Line(NEVER, NEVER, NEVER)


def line_of(
    session: Session, duties: tuple[tuple[str, str], ...], default: Rule, after: int, since: int = NEVER
) -> Line:
    """Return where a session stands under the obligations of a decision. The strictest of all counts.

    `after`: what the provider said before that moment (ms) does not count any more. `since`: of several such
    moments that the provider has said nothing after, the first: a further signal is no further grace.
    """
    line = FRESH
    checked = session.checked_at or session.created_at
    if default.every:
        line = _earlier(line, checked, default)
    keep = default.keep
    for name, value in duties:
        if name == "recheck":
            rule = _rule(value, default.keep)
            keep = min(keep, rule.keep)
            line = _earlier(line, checked, rule)
    if after > checked:
        over = min(after, since) + min(keep, default.changed)  # known to be out of date, not only old
        line = Line(min(line.ahead, after), min(line.due, after), min(line.over, over))
    return line


def _earlier(line: Line, checked: int, rule: Rule) -> Line:
    due = checked + rule.every
    ahead = checked + rule.every * 4 // 5
    return Line(min(line.ahead, ahead), min(line.due, due), min(line.over, due + rule.keep))


@lru_cache(maxsize=256)
def _rule(text: str, keep: int) -> Rule:
    """Read "15m" or "15m keep 1h". What is no duration is 0, at once: a typo only closes doors."""
    every, said, kept = text.partition(" keep ")
    return Rule(milliseconds(every), milliseconds(kept) if said else keep)


def confirmed_at(asked_at: int, after: int) -> int:
    """Return what counts as the moment of a confirmation (ms). A word that came in from a clock a little
    ahead of ours was here before we asked; one of the far future does not settle anything."""
    return max(asked_at, after) if after <= asked_at + SKEW else asked_at

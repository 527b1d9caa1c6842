"""Whether what the identity provider said last is still good for a decision, and having it asked when not.

Called by `administrator.access`. Decides by `freshness`; asks through `Rechecks`, never by itself.
"""

from typing import Final, Protocol

from ztproxy.administrator.freshness import NEVER, Line, Rule, line_of
from ztproxy.model.decision import Decision
from ztproxy.model.subject import Session
from ztproxy.trust.caller import Caller

#: Not the code of a refusal: the provider has to be asked first.
ASK: Final = "ask"


class Rechecks(Protocol):
    """Asks identity providers again (service.rechecking)."""

    def state(self, session: Session, after: int, now: int) -> str:
        """Return what came of asking a moment ago: "kept", "impossible"; "" = it is time to ask."""

    def since(self, session: Session) -> int:
        """Return the first moment (ms) that a signal named and the provider has said nothing after."""

    def begin(self, session: Session, after: int) -> None:
        """Ask beside the requests, once."""

    async def ask(self, session: Session, after: int) -> None:
        """Ask, and wait until memory holds what came of it, for a bounded time."""


class Freshness:
    """`rule` holds where no policy says otherwise; without `rechecks` nobody is ever asked."""

    def __init__(self, rechecks: Rechecks | None, rule: Rule) -> None:
        self._rechecks = rechecks
        self._rule = rule
        self.always = rule.every > 0  # for every request, not only where a policy or a signal says so

    def of_request(self, caller: Caller, decision: Decision, now: int) -> str:
        """Return "" while what the provider said last is good, ASK, or the code of a refusal."""
        due = self._due(caller, decision, now)
        if due is None:
            return ""
        session, rechecks, line = due
        after = caller.recheck_after
        state = rechecks.state(session, after, now)
        if now < line.due:
            if not state:
                rechecks.begin(session, after)
            return ""
        if not state:
            return ASK
        if state == "impossible":
            return "recheck-required"
        return "" if now < line.over else "facts-unavailable"

    def settled(self, caller: Caller, decision: Decision, now: int) -> str:
        """The same when there is no more time to ask: "" or the code of a refusal."""
        verdict = self.of_request(caller, decision, now)
        return "facts-unavailable" if verdict == ASK else verdict

    def of_path(self, caller: Caller, decision: Decision, now: int) -> str:
        """The same for a live path, which goes on while the provider is asked: "" or why it is cut."""
        due = self._due(caller, decision, now)
        if due is None:
            return ""
        session, rechecks, line = due
        after = caller.recheck_after
        if not rechecks.state(session, after, now):
            rechecks.begin(session, after)
        return "recheck-required" if now >= line.over else ""

    def _due(self, caller: Caller, decision: Decision, now: int) -> tuple[Session, Rechecks, Line] | None:
        """Return whom to ask about what, and where that stands; None while nothing has to be asked."""
        session, rechecks = caller.facts.session, self._rechecks
        if session is None or rechecks is None:
            return None
        since = rechecks.since(session) if caller.recheck_after else NEVER
        line = line_of(session, decision.obligations, self._rule, caller.recheck_after, since)
        return None if now < line.ahead else (session, rechecks, line)

    async def ask(self, caller: Caller) -> None:
        """Ask, and wait for a bounded time until memory holds what came of it."""
        session, rechecks = caller.facts.session, self._rechecks
        if session is not None and rechecks is not None:
            await rechecks.ask(session, caller.recheck_after)


UNASKED: Final = Freshness(None, Rule())

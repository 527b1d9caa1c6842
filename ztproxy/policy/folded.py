"""What is left to ask of one caller when everything is settled that no request can change.

Called by `engine.PolicySet.decide`. Caller, action and resource of a slice are the same until the facts are
others; only `context` differs from request to request. A condition that does not speak of `context` is
evaluated once for a caller and a slice. It is left out when it held; its rule goes when it did not hold and
nothing before it is left. All else, errors above all, is asked each time and in its place, so a decision is
the one that `program.evaluate` makes. Decisions are never kept.
"""

from typing import Final, final

from ztproxy.model.decision import Decision
from ztproxy.policy.compile import Part
from ztproxy.policy.operations import Env
from ztproxy.policy.program import Policy, Slice, concluded, reason
from ztproxy.policy.shapes import Code

#: Different remainders that are kept; callers share them. Beyond it all are made anew.
KEPT: Final = 10_000


@final
class Remainder:
    """The rules of a slice that can still apply to a caller, each with the conditions that are left."""

    __slots__ = ("confirmed", "rules")

    def __init__(self, rules: list[tuple[Policy, tuple[Code, ...]]]) -> None:
        self.rules: Final = rules
        self.confirmed = False  # whether a second opinion has agreed with what it decided

    def evaluate(self, env: Env) -> Decision:
        """Decide, as `program.evaluate` does."""
        forbids = permits = ()  # type: tuple[Policy, ...]
        errors: tuple[str, ...] = ()
        for policy, tests in self.rules:
            try:
                for test in tests:
                    if not test.holds(env):
                        break
                else:
                    if policy.permits:
                        permits = (*permits, policy) if permits else (policy,)
                    else:
                        forbids += (policy,)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here denies, and is named
                errors += (f"{policy.id}: {reason(error)}",)
        return concluded(forbids, permits, errors)


class Folder:
    """Makes remainders, the same one for callers of whom the same is left to ask."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[Slice, tuple[tuple[int, tuple[Code, ...]], ...]], Remainder] = {}

    def fold(self, part: Slice, env: Env) -> Remainder:
        """Return what is left to ask of the caller of `env` about the slice."""
        rules: list[tuple[Policy, tuple[Code, ...]]] = []
        for rule in part.rules:
            if rule.above is not None and rule.above not in env.lineage:
                continue
            if rule.same is not None and rule.same != env.principal:
                continue
            left = _left(((rule.holds, True),) if rule.parts is None else rule.parts, env)
            if left is not None:
                rules.append((rule.policy, tuple([test for test, _ in left])))
        key = (part, tuple([(id(policy), tests) for policy, tests in rules]))
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= KEPT:
                self._made.clear()
            made = self._made[key] = Remainder(rules)
        return made


def _left(parts: tuple[Part, ...], env: Env) -> list[Part] | None:
    """Return the conditions that are left; None when they can not hold, and none of them can be an error."""
    left: list[Part] = []
    for part in parts:
        test, reads_context = part
        if not reads_context:
            try:
                if test.holds(env):
                    continue
            except Exception:  # noqa: BLE001 - an error each time
                left.append(part)
                continue
            if not left:
                return None
        left.append(part)
    return left

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

_Tests = tuple[tuple[Code, ...], ...]  # of each rule
_Key = tuple[Slice, tuple[int, ...], _Tests]


@final
class Remainder:
    """The rules of a slice that can still apply to a caller: what is left to ask before each of them does.

    `tests` and `policies` go side by side. What the tests are, many routes share; of the policies, which each
    route has of its own, only those are looked at that apply.
    """

    __slots__ = ("confirmed", "policies", "tests")

    def __init__(self, policies: tuple[Policy, ...], tests: tuple[tuple[Code, ...], ...]) -> None:
        self.policies: Final = policies
        self.tests: Final = tests
        self.confirmed = False  # whether a second opinion has agreed with what it decided

    def evaluate(self, env: Env) -> Decision:
        """Decide, as `program.evaluate` does."""
        forbids = permits = ()  # type: tuple[Policy, ...]
        errors: tuple[str, ...] = ()
        for number, tests in enumerate(self.tests):
            try:
                for test in tests:
                    if not test.holds(env):
                        break
                else:
                    policy = self.policies[number]
                    if policy.permits:
                        permits = (*permits, policy) if permits else (policy,)
                    else:
                        forbids += (policy,)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here denies, and is named
                errors += (f"{self.policies[number].id}: {reason(error)}",)
        return concluded(forbids, permits, errors)


class Folder:
    """Makes remainders, the same one for callers of whom the same is left to ask."""

    __slots__ = ("_made", "_tests")

    def __init__(self) -> None:
        self._made: dict[_Key, Remainder] = {}
        self._tests: dict[_Tests, _Tests] = {}

    def fold(self, part: Slice, env: Env) -> Remainder:
        """Return what is left to ask of the caller of `env` about the slice."""
        policies: list[Policy] = []
        tests: list[tuple[Code, ...]] = []
        for rule in part.rules:
            if rule.above is not None and rule.above not in env.lineage:
                continue
            if rule.same is not None and rule.same != env.principal:
                continue
            left = _left(((rule.holds, True),) if rule.parts is None else rule.parts, env)
            if left is not None:
                policies.append(rule.policy)
                tests.append(tuple([test for test, _ in left]))
        asked = tuple(tests)
        key = (part, tuple(map(id, policies)), asked)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= KEPT:
                self._made.clear()
                self._tests.clear()
            made = self._made[key] = Remainder(tuple(policies), self._tests.setdefault(asked, asked))
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

"""What policies are compiled to: code that is run, and shapes of it that nearly all policies have.

Made by `compile`. Classes instead of closures, because these are run for every request: where the hot path is
compiled, one calls the next as C does, and a closure by way of an object with its arguments in an array, at a
hundred instructions each time. What is rare is a closure in `Closure`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Final, TypeAlias, final

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy import operations as ops
from ztproxy.policy.around import NUMBERS
from ztproxy.policy.operations import Env
from ztproxy.policy.values import Datetime, Record, Value, fail

Evaluate: TypeAlias = Callable[[Env], Value]

#: Where compiled code finds it without looking up a name.
_UNKNOWN: Final = UNKNOWN
#: Ages up to this many ms need no second thought; what Cedar can hold is four times as much.
_SPAN: Final = 1 << 61


class Code:
    """A compiled expression. `constant`: its value, if it has one."""

    __slots__ = ("constant",)

    def __init__(self, constant: Value = None) -> None:
        self.constant: Final = constant

    @abstractmethod
    def run(self, e: Env) -> Value:
        """Return the value. Raises EvalError, or KeyError for a missing attribute."""

    def holds(self, e: Env) -> bool:
        """Return the value as a condition. Raises also what is no bool."""
        return ops.boolean(self.run(e))

    def number(self, e: Env) -> int:
        """Return the value as a number. Raises also what is none."""
        return a_number(self.run(e))


def a_number(value: Value) -> int:
    """Return a long as it is."""
    return value if type(value) is int else fail()


@final
class Closure(Code):
    """Anything, by a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Evaluate, constant: Value = None) -> None:
        super().__init__(constant)
        self._function: Final = function

    def run(self, e: Env) -> Value:
        """Call it."""
        return self._function(e)


class Condition(Code):
    """What only `holds` has to be said of."""

    __slots__ = ()

    def run(self, e: Env) -> Value:
        """Return whether it holds."""
        return self.holds(e)


@final
class Every(Condition):
    """All of them, in order, up to the first that does not hold."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[Code, ...]) -> None:
        super().__init__()
        self._parts: Final = parts

    def holds(self, e: Env) -> bool:
        """Look."""
        for part in self._parts:  # noqa: SIM110 - a generator for all() costs more than the tests
            if not part.holds(e):
                return False
        return True


@final
class Not(Condition):
    """The opposite."""

    __slots__ = ("_part",)

    def __init__(self, part: Code) -> None:
        super().__init__()
        self._part: Final = part

    def holds(self, e: Env) -> bool:
        """Look."""
        return not self._part.holds(e)


# ------------------------------------------------------------------ attributes of variables

#: Variables that have attributes; the action has none.
PRINCIPAL: Final = 0
RESOURCE: Final = 1
CONTEXT: Final = 2


def attributes_of(variable: int, e: Env) -> dict[str, Value]:
    """Return the attributes of a variable."""
    if variable == CONTEXT:
        return e.context
    return e.attributes if variable == PRINCIPAL else e.place


@final
class Attribute(Code):
    """`variable.a.b.c`."""

    __slots__ = ("_first", "_rest", "_variable")

    def __init__(self, variable: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self._variable: Final = variable
        self._first: Final = names[0]
        self._rest: Final = names[1:]

    def run(self, e: Env) -> Value:
        """Read it."""
        return along(known(attributes_of(self._variable, e)[self._first], self._first), self._rest, e)


def known(value: Value, name: str) -> Value:
    """Return a value that is not UNKNOWN."""
    return value if value is not _UNKNOWN else ops.known(value, name)


def along(value: Value, names: tuple[str, ...], e: Env) -> Value:
    """Return what is there behind some more steps."""
    for name in names:
        if type(value) is dict:
            record: Record = value  # says so to the compiler
            value = record[name]
        else:
            value = ops.attribute(value, name, e)
        if value is _UNKNOWN:
            ops.known(value, name)
    return value


@final
class OfPrincipal(Code):
    """`principal.a.b` by one look-up; what is not there, or not known, the long way."""

    __slots__ = ("_path", "_slowly")

    def __init__(self, path: str, slowly: Code) -> None:
        super().__init__()
        self._path: Final = path
        self._slowly: Final = slowly

    def run(self, e: Env) -> Value:
        """Read it."""
        value = e.paths.get(self._path)
        return value if value is not None and value is not _UNKNOWN else self._slowly.run(e)


@final
class OfContext(Code):
    """`context.now` and the like, without a record of everything; of any other record the long way."""

    __slots__ = ("_number", "_rest", "_slowly")

    def __init__(self, names: tuple[str, ...], slowly: Code) -> None:
        super().__init__()
        self._number: Final = NUMBERS.get(names[0], 0)
        self._rest: Final = names[1:]
        self._slowly: Final = slowly

    def run(self, e: Env) -> Value:
        """Read it."""
        around = e.around
        if around is None or not self._number:
            return self._slowly.run(e)
        value = around.read(self._number)
        return along(value, self._rest, e) if self._rest else value


#: Parts of the local time.
_HOUR: Final = 1
_MINUTE: Final = 2
_WEEKDAY: Final = 3
LOCAL_PARTS: Final = {"hour": _HOUR, "minute": _MINUTE, "weekday": _WEEKDAY}


@final
class OfLocal(Code):
    """`context.local.hour` and the like, which are numbers whatever else is so."""

    __slots__ = ("_part", "_slowly")

    def __init__(self, part: int, slowly: Code) -> None:
        super().__init__()
        self._part: Final = part
        self._slowly: Final = slowly

    def run(self, e: Env) -> Value:
        """Read it."""
        return self._slowly.run(e) if e.around is None else self.number(e)

    def number(self, e: Env) -> int:
        """Read it."""
        around = e.around
        if around is None:
            return self._slowly.number(e)
        if self._part == _HOUR:
            return around.local.hour
        return around.local.minute if self._part == _MINUTE else around.local.weekday


# ------------------------------------------------------------------ comparisons with constants

#: Ways to compare.
LESS: Final = 0
LESS_EQUAL: Final = 1
GREATER: Final = 2
GREATER_EQUAL: Final = 3


@final
class Compared(Condition):
    """`a < 18`, and the like."""

    __slots__ = ("_how", "_k", "_left")

    def __init__(self, left: Code, how: int, k: int) -> None:
        super().__init__()
        self._left: Final = left
        self._how: Final = how
        self._k: Final = k

    def holds(self, e: Env) -> bool:
        """Compare."""
        return compared(self._left.number(e), self._how, self._k)


def compared(v: int, how: int, k: int) -> bool:
    """Compare two numbers."""
    if how == LESS:
        return v < k
    if how == LESS_EQUAL:
        return v <= k
    return v > k if how == GREATER else v >= k


@final
class Young(Condition):
    """`a.durationSince(b) <= duration("15m")`, the question of freshness."""

    __slots__ = ("_earlier", "_k", "_later")

    def __init__(self, later: Code, earlier: Code, k: int) -> None:
        super().__init__()
        self._later: Final = later
        self._earlier: Final = earlier
        self._k: Final = k

    def holds(self, e: Env) -> bool:
        """Compare."""
        a, b = self._later.run(e), self._earlier.run(e)
        if isinstance(a, Datetime) and isinstance(b, Datetime):
            age = a.ms - b.ms
            if -_SPAN <= age <= _SPAN:
                return age <= self._k
        return ops.duration_since(a, b).ms <= self._k  # raises what is to be raised

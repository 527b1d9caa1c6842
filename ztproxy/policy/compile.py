"""Cedar syntax trees (`cedarpy.pst`) to Python closures, once, when a set is loaded. Nothing is exec'd.

Called by `program`. A closure takes the environment (`operations.Env`) and returns a value or raises
EvalError; KeyError stands for a missing attribute. Shapes that policies use all the time (an attribute
of the principal, a comparison with a constant) get closures of their own: the path of every request.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from cedarpy import pst

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy import operations as ops
from ztproxy.policy.needs import NOTHING, Reads, of_context
from ztproxy.policy.operations import Env
from ztproxy.policy.operators import BINARY, READING, UNARY
from ztproxy.policy.render import children
from ztproxy.policy.values import (
    STEP,
    CedarSet,
    Datetime,
    Duration,
    EvalError,
    Uid,
    Value,
    fail,
)

Evaluate: TypeAlias = Callable[[Env], Value]
Test: TypeAlias = Callable[[Env], bool]
#: A condition, and what it can read of `context`: if nothing, all requests of a caller get the same answer.
Part: TypeAlias = tuple[Test, Reads]


class Code(NamedTuple):
    """A compiled expression. `boolean`: it can only return a bool. `constant`: its value, if it has one."""

    run: Evaluate
    boolean: bool = False
    constant: Value = None


#: Where the variables of a policy stand in the environment, and where their attributes do.
_PLACES: Final = {"principal": 0, "action": 1, "resource": 2, "context": 3}
#: Different conditions that policies share.
SHARED: Final = 4_096
#: Ages up to this many ms need no second thought; what Cedar can hold is four times as much.
_SPAN: Final = 1 << 61
_ATTRIBUTES: Final = {"principal": 5, "resource": 7, "context": 3}


def uid_of(uid: pst.EntityUid) -> Uid:
    """Return the entity uid of a syntax tree as a value."""
    return Uid(str(uid.type), uid.id)


def compiled(node: pst.Expr) -> Code:
    """Compile one expression. Raises KeyError for syntax this version does not know."""
    return _COMPILERS[type(node)](node)


@lru_cache(SHARED)
def test(node: pst.Expr) -> Test:
    """Compile an expression that has to be a bool; the closure raises EvalError if it is not.

    Policies that say the same share it: of many routes with rules alike, each request would else read another
    copy, which no cache of the processor has any more.
    """
    code = compiled(node)
    run, boolean = code.run, ops.boolean
    return run if code.boolean else lambda e: boolean(run(e))


def conditions(clauses: tuple[pst.Clause, ...]) -> Test:
    """Compile the when and unless clauses of a policy into one test."""
    tests = tuple(_clause(clause) for clause in clauses)
    return tests[0] if len(tests) == 1 else _every(tests)


def parts_of(clauses: tuple[pst.Clause, ...]) -> tuple[Part, ...]:
    """Return the parts of `conditions` in order, and of each what it can read of `context`."""
    parts: list[Part] = []
    for clause in clauses:
        if isinstance(clause, pst.When):
            parts += [(test(node), _reads(node)) for node in _conjuncts(clause.expr)]
        else:
            parts.append((_clause(clause), _reads(clause.expr)))
    return tuple(parts)


def _reads(node: pst.Expr) -> Reads:
    """Return what an expression can read of `context`; nothing only if it does not speak of it."""
    return (of_context(node) or None) if _reads_context(node) else NOTHING


def _reads_context(node: object) -> bool:
    """Tell whether an expression speaks of `context`; of what we do not know we think it does."""
    if isinstance(node, pst.Var):
        return node.name == "context"
    if type(node) not in _COMPILERS:
        return not isinstance(node, _LEAVES)
    return any(_reads_context(child) for child in children(node))


def _every(tests: tuple[Test, ...]) -> Test:
    """All of them, in order, up to the first that does not hold."""

    def every(e: Env) -> bool:
        for holds in tests:  # noqa: SIM110 - a generator for all() costs more than the tests
            if not holds(e):
                return False
        return True

    return every


def _clause(clause: pst.Clause) -> Test:
    holds = test(clause.expr)
    return holds if isinstance(clause, pst.When) else lambda e: not holds(e)


# ------------------------------------------------------------------ variables, constants, attributes


def _variable(node: pst.Var) -> Code:
    place = _PLACES[node.name]
    return Code(lambda e: e[place])


def _literal(node: pst.BoolLit | pst.LongLit | pst.StringLit) -> Code:
    value = node.value
    return Code(lambda e: value, type(value) is bool)


def _entity(node: pst.EntityLit) -> Code:
    value = uid_of(node.value)
    return Code(lambda e: value)


def _attributes_of(node: pst.Expr) -> int | None:
    """Where the attributes of a bare variable stand; the action has none."""
    return _ATTRIBUTES.get(node.name) if isinstance(node, pst.Var) else None


def _attribute(node: pst.GetAttr) -> Code:
    place, names = _path(node)
    if place is not None:
        read_along = _read_along(place, names)
        return Code(_of_principal(names, read_along) if _has_paths(place, names) else read_along)
    base, name, read = compiled(node.base).run, node.attr, ops.attribute
    return Code(lambda e: read(base(e), name, e))


def _path(node: pst.Expr) -> tuple[int | None, tuple[str, ...]]:
    """Return where the attributes of the variable stand and the steps from there; None for other shapes."""
    names: list[str] = []
    while isinstance(node, pst.GetAttr):
        names.append(node.attr)
        node = node.base
    return _attributes_of(node), tuple(reversed(names))


def _read_along(place: int, names: tuple[str, ...]) -> Evaluate:
    known, read, unknown = ops.known, ops.attribute, UNKNOWN
    first, rest = names[0], names[1:]

    def of_variable(e: Env) -> Value:
        value = e[place][first]
        return value if value is not unknown else known(value, first)

    def along(e: Env) -> Value:
        value = of_variable(e)
        for name in rest:
            value = value[name] if type(value) is dict else read(value, name, e)
            if value is unknown:
                known(value, name)
        return value

    return along if rest else of_variable


def _has_paths(place: int, names: tuple[str, ...]) -> bool:
    return place == _ATTRIBUTES["principal"] and not any(STEP in name for name in names)


def _of_principal(names: tuple[str, ...], slowly: Evaluate) -> Evaluate:
    """`principal.a.b` by one look-up; what is not there, or not known, the long way."""
    path, unknown = STEP.join(names), UNKNOWN

    def read(e: Env) -> Value:
        paths: dict[str, Value] = e[9]
        value = paths.get(path, unknown)
        return value if value is not unknown else slowly(e)

    return read


def _has(node: pst.HasAttr) -> Code:
    base, names = compiled(node.base).run, node.attrs
    has, read = ops.has, ops.attribute

    def along(e: Env) -> bool:
        value = base(e)
        for name in names[:-1]:
            if not has(value, name, e):
                return False
            value = read(value, name, e)
        return has(value, names[-1], e)

    place, before = _path(node.base)
    return Code(along if place is None else _has_along(place, before, names, along), True)


def _has_along(place: int, before: tuple[str, ...], names: tuple[str, ...], anything: Test) -> Test:
    """`principal.a has b` while all of it is there, the usual case; `anything` for everything else."""
    names = (*before, *names)
    if _has_paths(place, names):
        return _has_of_principal(names, anything)

    def has(e: Env) -> bool:
        value: Value = e[place]
        for name in names:
            if type(value) is not dict or name not in value:
                return anything(e)
            value = value[name]
        return value is not UNKNOWN or anything(e)

    return has


def _has_of_principal(names: tuple[str, ...], anything: Test) -> Test:
    path, unknown = STEP.join(names), UNKNOWN

    def has(e: Env) -> bool:
        paths: dict[str, Value] = e[9]
        return paths.get(path, unknown) is not unknown or anything(e)

    return has


# ------------------------------------------------------------------ sets, records, strings, types


def _like(node: pst.Like) -> Code:
    pieces = [""]
    for element in node.pattern:
        if isinstance(element, pst.Wildcard):
            pieces.append("")
        else:
            pieces[-1] += element.value
    base, like, frozen = compiled(node.base).run, ops.like, tuple(pieces)
    return Code(lambda e: like(base(e), frozen), True)


def _is(node: pst.Is) -> Code:
    base, name, is_type, inside = compiled(node.base).run, str(node.entity_type), ops.is_type, ops.inside
    if node.in_expr is None:
        return Code(lambda e: is_type(base(e), name), True)
    above = compiled(node.in_expr).run

    def is_in(e: Env) -> bool:
        value = base(e)
        return is_type(value, name) and inside(value, above(e), e)

    return Code(is_in, True)


def _if(node: pst.IfThenElse) -> Code:
    condition, then, other = test(node.cond), compiled(node.then_expr), compiled(node.else_expr)
    yes, no = then.run, other.run
    return Code(lambda e: yes(e) if condition(e) else no(e), then.boolean and other.boolean)


def _set(node: pst.Set) -> Code:
    if all(isinstance(element, pst.StringLit | pst.LongLit | pst.BoolLit) for element in node.elements):
        constant = CedarSet([element.value for element in node.elements])  # type: ignore[union-attr]
        return Code(lambda e: constant)
    runs = [compiled(element).run for element in node.elements]
    return Code(lambda e: CedarSet([run(e) for run in runs]))


def _record(node: pst.Record) -> Code:
    runs = [(name, compiled(value).run) for name, value in node.fields.items()]
    return Code(lambda e: {name: run(e) for name, run in runs})


# ------------------------------------------------------------------ operators


def _unary(node: pst.UnaryOp) -> Code:
    if node.op == "not":
        holds = test(node.arg)
        return Code(lambda e: not holds(e), True)
    operation, boolean = UNARY[node.op]
    if isinstance(node.arg, pst.StringLit) and node.op in ("ip", "decimal", "datetime", "duration"):
        try:
            value = operation(node.arg.value)
            return Code(lambda e: value, constant=value)
        except EvalError:
            pass  # an error of the evaluation, as Cedar has it: only if this expression is reached
    argument = compiled(node.arg).run
    return Code(lambda e: operation(argument(e)), boolean)


def _binary(node: pst.BinaryOp) -> Code:
    special = _SPECIAL.get(node.op)
    code = special(node) if special else None
    if code is not None:
        return code
    left, right = compiled(node.left).run, compiled(node.right).run
    if node.op in READING:
        reading, boolean = READING[node.op]
        return Code(lambda e: reading(left(e), right(e), e), boolean)
    operation, boolean = BINARY[node.op]
    return Code(lambda e: operation(left(e), right(e)), boolean)


def _and(node: pst.BinaryOp) -> Code:
    return Code(_every(tuple(test(part) for part in _conjuncts(node))), True)


def _conjuncts(node: pst.Expr) -> list[pst.Expr]:
    if isinstance(node, pst.BinaryOp) and node.op == "and":
        return _conjuncts(node.left) + _conjuncts(node.right)
    return [node]


def _or(node: pst.BinaryOp) -> Code:
    left, right = test(node.left), test(node.right)
    return Code(lambda e: left(e) or right(e), True)


def _compare(node: pst.BinaryOp) -> Code | None:
    """Compare with a constant number or length of time; None for everything else."""
    if not isinstance(node.right, pst.LongLit):
        return _age(node)
    left, k = compiled(node.left).run, node.right.value

    def less(e: Env) -> bool:
        v = left(e)
        return v < k if type(v) is int else fail()

    def less_eq(e: Env) -> bool:
        v = left(e)
        return v <= k if type(v) is int else fail()

    def greater(e: Env) -> bool:
        v = left(e)
        return v > k if type(v) is int else fail()

    def greater_eq(e: Env) -> bool:
        v = left(e)
        return v >= k if type(v) is int else fail()

    return Code({"less": less, "less_eq": less_eq, "greater": greater}.get(node.op, greater_eq), True)


def _age(node: pst.BinaryOp) -> Code | None:
    """`a.durationSince(b) <= duration("15m")`, the question of freshness; None for everything else."""
    if node.op != "less_eq" or not isinstance(node.left, pst.BinaryOp):
        return None
    limit = compiled(node.right)
    if node.left.op != "duration_since" or type(limit.constant) is not Duration:
        return None
    later, earlier, k = compiled(node.left.left).run, compiled(node.left.right).run, limit.constant.ms
    since, instant = ops.duration_since, Datetime

    def young(e: Env) -> bool:
        a, b = later(e), earlier(e)
        if type(a) is instant and type(b) is instant and -_SPAN <= (age := a.ms - b.ms) <= _SPAN:
            return bool(age <= k)
        return since(a, b).ms <= k  # raises what is to be raised

    return Code(young, True)


def _equal(node: pst.BinaryOp) -> Code | None:
    """Compare with a constant string, which only a string equals; None for everything else."""
    if not isinstance(node.right, pst.StringLit):
        return None
    left, k = compiled(node.left).run, node.right.value
    if node.op == "eq":
        return Code(lambda e: left(e) == k, True)
    return Code(lambda e: left(e) != k, True)


def _in(node: pst.BinaryOp) -> Code | None:
    """`principal in Group::"x"`, `principal in [Group::"x", …]`; None for everything else."""
    if not (isinstance(node.left, pst.Var) and node.left.name == "principal"):
        return None
    if isinstance(node.right, pst.EntityLit):
        k = uid_of(node.right.value)
        return Code(lambda e: k in e[6], True)
    if not isinstance(node.right, pst.Set):
        return None
    uids = [element.value for element in node.right.elements if isinstance(element, pst.EntityLit)]
    if len(uids) != len(node.right.elements):
        return None
    ks = frozenset(map(uid_of, uids))
    return Code(lambda e: not ks.isdisjoint(e[6]), True)


def _contains(node: pst.BinaryOp) -> Code | None:
    """`["a", "b"].contains(x)`; None for everything else."""
    if not isinstance(node.left, pst.Set):
        return None
    words = [element.value for element in node.left.elements if isinstance(element, pst.StringLit)]
    if len(words) != len(node.left.elements):
        return None
    right, ks = compiled(node.right).run, frozenset(words)

    def contains(e: Env) -> bool:
        v = right(e)
        return type(v) is str and v in ks

    return Code(contains, True)


_SPECIAL: Final[dict[str, Callable[[pst.BinaryOp], Code | None]]] = {
    "and": _and,
    "or": _or,
    "less": _compare,
    "less_eq": _compare,
    "greater": _compare,
    "greater_eq": _compare,
    "eq": _equal,
    "not_eq": _equal,
    "in": _in,
    "contains": _contains,
}

_COMPILERS: Final[dict[type, Callable[[Any], Code]]] = {
    pst.Var: _variable,
    pst.BoolLit: _literal,
    pst.LongLit: _literal,
    pst.StringLit: _literal,
    pst.EntityLit: _entity,
    pst.GetAttr: _attribute,
    pst.HasAttr: _has,
    pst.Like: _like,
    pst.Is: _is,
    pst.IfThenElse: _if,
    pst.Set: _set,
    pst.Record: _record,
    pst.UnaryOp: _unary,
    pst.BinaryOp: _binary,
}

#: What expressions are made of besides expressions.
_LEAVES: Final = (str, pst.EntityUid, pst.EntityType, pst.Wildcard, pst.Char)

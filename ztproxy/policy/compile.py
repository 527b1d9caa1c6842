"""Cedar syntax trees (`cedarpy.pst`) to code that can be run, once, when a set is loaded. Nothing is exec'd.

Called by `program`. Code takes the environment (`operations.Env`) and returns a value or raises EvalError;
KeyError stands for a missing attribute. Shapes that policies use all the time (an attribute of the principal,
a comparison with a constant) are classes of `shapes`, everything else is a closure.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

from cedarpy import pst

from ztproxy.model.subject import UNKNOWN
from ztproxy.policy import operations as ops
from ztproxy.policy import shapes
from ztproxy.policy.operations import Env
from ztproxy.policy.operators import BINARY, READING, UNARY
from ztproxy.policy.render import children
from ztproxy.policy.shapes import (
    Attribute,
    Closure,
    Code,
    Compared,
    Evaluate,
    Every,
    Not,
    OfContext,
    OfLocal,
    OfPrincipal,
    Young,
    attributes_of,
)
from ztproxy.policy.values import STEP, CedarSet, Duration, EvalError, Uid, Value, path_of

#: A condition, and whether it speaks of `context`: if not, all requests of a caller get the same answer.
Part: TypeAlias = tuple[Code, bool]
Has: TypeAlias = Callable[[Env], bool]


#: Variables that have attributes; the action has none.
_ATTRIBUTES: Final = {"principal": shapes.PRINCIPAL, "resource": shapes.RESOURCE, "context": shapes.CONTEXT}
#: Different conditions that policies share.
SHARED: Final = 4_096


def uid_of(uid: pst.EntityUid) -> Uid:
    """Return the entity uid of a syntax tree as a value."""
    return Uid(str(uid.type), uid.id)


def compiled(node: pst.Expr) -> Code:
    """Compile one expression. Raises KeyError for syntax this version does not know."""
    return _COMPILERS[type(node)](node)


@lru_cache(SHARED)
def test(node: pst.Expr) -> Code:
    """Compile an expression that has to be a bool; `holds` raises EvalError if it is not.

    Policies that say the same share it: of many routes with rules alike, each request would else read another
    copy, which no cache of the processor has any more.
    """
    return compiled(node)


@lru_cache(SHARED)
def _fails(node: pst.Expr) -> Code:
    """The opposite of `test`, shared as well."""
    return Not(test(node))


def conditions(clauses: tuple[pst.Clause, ...]) -> Code:
    """Compile the when and unless clauses of a policy into one test."""
    tests = tuple([_clause(clause) for clause in clauses])
    return tests[0] if len(tests) == 1 else Every(tests)


def parts_of(clauses: tuple[pst.Clause, ...]) -> tuple[Part, ...]:
    """Return the parts of `conditions` in order, and of each whether it speaks of `context`."""
    parts: list[Part] = []
    for clause in clauses:
        if isinstance(clause, pst.When):
            parts += [(test(node), _reads_context(node)) for node in _conjuncts(clause.expr)]
        else:
            parts.append((_clause(clause), _reads_context(clause.expr)))
    return tuple(parts)


def _reads_context(node: object) -> bool:
    """Tell whether an expression speaks of `context`; of what we do not know we think it does."""
    if isinstance(node, pst.Var):
        return node.name == "context"
    if type(node) not in _COMPILERS:
        return not isinstance(node, _LEAVES)
    return any(_reads_context(child) for child in children(node))


def _clause(clause: pst.Clause) -> Code:
    return test(clause.expr) if isinstance(clause, pst.When) else _fails(clause.expr)


# ------------------------------------------------------------------ variables, constants, attributes


def _variable(node: pst.Var) -> Code:
    return Closure(_VARIABLES[node.name])


_VARIABLES: Final[dict[str, Evaluate]] = {
    "principal": lambda e: e.principal,
    "action": lambda e: e.action,
    "resource": lambda e: e.resource,
    "context": lambda e: e.context,
}


def _literal(node: pst.BoolLit | pst.LongLit | pst.StringLit) -> Code:
    value = node.value
    return Closure(lambda e: value)


def _entity(node: pst.EntityLit) -> Code:
    value = uid_of(node.value)
    return Closure(lambda e: value)


def _attributes_of(node: pst.Expr) -> int | None:
    """The bare variable whose attributes are asked for, if it is one."""
    return _ATTRIBUTES.get(node.name) if isinstance(node, pst.Var) else None


def _attribute(node: pst.GetAttr) -> Code:
    variable, names = _path(node)
    if variable is not None:
        code = Attribute(variable, names)
        if variable == shapes.CONTEXT:
            part = shapes.LOCAL_PARTS.get(names[1], 0) if len(names) == 2 and names[0] == "local" else 0
            return OfLocal(part, code) if part else OfContext(names, code)
        return OfPrincipal(path_of(names), code) if _has_paths(variable, names) else code
    base, name = compiled(node.base), node.attr
    return Closure(lambda e: ops.attribute(base.run(e), name, e))


def _path(node: pst.Expr) -> tuple[int | None, tuple[str, ...]]:
    """Return the variable and the steps from there; None for other shapes."""
    names: list[str] = []
    while isinstance(node, pst.GetAttr):
        names.append(node.attr)
        node = node.base
    return _attributes_of(node), tuple(reversed(names))


def _has_paths(variable: int, names: tuple[str, ...]) -> bool:
    return variable == shapes.PRINCIPAL and not any(STEP in name for name in names)


def _has(node: pst.HasAttr) -> Code:
    base, names = compiled(node.base), node.attrs
    has, read = ops.has, ops.attribute

    def along(e: Env) -> bool:
        value = base.run(e)
        for name in names[:-1]:
            if not has(value, name, e):
                return False
            value = read(value, name, e)
        return has(value, names[-1], e)

    variable, before = _path(node.base)
    return Closure(along if variable is None else _has_along(variable, before, names, along))


def _has_along(variable: int, before: tuple[str, ...], names: tuple[str, ...], anything: Has) -> Has:
    """`principal.a has b` while all of it is there, the usual case; `anything` for everything else."""
    names = (*before, *names)
    if _has_paths(variable, names):
        return _has_of_principal(names, anything)

    def has(e: Env) -> bool:
        value: Value = attributes_of(variable, e)
        for name in names:
            if type(value) is not dict or name not in value:
                return anything(e)
            value = value[name]
        return value is not UNKNOWN or anything(e)

    return has


def _has_of_principal(names: tuple[str, ...], anything: Has) -> Has:
    path, unknown = path_of(names), UNKNOWN

    def has(e: Env) -> bool:
        return e.paths.get(path, unknown) is not unknown or anything(e)

    return has


# ------------------------------------------------------------------ sets, records, strings, types


def _like(node: pst.Like) -> Code:
    pieces = [""]
    for element in node.pattern:
        if isinstance(element, pst.Wildcard):
            pieces.append("")
        else:
            pieces[-1] += element.value
    base, like, frozen = compiled(node.base), ops.like, tuple(pieces)
    return Closure(lambda e: like(base.run(e), frozen))


def _is(node: pst.Is) -> Code:
    base, name, is_type, inside = compiled(node.base), str(node.entity_type), ops.is_type, ops.inside
    if node.in_expr is None:
        return Closure(lambda e: is_type(base.run(e), name))
    above = compiled(node.in_expr)

    def is_in(e: Env) -> bool:
        value = base.run(e)
        return is_type(value, name) and inside(value, above.run(e), e)

    return Closure(is_in)


def _if(node: pst.IfThenElse) -> Code:
    condition, then, other = test(node.cond), compiled(node.then_expr), compiled(node.else_expr)
    return Closure(lambda e: then.run(e) if condition.holds(e) else other.run(e))


def _set(node: pst.Set) -> Code:
    if all(isinstance(element, pst.StringLit | pst.LongLit | pst.BoolLit) for element in node.elements):
        constant = CedarSet([element.value for element in node.elements])  # type: ignore[union-attr]
        return Closure(lambda e: constant)
    codes = [compiled(element) for element in node.elements]
    return Closure(lambda e: CedarSet([code.run(e) for code in codes]))


def _record(node: pst.Record) -> Code:
    codes = [(name, compiled(value)) for name, value in node.fields.items()]
    return Closure(lambda e: {name: code.run(e) for name, code in codes})


# ------------------------------------------------------------------ operators


def _unary(node: pst.UnaryOp) -> Code:
    if node.op == "not":
        return Not(test(node.arg))
    operation = UNARY[node.op]
    if isinstance(node.arg, pst.StringLit) and node.op in ("ip", "decimal", "datetime", "duration"):
        try:
            value = operation(node.arg.value)
            return Closure(lambda e: value, constant=value)
        except EvalError:
            pass  # an error of the evaluation, as Cedar has it: only if this expression is reached
    argument = compiled(node.arg)
    return Closure(lambda e: operation(argument.run(e)))


def _binary(node: pst.BinaryOp) -> Code:
    special = _SPECIAL.get(node.op)
    code = special(node) if special else None
    if code is not None:
        return code
    left, right = compiled(node.left), compiled(node.right)
    if node.op in READING:
        reading = READING[node.op]
        return Closure(lambda e: reading(left.run(e), right.run(e), e))
    operation = BINARY[node.op]
    return Closure(lambda e: operation(left.run(e), right.run(e)))


def _and(node: pst.BinaryOp) -> Code:
    return Every(tuple([test(part) for part in _conjuncts(node)]))


def _conjuncts(node: pst.Expr) -> list[pst.Expr]:
    if isinstance(node, pst.BinaryOp) and node.op == "and":
        return _conjuncts(node.left) + _conjuncts(node.right)
    return [node]


def _or(node: pst.BinaryOp) -> Code:
    left, right = test(node.left), test(node.right)
    return Closure(lambda e: left.holds(e) or right.holds(e))


def _compare(node: pst.BinaryOp) -> Code | None:
    """Compare with a constant number or length of time; None for everything else."""
    if not isinstance(node.right, pst.LongLit):
        return _age(node)
    return Compared(compiled(node.left), _HOW[node.op], node.right.value)


_HOW: Final = {
    "less": shapes.LESS,
    "less_eq": shapes.LESS_EQUAL,
    "greater": shapes.GREATER,
    "greater_eq": shapes.GREATER_EQUAL,
}


def _age(node: pst.BinaryOp) -> Code | None:
    """`a.durationSince(b) <= duration("15m")`, the question of freshness; None for everything else."""
    if node.op != "less_eq" or not isinstance(node.left, pst.BinaryOp):
        return None
    limit = compiled(node.right)
    if node.left.op != "duration_since" or type(limit.constant) is not Duration:
        return None
    return Young(compiled(node.left.left), compiled(node.left.right), limit.constant.ms)


def _equal(node: pst.BinaryOp) -> Code | None:
    """Compare with a constant string, which only a string equals; None for everything else."""
    if not isinstance(node.right, pst.StringLit):
        return None
    left, k = compiled(node.left), node.right.value
    if node.op == "eq":
        return Closure(lambda e: left.run(e) == k)
    return Closure(lambda e: left.run(e) != k)


def _in(node: pst.BinaryOp) -> Code | None:
    """`principal in Group::"x"`, `principal in [Group::"x", …]`; None for everything else."""
    if not (isinstance(node.left, pst.Var) and node.left.name == "principal"):
        return None
    if isinstance(node.right, pst.EntityLit):
        k = uid_of(node.right.value)
        return Closure(lambda e: k in e.lineage)
    if not isinstance(node.right, pst.Set):
        return None
    uids = [element.value for element in node.right.elements if isinstance(element, pst.EntityLit)]
    if len(uids) != len(node.right.elements):
        return None
    ks = frozenset(map(uid_of, uids))
    return Closure(lambda e: not ks.isdisjoint(e.lineage))


def _contains(node: pst.BinaryOp) -> Code | None:
    """`["a", "b"].contains(x)`; None for everything else."""
    if not isinstance(node.left, pst.Set):
        return None
    words = [element.value for element in node.left.elements if isinstance(element, pst.StringLit)]
    if len(words) != len(node.left.elements):
        return None
    right, ks = compiled(node.right), frozenset(words)

    def contains(e: Env) -> bool:
        v = right.run(e)
        return type(v) is str and v in ks

    return Closure(contains)


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

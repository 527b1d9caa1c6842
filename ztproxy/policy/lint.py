"""What Cedar's validator does not notice: names of things that do not exist, words that can not occur,
conditions that can never hold, annotations nobody reads.

Called by `load` for each statement. A finding is a Problem like any other: the set is not loaded.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cedarpy import pst

from ztproxy.model.remedies import REMEDIES
from ztproxy.policy.builtin import PORTAL, RESERVED
from ztproxy.policy.problems import Problem
from ztproxy.policy.program import OBLIGATIONS
from ztproxy.policy.render import children, expression, path, reads
from ztproxy.policy.schema import RANGES, STATES, WORDS
from ztproxy.policy.sources import Statement

#: Annotations that have a meaning here.
ANNOTATIONS: Final = frozenset({"id", "reason", "remedy", "description", "owner", *OBLIGATIONS})

MAX_TEXT: Final = 500  # characters of an annotation

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,99}\Z")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_LENGTH = re.compile(r"[1-9][0-9]{0,8}(?:ms|s|m|h|d)\Z")
_RECHECK = re.compile(r"[1-9][0-9]{0,8}(?:ms|s|m|h|d)(?: keep [0-9]{1,9}(?:ms|s|m|h|d))?\Z")

#: Values of obligations: a pattern and what it stands for.
_DUTIES: Final = {
    "record": (re.compile(r"metadata\Z"), "metadata; bodies are not recorded"),
    "maxsession": (_LENGTH, "a duration in one unit, like 30m"),
    "recheck": (_RECHECK, "a duration in one unit, like 15m, or two, like 15m keep 1h"),
    "stale": (
        re.compile(r"(?:refuse|cut|keep [1-9][0-9]{0,8}(?:ms|s|m|h|d))\Z"),
        "refuse, cut or keep and a duration in one unit, like keep 5m",
    ),
    "alert": (_WORD, "a word in lower case, like soc-page"),
}


#: Ages of sources, in ms.
_AGES: Final = (0, (1 << 63) - 1)


def _of_source(steps: tuple[str, ...], attribute: str) -> bool:
    return len(steps) == 4 and steps[:2] == ("context", "sources") and steps[3] == attribute


@dataclass(frozen=True, slots=True)
class Known:
    """The names that exist. `groups` None = not known, so not checked."""

    routes: Collection[str]
    apps: Collection[str]
    groups: Collection[str] | None = None
    protocols: frozenset[str] = frozenset()  # that routes may upgrade connections to
    sources: Collection[str] = ()  # of facts


def lint(statements: Iterable[Statement], known: Known) -> list[Problem]:
    """Return what is wrong with these policies beyond what Cedar finds."""
    problems: list[Problem] = []
    seen: dict[str, Statement] = {}
    for statement in statements:
        found = [*_identity(statement, seen), *_annotations(statement), *_instances(statement, known)]
        found += _conditions(statement, known)
        name = statement.tree.annotations.get("id", "")
        prefix = f"policy {name}: " if name else ""
        problems += [Problem(statement.file, statement.line, prefix + text, help_) for text, help_ in found]
    return problems


Finding = tuple[str, str]


def _identity(statement: Statement, seen: dict[str, Statement]) -> Iterator[Finding]:
    name = statement.tree.annotations.get("id", "")
    if not name:
        yield "the policy has no @id", 'write @id("a-name") before it: decisions and tests name policies'
    elif not _ID.match(name):
        yield "the @id is not a plain name", "use letters, digits, dot, slash, @, dash, at most 100"
    elif name.startswith(RESERVED):
        yield f"ids beginning with {RESERVED} are built in", "choose another @id"
    elif name in seen:
        first = seen[name]
        yield f"the @id is already used at {first.file}:{first.line}", "give each policy its own @id"
    seen.setdefault(name, statement)


# ------------------------------------------------------------------ annotations


def _annotations(statement: Statement) -> Iterator[Finding]:
    for name, value in statement.tree.annotations.items():
        if name not in ANNOTATIONS:
            yield f"unknown annotation @{name}", _suggestion(name, ANNOTATIONS)
        elif len(value) > MAX_TEXT:
            yield f"@{name} is longer than {MAX_TEXT} characters", "say it shorter"
        elif name == "remedy":
            yield from _remedies(value)
        elif name in OBLIGATIONS:
            yield from _duty(name, value, statement.tree.effect)


def _remedies(value: str) -> Iterator[Finding]:
    for word in (part.strip() for part in value.split(",")):
        if not _WORD.match(word):
            yield f"@remedy {word!r} is not a word like step-up-mfa", "separate words by commas"
        elif word not in REMEDIES and (near := difflib.get_close_matches(word, REMEDIES, 1, 0.8)):
            yield f"unknown remedy {word!r}", f"did you mean {near[0]}?"


def _duty(name: str, value: str, effect: str) -> Iterator[Finding]:
    pattern, meaning = _DUTIES[name]
    if effect == "forbid":
        yield f"@{name} on a forbid obliges nobody", "put it on permits"
    elif not pattern.match(value):
        yield f"@{name} is not {meaning}", f'write @{name}("…") with such a value'


def _suggestion(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known)[:12])}"


# ------------------------------------------------------------------ names


def _instances(statement: Statement, known: Known) -> Iterator[Finding]:
    names: dict[str, tuple[Collection[str] | None, str]] = {
        "Route": ({*known.routes, PORTAL}, "route"),
        "App": ({*known.apps, PORTAL}, "app"),
        "Group": (known.groups, "group"),
    }
    for uid in sorted(pst.entity_uids(statement.tree), key=str):
        existing, what = names.get(str(uid.type), (None, ""))
        if existing is not None and uid.id not in existing:
            yield f"no {what} is called {uid.id!r}", _suggestion(uid.id, existing)
        if str(uid.type) == "Anonymous" and uid.id != "anonymous":
            yield f"Anonymous has no instance {uid.id!r}", "write `principal is Anonymous`"


# ------------------------------------------------------------------ conditions


def _conditions(statement: Statement, known: Known) -> Iterator[Finding]:
    tree = statement.tree
    found = [node for clause in tree.clauses for node in _walk(clause.expr)]
    operators = [node for node in found if isinstance(node, pst.BinaryOp)]
    for node in operators:
        yield from _word(node, known)
        yield from _range(node)
    for test in (node for node in found if isinstance(node, pst.Is)):
        yield from _kind(test, "principal", tree.principal)
        yield from _kind(test, "resource", tree.resource)
    if any(isinstance(clause.expr, pst.BoolLit) for clause in tree.clauses):
        yield "the condition is constant", "leave it out, or write what was meant"
    yield from _one_sided(operators)
    for clause in tree.clauses:
        yield from _source(clause.expr, known)


def _source(expr: object, known: Known) -> Iterator[Finding]:
    """Find sources that nobody configured: Cedar takes `has` of one for a condition that never holds."""
    named = {steps[2] for steps in reads(expr) if steps[:2] == ("context", "sources") and len(steps) > 2}
    for name in sorted(named.difference(known.sources)):
        yield f"no source of facts is called {name!r}", _suggestion(name, known.sources)


def _walk(node: object) -> Iterator[object]:
    yield node
    for child in children(node):
        yield from _walk(child)


def _sides(node: pst.BinaryOp, ops: Collection[str]) -> Iterator[tuple[tuple[str, ...], str, pst.Expr]]:
    """Yield (path, operator as seen from the path, other side) of a comparison."""
    if node.op in ops:
        yield path(node.left), node.op, node.right
        yield path(node.right), _MIRROR.get(node.op, node.op), node.left


_MIRROR: Final = {"less": "greater", "less_eq": "greater_eq", "greater": "less", "greater_eq": "less_eq"}
_HOLDS: Final[dict[str, Callable[[int, int], bool]]] = {
    "less": lambda a, b: a < b,
    "less_eq": lambda a, b: a <= b,
    "greater": lambda a, b: a > b,
    "greater_eq": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "not_eq": lambda a, b: a != b,
}


def _word(node: pst.BinaryOp, known: Known) -> Iterator[Finding]:
    """Find comparisons of closed lists of words with a word that is not among them."""
    for steps, _, other in _sides(node, ("eq", "not_eq")):
        if isinstance(other, pst.StringLit):
            yield from _among(steps, other.value, known)
    if node.op == "contains" and isinstance(node.left, pst.Set):
        for element in node.left.elements:
            if isinstance(element, pst.StringLit):
                yield from _among(path(node.right), element.value, known)


def _among(steps: tuple[str, ...], word: str, known: Known) -> Iterator[Finding]:
    words = STATES if _of_source(steps, "state") else WORDS.get(steps[-2:])
    if words is not None and steps[-2:] == ("context", "protocol"):
        words |= known.protocols
    if words is not None and word not in words:
        listed = ", ".join(f'"{one}"' for one in sorted(words))
        yield f'{".".join(steps)} is never "{word}"', f"it is one of {listed}"


def _range(node: pst.BinaryOp) -> Iterator[Finding]:
    """Find comparisons of bounded numbers that always or never hold."""
    for steps, op, other in _sides(node, _HOLDS):
        number = _number(other)
        bounds_of = RANGES.get(steps, _AGES if _of_source(steps, "age") else None)
        if bounds_of is not None and number is not None:
            low, high = bounds_of
            # a comparison changes its answer at most at the number itself and beside it
            samples = {low, high, *(n for n in (number - 1, number, number + 1) if low <= n <= high)}
            answers = {_HOLDS[op](sample, number) for sample in samples}
            if len(answers) == 1:
                always = "always" if answers.pop() else "never"
                bounds = f"{'.'.join(steps)} is {low} to {high}" if high < 1 << 32 else "it is never negative"
                yield f"`{expression(node)}` {always} holds", bounds


def _number(node: pst.Expr) -> int | None:
    if isinstance(node, pst.UnaryOp) and node.op == "neg" and isinstance(node.arg, pst.LongLit):
        return -node.arg.value
    return node.value if isinstance(node, pst.LongLit) else None


def _kind(node: pst.Is, name: str, scope: pst.PrincipalOrResourceConstraint) -> Iterator[Finding]:
    """Find `principal is X` that the policy's own scope has settled already."""
    if not isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) or not isinstance(node.base, pst.Var):
        return
    if node.base.name == name and node.entity_type != scope.entity_type:
        yield f"`{expression(node)}` never holds here", f"the policy is for {name} is {scope.entity_type}"


def _one_sided(operators: Iterable[pst.BinaryOp]) -> Iterator[Finding]:
    """Find numbers of the request that are bounded on one side only: `lines <= 500` lets -1 in."""
    low: set[tuple[str, ...]] = set()
    high: set[tuple[str, ...]] = set()
    for node in operators:
        for steps, op, other in _sides(node, _MIRROR):
            if (
                steps[:1] == ("context",)
                and steps not in RANGES
                and not _of_source(steps, "age")
                and _number(other) is not None
            ):
                (high if op in ("less", "less_eq") else low).add(steps)
    for steps in sorted(low ^ high):
        side = "above" if steps in low else "below"
        yield f"{'.'.join(steps)} is not bounded {side}", "compare it on both sides"

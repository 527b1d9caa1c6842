"""As much of a broken file as can be read, so that one mistake does not hide the others.

Called by `load`. What pydantic refuses is cut out of the tree until the rest is valid; which sections lost
something is remembered, so that checks which need them whole are left out instead of raising false alarms.
A draft is for checking only: `load` never returns settings that had a problem.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ztproxy.config.explain import explain
from ztproxy.config.files import Files
from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.sections import Portal, Tls
from ztproxy.config.settings import Settings
from ztproxy.config.values import Surroundings
from ztproxy.config.yaml import Loc, Node, Plain

#: A list in a list in a section: no value lies deeper, so no more rounds are needed to cut it out.
_ROUNDS: Final = 8

#: Stand in for sections that are missing, so that the others can be checked.
_BLANKS: Final[dict[str, Any]] = {
    "listen": "127.0.0.1:1",
    "trust_domain": "unknown.invalid",
    "tls": Tls.model_construct(certificates=()),
    "portal": Portal.model_construct(host="portal.invalid", title=""),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """Settings that can be checked, what was wrong with the file, and the sections that lost something."""

    settings: Settings | None
    places: Places
    problems: tuple[Problem, ...]
    broken: frozenset[str]


def draft(tree: Node, file: Path, environ: Mapping[str, str], files: Files) -> Draft:
    """Validate the tree; on problems, say them all and go on with what is valid."""
    places = Places(str(file), tree)
    surroundings = Surroundings(file=file, environ=environ, files=files, drafting=False)
    try:
        return Draft(_validated(tree.plain(), {}, surroundings), places, (), frozenset())
    except ValidationError as error:
        problems = tuple(explain(error, Settings, places))
    surroundings = Surroundings(file=file, environ=environ, files=files, drafting=True)
    return _salvaged(tree, problems, surroundings)


def _salvaged(tree: Node, problems: tuple[Problem, ...], surroundings: Surroundings) -> Draft:
    broken: set[str] = set()
    blanks: dict[str, Any] = {}
    for _ in range(_ROUNDS):
        places = Places(str(surroundings["file"]), tree)
        try:
            settings = _validated(tree.plain(), blanks, surroundings)
        except ValidationError as error:
            tree = _pruned(tree, error, broken, blanks)
        else:
            return Draft(settings, places, problems, frozenset(broken))
    return Draft(None, places, problems, frozenset(broken))


def _validated(data: Plain, blanks: dict[str, Any], surroundings: Surroundings) -> Settings:
    merged = {**data, **blanks} if isinstance(data, dict) else data
    return Settings.model_validate(merged, context=dict(surroundings))


def _pruned(tree: Node, error: ValidationError, broken: set[str], blanks: dict[str, Any]) -> Node:
    """Cut out what was complained about, the last items of lists first so that indices stay true."""
    for loc in sorted(set(_cuts(error)), key=_order, reverse=True):
        if len(loc) == 1 and loc[0] in _BLANKS and tree.child(loc[0]) is None:
            blanks[str(loc[0])] = _BLANKS[str(loc[0])]
        elif loc and _exists(tree, loc):
            tree = tree.without(loc)
    broken.update(_lost(error))
    return tree


def _cuts(error: ValidationError) -> Iterator[Loc]:
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        loc = detail["loc"]
        yield loc[:-1] if detail["type"] == "missing" and len(loc) > 1 else loc


def _lost(error: ValidationError) -> Iterator[str]:
    """Name the sections that are no longer what their author meant; a superfluous key changes nothing."""
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        if detail["loc"] and detail["type"] != "extra_forbidden":
            yield str(detail["loc"][0])


def _order(loc: Loc) -> tuple[tuple[int, int, str], ...]:
    return tuple((1, step, "") if isinstance(step, int) else (0, 0, step) for step in loc)


def _exists(tree: Node, loc: Loc) -> bool:
    node: Node | None = tree
    for step in loc:
        node = node.child(step) if node is not None else None
    return node is not None

"""From texts to a policy set in force: parse, validate, lint, compile, test. All of it or nothing.

Called by `config`. Does no I/O: texts are handed in. On any problem it raises, with everything that is wrong,
and whoever has a running set keeps it. `load_again` is for the very texts that were found sound elsewhere.
"""

import hashlib
import re
import zoneinfo
from collections.abc import Collection, Iterable, Mapping, Sequence

import cedarpy

from ztproxy.model.route import Route
from ztproxy.policy import builtin
from ztproxy.policy.cases import run_tests
from ztproxy.policy.circumstances import Circumstances
from ztproxy.policy.engine import ENGINES, Engine, PolicySet
from ztproxy.policy.lint import Known, lint
from ztproxy.policy.problems import PolicyProblems, Problem
from ztproxy.policy.program import Program
from ztproxy.policy.schema import schema_of
from ztproxy.policy.sources import Statement, parse
from ztproxy.policy.values import EvalError

__all__ = ["PolicyProblems", "Problem", "load", "load_again"]

_OF_POLICY = re.compile(r"^for policy `policy[0-9]+`, ")


def load(
    sources: Iterable[tuple[str, str]],
    routes: Sequence[Route],
    *,
    timezone: str = "UTC",
    engine: Engine = "compiled",
    groups: Collection[str] | None = None,
    tests: Iterable[tuple[str, Mapping[str, object]]] = (),
    heard: Collection[str] = (),
) -> PolicySet:
    """Return the policy set of (file, text) pairs for these routes. Raises PolicyProblems.

    `groups`: names that exist, None = not checked. `tests`: (file, parsed YAML document) pairs. `heard`:
    names of the sources of facts. Without any policy everything but the portal is denied.
    """
    texts = list(sources)
    zone, problems = _zone(timezone)
    if engine not in ENGINES:
        problems.append(
            Problem("policy", 0, f"no engine is called {engine!r}", f"use one of {', '.join(ENGINES)}")
        )
    problems += _ours(routes)
    statements, unread = parse(texts)
    schema = schema_of(heard)
    protocols = frozenset(protocol for route in routes for protocol in route.upgrades)
    known = Known({route.name for route in routes}, {route.app for route in routes}, groups, protocols, heard)
    problems += [*unread, *_invalid(statements, schema), *lint(statements, known)]
    if problems or zone is None:
        raise PolicyProblems(problems)
    made = _set(statements, routes, zone, engine, _digest(texts, routes, timezone, schema), schema)
    failed = [problem for file, document in tests for problem in run_tests(made, document, file)]
    if failed:
        raise PolicyProblems(failed)
    return made


def load_again(
    sources: Iterable[tuple[str, str]],
    routes: Sequence[Route],
    *,
    timezone: str,
    engine: Engine,
    heard: Collection[str],
    before: PolicySet | None = None,
) -> PolicySet:
    """Return the set of texts that `load` has found sound, without asking again whether they are.

    What was already read of the set `before` is not read anew. Raises PolicyProblems when it can not be read.
    """
    texts = list(sources)
    zone, problems = _zone(timezone)
    known = {} if before is None else {one.statement.text: one.tree for one in before.policies}
    statements, unread = parse(texts, known)
    if unread or zone is None:
        raise PolicyProblems([*problems, *unread])
    schema = schema_of(heard)
    return _set(statements, routes, zone, engine, _digest(texts, routes, timezone, schema), schema)


def _set(
    statements: Sequence[Statement],
    routes: Sequence[Route],
    zone: zoneinfo.ZoneInfo,
    engine: Engine,
    digest: str,
    schema: str,
) -> PolicySet:
    own, _ = parse([(builtin.FILE, builtin.policies_for(routes))])
    program = Program([*statements, *own])
    places = [route for route in routes if not route.portal]
    places.append(builtin.portal_of(tuple(routes)))
    try:
        return PolicySet(program, places, Circumstances(zone), engine=engine, digest=digest, schema=schema)
    except EvalError as error:
        raise PolicyProblems([Problem("routes", 0, f"a route has a value that is {error}")]) from error


def _zone(name: str) -> tuple[zoneinfo.ZoneInfo | None, list[Problem]]:
    try:
        return zoneinfo.ZoneInfo(name), []
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None, [
            Problem("policy", 0, f"no time zone is called {name!r}", "use a name like Europe/Berlin")
        ]


def _ours(routes: Sequence[Route]) -> list[Problem]:
    """Nobody but what is ours may carry the names that have permits of their own."""
    return [
        Problem("routes", 0, f"route {route.name!r} of app {route.app!r} uses {what} name", "rename it")
        for name, what, owned in (
            (builtin.PORTAL, "the portal's", [route.portal for route in routes]),
            (builtin.CONNECTORS, "the connectors'", [route.carries for route in routes]),
        )
        for route, own in zip(routes, owned, strict=True)
        if (route.name != name if own else name in (route.name, route.app))
    ]


def _invalid(statements: Sequence[Statement], schema: str) -> list[Problem]:
    """Return what Cedar's validator says, at the place of each policy."""
    text = "\n".join(statement.text for statement in statements)
    try:
        result = cedarpy.validate_policies(text, schema)
    except ValueError as error:
        return [Problem("policy", 0, f"Cedar can not validate the set: {error}")]
    problems = []
    for found in result.errors:
        number = found.policy_id.removeprefix("policy")
        one = statements[int(number)] if number.isdigit() and int(number) < len(statements) else None
        message = _OF_POLICY.sub("", found.error)
        name = one.tree.annotations.get("id", "") if one else ""
        prefix = f"policy {name}: " if name else ""
        problems.append(
            Problem(one.file if one else "policy", one.line if one else 0, prefix + message, _HELP)
        )
    if not result.validation_passed and not problems:
        problems.append(Problem("policy", 0, "Cedar's validator refuses the set", _HELP))
    return problems


_HELP = "docs/reference/policy.md lists what policies can speak of"


def _digest(texts: Iterable[tuple[str, str]], routes: Sequence[Route], timezone: str, schema: str) -> str:
    """Return what names this set in records: everything that can change an answer goes in."""
    hashed = hashlib.sha256()
    for part in (schema, builtin.policies_for(routes), timezone, *(text for _, text in texts)):
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8) + data)
    return hashed.hexdigest()

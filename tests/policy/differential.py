"""Differential testing of the compiled engine against Cedar's own: random policies, worlds and requests.

Used by `test_differential.py`, and run as a program by `test_mutation.py` with a deliberately broken copy of
the engine on PYTHONPATH: `differential.py ROUNDS SEED` ends with status 1 at the first difference. Seeded, so a
finding can be found again.
"""

# ruff: noqa: E501 - tables are read by column

import itertools
import json
import random  # noqa: TID251 - seeded: tests have to be repeatable
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import cedarpy
from cedarpy import pst

from ztproxy.model.decision import Decision
from ztproxy.model.subject import UNKNOWN
from ztproxy.policy import literals
from ztproxy.policy.compile import compiled
from ztproxy.policy.folded import Folder
from ztproxy.policy.program import Program, Slice, environment, evaluate
from ztproxy.policy.render import expression
from ztproxy.policy.sources import parse
from ztproxy.policy.values import Entity, EvalError, Uid, Value

LONGS = [
    0,
    1,
    -1,
    2,
    3,
    5,
    60,
    999,
    1000,
    -1001,
    86_399_999,
    86_400_000,
    -86_400_001,
    2**63 - 1,
    -(2**63),
    2**62,
]
SMALL = [0, 1, 2, 3, 5]
STRINGS = ["", "a", "b", "ab", "abc", "aXb", "a*b", "/deploy/", "/deploy/a/b", "GET", "é", "a\nb", "1"]
PATTERNS = ["*", "a*", "*b", "a*b", "*a*", "/deploy/*", "a**b", "", "abc", "a\\*b", "*a*b*", "ab*bc"]
IPS = ["10.0.0.1", "10.0.0.0/8", "127.0.0.1", "127.1.2.3", "224.0.0.1", "239.255.255.255/32", "::1", "::", "::/127",
       "ff00::1", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0", "::/0", "192.168.1.0/24", "10.1.2.3/16"]  # fmt: skip
BAD_IPS = ["10.0.0.256", "10.0.0.1/33", "::1/129", "", "10.0.0.1/08", "::ffff:1.2.3.4", "1.2.3", "fe80::1%eth0",
           " 10.0.0.1", "010.0.0.1", "10.0.0.1/", "1::2::3"]  # fmt: skip
DATES = ["2026-01-01", "2026-02-28T10:11:12Z", "2026-01-01T23:59:59.999Z", "1969-12-31T23:59:59.999Z", "1970-01-01",
         "1960-05-05T01:02:03+0530", "2026-01-01T00:00:00-0100", "2024-02-29", "0000-01-01", "9999-12-31"]  # fmt: skip
BAD_DATES = ["2026-13-01", "2026-02-30", "2026-01-01T24:00:00Z", "2026-01-01T10:00Z", "", "2026-1-1",
             "2026-01-01T00:00:00+2400", "2026-01-01T00:00:00.99Z", "2023-02-29", "2026-01-01T00:00:60Z",
             "2026-01-01T00:00:00+0060"]  # fmt: skip
LENGTHS = [
    "0ms",
    "1ms",
    "999ms",
    "1s",
    "1m",
    "1h",
    "1d",
    "-1d",
    "1d2h3m4s5ms",
    "-1h30m",
    "90m",
    "5m5ms",
    "-1500ms",
]
BAD_LENGTHS = ["", "-", "1", "1x", "1h1d", "1.5h", "1h-2m", "9223372036854775808ms", "106751991168d", "1ms1s"]
DECIMALS = [
    "0.0",
    "1.0",
    "-1.0",
    "1.5",
    "1.50",
    "1.0001",
    "-0.0001",
    "922337203685477.5807",
    "-922337203685477.5808",
]
BAD_DECIMALS = ["1", "1.", "1.00001", ".5", "922337203685477.5808", "1e3", "", "--1.0", "+1.0"]
TYPES = ["bool", "long", "str", "set", "rec", "ent", "ip", "dt", "dur", "dec"]
ATTRIBUTES = {"long": ["n", "small"], "str": ["s"], "bool": ["b"], "set": ["st", "sl", "mixed"], "rec": ["rec"],
              "ent": ["e"], "ip": ["ip"], "dt": ["dt"], "dur": ["dur"], "dec": ["dec"]}  # fmt: skip
NAMES = [name for names in ATTRIBUTES.values() for name in names] + ["missing"]
USERS, GROUPS, RESOURCES, APPS = ["u0", "u1", "ghost"], ["g0", "g1", "g2"], ["r0", "r1", "rx"], ["a0", "a1"]
ACTIONS = ["view", "edit", "grp"]


def text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


class Author:
    """Writes random policies, most of them nearly well typed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.one = rng.choice

    def policy(self) -> str:
        action = self.one(['action', 'action', 'action == Action::"view"', 'action in Action::"grp"',
                           'action in [Action::"edit", Action::"grp"]', 'action in [Action::"edit"]'])  # fmt: skip
        effect = self.one(["permit", "permit", "forbid"])
        head = f"{effect}({self.scope('principal')}, {action}, {self.scope('resource')})"
        clauses = [f"{self.one(['when', 'when', 'unless'])} {{ {self.bool(self.one([1, 2, 3]))} }}"
                   for _ in range(self.one([0, 1, 1, 1, 2]))]  # fmt: skip
        return " ".join((head, *clauses)) + ";"

    def scope(self, name: str) -> str:
        kinds, ids = (
            (["User", "Group"], USERS + GROUPS) if name == "principal" else (["Res", "App"], RESOURCES + APPS)
        )
        kind, one = self.one(kinds), self.one(ids)
        owner = {"u": "User", "g": "User" if one == "ghost" else "Group", "r": "Res", "a": "App"}[one[0]]
        uid = f"{owner}::{text(one)}"
        forms = [f"{name} == {uid}", f"{name} in {uid}", f"{name} is {kind}", f"{name} is {kind} in {uid}"]
        return self.one([name, name, name, *forms])

    def entity(self) -> str:
        pools = [
            ("User", USERS),
            ("User", USERS),
            ("Group", GROUPS),
            ("Res", RESOURCES),
            ("App", APPS),
            ("Action", ACTIONS),
        ]
        kind, ids = self.one(pools)
        return f"{kind}::{text(self.one(ids))}"

    def attribute(self, kind: str) -> str:
        name = self.one(ATTRIBUTES[kind]) if self.rng.random() > 0.05 else self.one(NAMES)
        base = self.one(
            ["principal", "resource", "context", "context", "principal", 'User::"u1"', 'User::"ghost"']
        )
        if self.rng.random() < 0.15:
            base += ".rec"
        if self.rng.random() < 0.1:
            return f"{base}.getTag({self.one([text('t'), text('k'), text('zz')])})"
        return f"{base}.{name}" if self.rng.random() < 0.9 else f"{base}[{text(name)}]"

    def boundary(self) -> str:
        """An attribute against a literal it often meets, wrong types mixed in."""
        read = f"{self.one(['principal', 'resource', 'context'])}.{self.one(['n', 'small', 'small', 'small', 'b', 's', 'rec', 'missing'])}"
        sign = self.one(["<", "<=", ">", ">=", "==", "!="])
        words = "[" + ", ".join(text(s) for s in self.rng.sample(STRINGS, 2)) + "]"
        users = (
            "["
            + ", ".join(
                f"{k}::{text(i)}" for k, i in [("Group", self.one(GROUPS)), ("User", self.one(USERS))]
            )
            + "]"
        )
        return self.one([
            f"({read} {sign} {self.one(SMALL)})", f"({read} {sign} {self.one(SMALL)})", f"({self.one(SMALL)} {sign} {read})",
            f"({read} {self.one(['==', '!='])} {text(self.one(STRINGS))})", f"({words}.contains({read}))",
            f"([{self.one(SMALL)}, true].contains({read}))", f"(principal in {users})",
            f"({self.any('dt')}.durationSince({self.any('dt')}) <= duration({text(self.one(LENGTHS))}))",
            f"(({self.any('dt')}.durationSince({self.any('dt')})) < {self.any('dur')})",
        ])  # fmt: skip

    def any(self, kind: str, depth: int = 0) -> str:
        if self.rng.random() < 0.04:
            kind = self.one(TYPES)
        if depth > 0 and self.rng.random() < 0.06:
            return f"(if {self.bool(depth - 1)} then {self.any(kind, depth - 1)} else {self.any(kind, depth - 1)})"
        if self.rng.random() < 0.3 and not (kind == "ent" and self.rng.random() < 0.6):
            return self.attribute(kind)
        return {
            "bool": self.bool, "long": self.long, "str": lambda _: text(self.one(STRINGS)), "set": self.set,
            "rec": self.record, "ent": lambda _: self.one(["principal", "resource", "action", self.entity(), self.entity()]),
            "ip": lambda _: f"ip({text(self.literal(IPS, BAD_IPS))})", "dt": self.date, "dur": self.length,
            "dec": lambda _: f"decimal({text(self.literal(DECIMALS, BAD_DECIMALS))})",
        }[kind](depth)  # fmt: skip

    def literal(self, good: list[str], bad: list[str]) -> str:
        return self.one(good if self.rng.random() < 0.9 else bad)

    def bool(self, depth: int) -> str:
        if self.rng.random() < 0.15:
            return self.boundary()
        if depth <= 0:
            return self.one(["true", "false", self.attribute("bool")])
        sub: Callable[[str], str] = lambda kind: self.any(kind, depth - 1)  # noqa: E731
        kind = self.one(TYPES)
        order = self.one(["long", "long", "dt", "dur"])
        holder = self.one(["principal", "resource", "context", "context.rec", "principal.rec", sub("ent")])
        return self.one([
            lambda: f"(!{sub('bool')})",
            lambda: f"({sub('bool')} && {sub('bool')})", lambda: f"({sub('bool')} && {sub('bool')} && {sub('bool')})",
            lambda: f"({sub('bool')} || {sub('bool')})", lambda: f"({sub('bool')} || {sub('bool')})",
            lambda: f"({sub(kind)} {self.one(['==', '!='])} {sub(kind)})", lambda: f"({sub(kind)} == {sub(self.one(TYPES))})",
            lambda: f"({sub(order)} {self.one(['<', '<=', '>', '>='])} {sub(order)})",
            lambda: f"({sub(order)} {self.one(['<', '<=', '>', '>='])} {sub(order)})",
            lambda: f"({sub('ent')} in {self.one([sub('ent'), '[' + sub('ent') + ', ' + sub('ent') + ']', sub('set')])})",
            lambda: f"({sub('str')} like \"{self.one(PATTERNS)}\")",
            lambda: f"({holder} has {self.one([*NAMES, 'rec.n', 'rec.zz.q', 'e.n', 'rec.rec'])})",
            lambda: f"{sub('set')}.{self.one(['containsAll', 'containsAny'])}({sub('set')})",
            lambda: f"{sub('set')}.contains({sub(self.one(['str', 'long', 'bool', 'ent']))})",
            lambda: f"{sub('ip')}.isInRange({sub('ip')})",
            lambda: f"{sub('ip')}.{self.one(['isIpv4', 'isIpv6', 'isLoopback', 'isMulticast'])}()",
            lambda: f"({sub('ent')} is {self.one(['User', 'Group', 'Res', 'App'])}{self.one([' in ' + sub('ent'), '', ''])})",
            lambda: f"{sub('dec')}.{self.one(['lessThan', 'lessThanOrEqual', 'greaterThan', 'greaterThanOrEqual'])}({sub('dec')})",
            lambda: f"{sub('set')}.isEmpty()",
            lambda: f"{sub('ent')}.hasTag({self.one([text('t'), text('k'), sub('str')])})",
        ])()  # fmt: skip

    def long(self, depth: int) -> str:
        if depth <= 0 or self.rng.random() < 0.4:
            value = self.one(LONGS)
            return str(value) if value >= 0 else f"({value})"
        unit = self.one(["toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"])
        return self.one([
            lambda: f"(-{self.any('long', depth - 1)})", lambda: f"{self.any('dur', depth - 1)}.{unit}()",
            lambda: f"({self.any('long', depth - 1)} {self.one('+-*')} {self.any('long', depth - 1)})",
        ])()  # fmt: skip

    def set(self, depth: int) -> str:
        kind = self.one(["str", "str", "long", "bool", "ent", ""])
        items = [self.any(kind or self.one(TYPES), depth - 1) for _ in range(self.rng.randrange(4))]
        return "[" + ", ".join(items) + "]"

    def record(self, depth: int) -> str:
        names = self.rng.sample(["n", "s", "x", "rec"], self.rng.randrange(3))
        return "{" + ", ".join(f"{name}: {self.any(self.one(TYPES), depth - 1)}" for name in names) + "}"

    def date(self, depth: int) -> str:
        if depth > 0 and self.rng.random() < 0.3:
            moved = f"{self.any('dt', depth - 1)}.offset({self.any('dur', depth - 1)})"
            return self.one([moved, f"{self.any('dt', depth - 1)}.toDate()"])
        return f"datetime({text(self.literal(DATES, BAD_DATES))})"

    def length(self, depth: int) -> str:
        if depth > 0 and self.rng.random() < 0.3:
            between = f"{self.any('dt', depth - 1)}.durationSince({self.any('dt', depth - 1)})"
            return self.one([between, f"{self.any('dt', depth - 1)}.toTime()"])
        return f"duration({text(self.literal(LENGTHS, BAD_LENGTHS))})"


class Creator:
    """Makes random entities and contexts in Cedar's JSON form."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.one = rng.choice

    def value(self, kind: str) -> object:
        if self.rng.random() < 0.03:
            kind = self.one(TYPES)
        extension = {
            "ip": ("ip", IPS),
            "dt": ("datetime", DATES),
            "dur": ("duration", LENGTHS),
            "dec": ("decimal", DECIMALS),
        }
        if kind in extension:
            name, pool = extension[kind]
            return {"__extn": {"fn": name, "arg": self.one(pool)}}
        if kind == "ent":
            owner, pool = self.one([("User", USERS), ("Group", GROUPS)])
            return {"__entity": {"type": owner, "id": self.one(pool)}}
        if kind == "set":
            return [self.value("str") for _ in range(self.rng.randrange(3))]
        return {
            "bool": self.rng.random() < 0.5,
            "long": self.one(LONGS),
            "str": self.one(STRINGS),
            "rec": {},
        }[kind]

    def record(self, depth: int = 1) -> dict[str, object]:
        found = {name: self.value(kind) for kind, names in ATTRIBUTES.items() for name in names}
        found["small"] = self.one([*SMALL, True, "1"])
        found["sl"] = [self.value("long") for _ in range(self.rng.randrange(3))]
        found["mixed"] = [self.value(self.one(TYPES)) for _ in range(self.rng.randrange(4))]
        found["rec"] = self.record(depth - 1) if depth else {}
        return {name: value for name, value in found.items() if self.rng.random() > 0.08}

    def world(self) -> list[dict[str, object]]:
        def made(
            kind: str, name: str, attributes: object, parents: list[tuple[str, str]], **more: object
        ) -> dict[str, object]:
            return {"uid": {"type": kind, "id": name}, "attrs": attributes,
                    "parents": [{"type": t, "id": i} for t, i in parents], **more}  # fmt: skip

        def some(pool: list[str]) -> list[str]:
            return self.rng.sample(pool, self.rng.randrange(len(pool)))

        tags = lambda: {name: self.value(self.one(TYPES)) for name in some(["t", "k", "x"])}  # noqa: E731
        nested = [("Group", "g2")] if self.rng.random() < 0.5 else []
        return [
            *(made("Group", g, self.record(0), nested if g == "g0" else []) for g in GROUPS),
            *(made("User", u, self.record(), [("Group", g) for g in some(GROUPS)], tags=tags()) for u in USERS[:2]),
            made("App", "a0", {}, [("App", "a1")]), made("App", "a1", {}, []),
            *(made("Res", r, self.record(), [("App", self.one(APPS))] if self.rng.random() < 0.7 else []) for r in RESOURCES[:2]),
            made("Action", "grp", {}, []), made("Action", "view", {}, [("Action", "grp")]), made("Action", "edit", {}, []),
        ]  # fmt: skip


def store_of(world: list[dict[str, object]]) -> dict[Uid, Entity]:
    """Return entities of Cedar's JSON form, with all that is above each of them."""
    parents = {_uid(one["uid"]): {_uid(parent) for parent in one.get("parents", ())} for one in world}

    def above(uid: Uid) -> Iterator[Uid]:
        for parent in parents.get(uid, ()):
            yield parent
            yield from above(parent)

    return {
        uid: Entity(
            uid,
            literals.from_json(one["attrs"]),
            frozenset(above(uid)),
            literals.from_json(one.get("tags", {})),
        )
        for one in world
        for uid in (_uid(one["uid"]),)
    }


def _uid(value: object) -> Uid:
    assert isinstance(value, Mapping)
    inner = value.get("__entity", value)
    return Uid(inner["type"], inner["id"])


FAILING = re.compile(r"policy `(policy[0-9]+)`")


def difference(
    program: Program, policies: cedarpy.PolicySet, entities: cedarpy.Entities, store: Mapping[Uid, Entity],
    request: tuple[Uid, Uid, Uid], context: dict[str, object],
) -> str:  # fmt: skip
    """Return how the engines differ on one request, "" if they do not."""
    principal, action, resource = request
    answer = cedarpy.is_authorized(
        {"principal": principal._asdict(), "action": action._asdict(), "resource": resource._asdict(), "context": context},
        policies, entities,
    )  # fmt: skip
    failing = {FAILING.search(error)[1] for error in answer.diagnostics.errors}  # type: ignore[index]
    nothing: Callable[[Uid], Entity] = lambda uid: store.get(uid) or Entity(uid, {})  # noqa: E731
    part = program.slice(principal.type, nothing(action), nothing(resource))
    ours = evaluate(part, environment(*request, literals.from_json(context), store))
    left = folded(part, request, store, literals.from_json(context))
    if left != ours:
        return f"what is left to ask: {left} / {ours}"
    named = {error.partition(": ")[0] for error in ours.errors}
    if ours.allow != (answer.allowed and not failing):
        return f"decision: {ours} / {answer.decision} {answer.diagnostics.errors}"
    if named != failing:
        return f"failing policies: {sorted(named)} / {sorted(failing)}"
    if not failing and set(ours.policies) != set(answer.diagnostics.reasons):
        return f"determining policies: {ours.policies} / {answer.diagnostics.reasons}"
    return ""


def folded(
    part: Slice, request: tuple[Uid, Uid, Uid], store: Mapping[Uid, Entity], context: dict[str, Value]
) -> Decision:
    """Decide by what is left to ask of the caller, found out when there was no context at all."""
    remainder = Folder().fold(part, environment(*request, {}, store))
    return remainder.evaluate(environment(*request, context, store))


def rounds(count: int, seed: int) -> tuple[Counter[str], str]:
    """Compare the engines `count` times. Returns what was seen, and the first difference or ""."""
    rng = random.Random(seed)
    author, creator, seen = Author(rng), Creator(rng), Counter[str]()
    while seen["compared"] < count:
        world = creator.world()
        entities = cedarpy.Entities.from_json_str(json.dumps(world))
        store = store_of(world)
        for _ in range(4):
            written = "\n".join(author.policy() for _ in range(rng.randrange(1, 6)))
            statements, problems = parse([("fuzz", written)])
            try:
                policies = cedarpy.PolicySet.from_str(written)
            except ValueError:
                seen["refused"] += 1
                if not problems:
                    return seen, f"Cedar refuses what we read:\n{written}"
                continue
            if problems:
                return seen, f"we refuse what Cedar reads: {problems}\n{written}"
            if unlike := _rendered(statements):
                return seen, unlike
            program = Program(statements)
            for _ in range(4):
                request = _request(rng)
                found = difference(program, policies, entities, store, request, context := creator.record())
                seen["compared"] += 1
                if found:
                    return seen, f"{found}\n{written}\n{request}\n{json.dumps(context)}\n{json.dumps(world)}"
    return seen, ""


def _request(rng: random.Random) -> tuple[Uid, Uid, Uid]:
    principal = Uid("User", rng.choice(USERS)) if rng.random() < 0.9 else Uid("Group", rng.choice(GROUPS))
    resource = Uid("Res", rng.choice(RESOURCES)) if rng.random() < 0.9 else Uid("App", "a0")
    return principal, Uid("Action", rng.choice(["view", "edit"])), resource


def _rendered(statements: list) -> str:
    """Check that expressions written out and read again are the same."""
    for statement in statements:
        for clause in statement.tree.clauses:
            again = f"permit(principal, action, resource) when {{ {expression(clause.expr)} }};"
            try:
                tree = next(iter(cedarpy.policies_to_pst(again).static_policies.values()))
            except ValueError as error:
                return f"rendered as nonsense: {error}\n{statement.text}\n{again}"
            if tree.clauses[0].expr != clause.expr:
                return f"rendered differently:\n{statement.text}\n{again}"
    return ""


# ------------------------------------------------------------------ targets: what chance would rarely meet


def targets() -> Iterator[str]:
    """Yield differences on expressions with a literal answer, one by one."""
    for written in itertools.chain(_arithmetic(), _sharp()):
        ours, theirs = answer_of(written), cedar_answer_of(written)
        if ours != theirs:
            yield f"{written}: {ours} / {theirs}"
    yield from _unknowns()
    yield from _told()
    yield from _shapes()


def answer_of(written: str, context: Mapping[str, Value] | None = None) -> str:
    """Return allow, deny or error for one condition in the compiled engine."""
    statements, problems = parse([("target", f"permit(principal, action, resource) when {{ {written} }};")])
    assert not problems, problems
    principal, action, resource = Uid("U", "a"), Uid("Action", "x"), Uid("R", "r")
    part = Program(statements).slice("U", Entity(action, {}), Entity(resource, {}))
    store = {
        principal: Entity(principal, {"who": "a", "context": context or {}}, frozenset((Uid("G", "g"),)))
    }
    decision = evaluate(part, environment(principal, action, resource, context or {}, store))
    assert folded(part, (principal, action, resource), store, context or {}) == decision, written
    return "error" if decision.errors else "allow" if decision.allow else "deny"


def cedar_answer_of(written: str) -> str:
    entities = [
        {
            "uid": {"type": "U", "id": "a"},
            "attrs": {"who": "a", "context": {}},
            "parents": [{"type": "G", "id": "g"}],
        }
    ]
    request = {"principal": 'U::"a"', "action": 'Action::"x"', "resource": 'R::"r"', "context": {}}
    answer = cedarpy.is_authorized(
        request, f"permit(principal, action, resource) when {{ {written} }};", entities
    )
    return "error" if answer.diagnostics.errors else "allow" if answer.allowed else "deny"


def _arithmetic() -> Iterator[str]:
    lengths = ["-1ms", "-999ms", "-1000ms", "-1500ms", "1999ms", "-61s", "-1h1ms", "-25h", "25h", "5m5ms",
               "9223372036854775807ms", "-9223372036854775808ms", "106751991167d"]  # fmt: skip
    units = {
        "toMilliseconds": 1,
        "toSeconds": 1000,
        "toMinutes": 60_000,
        "toHours": 3_600_000,
        "toDays": 86_400_000,
    }
    for length, (method, unit) in itertools.product(lengths, units.items()):
        ms = literals.duration(length).ms
        for number in sorted({ms // unit, -(-ms // unit)}):
            if -(2**63) < number < 2**63:
                yield f'duration("{length}").{method}() == {number if number >= 0 else f"({number})"}'
    for date in ["1969-12-31T23:59:59.999Z", "1969-12-31", "2026-01-01T23:59:59.999Z", "0000-01-01", "0001-03-01",
                 "0000-02-29", "9999-12-31T23:59:59Z", "1900-02-28T12:00:00+0130", "2026-06-01T00:30:00-0230"]:  # fmt: skip
        ms = literals.datetime(date).ms
        yield f'datetime("{date}").durationSince(datetime("1970-01-01")) == duration("{ms}ms")'
        for rest in sorted({ms % 86_400_000, abs(ms) % 86_400_000, -(abs(ms) % 86_400_000)}):
            yield f'datetime("{date}").toTime() == duration("{rest}ms")'
        for length in ("-9223372036854775808ms", "9223372036854775807ms", "-1d", "-1ms"):
            moved = f'datetime("{date}").offset(duration("{length}"))'
            yield f'{moved}.toDate() < datetime("1970-01-01")'
            yield f'{moved}.toTime() < duration("1h")'


def _sharp() -> Iterator[str]:
    """Expressions on the edges of what operations accept."""
    yield from (f'decimal("{left}").{method}(decimal("{right}"))'
                for left, right in itertools.product(["1.0", "1.0001", "-1.5", "1.00"], repeat=2)
                for method in ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"))  # fmt: skip
    yield from (f'ip("{inner}").isInRange(ip("{outer}"))'
                for inner, outer in itertools.product(["10.1.2.3", "10.1.2.3/8", "10.0.0.0/8", "10.0.0.0/9", "::1", "::/0",
                                                       "::a01:203", "0.0.0.0/0", "255.255.255.255/32"], repeat=2))  # fmt: skip
    for address in ["127.255.0.1", "128.0.0.1", "126.255.255.255", "::1", "::2", "::1/127", "127.0.0.1/7", "127.0.0.0/8",
                    "224.0.0.0/4", "224.0.0.0/3", "223.255.255.255", "239.1.2.3", "240.0.0.0", "ff00::/8", "fe00::"]:  # fmt: skip
        yield from (
            f'ip("{address}").{method}()' for method in ("isIpv4", "isIpv6", "isLoopback", "isMulticast")
        )
    yield from ["1 == true", "[1].contains(true)", "[true].contains(1)", "[1, true].containsAll([true])", '[1].contains("1")',
                "[[1]].contains([1])", "[{a: 1}].contains({a: true})", "{a: 1} == {a: true}", '1 == "1"', "[] == {}",
                'decimal("1.5") == decimal("1.50")', 'decimal("1.05") == decimal("1.5")', 'decimal("-0.1") == decimal("-0.1000")',
                "[1, 1, 2] == [2, 1]", '["a"].containsAny([])', "[].containsAll([])", '["a", "b"].contains(1)',
                "true < 5", "true >= 0", "true > 0", "true <= 5", "9223372036854775807 + 1 > 0", "-9223372036854775807 - 2 < 0", "9223372036854775807 * 2 > 0",
                "-(-9223372036854775807 - 1) > 0", "1 < true", '"a" < "b"', 'principal < 1', "true < false",
                "principal in principal", 'principal in G::"g"', 'principal in [G::"g"]', 'principal in [G::"x", G::"g"]',
                'principal in ["g"]', 'principal in [principal, 1]', 'principal in G::"x"', 'resource in G::"g"',
                'principal in []', 'G::"g" in G::"g"', 'G::"ghost" has a', 'G::"ghost".a == 1', "principal has who",
                "principal has nobody", "principal.nobody == 1", "principal.who.x == 1", 'principal is U in G::"g"',
                'principal is U in G::"x"', 'principal is V in 1', "principal is V", "1 is V", "context has a", "context.a == 1",
                'context has a.b', "principal has context.a", 'principal.hasTag("t")', 'principal.getTag("t") == 1',
                'G::"ghost".hasTag("t")', 'G::"ghost".getTag("t") == 1', "if 1 then true else true", "if true then 1 else 2",
                "(if true then 1 else 2) == 1", "1 && true", "true && 1", "false && 1", "1 || true", "true || 1", "false || 1",
                "!1", '"abc" like "a*c"', '"ac" like "a*c"', '"aba" like "ab*ba"', '"a" like "a*a"', '1 like "*"', '"" like ""',
                '"a" like ""', '"a*b" like "a\\*b"', '"axb" like "a\\*b"', "[1].isEmpty()", "[].isEmpty()", "1.isEmpty()",
                'duration("1h") < datetime("1970-01-01")', 'duration("60m") == duration("1h")', 'duration("1h") <= duration("60m")',
                'datetime("1970-01-01") == duration("0ms")', 'datetime("1970-01-02").durationSince(datetime("1970-01-01")) <= duration("1d")',
                'datetime("1970-01-02").durationSince(datetime("1970-01-01")) <= duration("86399999ms")',
                'datetime("1970-01-02").durationSince(duration("1d")) <= duration("1d")', '1.durationSince(2) <= duration("1d")',
                'datetime("9999-12-31").offset(duration("9223372036854775807ms")).durationSince(datetime("1970-01-01")) <= duration("1d")',
                'datetime("1970-01-01").offset(duration("9223372036854775807ms")).durationSince(datetime("1960-01-01")) <= duration("1d")']  # fmt: skip
    for pool, name in (
        (BAD_IPS, "ip"),
        (BAD_DATES, "datetime"),
        (BAD_LENGTHS, "duration"),
        (BAD_DECIMALS, "decimal"),
    ):
        yield from (f"{name}({text(bad)}) == {name}({text(bad)})" for bad in pool)
        yield from (f"true || {name}({text(bad)}) == 1" for bad in pool)


#: Conditions that read an unknown fact (context.u), and ones that get by without it.
UNKNOWING = ["context.u", "context has u", "context.u == 1", "context.r.u == 1", "context.r has u", "context has r.u",
             "context has u.x", "context.r == {u: 1}", "context.r == {v: 1}", "context.r != {v: 1}", "[context.r].contains({u: 1})", "context.r == context.r", "!context.u",
             "context.u.x == 1", "context has r.u.x", "principal.context.u == 1", "principal.context has u",
             "principal has context.u", "principal.context.r.u == 1", "principal.context has r.u", "(if true then context else {}).u == 1",
             "(if true then context else {}) has u", "context.u || true", 'context.u == "x"', 'context.u != "x"',
             'context.r.u != "x"', 'principal.context.u != "x"', '["x"].contains(context.u)', '!["x"].contains(context.r.u)', "context.u < 1",
             'context.u like "*"', "[1].contains(context.u)", "[context.u].isEmpty()", "{a: context.u} has a", "false || context.u", 'U::"a".context.u == 1',
             'U::"a".context has u']  # fmt: skip
KNOWING = ["true || context.u", "false && context.u", "context.r has v", "context has r", "context.r.v == 1", "principal has context",
           "if true then true else context.u", "context.r == 1", "principal.context has r.v"]  # fmt: skip


def _unknowns() -> Iterator[str]:
    context = {"u": UNKNOWN, "r": {"u": UNKNOWN, "v": 1}}
    yield from (f"{w}: an unknown fact was read" for w in UNKNOWING if answer_of(w, context) != "error")
    yield from (f"{w}: no unknown fact is read" for w in KNOWING if answer_of(w, context) == "error")


def _told() -> Iterator[str]:
    """What is asked of the context beside something else that is read of it."""
    context = {"n": 1, "s": "a", "r": {"n": 1}}
    yield from (f"{w}: does not hold" for w in TELLING if answer_of(w, context) != "allow")


TELLING = ['context has n || context.s == "x"', 'context has r.n || context.s == "x"', 'context.s == "x" || context has s',
           'context == {n: 1, s: "a", r: {n: 1}} || context.s == "x"', 'context.s == "x" || [context].contains(context)',
           'context.s == "x" || context.r.n == 1', '(if context.n == 1 then context else {}) has s || context.s == "x"']  # fmt: skip


def _shapes() -> Iterator[str]:
    """Trees Cedar's parser writes in another way today: `has a.b` comes as `has a && a has b`."""
    context = {"a": {"b": {"c": 1}, "u": UNKNOWN}, "u": UNKNOWN}
    env = environment(Uid("U", "a"), Uid("Action", "x"), Uid("R", "r"), context, {})
    whole = pst.Var("context")
    plain = pst.IfThenElse(pst.BoolLit(True), whole, whole)  # a base without a shortcut
    for base, (names, answer) in itertools.product((whole, plain), SHAPES.items()):
        try:
            got: object = compiled(pst.HasAttr(base, names)).run(env)
        except EvalError:
            got = "error"
        if got != answer:
            yield f"{base} has {names}: {got}"


SHAPES = {("a", "b"): True, ("a", "b", "c"): True, ("a", "x"): False, ("x", "b"): False, ("a", "b", "x"): False,
          ("a", "b", "c", "d"): "error", ("u",): "error", ("a", "u"): "error", ("u", "b"): "error"}  # fmt: skip


if __name__ == "__main__":
    first = next(targets(), "") or rounds(int(sys.argv[1]), int(sys.argv[2]))[1]
    if first:
        print(first)
    sys.exit(1 if first else 0)

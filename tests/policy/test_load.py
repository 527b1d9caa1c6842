"""Loading: what is wrong is told with file, line and remedy, and nothing half right is put in force."""

# ruff: noqa: E501 - policies and tables are read by line

from pathlib import Path
from types import ModuleType

import pytest

from ztproxy.policy import sources
from ztproxy.policy.lint import ANNOTATIONS
from ztproxy.policy.load import PolicyProblems, Problem
from ztproxy.policy.program import OBLIGATIONS
from ztproxy.policy.schema import METHODS, SCHEMA

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "policy.md"

GOOD = '@id("good") permit (principal is User, action, resource == Route::"support");'


def problems(the: ModuleType, *texts: str, **options: object) -> list[Problem]:
    with pytest.raises(PolicyProblems) as caught:
        the.policies(*texts, **options)
    return list(caught.value.problems)


def only(the: ModuleType, text: str, **options: object) -> Problem:
    """Return the one problem of a policy that stands on line 3 of a.cedar, after a good one."""
    found = problems(the, f"// a comment; with a semicolon\n{GOOD}\n{text}", **options)
    assert len(found) == 1, found
    assert (found[0].file, found[0].line) == ("a.cedar", 3)
    return found[0]


def when(condition: str, scope: str = 'principal is User, action, resource == Route::"support"') -> str:
    return f'@id("x") permit ({scope}) when {{ {condition} }};'


# ------------------------------------------------------------------ Cedar's own findings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('@id("x") permit (principal, action, resource) whn { true };', "not valid Cedar"),
        ('@id("x") permit (principal, action, resource)', "not valid Cedar"),
        ('@id("x") @id("y") permit (principal, action, resource);', "duplicate annotation"),
        ('@id("x") permit (principal == ?principal, action, resource);', "templates are not supported"),
        (when("principal.devize.healthy"), "devize"),
        (when("principal.device.proof == \"mtls\""), "optional attribute `device`"),
        (when('context.local.hour < "5"'), "type"),
        (when('context.ip.isInRange(ip("10.0.0.0/99"))'), "10.0.0.0/99"),
        (when('context.now < datetime("2026-13-01")'), "2026-13-01"),
        ('@id("x") permit (principal is Usr, action, resource);', "Usr"),
        ('@id("x") permit (principal, action == Action::"GTE", resource);', "GTE"),
        ('@id("x") permit (principal is Group, action == Action::"GET", resource);', "applicable action"),
    ],
)  # fmt: skip
def test_what_cedar_refuses_has_its_place(the: ModuleType, text: str, says: str) -> None:
    found = problems(the, f"// a comment; with a semicolon\n{GOOD}\n{text}")
    assert all((one.file, one.line) == ("a.cedar", 3) for one in found), found
    assert any(says in one.message for one in found), found
    assert all(one.remedy for one in found)


def test_all_problems_of_all_files_are_told_at_once(the: ModuleType) -> None:
    bad = "permit (principal, action, resource);\n\n  forbid (principal, action) ;\n" + GOOD
    found = problems(the, bad, GOOD + "\n\n" + when("principal.nothing == 1"))
    places = [(one.file, one.line) for one in found]
    assert places == [("a.cedar", 1), ("a.cedar", 3), ("b.cedar", 1), ("b.cedar", 3)]
    assert "already used at a.cedar:4" in found[2].message
    assert str(found[0]).startswith("a.cedar:1: the policy has no @id (")


def test_nothing_hides_between_policies(the: ModuleType) -> None:
    """A lone carriage return ends a comment in Cedar; a reader that differs would lose a forbid."""
    text = f'{GOOD} // closed\r@id("no") forbid (principal, action, resource);'
    decision = the.policies(text)
    assert [policy.id for policy in decision.policies] == ["good", "no", "ztproxy-portal"]
    tricky = (
        '@id("q") @reason("a;b \\" // \\\\") permit (principal is User, action, resource); // ; "\n' + GOOD
    )
    assert [policy.id for policy in the.policies(tricky).policies] == ["q", "good", "ztproxy-portal"]


def test_a_policy_that_gets_lost_between_two_is_noticed(
    the: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever cuts the text wrongly: Cedar's own count has to be ours."""
    cut = sources.statements
    monkeypatch.setattr(sources, "statements", lambda file, text: list(cut(file, text))[:1])
    other = '@id("no") forbid (principal, action, resource);'
    assert "another number of policies" in problems(the, GOOD + other)[0].message


def test_places_of_policies_are_kept(the: ModuleType) -> None:
    policies = the.policies(f"\n\n// x\n{GOOD}", '\n@id("b")\npermit (principal, action, resource);')
    places = [(p.statement.file, p.statement.line, p.id, p.permits) for p in policies.policies]
    assert places == [
        ("a.cedar", 4, "good", True),
        ("b.cedar", 2, "b", True),
        ("built-in", 1, "ztproxy-portal", True),
    ]


# ------------------------------------------------------------------ lints


@pytest.mark.parametrize(
    ("text", "says", "helps"),
    [
        ("permit (principal, action, resource);", "no @id", "@id"),
        ('@id("") permit (principal, action, resource);', "no @id", "@id"),
        ('@id("a b") permit (principal, action, resource);', "not a plain name", ""),
        ('@id("ztproxy-x") permit (principal, action, resource);', "built in", ""),
        ('@id("good") permit (principal, action, resource);', "already used at a.cedar:2", ""),
        ('@id("x") @resaon("y") permit (principal, action, resource);', "@resaon", "did you mean reason?"),
        ('@id("x") @remedy("recheck-devise") permit (principal, action, resource);', "recheck-devise", "recheck-device?"),
        ('@id("x") @remedy("a, B") permit (principal, action, resource);', "'B'", ""),
        ('@id("x") @maxsession("soon") permit (principal, action, resource);', "duration", ""),
        ('@id("x") @maxsession("1h30m") permit (principal, action, resource);', "duration", ""),
        ('@id("x") @maxsession("0s") permit (principal, action, resource);', "duration", ""),
        ('@id("x") @record("full") permit (principal, action, resource);', "bodies are not recorded", ""),
        ('@id("x") @inject("token") permit (principal, action, resource);', "unknown annotation @inject", ""),
        ('@id("x") @record("everything") permit (principal, action, resource);', "not metadata", ""),
        ('@id("x") @record("full") forbid (principal, action, resource);', "obliges nobody", "permits"),
        ('@id("x") permit (principal, action, resource == Route::"suport");', "'suport'", "did you mean support?"),
        ('@id("x") permit (principal, action, resource in App::"nope");', "no app is called 'nope'", ""),
        ('@id("x") permit (principal is User in Group::"contarctors", action, resource);', "'contarctors'", "contractors?"),
        (when('principal in Group::"contarctors"'), "'contarctors'", "contractors?"),
        (when('principal in [Group::"contractors", Group::"x"]'), "'x'", ""),
        (when('principal == Anonymous::"nobody"', "principal, action, resource"), "Anonymous", ""),
        (when('context.protocol == "ws"'), 'never "ws"', '"websocket"'),
        (when('context.protocol == "tcp"'), 'never "tcp"', '"websocket"'),
        (when('"CONNECT" == context.method'), 'never "CONNECT"', ""),
        (when('["mtls", "tpm"].contains(principal.device.proof)').replace("when {", "when { principal has device &&"), 'never "tpm"', ""),
        (when('principal has device.posture && principal.device.posture.level != "atested"'), 'never "atested"', '"attested"'),
        (when('principal has device.posture.checks.edr && principal.device.posture.checks.edr.result == "ok"'), 'never "ok"', '"pass"'),
        (when("context.local.hour < 24"), "always holds", "0 to 23"),
        (when("context.local.weekday == 0"), "never holds", "1 to 7"),
        (when("0 <= context.local.minute"), "always holds", "0 to 59"),
        (when("context.feed_age >= 0"), "always holds", "never negative"),
        (when("context.local.hour > -1"), "always holds", ""),
        (when("principal is Workload"), "never holds", ""),
        (when("true"), "constant", ""),
    ],
)  # fmt: skip
def test_what_cedar_does_not_notice(the: ModuleType, text: str, says: str, helps: str) -> None:
    found = only(the, text, groups={"contractors", "administrators"})
    assert says in found.message
    assert helps in found.remedy
    assert found.remedy


@pytest.mark.parametrize(
    "text",
    [
        when("context.local.hour >= 8 && context.local.hour < 18 && context.local.weekday <= 5"),
        when("context.local.weekday != 7 && context.feed_age < 5000"),
        when("principal is User", "principal, action, resource"),
        when('principal in Group::"anything"'),
        '@id("x") @remedy("ask-owner, step-up-mfa") @description("d") @owner("o") permit (principal, action, resource);',
        '@id("x") @maxsession("30m") @recheck("10s") @alert("soc-page") permit (principal, action, resource);',
        '@id("x") permit (principal is Anonymous, action in Action::"read", resource in App::"portal");',
    ],
)  # fmt: skip
def test_what_is_right_is_loaded(the: ModuleType, text: str) -> None:
    assert the.policies(text).policies[0].id == "x"


def test_numbers_are_bounded_on_both_sides(the: ModuleType) -> None:
    """The schema has no number of the caller yet; the lint is ready for when it has."""
    from ztproxy.policy.lint import Known, lint
    from ztproxy.policy.sources import parse

    def found(condition: str) -> list[str]:
        statements, _ = parse([("a.cedar", when(condition))])
        return [problem.message for problem in lint(statements, Known({"support"}, {"support"}))]

    assert found("context.input.lines <= 500") == ["policy x: context.input.lines is not bounded below"]
    assert found("5 < context.input.lines") == ["policy x: context.input.lines is not bounded above"]
    assert found("context.input.lines >= 1 && 500 >= context.input.lines") == []


# ------------------------------------------------------------------ options and routes


def test_options_are_checked(the: ModuleType) -> None:
    assert "no time zone" in problems(the, GOOD, timezone="Europe/Nowhere")[0].message
    assert "no time zone" in problems(the, GOOD, timezone="../../etc/passwd")[0].message
    assert "no engine" in problems(the, GOOD, engine="fast")[0].message


@pytest.mark.parametrize("change", [{"name": "portal"}, {"app": "portal"}, {"name": "x", "portal": True}])
def test_the_portals_name_is_its_own(the: ModuleType, change: dict) -> None:
    routes = [*the.ROUTES, the.route(**{"name": "other"} | change)]
    assert "portal's name" in problems(the, GOOD, routes=routes)[0].message


def test_a_route_cedar_can_not_hold_is_a_problem(the: ModuleType) -> None:
    routes = [*the.ROUTES, the.route("x", labels=frozenset({"\ud800"}))]
    assert "not valid Unicode" in problems(the, GOOD, routes=routes)[0].message


def test_too_much_is_refused(the: ModuleType) -> None:
    long = when(" && ".join(['context.path == "/x"'] * 4000))
    assert "too long" in problems(the, long)[0].message
    deep = when('(context.path == "/" || ' * 150 + 'context.path == "/x"' + ")" * 150)
    assert problems(the, deep)[0].line == 1


# ------------------------------------------------------------------ the reference page


def test_the_reference_page_is_up_to_date() -> None:
    page = DOCS.read_text()
    assert SCHEMA in page
    for word in (*METHODS, *(f"`@{name}`" for name in ANNOTATIONS | set(OBLIGATIONS))):
        assert word in page, word

"""The tests beside policies: strict documents, both engines, and the example set of the project."""

# ruff: noqa: E501 - policies and tables are read by line

import datetime
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from ztproxy.policy.cases import run_tests
from ztproxy.policy.load import PolicyProblems

EXAMPLE = Path(__file__).parents[2] / "config" / "policies"
SUPPORT = """@id("support") permit (principal is User in Group::"contractors", action, resource == Route::"support")
when { principal has device.posture && principal.device.posture.healthy };"""
CAROL = {"user": "corp:carol", "groups": ["contractors"], "device": {"posture": {"healthy": True}}}


def document(**case: object) -> dict:
    whole = {"name": "c", "as": "carol", "to": "support", "expect": "allow", "__line__": 7} | case
    return {"fixtures": {"carol": CAROL}, "cases": [whole]}


def test_the_example_set_loads_and_is_tested(the: ModuleType) -> None:
    text = (EXAMPLE / "main.cedar").read_text()
    tests = yaml.safe_load((EXAMPLE / "tests.yaml").read_text())
    policies = the.policies(
        text,
        tests=[("tests.yaml", tests)],
        groups={"contractors", "administrators"},
        timezone="Europe/Berlin",
    )
    decided = {name for case in tests["cases"] for name in case.get("by", ())}
    assert decided == {policy.id for policy in policies.policies}, "every policy decides some case"


@pytest.mark.parametrize("word", ["permit", "forbid"])
def test_the_example_tests_notice_changes(the: ModuleType, word: str) -> None:
    """Turn each policy around: some case has to fail."""
    text = (EXAMPLE / "main.cedar").read_text()
    tests = [("tests.yaml", yaml.safe_load((EXAMPLE / "tests.yaml").read_text()))]
    for number in range(text.count(f"\n{word} (")):
        parts = text.split(f"\n{word} (")
        other = "forbid" if word == "permit" else "permit"
        turned = (
            f"\n{word} (".join(parts[: number + 1]) + f"\n{other} (" + f"\n{word} (".join(parts[number + 1 :])
        )
        turned = turned.replace('@maxsession("1h")\n', "")
        with pytest.raises(PolicyProblems) as caught:
            the.policies(turned, tests=tests)
        assert all(problem.file == "tests.yaml" for problem in caught.value.problems)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"by": ["support"]},
        {"do": "POST", "context": {"path": "/x", "now": datetime.datetime(2026, 3, 4, tzinfo=datetime.UTC)}},
        {"context": {"now": "2026-03-04"}},
        {"with": {"device": {"posture": {"healthy": False}}}, "expect": "deny", "by": []},
        {"with": {"device": None}, "expect": "deny"},
        {"with": {"device": "unknown"}, "expect": "error"},
        {"with": {"groups": []}, "expect": "deny"},
        {"as": "nobody", "expect": "deny"},
        {"to": "portal", "as": "nobody", "by": ["ztproxy-portal"]},
        {"to": "elsewhere", "expect": "deny", "by": []},
        {"do": "BREW", "expect": "deny", "by": []},
    ],
)
def test_cases_that_are_right(the: ModuleType, case: dict) -> None:
    assert run_tests(the.policies(SUPPORT), document(**case), "t.yaml") == []


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"expect": "deny"}, "expected deny, but the compiled engine says allow by support"),
        ({"with": {"device": None}}, "expected allow, but the compiled engine says deny by no policy"),
        ({"with": {"device": "unknown"}, "expect": "deny"}, "says error by support: unknown fact device"),
        ({"by": []}, "expected to be decided by no policy, but the compiled engine says by support"),
        ({"by": ["other"]}, "expected to be decided by other"),
        ({"as": "dave"}, "no fixture is called 'dave'"),
        ({"with": {"devise": None}}, "devise"),
        ({"context": {"now": "yesterday"}}, "not a datetime"),
        ({"context": {"hour": 5}}, "hour"),
        ({"with": {"device": {"proof_age": "1 hour"}}}, "not a duration"),
        ({"with": {"device": {"proof": "tpm"}}}, "tpm"),
    ],
)
def test_cases_that_are_wrong_are_told_with_their_line(the: ModuleType, case: dict, says: str) -> None:
    found = run_tests(the.policies(SUPPORT), document(**case), "t.yaml")
    assert found
    assert all((one.file, one.line) == ("t.yaml", 7) for one in found)
    assert says in found[0].message


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"cases": {}},
        {"cases": [], "case": []},
        {"cases": [{"name": "x"}]},
        {"cases": [{"expect": "maybe"}]},
    ],
)
def test_documents_are_strict(the: ModuleType, broken: dict) -> None:
    found = run_tests(the.policies(SUPPORT), broken, "t.yaml")
    assert "not a document of tests" in found[0].message


def test_both_engines_run_every_case(the: ModuleType) -> None:
    """A case that only the reference engine contradicts fails too."""
    policies = the.policies(SUPPORT)
    carol = {"name": "c", "as": "carol", "to": "support", "expect": "allow"}
    tests = {"fixtures": {"carol": CAROL}, "cases": [carol]}
    assert run_tests(policies, tests) == []
    forbids = the.policies(SUPPORT.replace("permit", "forbid"))
    policies._references.clear()
    policies._program.policies = forbids._program.policies  # what the reference engine is given
    found = run_tests(policies, tests)
    assert [one.message for one in found] == [
        "case 'c': expected allow, but the reference engine says deny by support"
    ]


def test_a_set_whose_tests_fail_is_not_loaded(the: ModuleType) -> None:
    with pytest.raises(PolicyProblems) as caught:
        the.policies(SUPPORT, tests=[("t.yaml", document()), ("u.yaml", document(expect="deny"))])
    assert {problem.file for problem in caught.value.problems} == {"u.yaml"}

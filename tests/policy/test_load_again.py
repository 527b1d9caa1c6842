"""A set that was found sound elsewhere: the same set, with what did not change taken from the one before."""

from types import ModuleType

import cedarpy
import pytest

from ztproxy.policy.engine import PolicySet
from ztproxy.policy.load import PolicyProblems, load_again

WIKI = '@id("wiki") permit (principal is User, action, resource == Route::"wiki");\n'
SUPPORT = '@id("support") permit (principal is User, action, resource == Route::"support");\n'
NOT_CAROL = '@id("not-carol") forbid (principal == User::"corp:carol", action, resource == Route::"wiki");\n'


def again(the: ModuleType, *texts: str, before: PolicySet | None = None) -> PolicySet:
    sources = [(f"{'abcdefgh'[n]}.cedar", text) for n, text in enumerate(texts)]
    return load_again(sources, the.ROUTES, timezone="UTC", engine="compiled", heard=(), before=before)


def opens(the: ModuleType, policies: PolicySet) -> dict[str, tuple[str, ...]]:
    """Return the routes that Carol may read, and by which policies."""
    subject = policies.subject(the.facts())
    asked = {
        name: policies.decide(subject, the.to(name), "GET", the.context(), the.NOW)
        for name in ("wiki", "support")
    }
    return {name: decision.policies for name, decision in asked.items() if decision.allow}


def test_it_comes_to_the_same_as_what_was_checked(the: ModuleType) -> None:
    for texts in ((), (WIKI,), (WIKI + NOT_CAROL, SUPPORT)):
        checked, made = the.policies(*texts), again(the, *texts)
        assert made.digest == checked.digest
        assert opens(the, made) == opens(the, checked)


def test_of_the_set_before_only_what_is_written_again_remains(
    the: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = again(the, WIKI, "// moved\n" + SUPPORT)
    assert opens(the, before) == {"wiki": ("wiki",), "support": ("support",)}
    asked: list[str] = []

    def read(text: str) -> object:
        asked.append(text)
        return cedarpy_policies_to_pst(text)

    cedarpy_policies_to_pst = cedarpy.policies_to_pst
    monkeypatch.setattr(cedarpy, "policies_to_pst", read)
    after = again(the, SUPPORT, WIKI.replace("permit", "forbid"), NOT_CAROL, before=before)
    assert not any(SUPPORT.strip() in text for text in asked), "it was read before"
    assert sum('"wiki"' in text for text in asked) >= 2, "an @id is not what makes a policy the same"
    assert opens(the, after) == {"support": ("support",)}
    places = {policy.id: (policy.statement.file, policy.statement.line) for policy in after.policies}
    assert places["support"] == ("a.cedar", 1), "where it stands now"
    assert after.digest == the.policies(SUPPORT, WIKI.replace("permit", "forbid"), NOT_CAROL).digest
    assert opens(the, again(the, before=after)) == {}


@pytest.mark.parametrize(
    "text", ["permit (", SUPPORT + "permit", '@id("x") permit (principal == ?principal, action, resource);']
)
def test_what_can_not_be_read_is_refused_all_the_same(the: ModuleType, text: str) -> None:
    with pytest.raises(PolicyProblems):
        again(the, text, before=again(the, SUPPORT))

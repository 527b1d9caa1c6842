"""Fields with the values of a decision: what they hold, and what they can not be made to hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.administrator.stamping import LONGEST, stamped
from ztproxy.config.headers import stamps
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import ANONYMOUS, Device, Facts, Principal, Session

ROUTE = Route("wiki", "wiki", "wiki.example", "/", Upstream(scheme="http", host="a", port=1))


def person(name: str = "Carol", groups: tuple[str, ...] = ("staff", "ops"), id_: str = "corp:carol") -> Facts:
    principal = Principal("User", id_, name=name, groups=groups)
    return Facts(principal, Session("ses_1", principal, "corp", 0, 0), Device("dev_1", "laptop", "ab"))


def lines(facts: Facts, **fields: str) -> tuple[bytes, ...] | None:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return stamped(stamps(named), facts, ROUTE, "f" * 32)


def test_every_value() -> None:
    assert lines(
        person(),
        A="${principal.id}",
        B="name=${principal.name}",
        C="${principal.groups}",
        D="${session.id}/${device.id}",
        E="${decision.id}",
        F="${route.name}",
        G="constant $ {x}",
    ) == (
        b"A: corp:carol",
        b"B: name=Carol",
        b"C: staff,ops",
        b"D: ses_1/dev_1",
        b"E: " + b"f" * 32,
        b"F: wiki",
        b"G: constant $ {x}",
    )


def test_what_comes_out_empty_is_not_sent() -> None:
    anonymous = Facts(ANONYMOUS)
    assert lines(anonymous, A="${session.id}", B="${principal.groups}", C="${device.id}x") == (b"C: x",)
    assert lines(anonymous, A="${principal.id}") == (b"A: anonymous",)


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=4))
def test_no_name_breaks_out_of_its_value(name: str, groups: list[str]) -> None:
    found = lines(person(name, tuple(groups)), A="<${principal.name}>", B="<${principal.groups}>")
    assert found is not None
    _, other = found
    for line in found:
        assert line.isascii() and line.decode().isprintable()
    assert other.count(b",") == max(len(groups) - 1, 0)


def test_groups_can_not_be_forged_by_a_comma() -> None:
    assert lines(person(groups=("a,admin", "b%2Cc")), A="${principal.groups}") == (b"A: a%2Cadmin,b%252Cc",)


@pytest.mark.parametrize("text", ["a\r\nX-Admin: 1", "a\nb", "a\0b", "\x7f", "\u2028", "é"])
def test_ends_of_lines_are_encoded(text: str) -> None:
    found = lines(person(name=text), A="${principal.name}")
    assert found is not None and len(found) == 1
    assert not set(found[0]) & set(b"\r\n\0\x7f") and b"%" in found[0]


def test_a_value_too_long_to_be_sent_is_no_shorter_value() -> None:
    many = tuple(f"group-{number:06d}" for number in range(LONGEST // 10))
    assert lines(person(groups=many), A="${principal.groups}") is None
    assert lines(person(groups=many), A="${principal.id}") is not None

"""The tree knows where everything stands, reads the core schema only, and can not be made to explode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.config.yaml import parse


def test_every_key_and_value_knows_its_place() -> None:
    tree, problems = parse(b"a:\n  - b: 1\n    c: [x,\n        y]\n", "f")
    assert tree is not None and not problems
    inner = tree.child("a").child(0)  # type: ignore[union-attr]
    assert inner is not None and inner.entries is not None
    assert (inner.entries["c"].line, inner.entries["c"].column) == (3, 5)
    y = inner.entries["c"].value.child(1)
    assert y is not None and (y.line, y.column, y.scalar) == (4, 9, "y")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("0o17", 15),
        ("-12", -12),
        ("0123", 123),
        ("true", True),
        ("~", None),
        ("'1'", "1"),
        ("1.5", 1.5),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: object) -> None:
    tree, problems = parse(f"a: {text}\n".encode(), "f")
    assert tree is not None and not problems
    assert tree.plain() == {"a": value}


@pytest.mark.parametrize(
    "text",
    [
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 10)) for n in range(97, 104)),
        b"a: &a [*a]\n",
        b"[" * 900 + b"]" * 900,
        b"{a: " * 900 + b"}" * 900,
        b"[" * 100_000,
        b"- " * 100_000,
    ],
    ids=["laughs", "recursion", "lists", "mappings", "open", "dashes"],
)
def test_bombs_are_refused_quickly(text: bytes) -> None:
    tree, problems = parse(text, "f")
    assert tree is None and len(problems) == 1


def test_an_alias_is_fine() -> None:
    tree, problems = parse(b"a: &x [1]\nb: *x\n", "f")
    assert tree is not None and not problems
    assert tree.plain() == {"a": (1,), "b": (1,)}


def test_a_tree_without_a_value_keeps_the_places_of_the_others() -> None:
    tree, _ = parse(b"a: [1, 2, {x: 3, y: 4}]\nb: 5\n", "f")
    assert tree is not None
    assert tree.without(("a", 2, "x")).plain() == {"a": (1, 2, {"y": 4}), "b": 5}
    cut = tree.without(("a", 0))
    assert cut.plain() == {"a": (2, {"x": 3, "y": 4}), "b": 5}
    assert cut.child("a").child(0).column == 8  # type: ignore[union-attr]


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_tree_or_problems(raw: bytes) -> None:
    tree, problems = parse(raw, "f")
    assert tree is not None or problems


@given(st.text(alphabet="ab:-[]{}&*!|>#'\"\n ~,?%@`\t0", max_size=80))
def test_whatever_looks_like_yaml_is_a_tree_or_problems(text: str) -> None:
    tree, problems = parse(text.encode(), "f")
    assert tree is not None or problems

"""The rules of the house that import-linter does not check: sizes, names, docstrings, one seal."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2] / "ztproxy"
FILES = sorted(HOUSE.rglob("*.py"))

#: Names that say nothing about what a thing is.
EMPTY_WORDS = re.compile(r"(Manager|Helper|Util|Utils|Handler|Base)$")


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_there_is_a_house() -> None:
    assert len(FILES) > 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_every_module_says_what_it_is_for_and_stays_readable(file: Path) -> None:
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module's docstring says its role"
    assert text.count("\n") <= 500, "past 500 lines a heart rots: split it"
    for function in functions(file):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= 90, f"{function.name}: {lines} lines"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_names_say_what_things_are(file: Path) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ClassDef):
            assert not EMPTY_WORDS.search(node.name), node.name


def test_most_functions_are_short() -> None:
    lengths = sorted(
        (function.end_lineno or 0) - function.lineno + 1 for file in FILES for function in functions(file)
    )
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 30


def test_packages_hold_no_code_in_init() -> None:
    for file in FILES:
        if file.name == "__init__.py" and file.parent != HOUSE:
            body = tree(file).body
            assert len(body) == 1, f"{file}: a package's __init__ is its docstring"


def test_the_seal_is_used_where_permits_are_minted_and_nowhere_else() -> None:
    users = {
        str(file.relative_to(HOUSE))
        for file in FILES
        if re.search(r"\bSEAL\b|model\._seal\b", file.read_text()) and file.name != "_seal.py"
    }
    assert users == {"model/permit.py", "administrator/access.py"}


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    for file in FILES:
        assert not later.search(file.read_text()), file

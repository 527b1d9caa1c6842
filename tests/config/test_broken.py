"""Broken configurations, each with what must be said about it.

A file below `broken/` carries its expectations: `#! MESSAGE | REMEDY` at the end of a line says that a
problem of this line has these words. What is said must be exactly what is expected, no more and no less.
"""

import re
from pathlib import Path

import pytest

from ztproxy.config.load import load_all
from ztproxy.config.problems import ConfigProblems, Problem

FILES = sorted((Path(__file__).parent / "broken").glob("*.yaml"))
EXPECTED = re.compile(r"#! ([^|#]+) \| ([^#]+?)(?=\s+#!|$)")


def expected(text: str) -> list[tuple[int, str, str]]:
    return [
        (number, message.strip(), remedy.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for message, remedy in EXPECTED.findall(line)
    ]


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigProblems) as caught:
        load_all(path, {})
    return caught.value.problems


def test_there_are_many() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_problem_is_told_with_line_and_remedy(file: Path, base: Path) -> None:
    text = file.read_text()
    path = base / "ztproxy.yaml"
    path.write_text(text)
    found = problems(path)
    left = list(found)
    for line, message, remedy in expected(text):
        match = [one for one in left if one.line == line and message in one.message and remedy in one.remedy]
        assert match, f"line {line}: {message} | {remedy}\nfound:\n" + "\n".join(map(str, found))
        left.remove(match[0])
    assert not left, "\n".join(map(str, left))
    assert all(one.file == str(path) and one.remedy and one.column >= 1 for one in found)

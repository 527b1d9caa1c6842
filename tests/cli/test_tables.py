"""Tables on terminals of any width: nothing falls off, ids stay whole."""

import re

import pytest
from rich.console import Console

from ztproxy.cli import tables

ID = "ses_" + "a" * 26
COLUMNS = ("ID", "Who", "Last", "State")
ROWS = [
    (ID, "Carol Contreras", "2026-03-04 10:00:00 +0000", "7 unfinished"),
    ("Workload::spiffe://corp.example/ci/deployer", "", "2026-03-04 10:00:00 +0000", ""),
    (ID, "山田 太郎", "", "signed out \x1b[2J"),
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_fits_into_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    tables.show_table(COLUMNS, ROWS, "nothing")
    shown = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count(ID) == 2
    for word in ("Contreras", "10:00:00", "unfinished", "State", "out"):
        assert word in shown, word


@pytest.mark.usefixtures("terminal")
def test_a_terminal_that_is_too_small_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    tables.show_table(COLUMNS, ROWS, "nothing")
    shown = capsys.readouterr().out
    assert shown.count(ID) == 2 and "State" in shown


def test_elsewhere_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_table(COLUMNS, ROWS, "nothing")
    lines = capsys.readouterr().out.splitlines()
    assert sum("2026-03-04 10:00:00 +0000" in line for line in lines) == 2
    assert any("signed out \\x1b[2J" in line for line in lines)


def test_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_table(COLUMNS, [], "no sessions")
    assert capsys.readouterr().out == "no sessions\n"

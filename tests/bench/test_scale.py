"""Growth is told within rounds: a machine that was slow in one of them slowed both of a pair."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench.browsers import Browsers
from bench.ground import Ground, Missing
from bench.requests import Contest, Turn
from bench.scale import growths, newcomers


def turn(worker: float, control: float) -> Turn:
    return Turn(1000.0, {"workers": worker, "control": control}, 0, 0, 0.0, 0.0)


def test_growth_is_the_median_of_the_rounds_pairs():
    results = {
        "small": [turn(40, 10), turn(80, 20), turn(40, 10)],
        "large": [turn(42, 10), turn(84, 22), turn(50, 10)],
    }
    contest = cast(Contest, SimpleNamespace(results=results))
    assert growths(contest, "small") == [
        {
            "of": "large",
            "in all": "+6.0% (rounds +4.0% to +20.0%)",
            "in the worker": "+5.0% (rounds +5.0% to +25.0%)",
        }
    ]


def test_who_came_before_is_no_newcomer():
    assert newcomers(Counter(["1@1", "2@2", "2@2", "3@1"]), {"1@1"}) == 0.5
    assert newcomers(Counter(["3@1"]), {"3@1"}) == newcomers(Counter(), set()) == 0


def test_a_script_says_whose_connections_they_are(tmp_path: Path):
    try:
        load = Browsers(
            cast(Ground, SimpleNamespace(root=tmp_path)), "many", sessions=100_000, routes=2000, requests=7
        )
    except Missing:
        pytest.skip("wrk is not installed")
    script = (tmp_path / "many.lua").read_text()
    assert "local people, applications, state, at, open, last = 100000, 2000, 1," in script
    assert "if at >= 7 then" in script and "%%" not in script
    assert load.came() == []
    (tmp_path / "many.came").write_text("7@3 7@3 ")
    assert load.came() == ["7@3", "7@3"]

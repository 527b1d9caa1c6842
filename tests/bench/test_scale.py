"""Growth is told within rounds: a machine that was slow in one of them slowed both of a pair."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench.browsers import Browsers
from bench.ground import Ground, Missing
from bench.requests import Contest, Turn
from bench.scale import growths


def turn(worker: float, control: float) -> Turn:
    return Turn(1000.0, {"workers": worker, "control": control}, 0, 0, 0.0, 0.0)


def test_growth_is_the_median_of_the_rounds_pairs():
    results = {
        "small": [turn(40, 10), turn(80, 20), turn(40, 10)],
        "large": [turn(42, 10), turn(84, 22), turn(50, 10)],
    }
    contest = cast(Contest, SimpleNamespace(results=results))
    [(name, said)] = growths(contest, "small")
    assert name == "large"
    assert said == "+6.0% (rounds +4.0% to +20.0%) in all, +5.0% (rounds +5.0% to +25.0%) in the worker"


def test_a_script_says_whose_connections_they_are(tmp_path: Path):
    try:
        Browsers(
            cast(Ground, SimpleNamespace(root=tmp_path)), "many", sessions=100_000, routes=2000, requests=7
        )
    except Missing:
        pytest.skip("wrk is not installed")
    script = (tmp_path / "many.lua").read_text()
    assert "local people, applications, state, at, open, last = 100000, 2000, 1," in script
    assert "if at >= 7 then" in script and "%%" not in script

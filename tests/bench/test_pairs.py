"""The arithmetic of measurements."""

import pytest

from bench.pairs import Spread, ratios, spread, turns


def test_the_median_of_ratios_is_that_of_neighbours_not_of_all():
    ours, theirs = [100.0, 10.0, 50.0], [200.0, 20.0, 25.0]  # the machine was slow in the second round
    assert ratios(ours, theirs) == Spread(0.5, 0.5, 2.0)


def test_spread_is_median_and_range():
    assert spread([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread(1.2345, 1.0, 2.71828).rounded(2) == Spread(1.23, 1.0, 2.72)


def test_nothing_has_no_spread():
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_rounds_that_do_not_match_are_no_pairs():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_every_other_round_goes_backwards():
    assert [turns("abc", number) for number in range(3)] == [list("abc"), list("cba"), list("abc")]

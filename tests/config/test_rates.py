"""Rates are read strictly and written as they are read."""

import pytest
from pydantic_core import PydanticCustomError

from ztproxy.config.rates import rate, written
from ztproxy.model.quota import Rate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100/s", Rate(100.0, 100)),
        ("100/s burst 200", Rate(100.0, 200)),
        ("30/m", Rate(0.5, 30)),
        ("7/m burst 1", Rate(7 / 60, 1)),
        ("1/h", Rate(1 / 3600, 1)),
        ("1000000/h", Rate(1_000_000 / 3600, 1_000_000)),
        ("unlimited", None),
    ],
)
def test_what_can_be_written(text: str, value: Rate | None) -> None:
    assert rate(text) == value
    assert rate(written(value)) == value


@pytest.mark.parametrize(
    "raw",
    [
        *("", "100", "100/d", "100 /s", "100/s burst", "100/s burst -1", "-1/s", "0/s", "1/s burst 0"),
        *("1000001/s", "1.5/s", "\uff11/s", 100, None, ["1/s"], "1/s\n", "Unlimited"),
    ],
)
def test_what_can_not(raw: object) -> None:
    with pytest.raises(PydanticCustomError):
        rate(raw)


def test_written_finds_the_unit() -> None:
    assert written(Rate(0.5, 30)) == "30/m"
    assert written(Rate(100.0, 200)) == "100/s burst 200"

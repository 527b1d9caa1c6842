"""A short form of `scripts/faults`: causes and faults at random against two nodes over one Redis."""

import pytest

from bench.faults import weather
from bench.nodes import Estate
from bench.oracle import LIMIT


@pytest.mark.timeout(300)
async def test_whatever_fails_nobody_is_served_past_the_bound() -> None:
    """Another seed each time would find more and could not be repeated: `scripts/faults` is for that."""
    with Estate(wired=True, feed_limit=f"{LIMIT:.0f}s") as estate:
        storm = await weather(estate, seed=4, seconds=25)
    assert storm.rounds >= 2 and storm.faults >= storm.rounds
    assert storm.oracle.served > 100 and storm.oracle.refused > 50 and storm.oracle.echoes > 100

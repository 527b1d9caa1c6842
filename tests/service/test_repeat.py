"""Work in the background goes on, whatever happens to it once."""

import asyncio

import pytest

from ztproxy.administrator.audit import AuditUnavailable
from ztproxy.service.repeat import Repeat


@pytest.mark.parametrize("error", [AuditUnavailable("the journal is full"), KeyError("a bug")], ids=repr)
async def test_one_failure_is_told_and_is_not_the_end(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        done.set()

    with Repeat(0.001, step):
        await asyncio.wait_for(done.wait(), 5)
    assert "background work failed" in caplog.text


async def test_the_last_time_is_after_the_end_of_the_others() -> None:
    times = 0

    async def step() -> None:
        nonlocal times
        times += 1

    with Repeat(3600, step) as repeated:
        await repeated.finish()
        assert times == 1

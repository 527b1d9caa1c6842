import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "gateway")]

from connector_site import Site  # noqa: E402


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    for end in reversed(made.ends):
        await end()
    await asyncio.sleep(0.02)

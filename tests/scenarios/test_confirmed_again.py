"""A group is taken away at a real provider while somebody is at work: noticed without their doing."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

POLICY = """
@id("status-reviewers")
@recheck("3s")
permit (principal is User in Group::"reviewers", action in Action::"http", resource == Route::"status");
"""

#: In the provider's own words: who is in a group from now on.
MEMBERS = """
import sys
from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
with create_app().app_context(), Backend.instance.session():
    (group,) = Backend.instance.query(models.Group, display_name=sys.argv[1])
    names = sys.argv[2:]
    group.members = [one for name in names for one in Backend.instance.query(models.User, user_name=name)]
    Backend.instance.save(group)
"""


class Groups:
    """The provider's database."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def set(self, group: str, *members: str) -> None:
        subprocess.run(
            [sys.executable, "-c", MEMBERS, group, *members],
            env={**os.environ, "CANAILLE_CONFIG": str(self.root / "provider/canaille.toml")},
            cwd=self.root / "provider",
            check=True,
        )


@pytest.fixture
def groups(demo) -> Iterator[Groups]:
    """The group `reviewers` may use an application, as long as the provider says who is in it."""
    file, made = demo.root / "policies/demo.cedar", Groups(demo.root)
    before = file.read_text()
    file.write_text(before + POLICY)
    demo.cli("reload", "--config", demo.facts["config"])
    try:
        yield made
    finally:
        made.set("reviewers", "rita")
        made.set("contractors", "carol")
        file.write_text(before)
        demo.cli("reload", "--config", demo.facts["config"])


def rechecked(demo, result: str) -> float:
    """How often the provider was asked with this result."""
    found = re.findall(
        rf'^ztproxy_rechecks_total{{.*result="{result}".*}} (\S+)', metrics(demo), re.MULTILINE
    )
    return sum(map(float, found))


def metrics(demo) -> str:
    """What is scraped."""
    return str(demo.curl(demo.facts["metrics"]).body)


@pytest.mark.parametrize(
    ("others", "refusal"),
    [
        (("contractors",), (403, "access-denied")),
        # The last group is gone: this provider then says nothing of groups, which confirms nothing. So the
        # browser has to bring a new word, and does so without the person.
        ((), (401, "recheck-required")),
    ],
)
async def test_a_group_that_is_taken_away_is_gone_within_moments(demo, sign_in, groups, others, refusal):
    for group in others:
        await asyncio.to_thread(groups.set, group, "carol", "rita")
    async with sign_in("rita") as rita:
        await rita.visit("status")

        async def ask() -> Any:
            cookie = await rita.cookie("status")
            as_program = ("--header", f"Cookie: {cookie}", "--header", "Accept: application/json")
            return await asyncio.to_thread(demo.curl, *as_program, demo.url("status"))

        before = rechecked(demo, "confirmed")
        async with asyncio.timeout(60):  # it is asked again all the time, and says yes
            while rechecked(demo, "confirmed") < before + 2:
                assert (await ask()).status == 200
        await asyncio.to_thread(groups.set, "reviewers", "carol")
        async with asyncio.timeout(60):
            while (answer := await ask()).status == 200:
                await asyncio.sleep(0.1)
        assert (answer.status, answer.json["code"]) == refusal
        page = await rita.context.new_page()
        shown = await page.goto(demo.url("status"))
        assert shown is not None and shown.status == 403
        assert page.url.rstrip("/") == demo.url("status").rstrip("/"), "there and back, if it had to"
        assert (await ask()).json["code"] == "access-denied"

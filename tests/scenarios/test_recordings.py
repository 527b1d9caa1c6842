"""What a reviewer sees afterwards, and that nobody can change it without being noticed."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect


async def test_a_reviewer_sees_who_did_what_and_why(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support", "/tickets/1039")
        await expect(page.locator("h1")).to_have_text("Export to CSV lacks the last column")
        await page.goto(demo.url("support", "/tickets/1041?token=very-secret"))
        await page.goto(demo.url("wiki", "/home"))
        await page.wait_for_url(demo.url("wiki", "/home"))
    config = ("--config", demo.facts["config"])
    sessions = json.loads(await _cli(demo, "sessions", "list", *config, "--json"))
    session = max(sessions, key=lambda one: one["created_at"])
    assert session["principal"]["name"] == "Carol Contreras"
    assert session["id"] in await _cli(demo, "recordings", "list", *config)

    shown = await _seen(demo, session["id"], "/tickets/1041")
    assert "very-secret" not in shown
    events = json.loads(shown)["events"]
    decisions = {one["decision"]["path"]: one["decision"] for one in events if one.get("decision")}
    allowed, refused = decisions["/tickets/1041"], decisions["/home"]
    assert allowed["allow"] is True and allowed["policies"] == ["support-contractors"]
    assert allowed["name"] == "Carol Contreras" and allowed["groups"] == ["contractors"]
    assert allowed["device"] == demo.facts["device"]["id"] and allowed["device_proof"] == "agent"
    assert allowed["posture"] == "healthy" and 0 <= allowed["posture_age"] <= 30_000
    assert refused["allow"] is False and refused["policies"] == ["wiki-administrators-only"]
    outcome = next(
        one["outcome"] for one in events if (one.get("decision") or {}).get("path") == "/tickets/1041"
    )
    assert outcome["status"] == 200 and outcome["sent"] > 1000

    text = await _cli(demo, "recordings", "show", session["id"], *config)
    assert "permitted by" in text and "refused: access-denied" in text


async def _seen(demo, session: str, path: str) -> str:
    """The session as JSON, once the log holds the end of this request."""
    async with asyncio.timeout(10):
        while True:
            shown = await _cli(
                demo, "recordings", "show", session, "--config", demo.facts["config"], "--json"
            )
            if any(
                (one.get("decision") or {}).get("path") == path and one.get("outcome")
                for one in json.loads(shown)["events"]
            ):
                return shown
            await asyncio.sleep(0.2)


async def _cli(demo, *arguments: str) -> str:
    return (await asyncio.to_thread(demo.cli, *arguments)).stdout


def test_the_workload_is_in_it_too(demo):
    demo.as_workload(demo.url("status", "/deployments"))
    listed = demo.cli("recordings", "list", "--config", demo.facts["config"]).stdout
    assert "ci/deployer" in re.sub(r"\s", "", listed)


def test_the_live_log_is_whole(demo):
    assert demo.cli("recordings", "verify", "--config", demo.facts["config"]).stdout.startswith("ok:")


@pytest.fixture
def copy(demo, tmp_path):
    """A copy of the log, of a moment when it was whole."""
    made = tmp_path / "copy"
    for _ in range(5):
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(demo.root / "state" / "recordings", made)
        if demo.cli("recordings", "verify", str(made), check=False).returncode == 0:
            return made
    pytest.fail("no copy of the running log verified")


def change_one_byte(lines: list[bytes]) -> tuple[list[bytes], int]:
    at = len(lines) // 2
    return [*lines[:at], lines[at].replace(b'"at":1', b'"at":2', 1), *lines[at + 1 :]], at


def delete_one_record(lines: list[bytes]) -> tuple[list[bytes], int]:
    at = len(lines) // 2
    return lines[:at] + lines[at + 1 :], at


def swap_two_records(lines: list[bytes]) -> tuple[list[bytes], int]:
    at = len(lines) // 2
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]], at


def cut_the_tail(lines: list[bytes]) -> tuple[list[bytes], int]:
    return lines[:-3], len(lines) - 3


def cut_within_a_record(lines: list[bytes]) -> tuple[list[bytes], int]:
    return [*lines[:-1], lines[-1][:40]], len(lines) - 1


@pytest.mark.parametrize(
    "tamper", [change_one_byte, delete_one_record, swap_two_records, cut_the_tail, cut_within_a_record]
)
def test_a_changed_copy_is_named(demo, copy, tamper):
    file = sorted(Path(copy).glob("log-*.jsonl"))[0]
    lines = file.read_bytes().splitlines(keepends=True)
    numbers = [json.loads(line)["n"] for line in lines]
    changed, at = tamper(lines)
    file.write_bytes(b"".join(changed))
    done = demo.cli("recordings", "verify", str(copy), check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("NOT OK")
    assert re.search(rf"\b{numbers[at]}\b", done.stdout), (numbers[at], done.stdout)


def test_a_missing_file_is_named(demo, copy):
    file = sorted(Path(copy).glob("log-*.jsonl"))[-1]
    file.unlink()
    done = demo.cli("recordings", "verify", str(copy), check=False)
    assert done.returncode == 1 and "NOT OK" in done.stdout

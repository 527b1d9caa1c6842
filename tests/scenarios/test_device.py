"""The device's state counts at every request: failing, healthy again, silent."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.usefixtures("healthy")

ASK = """async path => {
  const answer = await fetch(path, {headers: {Accept: "application/json"}});
  return [answer.status, answer.status === 200 ? "" : (await answer.json()).code];
}"""


async def test_unhealthy_is_refused_at_the_very_next_request_and_says_so(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        assert await page.evaluate(ASK, "/tickets/1041") == [200, ""]
        await asyncio.to_thread(demo.posture, "unhealthy")
        before = demo.arrived("support")
        assert await page.evaluate(ASK, "/tickets/1041") == [403, "device-posture-unhealthy"]
        await page.goto(demo.url("support"))
        await expect(page.locator("h1")).to_have_text("The device does not meet the requirements.")
        assert demo.arrived("support") == before
        await asyncio.to_thread(demo.posture, "healthy")
        await page.goto(demo.url("support"))
        await expect(page).to_have_title("Tickets · Support desk")


async def test_an_open_websocket_ends_when_the_device_fails(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        await expect(page.locator("#live")).to_have_attribute("data-state", "open")
        await asyncio.to_thread(demo.posture, "unhealthy")
        await expect(page.locator("#live")).to_have_attribute("data-state", "closed", timeout=5000)


async def test_a_silent_device_is_refused_once_its_report_is_too_old(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        await asyncio.to_thread(demo.posture, "stop")
        began = time.monotonic()
        assert await page.evaluate(ASK, "/") == [200, ""]
        async with asyncio.timeout(50):
            while (asked := await page.evaluate(ASK, "/"))[0] == 200:
                await asyncio.sleep(0.5)
        assert asked == [403, "device-posture-stale"]
        assert 15 < time.monotonic() - began < 45
        await asyncio.to_thread(demo.posture, "healthy")
        assert await page.evaluate(ASK, "/") == [200, ""]


async def test_a_browser_without_the_agent_has_no_device(demo, sign_in):
    async with sign_in("carol") as carol:
        await carol.context.route("http://127.0.0.1:*/**", _only_provider(demo))
        page = await carol.context.new_page()
        before = demo.arrived("support")
        await page.goto(demo.url("support"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(12):
                await carol.sign_in(page, demo.url("support"))
        asked = await carol.cookie("support")
        refused = demo.curl(
            "--header", f"Cookie: {asked}", "--header", "Accept: application/json", demo.url("support")
        )
        assert refused.status in (401, 403)
        assert demo.arrived("support") == before


def _only_provider(demo):
    port = json.loads((Path(demo.root) / "ports.json").read_text())["agent"]

    async def handle(route):
        if f":{port}/" in route.request.url:
            await route.abort()
        else:
            await route.continue_()

    return handle

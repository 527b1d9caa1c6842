"""A session cut from the command line is over at once: the open WebSocket, and every worker."""

import asyncio
import json
import re
import time

from playwright.async_api import expect


async def test_cut_closes_the_websocket_and_every_worker_refuses(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        await expect(page.locator("#live")).to_have_attribute("data-state", "open")
        cookie = await carol.cookie("support")
        session = await asyncio.to_thread(newest_session, demo, "carol")
        await page.evaluate(
            """() => { window.ended = null; const socket = new WebSocket(`wss://${location.host}/live`);
               socket.onclose = () => { window.ended = performance.now(); }; }"""
        )
        await page.wait_for_timeout(300)
        began = time.monotonic()
        await asyncio.to_thread(demo.cli, "sessions", "cut", session, "--config", demo.facts["config"])
        await page.wait_for_function("() => window.ended !== null", timeout=5000)
        assert time.monotonic() - began < 5
        before = demo.arrived("support")
        # Each curl is a connection of its own, so that the kernel spreads them over the workers.
        answers = [
            await asyncio.to_thread(demo.curl, "--header", f"Cookie: {cookie}", demo.url("support"))
            for _ in range(16)
        ]
        assert {answer.status for answer in answers} == {401}
        assert demo.arrived("support") == before
        await page.reload()
        assert not page.url.startswith(demo.url("support")) or await page.title() != "Tickets · Support desk"


def newest_session(demo, username):
    """The id of the newest session of a person, as an administrator finds it."""
    listed = demo.cli("sessions", "list", "--config", demo.facts["config"], "--json").stdout
    sessions = json.loads(listed)
    sessions = sessions["sessions"] if isinstance(sessions, dict) else sessions
    own = [session for session in sessions if re.search(username, json.dumps(session["principal"]), re.I)]
    return max(own, key=lambda session: session["created_at"])["id"]

"""What a reviewer sees afterwards, and that nobody can change it without being noticed."""

import sys

from playwright.async_api import expect


async def test_a_reviewer_sees_who_did_what_and_why(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support", "/tickets/1039")
        await expect(page.locator("h1")).to_have_text("Export to CSV lacks the last column")
        await page.evaluate("async () => { await fetch('/tickets/1039/nothing?token=very-secret'); }")
    listed = demo.cli("recordings", "list", "--config", demo.facts["config"]).stdout
    assert "carol" in listed.lower()
    print(listed, file=sys.stderr)


def test_verify_passes(demo):
    demo.cli("recordings", "verify", "--config", demo.facts["config"])

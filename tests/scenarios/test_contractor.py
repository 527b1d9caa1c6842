"""A contractor with a plain browser: signs in, works, is kept out of what is not theirs, signs out."""

import re

from playwright.async_api import expect


async def test_the_way_in_and_what_the_desk_knows(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        await expect(page).to_have_title("Tickets · Support desk")
        await expect(page.locator("#who")).to_contain_text("Carol Contreras")
        await expect(page.locator("#who")).to_contain_text("contractors")
        await expect(page.locator("#who")).to_contain_text(demo.facts["device"]["id"][:12])
        assert await page.evaluate("document.cookie") == ""


async def test_a_comment_appears_on_another_open_page(sign_in):
    async with sign_in("carol") as carol:
        reading = await carol.visit("support", "/tickets/1044")
        await expect(reading.locator("#live")).to_have_attribute("data-state", "open")
        writing = await carol.visit("support", "/tickets/1044")
        await writing.fill("#text", "The scanner's clock is a day behind.")
        await writing.click("button:has-text('Send')")
        await expect(reading.locator("#comments")).to_contain_text("a day behind")


async def test_another_application_is_refused_with_a_reason_and_never_asked(demo, sign_in):
    async with sign_in("carol") as carol:
        await carol.visit("support")
        before = demo.arrived("wiki")
        page = await carol.context.new_page()
        answer = await _settled(page, demo.url("wiki", "/on-call"))
        assert answer.status == 403
        await expect(page.locator("h1")).to_have_text("Policy does not allow this.")
        await expect(page.locator("main")).to_contain_text("The operations wiki is for administrators.")
        await expect(page.locator("footer code")).to_have_text(re.compile("^[0-9a-f]{32}$"))
        program = demo.curl("--header", f"Cookie: {await carol.cookie('wiki')}", demo.url("wiki", "/home"))
        assert (program.status, program.json["code"]) == (403, "access-denied")
        assert "content-type: application/problem+json" in program.headers.lower()
        assert demo.arrived("wiki") == before


async def test_an_administrator_reaches_it_and_a_reviewer_only_reads(demo, sign_in):
    async with sign_in("adam") as adam:
        page = await adam.visit("wiki", "/on-call")
        await expect(page.locator("h1")).to_have_text("Who is on call")
    async with sign_in("rita") as rita:
        page = await rita.visit("support", "/tickets/1041")
        await expect(page.locator("h1")).to_have_text("Invoices arrive twice since Monday")
        before = demo.arrived("support")
        status = await page.evaluate(
            """async () => (await fetch("/tickets/1041/comments", {method: "POST",
               body: new URLSearchParams({text: "hm", state: "open"})})).status"""
        )
        assert status == 403
        assert demo.arrived("support") == before


async def test_signing_out_ends_it_everywhere(demo, sign_in):
    async with sign_in("carol") as carol:
        page = await carol.visit("support")
        cookie = await carol.cookie("support")
        assert demo.curl("--header", f"Cookie: {cookie}", demo.url("support")).status == 200
        await page.goto(demo.facts["portal"] + "/.ztproxy/sign-out")
        async with page.expect_navigation():
            await page.get_by_role("button", name=re.compile("sign out", re.I)).first.click()
        before = demo.arrived("support")
        refused = demo.curl(
            "--header", f"Cookie: {cookie}", "--header", "Accept: application/json", demo.url("support")
        )
        assert (refused.status, refused.json["code"]) in {(401, "login-required"), (401, "session-ended")}
        assert demo.arrived("support") == before


async def _settled(page, address):
    """The answer for the address itself, after whatever redirects it took to hand the session over."""
    await page.goto(address)
    await page.wait_for_url(address, timeout=15_000)
    return await page.reload()

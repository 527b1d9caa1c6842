"""Signing in through a browser: every host, many tabs, and the tricks played on them."""

import asyncio
import os
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from ztproxy.administrator.locks import Locks
from ztproxy.administrator.standing import SKEW, Standings
from ztproxy.portal import sign_in
from ztproxy.portal.visitor import FLOW_COOKIE, SESSION_COOKIE

PORTAL, SUPPORT, WIKI = "portal.example", "support.example", "wiki.example"
ORIGIN = f"https://{PORTAL}:8443"
APP = f"https://{SUPPORT}:8443"


def steps(page):
    return [urlsplit(url).hostname + urlsplit(url).path for url in page.trail]


async def test_a_deep_link_leads_through_the_sign_in_and_back(world, browser):
    page = await browser.get(f"{APP}/tickets/7?view=all&x=%2F")
    assert steps(page)[:3] == [
        f"{SUPPORT}/tickets/7",
        f"{SUPPORT}/.ztproxy/login",
        f"{PORTAL}/.ztproxy/start",
    ]
    assert page.path == "/.ztproxy/device" and "Checking this device" in page.text
    page = await browser.get(browser.onward(page))
    assert (page.status, page.url) == (200, f"{APP}/tickets/7?view=all&x=%2F")
    (session,) = await world.sessions.list()
    assert page.text == session.id
    assert session.principal.id == "corp:carol"
    assert (session.ip, session.user_agent) == ("192.0.2.7", "Tester/1")


async def test_each_host_has_its_own_handle_of_one_session(world, browser):
    await browser.sign_in(f"{APP}/")
    page = await browser.get(f"https://{WIKI}:8443/page")
    assert page.status == 200, "signed in already: no question asked"
    handles = {browser.cookie(host) for host in (PORTAL, SUPPORT, WIKI)}
    assert len(handles) == 3
    assert len(await world.sessions.list()) == 1


async def test_no_secret_of_ours_in_an_address(world, browser):
    page = await browser.get(f"{APP}/")
    last = await browser.get(browser.onward(page))
    secrets = {value for jar in browser.jar.values() for value in jar.values()}
    assert len(secrets) == 4
    for url in page.trail + last.trail:
        assert not any(secret in url for secret in secrets)


async def test_tabs_that_start_at_once_all_succeed(world, browser):
    urls = [f"{APP}/a", f"{APP}/b", f"https://{WIKI}:8443/c", f"{ORIGIN}/"]
    pages = await asyncio.gather(*[browser.sign_in(url) for url in urls])
    assert [page.status for page in pages] == [200] * 4
    assert [page.url for page in pages] == urls
    for url in urls:
        assert (await browser.get(url)).status == 200


async def test_a_tab_whose_flow_cookie_was_replaced_succeeds_too(world, browser):
    """The slowest interleaving: both tabs are at the provider, only one flow cookie is left."""
    first = await browser.get(f"{APP}/a", follow=False)
    at_portal = await browser.get(f"{APP}{first.headers['Location']}", follow=False)
    at_provider = await browser.get(at_portal.headers["Location"], follow=False)
    browser.jar.clear()
    assert (await browser.sign_in(f"{APP}/b")).status == 200
    late = await browser.get(at_provider.headers["Location"])
    while late.path == "/.ztproxy/device":
        late = await browser.get(browser.onward(late))
    assert (late.status, late.url) == (200, f"{APP}/a")


async def test_a_browser_without_cookies_gets_an_answer_and_no_loop(world, browser):
    browser.keeps_cookies = False
    page = await browser.get(f"{APP}/")
    assert page.status == 403 and "did not keep the cookie" in page.text


async def test_the_sign_in_starts_a_session_under_a_new_id(world, browser):
    await browser.sign_in()
    old = browser.cookie(PORTAL)
    (before,) = await world.sessions.list()
    world.clock.advance(5)
    page = await browser.sign_in(f"{ORIGIN}/.ztproxy/login?again=1")
    assert page.status == 200
    (after,) = await world.sessions.list()
    assert after.id != before.id and browser.cookie(PORTAL) != old
    assert await world.sessions.find(old, PORTAL) is None
    assert (await world.sessions.get(before.id)).ended_by == "signed in again"


async def test_a_planted_cookie_is_not_adopted(world, browser):
    """Session fixation: the value an attacker set is worth nothing after the sign-in."""
    planted = "A" * 43
    browser.jar = {PORTAL: {SESSION_COOKIE: planted}, SUPPORT: {SESSION_COOKIE: planted}}
    assert (await browser.sign_in(f"{APP}/")).status == 200
    for host in (PORTAL, SUPPORT):
        assert browser.cookie(host) not in ("", planted)
        assert await world.sessions.find(planted, host) is None


async def test_a_planted_session_of_the_attacker_ends_and_is_not_continued(world, browser, new_browser):
    attacker = new_browser(world)
    world.providers[next(iter(world.providers))].person = {"sub": "mallory", "name": "Mallory"}
    await attacker.sign_in()
    world.providers[next(iter(world.providers))].person = {"sub": "carol", "name": "Carol"}
    world.clock.advance(1)
    browser.jar = {PORTAL: {SESSION_COOKIE: attacker.cookie(PORTAL)}}
    await browser.sign_in(f"{ORIGIN}/.ztproxy/login?again=1")
    (session,) = await world.sessions.list()
    assert session.principal.id == "corp:carol"
    assert await world.sessions.find(attacker.cookie(PORTAL), PORTAL) is None


async def test_the_cookies_are_as_promised(world, browser):
    await browser.sign_in(f"{APP}/")
    lines = {(host, line.partition("=")[0]): line for host, line in browser.set_cookies}
    session, flow = lines[SUPPORT, SESSION_COOKIE], lines[SUPPORT, FLOW_COOKIE]
    assert re.fullmatch(
        rf"{SESSION_COOKIE}=[A-Za-z0-9_-]{{43}}; HttpOnly; Path=/; SameSite=Lax; Secure", session
    )
    assert "Max-Age=600" in flow


# one use each


async def test_a_state_is_used_once(world, browser, new_browser):
    page = await browser.get(f"{APP}/")
    (callback,) = [url for url in page.trail if "/callback?" in url]
    again = await browser.get(callback)
    assert again.url == f"{ORIGIN}/", "the back button leads somewhere useful"
    browser.jar[PORTAL].pop(SESSION_COOKIE)
    replayed = await browser.get(callback)
    assert replayed.status == 403 and "expired or was used before" in replayed.text
    assert len(await world.sessions.list()) == 1


async def test_a_handoff_code_is_used_once(world, browser):
    page = await browser.get(f"{APP}/")
    page = await browser.get(browser.onward(page))
    (accept,) = [url for url in page.trail if "/accept?" in url]
    kept = browser.cookie(SUPPORT)
    del browser.jar[SUPPORT][SESSION_COOKIE]
    again = await browser.get(accept, follow=False)
    assert again.status == 303 and "/.ztproxy/login" in again.headers["Location"]
    assert browser.cookie(SUPPORT) == "" != kept


async def test_a_handoff_code_works_in_its_own_browser_only(world, browser, new_browser):
    """Login CSRF: a prepared link does not sign the victim in as somebody else."""
    await browser.sign_in()
    flow = (await browser.get(f"{APP}/.ztproxy/login?rd=/", follow=False)).headers["Location"]
    accept = (await browser.get(flow, follow=False)).headers["Location"]
    assert urlsplit(accept).path == "/.ztproxy/accept"
    victim = new_browser(world)
    for flow_cookie in ("", "B" * 43):
        victim.jar = {SUPPORT: {FLOW_COOKIE: flow_cookie}} if flow_cookie else {}
        page = await victim.get(accept, follow=False)
        assert page.status == 303 and "/.ztproxy/login?" in page.headers["Location"]
        assert victim.cookie(SUPPORT) == ""


async def test_a_callback_works_in_its_own_browser_only(world, browser, new_browser):
    """Login CSRF at the portal: the attacker's answer is thrown away, the victim signs in itself."""
    provider = next(iter(world.providers.values()))
    provider.person = {"sub": "mallory", "name": "Mallory"}
    start = await browser.get(f"{ORIGIN}/.ztproxy/start", follow=False)
    prepared = provider.authorize(start.headers["Location"])
    provider.person = {"sub": "carol", "name": "Carol"}
    victim = new_browser(world)
    page = await victim.sign_in(prepared)
    assert page.status == 200 and "Carol" in page.text and "Mallory" not in page.text
    (session,) = await world.sessions.list()
    assert session.principal.id == "corp:carol"


async def test_a_state_expires(world, browser):
    start = await browser.get(f"{ORIGIN}/.ztproxy/start", follow=False)
    back = next(iter(world.providers.values())).authorize(start.headers["Location"])
    world.clock.advance(601)
    assert (await browser.get(back)).status == 403
    assert await world.sessions.list() == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"state": "x"},
        {"state": "S" * 5000, "code": "c"},
        {"state": ["a", "b"], "code": "c"},
        {"state": "<script>alert(1)</script>", "code": "c", "error": "<b>"},
    ],
)
async def test_answers_nobody_asked_for(world, browser, query):
    page = await browser.get(f"{ORIGIN}/.ztproxy/callback?{urlencode(query, doseq=True)}")
    assert page.status == 403 and "<script>alert" not in page.text


# ways back

FOREIGN = [
    "https://evil.example/",
    "https://evil.example:8443/",
    "https://support.example/",  # another port is another service
    "https://support.example:443/",
    "https://support.example:8443@evil.example/",
    "https://support.example:8443.evil.example/",
    "https://support.example:8443\\@evil.example/",
    "https://user@support.example:8443/",
    "https://Support.Example:8443/",
    "http://support.example:8443/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "\t//evil.example",
    " https://evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "/x\r\nSet-Cookie: a=b",
    "/" + "a" * 5000,
    "/.ztproxy/login?again=1",
    "/.ztproxy/sign-out",
    "https://wiki.example:8443/.ztproxy/accept?code=x",
]


@pytest.mark.parametrize("target", FOREIGN)
async def test_no_open_redirect(world, browser, target):
    await browser.sign_in()
    query = urlencode({"rd": target})
    for host in (PORTAL, SUPPORT):
        for endpoint in ("login", "start", "accept", "device"):
            page = await browser.get(f"https://{host}:8443/.ztproxy/{endpoint}?{query}")
            assert urlsplit(page.url).hostname in (PORTAL, SUPPORT), page.trail
            assert page.status == 200
            if page.path == "/.ztproxy/device":
                onward = urlsplit(browser.onward(page))
                assert onward.hostname in (PORTAL, SUPPORT)
            assert all("evil" not in urlsplit(url).netloc for url in page.trail)


@pytest.mark.parametrize("target", FOREIGN)
async def test_no_open_redirect_when_signing_in(world, browser, target):
    page = await browser.sign_in(f"{ORIGIN}/.ztproxy/login?" + urlencode({"rd": target}))
    assert urlsplit(page.url).hostname in (PORTAL, SUPPORT) and page.status == 200


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/x?y=1#z", f"{APP}/x?y=1"),
        (f"{APP}/deep/link?a=b&c=d", f"{APP}/deep/link?a=b&c=d"),
        (APP, f"{APP}/"),
        ("", f"{ORIGIN}/"),
    ],
)
async def test_ways_back_that_are_ours(world, browser, target, expected):
    page = await browser.sign_in(f"{APP}/.ztproxy/login?" + urlencode({"rd": target}))
    assert page.url == expected


# providers


async def test_with_several_providers_the_person_chooses(two, new_browser):
    browser = new_browser(two)
    page = await browser.get(f"{APP}/tickets")
    assert page.status == 200 and "Corp sign-in" in page.text and "Partner sign-in" in page.text
    assert SUPPORT in page.text
    links = re.findall(r'class="button" href="([^"]+)"', page.text)
    page = await browser.get(links[1].replace("&amp;", "&"))
    assert page.url == f"{APP}/tickets"
    (session,) = await two.sessions.list()
    assert (session.provider, session.principal.id) == ("partner", "partner:carol")


async def test_an_unknown_provider_is_a_choice(two, new_browser):
    page = await new_browser(two).get(f"{ORIGIN}/.ztproxy/start?provider=evil")
    assert page.status == 200 and "Corp sign-in" in page.text


async def test_one_providers_answer_does_not_finish_anothers_sign_in(two, new_browser):
    """Mix-up: the answer names the issuer it comes from (RFC 9207)."""
    browser = new_browser(two)
    honest, attacker = two.providers.values()
    start = await browser.get(f"{ORIGIN}/.ztproxy/start?provider=partner", follow=False)
    state = parse_qs(urlsplit(start.headers["Location"]).query)["state"][0]
    answer = urlencode({"code": "stolen", "state": state, "iss": honest.issuer})
    page = await browser.get(f"{ORIGIN}/.ztproxy/callback?{answer}")
    assert page.status == 403 and "another sign-in service" in page.text
    assert honest.forms == attacker.forms == []


async def test_a_provider_that_is_away_is_said_so_and_tried_again(world, browser):
    provider = next(iter(world.providers.values()))

    async def broken(request):
        raise ConnectionResetError

    provider.answers["/token"] = broken
    page = await browser.get(f"{APP}/x")
    assert page.status == 503 and page.headers["Retry-After"]
    assert "can not be reached" in page.text and "0123456789abcdef" in page.text
    assert await world.sessions.list() == []
    again = re.search(r'class="button first" href="([^"]+)"', page.text)[1].replace("&amp;", "&")
    del provider.answers["/token"]
    world.clock.advance(10)
    page = await browser.sign_in(again)
    assert page.url == f"{APP}/x"


async def test_a_refused_sign_in_says_so_and_starts_nothing(world, browser):
    next(iter(world.providers.values())).claims = {"aud": []}
    page = await browser.get(f"{APP}/x")
    assert page.status == 403 and "could not be verified" in page.text
    assert browser.cookie(PORTAL) == ""


async def test_a_fresh_sign_in_must_be_fresh(world, browser):
    await browser.sign_in()
    next(iter(world.providers.values())).claims = {"auth_time": 1_700_000_000}
    page = await browser.get(f"{ORIGIN}/.ztproxy/login?again=1")
    assert page.status == 403 and "prove again" in page.text


async def test_no_sign_in_without_the_audit(world, browser):
    world.full = True
    page = await browser.get(f"{APP}/x")
    assert page.status == 500 and browser.cookie(PORTAL) == ""
    assert await world.sessions.list() == []


async def test_sign_ins_under_way_are_bounded(world, browser, new_browser):
    start = f"{ORIGIN}/.ztproxy/start"
    for _ in range(600):
        assert (await browser.get(start, follow=False)).status == 303
    page = await browser.get(start, follow=False)
    assert page.status == 503 and "Too many sign-ins" in page.text
    assert (await new_browser(world, ip="192.0.2.8").get(start, follow=False)).status == 303
    world.clock.advance(601)
    assert (await browser.get(start, follow=False)).status == 303


async def test_who_is_locked_is_told_so_and_gets_no_session(world, browser):
    await browser.sign_in()
    (session,) = await world.sessions.list()
    locks = Locks(world.store, world.clock, os.urandom, world.witness, [])
    lock = await locks.add("user", session.principal.id, "laptop stolen", "root")
    world.clock.advance(1)
    page = await browser.get(f"{ORIGIN}/")
    assert page.status == 403 and "locked" in page.text and "administrator" in page.text
    assert "stolen" not in page.text and lock.id not in page.text
    assert len(await world.sessions.list()) == 1, "no other session was started"
    assert world.told[-1].event == "refused"
    await locks.remove(lock.id, "root")
    world.clock.advance(1)
    assert (await browser.get(f"{ORIGIN}/")).status == 200


async def test_the_provider_confirms_without_a_word_and_the_session_stays(world, browser):
    await browser.sign_in(f"{APP}/")
    (before,) = await world.sessions.list()
    cookies = browser.cookie(PORTAL), browser.cookie(SUPPORT)
    world.clock.advance(60)
    provider = next(iter(world.providers.values()))
    provider.person = provider.person | {"groups": ["guests"]}
    page = await browser.get(f"{APP}/.ztproxy/login?again=c&rd=%2Ftickets")
    assert page.status == 200 and page.url == f"{APP}/tickets"
    asked = next(url for url in page.trail if "/authorize" in url)
    assert "prompt=none" in asked
    (after,) = await world.sessions.list()
    assert after.id == before.id and browser.cookie(PORTAL) == cookies[0]
    assert (after.principal.groups, after.auth_time) == (("guests",), before.auth_time)
    assert after.checked_at == before.checked_at + 60_000


async def test_a_provider_that_has_to_ask_the_person_does(world, browser, monkeypatch):
    await browser.sign_in()
    world.clock.advance(60)
    provider = next(iter(world.providers.values()))
    honest = provider.authorize

    def authorize(url):
        asked = parse_qs(urlsplit(url).query)
        if asked.get("prompt") != ["none"]:
            return honest(url)
        answer = {"error": "login_required", "state": asked["state"][0], "iss": provider.issuer}
        return f"{asked['redirect_uri'][0]}?{urlencode(answer)}"

    monkeypatch.setattr(provider, "authorize", authorize)
    page = await browser.sign_in(f"{ORIGIN}/.ztproxy/login?again=c")
    assert page.status == 200
    assert len(await world.sessions.list()) == 1


async def test_somebody_else_at_the_provider_does_not_confirm_the_session(world, browser):
    await browser.sign_in()
    (before,) = await world.sessions.list()
    old = browser.cookie(PORTAL)
    world.clock.advance(60)
    provider = next(iter(world.providers.values()))
    provider.person = {"sub": "mallory", "name": "Mallory"}
    await browser.sign_in(f"{ORIGIN}/.ztproxy/login?again=c")
    (after,) = await world.sessions.list()
    assert after.id != before.id and after.principal.id == "corp:mallory"
    assert await world.sessions.find(old, PORTAL) is None
    assert (await world.sessions.get(before.id)).principal.id == "corp:carol"


def end_while_the_provider_answers(world, end):
    """The next exchange is under way when `end` happens; those after it are not disturbed."""
    provider = next(iter(world.providers.values()))

    async def token(request):
        provider.answers.pop("/token")
        await end()
        return await provider.on_token(request)

    provider.answers["/token"] = token


async def test_sessions_that_are_ended_while_somebody_signs_in_take_the_sign_in_along(
    world, browser, monkeypatch
):
    """Over again by itself, and not before that counts as later."""
    standings = Standings(world.store, world.clock, lambda _: None, 1 << 40)
    end_while_the_provider_answers(world, lambda: standings.end_sessions("user", "corp:carol", "cut by root"))
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        world.clock.advance(seconds)

    monkeypatch.setattr(sign_in.asyncio, "sleep", sleep)
    page = await browser.sign_in(f"{APP}/tickets")
    assert (page.status, page.url) == (200, f"{APP}/tickets")
    assert slept == [SKEW / 1000]
    (session,) = await world.sessions.list(ended=True)
    assert session.created_at >= (await standings.get("user", "corp:carol")).ended_before
    assert [(one.event, one.detail) for one in world.told] == [
        ("refused", "sessions were ended since it was begun"),
        ("started", "provider corp"),
    ]


async def test_who_is_ended_again_and_again_gets_no_session(world, browser, monkeypatch):
    standings = Standings(world.store, world.clock, lambda _: None, 1 << 40)

    async def end():
        await standings.end_sessions("user", "corp:carol", "cut by root")
        end_while_the_provider_answers(world, end)

    async def sleep(seconds):
        world.clock.advance(seconds)

    monkeypatch.setattr(sign_in.asyncio, "sleep", sleep)
    end_while_the_provider_answers(world, end)
    page = await browser.get(f"{ORIGIN}/")
    assert page.status == 403 and "ended while you signed in" in page.text and "Try again" in page.text
    assert await world.sessions.list(ended=True) == []


async def test_a_device_that_is_proved_with_it_counts_too(world, new_browser):
    device, _ = await world.enrol()
    standings = Standings(world.store, world.clock, lambda _: None, 1 << 40)

    async def end():
        await standings.end_sessions("device", device.id, "stolen")
        world.clock.advance(3)

    end_while_the_provider_answers(world, end)
    browser = new_browser(world, certificate=world.certificate(device))
    assert (await browser.sign_in()).status == 200
    assert [one.event for one in world.told].count("refused") == 1
    (session,) = await world.sessions.list(ended=True)
    assert session.device_id == device.id

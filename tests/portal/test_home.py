"""The first page, signing out, errors, and what every response carries."""

import json
import re
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ztproxy.model.subject import Check, Posture
from ztproxy.net.clock import FixedClock
from ztproxy.portal.allowance import Allowance
from ztproxy.portal.app import make
from ztproxy.portal.pages import span, words
from ztproxy.portal.site import Site
from ztproxy.portal.visitor import FLOW_COOKIE, Visitor, visitor_of
from ztproxy.store.interface import StoreUnavailable

PORTAL, SUPPORT = "portal.example", "support.example"
ORIGIN = f"https://{PORTAL}:8443"
APP = f"https://{SUPPORT}:8443"


async def test_what_can_be_reached_and_what_not(world, browser):
    page = await browser.sign_in()
    assert page.status == 200 and "Welcome, Carol" in page.text
    assert f'href="{APP}/"' in page.text and "The support &lt;desk&gt;" in page.text
    assert "Tickets &amp; more" in page.text
    assert "Only from &lt;healthy&gt; devices." in page.text
    assert 'href="https://wiki.example' not in page.text
    assert "Correct what the device check reports" in page.text and "Ask owner." in page.text
    assert "carol@example.com" in page.text and "pwd, otp" in page.text


async def test_names_are_escaped(world, browser):
    provider = next(iter(world.providers.values()))
    provider.claims = {"name": "<img src=x onerror=alert(1)>", "groups": ["<b>"]}
    page = await browser.sign_in()
    assert "<img src=x" not in page.text and "&lt;img src=x" in page.text
    assert "<b>" not in page.text


async def test_the_device_is_shown_with_the_ages_of_its_checks(world, browser):
    device, prove = await world.enrol(name="Carol's laptop")
    page = await browser.sign_in()
    assert "Not known" in page.text
    await browser.prove(prove)
    page = await browser.get(f"{ORIGIN}/")
    assert "Carol&#39;s laptop" in page.text and "No report" in page.text
    now = world.clock.now()
    posture = Posture(
        device_id=device.id,
        reported_at=now - 120_000,
        seq=1,
        source="agent",
        level="self",
        healthy=False,
        checks={
            "disk_encrypted": Check(result="fail", observed_at=now - 3_600_000),
            "firewall": Check(result="pass", observed_at=now),
        },
        os="Debian 12",
    )
    await world.store.put("posture", device.id, msgspec.msgpack.encode(posture))
    assert json.loads((await browser.prove(prove)).text)["wanting"] == ["Disk encrypted"]
    page = await browser.get(f"{ORIGIN}/")
    assert "Needs attention" in page.text and "2 minutes ago" in page.text and "1 hour ago" in page.text
    assert "Disk encrypted" in page.text and "Debian 12" in page.text
    world.clock.advance(15 * 60 - 120)
    assert "Needs attention" in (await browser.get(f"{ORIGIN}/")).text, "as old as may be"
    world.clock.advance(1)
    page = await browser.get(f"{ORIGIN}/")
    assert "Stale" in page.text and "Needs attention" not in page.text
    await world.devices.revoke(device.id, "ada")
    assert "Revoked" in (await browser.get(f"{ORIGIN}/")).text


async def test_without_a_session_home_signs_in(world, browser):
    page = await browser.get(f"{ORIGIN}/", follow=False)
    assert page.status == 303 and page.headers["Location"] == f"{ORIGIN}/.ztproxy/start"


@pytest.mark.parametrize("path", ["", "home", "callback?code=x", "start"])
async def test_portal_pages_of_an_app_host_lead_to_the_portal(world, browser, path):
    await browser.sign_in()
    assert (await browser.get(f"{APP}/.ztproxy/{path}")).url == f"{ORIGIN}/"


# signing out


def token_of(page):
    return re.search(r'name="token" value="([0-9a-f]{64})"', page.text)[1]


async def test_signing_out_ends_the_session_on_every_host(world, browser):
    await browser.sign_in(f"{APP}/")
    page = await browser.get(f"{ORIGIN}/")
    handles = {host: browser.cookie(host) for host in (PORTAL, SUPPORT)}
    out = await browser.post(f"{ORIGIN}/.ztproxy/sign-out", data={"token": token_of(page)})
    assert out.path == "/.ztproxy/signed-out" and "You are signed out" in out.text
    assert "Sign out of Corp sign-in too" in out.text and "/bye?" in out.text
    assert browser.cookie(PORTAL) == browser.cookie(PORTAL, FLOW_COOKIE) == ""
    for host, handle in handles.items():
        assert await world.sessions.find(handle, host) is None
    assert [record.detail for record in world.told if record.event == "ended"] == ["sign-out"]


async def test_signing_out_leaves_other_hosts_cookies_alone(world, browser):
    page = await browser.sign_in()
    out = await browser.go(
        "POST",
        f"{ORIGIN}/.ztproxy/sign-out",
        follow=False,
        data={"token": token_of(page)},
        headers={"Origin": ORIGIN},
    )
    assert out.status == 303 and out.headers["Clear-Site-Data"] == '"cache", "storage"'


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("0" * 64, {}),
        ("", {}),
        (None, {"Sec_Fetch_Site": "cross-site"}),
        (None, {"Sec_Fetch_Site": "same-site", "Origin": APP}),
        (None, {"Origin": "null"}),
    ],
)
async def test_other_sites_cannot_sign_anybody_out(world, browser, token, headers):
    page = await browser.sign_in()
    given = token_of(page) if token is None else token
    out = await browser.post(f"{ORIGIN}/.ztproxy/sign-out", data={"token": given}, **headers)
    assert out.status == 403
    assert len(await world.sessions.list()) == 1


async def test_a_form_without_any_word_of_its_origin_is_refused(world, browser):
    page = await browser.sign_in()
    out = await browser.go("POST", f"{ORIGIN}/.ztproxy/sign-out", data={"token": token_of(page)})
    assert out.status == 403


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded; charset=nowhere", b"token=x", 403),
        ("application/x-www-form-urlencoded", b"token=\xff", 400),
        ("application/x-www-form-urlencoded", b"token=%ED%A0%80", 403),
        ("application/x-www-form-urlencoded", b"a&" * 64, 400),
        ("application/x-www-form-urlencoded", b"token=" + b"x" * 2000, 413),
        ("multipart/form-data", b"x", 400),
        ("text/plain", b"token=x", 400),
    ],
)
async def test_what_is_no_form_of_ours_signs_nobody_out(world, browser, kind, body, status):
    await browser.sign_in()
    out = await browser.go(
        "POST", f"{ORIGIN}/.ztproxy/sign-out", data=body, headers={"Content-Type": kind, "Origin": ORIGIN}
    )
    assert out.status == status
    assert len(await world.sessions.list()) == 1


async def test_a_link_to_sign_out_asks_first(world, browser):
    await browser.sign_in(f"{APP}/")
    page = await browser.get(f"{APP}/.ztproxy/sign-out")
    assert page.status == 200 and "Sign out?" in page.text
    assert len(await world.sessions.list()) == 1
    out = await browser.post(f"{ORIGIN}/.ztproxy/sign-out", data={"token": token_of(page)})
    assert out.path == "/.ztproxy/signed-out"
    assert (await browser.get(f"{APP}/.ztproxy/sign-out")).path == "/.ztproxy/signed-out"


async def test_the_token_does_not_give_the_cookie_away(world, browser):
    page = await browser.sign_in()
    assert browser.cookie(PORTAL) not in page.text


# every response


@pytest.mark.parametrize(
    "path",
    ["/", "/.ztproxy/device", "/.ztproxy/sign-out", "/.ztproxy/signed-out", "/.ztproxy/done", "/nowhere"],
)
async def test_pages_are_private_strict_and_self_contained(world, browser, path):
    await browser.sign_in()
    page = await browser.get(ORIGIN + path)
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "same-origin"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
    for address in re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', page.text):
        assert address.startswith("/.ztproxy/static/")
    assert "style=" not in page.text and "<style" not in page.text


@pytest.mark.parametrize("name", ["portal.css", "device.js", "icon.svg"])
async def test_assets_are_ours_and_kept_by_their_content(world, browser, name):
    page = await browser.get(f"{APP}/.ztproxy/static/{name}?v=1")
    assert page.status == 200 and "immutable" in page.headers["Cache-Control"]
    assert (await browser.get(f"{APP}/.ztproxy/static/{name}")).headers["Cache-Control"] == "no-cache"
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")


async def test_errors_are_pages_for_people_and_problems_for_programs(world, browser):
    page = await browser.get(f"{ORIGIN}/nowhere")
    assert page.status == 404 and "There is nothing here" in page.text
    page = await browser.get(f"{ORIGIN}/nowhere", Accept="*/*")
    assert json.loads(page.text)["decision"] == "0123456789abcdef0123456789abcdef"
    page = await browser.go("DELETE", f"{ORIGIN}/.ztproxy/sign-out")
    assert page.status == 405 and page.headers["Allow"] == "GET,HEAD,POST"


async def test_a_request_that_did_not_come_through_the_gateway_is_refused(world):
    good = {"Zt-Host": PORTAL, "Zt-Request-Id": "0" * 32, "Zt-Client-Ip": "192.0.2.1"}
    for name in good:
        response = await world.client.get("/.ztproxy/done", headers=good | {name: "x"})
        assert response.status == 400
    assert (await world.client.get("/.ztproxy/done", headers=good)).status == 200


async def test_a_store_that_is_away_is_said_so(world, browser, monkeypatch):
    await browser.sign_in()

    async def away(*_):
        raise StoreUnavailable("disk on fire at /secret/path")

    monkeypatch.setattr(world.sessions, "find", away)
    page = await browser.get(f"{ORIGIN}/")
    assert page.status == 503 and "secret" not in page.text


async def test_a_bug_reveals_nothing(world, browser, monkeypatch):
    await browser.sign_in()

    async def bug(*_):
        raise ValueError("the password is hush")

    monkeypatch.setattr(world.sessions, "find", bug)
    page = await browser.get(f"{ORIGIN}/")
    assert page.status == 500 and "hush" not in page.text and "0123456789abcdef" in page.text


def test_an_allowance_is_bounded_in_every_way():
    clock = FixedClock()
    allowance = Allowance(clock, most=2, all_keys=3, seconds=10)
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
    assert allowance.take("b")
    assert not allowance.take("c"), "that is all for everybody"
    clock.advance(10)
    assert allowance.take("c") and allowance.take("a")


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_one_source_is_an_address_or_a_network_of_ipv6(ip, network):
    assert Visitor(request_id="", ip=ip, host="", handle="", flow="", user_agent="").network == network


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "moments"),
        (9_999, "moments"),
        (10_000, "10 seconds"),
        (60_000, "1 minute"),
        (7_200_000, "2 hours"),
        (86_400_000, "1 day"),
    ],
)
def test_spans(ms, text):
    assert span(ms) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("disk_encrypted", "Disk encrypted"), ("os_supported", "OS supported"), ("osquery", "Osquery")],
)
def test_names_of_checks(name, text):
    assert words(name) == text


async def test_routes_of_the_api_are_served_beside(world):
    """`make` takes further routes; their errors are problems, with the same strict headers."""

    async def broken(request):
        raise web.HTTPConflict

    app = make(
        site=Site(host=PORTAL, port=443, title="t", hosts=frozenset({PORTAL})),
        sessions=world.sessions,
        clients={},
        devices=world.devices,
        apps=None,
        records=world.store,
        clock=world.clock,
        entropy=bytes,
        routes=[web.get("/.ztproxy/api/x", broken)],
    )
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/.ztproxy/api/x")
        assert response.status == 409
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Server" not in response.headers


def test_a_browser_may_call_itself_anything():
    headers = {"Zt-Host": "portal.example", "Zt-Request-Id": "0" * 32, "Zt-Client-Ip": "192.0.2.7"}
    request = SimpleNamespace(headers=headers | {"User-Agent": "caf\udce9 \x1b[2J"}, cookies={})
    site = Site(host="portal.example", port=443, title="", hosts=frozenset({"portal.example"}))
    assert visitor_of(request, site).user_agent == "caf? ?[2J"

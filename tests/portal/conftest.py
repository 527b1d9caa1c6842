"""A portal on the real store, with real devices, a provider of our own, and browsers that behave."""

import base64
import importlib.util
import os
from html import unescape
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from msgspec import Struct

from ztproxy.administrator.devices import Devices
from ztproxy.administrator.issue import DEVICES, load_authority
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.crypto import statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign, signing_key
from ztproxy.model.request import ClientCertificate
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.net.clock import FixedClock
from ztproxy.net.keyfiles import new_key
from ztproxy.portal.app import make
from ztproxy.portal.site import Site
from ztproxy.portal.visitor import FLOW_COOKIE, SESSION_COOKIE
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.oidc import OpenIdClient
from ztproxy.trust.identity.provider import Provider

_spec = importlib.util.spec_from_file_location(
    "openid_provider", Path(__file__).parent.parent / "trust_identity" / "openid_provider.py"
)
openid = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openid)

PORTAL, SUPPORT, WIKI = "portal.example", "support.example", "wiki.example"
ORIGIN = f"https://{PORTAL}:8443"
ROUTES = [
    Route(
        name=host.partition(".")[0],
        app="",
        host=host,
        prefix="/",
        upstream=Upstream(scheme="http", host="127.0.0.1", port=1),
        title=f"The {host.partition('.')[0]} <desk>",
        description="Tickets & more",
    )
    for host in (SUPPORT, WIKI)
]


class Page(Struct):
    """What a browser ended on."""

    status: int
    url: str
    text: str
    headers: dict[str, str]
    trail: list[str]

    @property
    def path(self):
        return urlsplit(self.url).path

    @property
    def query(self):
        return {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}


class Apps:
    async def visible(self, session):
        return [
            (ROUTES[0], True, "", ()),
            (ROUTES[1], False, "Only from <healthy> devices.", ("fix-device", "ask-owner")),
        ]


class World:
    """Everything behind the gateway. `open` again is a restart of the control process."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = FixedClock()
        self.told = []
        self.providers = {}
        self.full = False

    def witness(self, record):
        if self.full:
            raise OSError("full")
        self.told.append(record)

    async def open(self, providers, http, agent_ports=(7643,)):
        self.store = await SqliteStore.open(self.folder / "ztproxy.db", self.clock.now)
        self.providers = {provider.issuer: provider for provider in providers}
        limits = Limits(idle=1_800_000, absolute=36_000_000)
        self.sessions = Sessions(self.store, self.clock, os.urandom, self.witness, limits)
        authority = load_authority(
            self.folder,
            DEVICES,
            trust_domain="corp.example",
            lifetime=86_400_000,
            clock=self.clock,
            entropy=os.urandom,
        )
        self.devices = Devices(self.store, self.clock, os.urandom, authority, self.witness, origin=ORIGIN)
        names = ["corp", "partner"]
        app = make(
            site=Site(
                host=PORTAL,
                port=8443,
                title="Corp access",
                hosts=frozenset({PORTAL, SUPPORT, WIKI}),
                agent_ports=agent_ports,
            ),
            sessions=self.sessions,
            clients={
                name: OpenIdClient(
                    Provider(
                        name=name,
                        title=f"{name.title()} sign-in",
                        issuer=provider.issuer,
                        client_id="zt",
                        client_secret="s",
                    ),
                    http,
                    self.clock,
                )
                for name, provider in zip(names, providers, strict=False)
            },
            devices=self.devices,
            apps=Apps(),
            records=self.store,
            clock=self.clock,
            entropy=os.urandom,
        )
        self.client = TestClient(TestServer(app), cookie_jar=aiohttp.DummyCookieJar())
        await self.client.start_server()

    async def close(self):
        await self.client.close()
        await self.store.close()

    async def enrol(self, owner="", name="laptop"):
        """Enrol a device; return it with a function that answers challenges as its agent does."""
        key = new_key()
        code = await self.devices.create_code(name, owner)
        enrolled = await self.devices.enrol(code, make_request(key, name))
        device = enrolled.device

        def prove(challenge, **changes):
            claims = statements.proof(device.id, challenge["audience"], challenge["nonce"], self.clock.now())
            return sign(claims | changes, signing_key(key, device.id), statements.PROOF)

        return device, prove

    def certificate(self, device, **changes):
        values = {
            "kind": "device",
            "bundle": "devices",
            "subject": f"spiffe://corp.example/device/{device.id}",
            "fingerprint": "f" * 64,
            "spki": device.spki,
            "not_before": 0,
            "not_after": 1 << 42,
            "serial": "01",
        }
        return ClientCertificate(**values | changes)


class Browser:
    """Keeps cookies per host and follows redirects, through what the gateway adds and to the provider."""

    def __init__(self, world, ip="192.0.2.7", certificate=None):
        self.world, self.ip, self.certificate = world, ip, certificate
        self.jar = {}
        self.keeps_cookies = True
        self.set_cookies = []

    def cookie(self, host, name=SESSION_COOKIE):
        return self.jar.get(host, {}).get(name, "")

    async def get(self, url, *, follow=True, **headers):
        return await self.go("GET", url, follow=follow, headers=headers)

    async def post(self, url, *, data=None, json=None, **headers):
        fetch = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.go("POST", url, data=data, json=json, headers=fetch)

    async def go(self, method, url, *, follow=True, **given):
        trail = []
        for _ in range(15):
            trail.append(url)
            page = await self.step(method, url, trail, **given)
            if page.status not in (302, 303) or not follow:
                return page
            method, url, given = "GET", urljoin(url, page.headers["Location"]), {}
        raise AssertionError(f"redirects without end: {trail}")

    async def step(self, method, url, trail, *, headers=None, data=None, json=None):
        parts = urlsplit(url)
        issuer = f"{parts.scheme}://{parts.netloc}"
        if issuer in self.world.providers:
            back = self.world.providers[issuer].authorize(url)
            return Page(302, url, "", {"Location": back}, trail)
        assert parts.port == 8443 and parts.hostname in (PORTAL, SUPPORT, WIKI), f"left for {url}"
        if parts.hostname != PORTAL and not parts.path.startswith("/.ztproxy/"):
            return await self.application(url, parts, trail)
        response = await self.world.client.request(
            method,
            url[len(f"https://{parts.netloc}") :],
            headers=self.fields(parts) | (headers or {}),
            data=data,
            json=json,
            allow_redirects=False,
        )
        self.keep(parts.hostname, response.headers.getall("Set-Cookie", []))
        fields = {name.title(): value for name, value in response.headers.items()}
        return Page(response.status, url, await response.text(), fields, trail)

    async def application(self, url, parts, trail):
        """What gateway and application answer: 200 with a good handle, else the way to the login."""
        session = await self.world.sessions.find(self.cookie(parts.hostname), parts.hostname)
        if session is not None:
            return Page(200, url, session.id, {}, trail)
        query = urlencode({"rd": parts.path + (f"?{parts.query}" if parts.query else "")})
        return Page(303, url, "", {"Location": f"/.ztproxy/login?{query}"}, trail)

    def fields(self, parts):
        fields = {
            "Zt-Request-Id": "0123456789abcdef0123456789abcdef",
            "Zt-Client-Ip": self.ip,
            "Zt-Host": parts.netloc,
            "Accept": "text/html,*/*;q=0.8",
            "User-Agent": "Tester/1",
        }
        cookies = self.jar.get(parts.hostname, {})
        if cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if self.certificate is not None:
            data = base64.urlsafe_b64encode(msgspec.json.encode(self.certificate))
            fields["Zt-Certificate"] = data.rstrip(b"=").decode()
        return fields

    def keep(self, host, lines):
        for line in lines:
            self.set_cookies.append((host, line))
            ((name, morsel),) = SimpleCookie(line).items()
            assert name in (SESSION_COOKIE, FLOW_COOKIE)
            assert morsel["secure"] and morsel["httponly"] and morsel["path"] == "/"
            assert not morsel["domain"] and morsel["samesite"] == "Lax"
            if morsel["max-age"] == "0" or not morsel.value:
                self.jar.get(host, {}).pop(name, None)
            elif self.keeps_cookies:
                self.jar.setdefault(host, {})[name] = morsel.value

    async def sign_in(self, url=f"{ORIGIN}/"):
        """Go somewhere, signing in on the way, and past the device check without an agent."""
        page = await self.get(url)
        while page.path == "/.ztproxy/device":
            page = await self.get(self.onward(page))
        return page

    @staticmethod
    def onward(page):
        return unescape(page.text.partition('data-onward="')[2].partition('"')[0])

    async def challenge(self):
        return await self.post(f"{ORIGIN}/.ztproxy/device/nonce", json={})

    async def prove(self, prove, **changes):
        """Do what the device page's script does."""
        challenge = msgspec.json.decode((await self.challenge()).text)
        body = {"nonce": challenge["nonce"], "proof": prove(challenge, **changes)}
        return await self.post(f"{ORIGIN}/.ztproxy/device/proof", json=body)


@pytest.fixture
async def providers():
    made, servers = [], []
    for _ in range(2):
        provider = openid.OpenIdProvider()
        server = TestServer(provider.app())
        await server.start_server()
        provider.issuer = str(server.make_url("")).rstrip("/")
        made.append(provider)
        servers.append(server)
    yield made
    for server in servers:
        await server.close()


@pytest.fixture
async def world(tmp_path, providers):
    """One provider, an agent configured."""
    world = World(tmp_path)
    async with http_session() as http:
        await world.open(providers[:1], http)
        yield world
        await world.close()


@pytest.fixture
async def two(tmp_path, providers):
    """Two providers, no agent configured."""
    world = World(tmp_path)
    async with http_session() as http:
        await world.open(providers, http, agent_ports=())
        yield world
        await world.close()


@pytest.fixture
def browser(world):
    return Browser(world)


@pytest.fixture
def new_browser():
    return Browser

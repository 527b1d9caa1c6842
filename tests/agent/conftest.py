"""A portal over real TLS: the API for agents on a real store, behind headers as the gateway sends them."""

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from ztproxy.administrator.devices import Devices
from ztproxy.administrator.issue import DEVICES, load_authority
from ztproxy.api import devices as device_api
from ztproxy.crypto import issue, template
from ztproxy.model.record import SessionRecord
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock
from ztproxy.store.sqlite import SqliteStore

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PortalUnderTest:
    """What agents speak to. `stop` and `start` are an outage."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.origin = f"https://portal.example.localhost:{port}"
        self.ca = folder / "portal-ca.pem"
        self.clock = SystemClock()
        self.lifetime = 3_600_000
        self.told: list[SessionRecord] = []
        self.shown: list[str | None] = []  # subject of the client certificate of each request
        self.devices: Devices

    async def prepare(self) -> None:
        self.store = await SqliteStore.open(self.folder / "ztproxy.db", self.clock.now)
        authority = load_authority(
            self.folder,
            DEVICES,
            trust_domain="corp.example",
            lifetime=self.lifetime,
            clock=self.clock,
            entropy=os.urandom,
        )
        self.devices = Devices(
            self.store, self.clock, os.urandom, authority, self.told.append, origin=self.origin
        )
        self._make_certificate()

    def _make_certificate(self) -> None:
        now, root_key, key = self.clock.now(), keyfiles.new_key(), keyfiles.new_key()
        root = issue.create_authority("Test", root_key, template.term(now, 3_600_000, os.urandom))
        term = template.term(now, 3_600_000, os.urandom)
        leaf = issue.issue_server(root, key.public_key(), term, dns_names=("portal.example.localhost",))
        self.ca.write_text(issue.pem(root.certificate))
        (self.folder / "server.pem").write_text(issue.pem(leaf))
        (self.folder / "server.key").write_bytes(keyfiles.key_pem(key))

    async def start(self) -> None:
        @web.middleware
        async def gateway(request: web.Request, handler: Handler) -> web.StreamResponse:
            assert request.transport is not None
            certificate = request.transport.get_extra_info("peercert") or {}
            names = dict(certificate.get("subjectAltName", ()))
            self.shown.append(names.get("URI"))
            headers = request.headers.copy()
            headers["Zt-Host"], headers["Zt-Client-Ip"] = request.headers["Host"], "203.0.113.7"
            return await handler(request.clone(headers=headers))

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.folder / "ca/devices.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        application = web.Application(middlewares=[gateway])
        application.add_routes(device_api.routes(self.devices, self.clock))
        self.runner = web.AppRunner(application, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=context).start()

    async def stop(self) -> None:
        await self.runner.cleanup()


@pytest.fixture
async def portal(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[PortalUnderTest]:
    folder = tmp_path / "portal"
    folder.mkdir()
    portal = PortalUnderTest(folder, free_port())
    await portal.prepare()
    await portal.start()
    yield portal
    await portal.stop()
    await portal.store.close()

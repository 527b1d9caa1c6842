"""The endpoints for agents on a real store, behind headers as the gateway sends them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from ztproxy.administrator.devices import Devices
from ztproxy.administrator.issue import DEVICES, Assertions, load_assertions, load_authority
from ztproxy.api import devices as device_api
from ztproxy.api import keys as key_api
from ztproxy.model.record import SessionRecord
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore

ORIGIN = "https://portal.example:8443"


class Service:
    """The API and what is behind it."""

    def __init__(self, store: SqliteStore, folder: Path, clock: FixedClock) -> None:
        authority = load_authority(
            folder, DEVICES, trust_domain="corp.example", lifetime=3_600_000, clock=clock, entropy=os.urandom
        )
        self.clock = clock
        self.store = store
        self.told: list[SessionRecord] = []
        self.assertions: Assertions = load_assertions(folder)
        self.devices = Devices(store, clock, os.urandom, authority, self.told.append, origin=ORIGIN)
        self.client: TestClient[web.Request, web.Application]

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(device_api.routes(self.devices, self.clock))
        application.add_routes(key_api.routes(self.assertions))
        return application

    async def post(
        self,
        path: str,
        *,
        ip: str = "203.0.113.7",
        host: str = "portal.example:8443",
        content_type: str = "application/jose",
        **body: Any,
    ) -> ClientResponse:
        headers = {"Zt-Client-Ip": ip, "Zt-Host": host}
        if "json" not in body:
            headers["Content-Type"] = content_type
        return await self.client.post(path, headers=headers, **body)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    service = Service(store, tmp_path, clock)
    async with TestClient(TestServer(service.application())) as client:
        service.client = client
        yield service
    await store.close()

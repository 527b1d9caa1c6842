"""The signals of a control process on a real store, over real HTTP, with a transmitter that is not ours."""

import os
import sys
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

sys.path.insert(0, str(Path(__file__).parents[1] / "trust_signals"))

import caep_transmitter

from ztproxy.administrator.locks import Locks
from ztproxy.administrator.sessions import Limits, Sessions
from ztproxy.administrator.standing import Standings
from ztproxy.model.subject import Device, Principal
from ztproxy.net.clock import SystemClock
from ztproxy.portal.app import _edge
from ztproxy.service import signals
from ztproxy.store.sqlite import SqliteStore
from ztproxy.telemetry.metrics import Counters
from ztproxy.trust.identity.provider import Provider, SignIn
from ztproxy.trust.signals.transmitter import Transmitter

IDP = "https://idp.example"
AUTHORIZATION = "Bearer agreed-on"


class Devices:
    """Two devices: one by its id, one that an administrator named after its serial number."""

    def __init__(self):
        self.known = {
            "dev_laptop": Device(id="dev_laptop", name="Laptop", spki="00"),
            "dev_phone": Device(id="dev_phone", name="SERIAL-7", spki="01"),
        }

    async def get(self, device_id):
        return self.known.get(device_id)

    async def list(self):
        return list(self.known.values())


class Node:
    """What a control process has of signals."""

    def __init__(self, folder, transmitter):
        self.folder = folder
        self.remote = transmitter
        self.clock = SystemClock()
        self.records = []
        self.counters = Counters("control")

    async def open(self, port=0, **changes):
        self.stack = AsyncExitStack()
        self.store = await SqliteStore.open(self.folder / "ztproxy.db", self.clock.now)
        self.stack.push_async_callback(self.store.close)
        witness = self.records.append
        self.sessions = Sessions(
            self.store, self.clock, os.urandom, witness, Limits(idle=1_800_000, absolute=36_000_000)
        )
        self.locks = Locks(self.store, self.clock, os.urandom, witness, ())
        self.standings = Standings(self.store, self.clock, witness, 36_000_000)
        self.transmitter = Transmitter(
            **{
                "name": "tx",
                "issuer": self.remote.issuer,
                "audiences": (self.remote.audience,),
                "delivery": "push",
                "providers": ("corp",),
                "authorization": AUTHORIZATION,
                "events": tuple(caep_transmitter.EXAMPLES),
                "managed": False,
                "verify_every": 1000,
                "token": "management-token",
            }
            | changes
        )
        provider = Provider(name="corp", title="Corp", issuer=IDP, client_id="zt")
        settings = SimpleNamespace(
            transmitters=lambda: (self.transmitter,),
            providers=lambda: (provider,),
            trust_domain="corp.example",
            portal=SimpleNamespace(host="portal.example"),
            files=SimpleNamespace(laid_out=_nothing),
        )
        parts = signals.Parts(
            records=self.store,
            clock=self.clock,
            audit=SimpleNamespace(signal=witness),
            counters=self.counters,
            sessions=self.sessions,
            devices=Devices(),
            locks=self.locks,
            standings=self.standings,
            clients={},
        )
        told = await signals.make(settings, parts, self.stack)

        @web.middleware
        async def as_gateway(request, handler):
            headers = request.headers.copy()
            headers.setdefault("Zt-Host", "portal.example:8443")
            return await handler(request.clone(headers=headers))

        app = web.Application(middlewares=[as_gateway, _edge])
        app.add_routes(told.routes())
        self.server = TestServer(app, port=port or None)
        await self.server.start_server()
        self.stack.push_async_callback(self.server.close)
        self.stack.push_async_callback(told.stop)
        self.url = str(self.server.make_url("/.ztproxy/signals/push/tx"))
        self.told = told
        return self

    async def close(self):
        await self.stack.aclose()

    async def sign_in(self, name="carol", sid="", email="carol@corp.example", device=""):
        person = Principal(kind="User", id=f"corp:{name}", issuer=IDP, name=name, email=email)
        now = self.clock.now()
        session = await self.sessions.start(
            SignIn(principal=person, provider="corp", auth_time=now, sid=sid, began=now, asked_at=now)
        )
        if device:
            await self.sessions.bind_device(session.id, device, self.clock.now())
        return session

    async def ended(self, session):
        return bool((await self.sessions.get(session.id)).ended_at)

    async def push(self, token, **headers):
        return await self.remote.push(token, self.url, AUTHORIZATION, **headers)

    def outcomes(self):
        return [record.outcome for record in self.records if type(record).__name__ == "SignalRecord"]


@contextmanager
def _nothing():
    yield lambda path: path


@pytest.fixture
async def transmitter():
    remote = caep_transmitter.Transmitter()
    server = TestServer(remote.app())
    await server.start_server()
    remote.issuer = str(server.make_url("")).rstrip("/")
    yield remote
    await server.close()


@pytest.fixture
async def make_node(tmp_path, transmitter):
    async with AsyncExitStack() as stack:

        async def make(transmitter=transmitter, **changes):
            node = await Node(tmp_path, transmitter).open(**changes)
            stack.push_async_callback(node.close)
            return node

        yield make


@pytest.fixture
async def node(make_node):
    return await make_node()

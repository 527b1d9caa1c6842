"""What ends trust, one by one: whom it is about, and how it is brought about. Used by `bench.cut`.

Each cause makes somebody whom nobody else's cause touches. It is sent to one node and has to hold on all.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import msgspec

from bench.callers import Door, now, tls_to
from bench.nodes import APP, CELLS, MACHINES, PORTAL, Estate, Node
from bench.outside import AUTHORIZATION, Outside
from bench.people import Person, sign_in
from ztproxy.model.endpoints import LOGOUT, POSTURE, SIGNALS
from ztproxy.model.subject import Session
from ztproxy.net.names import Resolver
from ztproxy.portal.home import _token as form_token
from ztproxy.store.interface import Records

EXPIRES_IN = 1500  # ms from the sign-in: the streams have to stand before
IDLE = 1000  # ms without a question


class NotDone(Exception):
    """A cause was refused."""


@dataclass(frozen=True)
class Stage:
    """What causes are brought about with. `turn` counts trials, so that the nodes take turns."""

    estate: Estate
    records: Records
    outside: Outside
    http: aiohttp.ClientSession
    turn: int = 0

    @property
    def node(self) -> Node:
        """Return the node that is told."""
        return self.estate.nodes[self.turn % len(self.estate.nodes)]

    async def post(self, host: str, path: str, data: object, **fields: str) -> None:
        """Post to a host of ours. Raises NotDone."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        url = f"https://{host}:{self.node.port}{path}"
        async with self.http.post(url, data=data, headers=headers, allow_redirects=False) as answer:
            if answer.status >= 400:
                raise NotDone(f"{path}: {answer.status} {(await answer.text())[:300]}")

    async def ask(self, path: str, body: object, method: str = "POST") -> object:
        """Ask the administrator's API. Raises ztproxy.cli.admin.Refused."""
        return await self.node.ask(method, path, body)


@dataclass(frozen=True)
class Victim:
    """Who is cut: doors of all nodes, and the prefix below which everything is asked for."""

    doors: Sequence[Door]
    person: Person | None = None
    prefix: str = "/"
    what: str = ""  # what is locked, for some causes
    due: float = 0.0  # when it happens by itself, on our clock; 0 = when it is brought about
    idle: float = 0.0  # seconds after the last question in which it happens by itself


@dataclass(frozen=True)
class Cause:
    """One cause: `make` somebody, then `fire`, which returns when it is acknowledged."""

    name: str
    make: Callable[[Stage], Awaitable[Victim]]
    fire: Callable[[Stage, Victim], Awaitable[None]]
    after: Callable[[Stage, Victim], Awaitable[None]] | None = None


# ------------------------------------------------------------------ victims


async def a_person(stage: Stage, prefix: str = "/", *, what: str = "", **how: Any) -> Victim:
    """Return somebody who has just signed in."""
    person = await sign_in(stage.records, **how)
    return Victim(doors(stage.estate, person.cookie), person, prefix, what)


def doors(estate: Estate, cookie: str) -> list[Door]:
    """Return the doors of all nodes for a cookie."""
    tls = tls_to(estate.root / "ca.pem")
    return [Door(node.port, APP, tls, cookie) for node in estate.nodes]


async def somebody(stage: Stage) -> Victim:
    """Return a person on the common route."""
    return await a_person(stage)


async def on_device(stage: Stage) -> Victim:
    """Return a person on the route that wants a healthy device."""
    return await a_person(stage, "/device/")


async def on_cell(stage: Stage) -> Victim:
    """Return a person on a route of their own."""
    number = stage.turn % CELLS
    return await a_person(stage, f"/cell{number}/", what=f"cell{number}")


async def of_issuer(stage: Stage) -> Victim:
    """Return a person from a provider of their own."""
    provider = f"provider-{stage.turn}"
    return await a_person(stage, what=provider, provider=provider)


async def asked_again(stage: Stage) -> Victim:
    """Return a person about whom the provider can be asked again."""
    return await a_person(stage, asked_again=True)


async def asked_often(stage: Stage) -> Victim:
    """Return such a person on the route for which the provider is asked all the time."""
    return await a_person(stage, "/fresh/", asked_again=True)


async def of_group(stage: Stage) -> Victim:
    """Return a person whose group alone opens a route, by the policies in force."""
    return await a_person(stage, "/reload/", groups=("staff", "leaving"))


async def a_machine(stage: Stage) -> Victim:
    """Return a workload with a certificate of its own."""
    estate = stage.estate
    cert, key, fingerprint = await asyncio.to_thread(estate.identity, f"/machine-{stage.turn}")
    tls = tls_to(estate.root / "ca.pem", cert, key)
    return Victim([Door(node.port, MACHINES, tls) for node in estate.nodes], what=fingerprint)


async def about_to_expire(stage: Stage) -> Victim:
    """Return a person whose session is over in a moment."""
    victim = await a_person(stage, lifetime=EXPIRES_IN)
    return replace(victim, due=await _end_of(stage, victim))


async def about_to_idle(stage: Stage) -> Victim:
    """Return a person whose session is over when nothing is asked of it for a moment."""
    victim = await a_person(stage, idle=IDLE)
    return replace(victim, idle=IDLE / 1000)


async def _end_of(stage: Stage, victim: Victim) -> float:
    """Return when the session is over, on our clock."""
    assert victim.person is not None
    stored = await stage.records.get("session", victim.person.session)
    assert stored is not None
    session = msgspec.msgpack.decode(stored.value, type=Session)
    return now() + session.expires_at / 1000 - time.time()


# ------------------------------------------------------------------ causes


async def _cut(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    await stage.ask(f"/v1/sessions/{victim.person.session}/end", {"by": "bench"})


async def _sign_out(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    cookie = victim.person.portal_cookie
    await stage.post(
        PORTAL,
        "/.ztproxy/sign-out",
        {"token": form_token(cookie)},
        Cookie=f"__Host-ztproxy={cookie}",
        Origin=stage.estate.origin,
    )


async def _end_all(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    await stage.ask(f"/v1/users/{victim.person.principal}/end", {"by": "bench"})


async def _revoke(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    await stage.ask(f"/v1/devices/{victim.person.device}/revoke", {"by": "bench"})


async def _unhealthy(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    report = victim.person.report(stage.estate.origin, healthy=False)
    await stage.post(PORTAL, POSTURE, report, Content_Type="application/jose")


async def _push(stage: Stage, token: str) -> None:
    fields = {"Content_Type": "application/secevent+jwt", "Authorization": AUTHORIZATION}
    await stage.post(PORTAL, SIGNALS + "push/corp", token, Accept="application/json", **fields)


def _signal(name: str, **members: object) -> Callable[[Stage, Victim], Awaitable[None]]:
    async def fire(stage: Stage, victim: Victim) -> None:
        assert victim.person is not None
        subject = stage.outside.person(victim.person.subject)
        await _push(stage, stage.outside.event(name, subject, **members))

    return fire


async def _not_compliant(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    device = {"format": "complex", "device": {"format": "opaque", "id": victim.person.device}}
    told = {"current_status": "not-compliant", "previous_status": "compliant"}
    await _push(stage, stage.outside.event("device-compliance-change", device, **told))


async def _claims_changed(stage: Stage, victim: Victim) -> None:
    await _no_group(stage, victim)
    await _signal("token-claims-change", claims={"groups": []})(stage, victim)


async def _no_group(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    stage.outside.groups[victim.person.subject] = []


async def _gone(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    stage.outside.gone.add(victim.person.subject)


async def _logged_out(stage: Stage, victim: Victim) -> None:
    assert victim.person is not None
    token = stage.outside.logout(victim.person.subject, victim.person.sid)
    await stage.post(PORTAL, LOGOUT + "corp", {"logout_token": token})


async def _reload(stage: Stage, _: Victim) -> None:
    stage.estate.permit(["staying"])
    await _reload_all(stage)


async def _let_in(stage: Stage, _: Victim) -> None:
    stage.estate.permit(["staying", "leaving"])
    await _reload_all(stage)


async def _reload_all(stage: Stage) -> None:
    nodes = stage.estate.nodes
    for told in await asyncio.gather(
        *(node.ask("POST", "/v1/node/reload", {"by": "bench"}) for node in nodes)
    ):
        if not told["done"]:
            raise NotDone(f"reload: {told}")


async def _nothing(_: Stage, victim: Victim) -> None:
    await asyncio.sleep(max(0.0, victim.due - now()))


def _lock(target: str, value: Callable[[Victim], str]) -> Callable[[Stage, Victim], Awaitable[None]]:
    async def fire(stage: Stage, victim: Victim) -> None:
        await stage.ask("/v1/locks", {"target": target, "value": value(victim), "reason": "bench"})

    return fire


def _of(attribute: str) -> Callable[[Victim], str]:
    return lambda victim: str(getattr(victim.person, attribute))


def _what(victim: Victim) -> str:
    return victim.what


CAUSES = [
    Cause("session cut", somebody, _cut),
    Cause("signed out", somebody, _sign_out),
    Cause("sessions ended", somebody, _end_all),
    Cause("device revoked", on_device, _revoke),
    Cause("posture unhealthy", on_device, _unhealthy),
    Cause("policy reloaded", of_group, _reload, after=_let_in),
    Cause("session expired", about_to_expire, _nothing),
    Cause("session idle", about_to_idle, _nothing),
    Cause("person locked", somebody, _lock("user", _of("principal"))),
    Cause("device locked", on_device, _lock("device", _of("device"))),
    Cause("session locked", somebody, _lock("session", _of("session"))),
    Cause("route locked", on_cell, _lock("route", _what)),
    Cause("issuer locked", of_issuer, _lock("issuer", _what)),
    Cause("credential locked", a_machine, _lock("credential", _what)),
    Cause("session-revoked", somebody, _signal("session-revoked")),
    Cause(
        "credential-change",
        somebody,
        _signal("credential-change", credential_type="password", change_type="revoke"),
    ),
    Cause("device-compliance-change", on_device, _not_compliant),
    Cause(
        "risk-level-change",
        somebody,
        _signal("risk-level-change", principal="USER", current_level="HIGH", previous_level="LOW"),
    ),
    Cause("account-disabled", somebody, _signal("account-disabled", reason="hijacking")),
    Cause("back-channel logout", somebody, _logged_out),
    Cause("token-claims-change", asked_again, _claims_changed),
    Cause("group removed", asked_often, _no_group),
    Cause("grant withdrawn", asked_often, _gone),
]

#: In the quick form: those that need no time of their own.
QUICK = [
    "session cut",
    "signed out",
    "device revoked",
    "posture unhealthy",
    "person locked",
    "device locked",
    "session-revoked",
    "back-channel logout",
    "policy reloaded",
]


def session_to(estate: Estate) -> aiohttp.ClientSession:
    """Return a client for hosts of ours; close it. Needs a running loop."""
    tls = tls_to(estate.root / "ca.pem")
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, resolver=Resolver()),
        timeout=aiohttp.ClientTimeout(total=20),
        cookie_jar=aiohttp.DummyCookieJar(),
    )

"""What ends sessions while a sign-in is under way, or dies half-way: nothing older than the end lives,
and nothing an ended session was granted stays."""

import asyncio
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp.test_utils import TestServer

from ztproxy.administrator.expiry import Expiry
from ztproxy.administrator.sessions import Limits, Sessions, SignInOverdue
from ztproxy.administrator.signals.logouts import Logouts
from ztproxy.administrator.standing import Standings
from ztproxy.administrator.vault import Vault
from ztproxy.administrator.whose import Whose
from ztproxy.model.subject import Principal
from ztproxy.net.clock import FixedClock
from ztproxy.store.sqlite import SqliteStore
from ztproxy.trust.identity.fetch import http_session
from ztproxy.trust.identity.logout import Logout
from ztproxy.trust.identity.oidc import Attempt, OpenIdClient
from ztproxy.trust.identity.provider import Confirmed, Granted, Provider, SignIn

_spec = importlib.util.spec_from_file_location(
    "openid_provider", Path(__file__).with_name("openid_provider.py")
)
openid = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openid)

CAROL = Principal(kind="User", id="corp:carol", name="Carol")


class Died(BaseException):
    """The process is gone: nothing of it runs any more."""


class Store:
    """A store on which something happens before or after the n-th operation."""

    def __init__(self, store):
        self.store = store
        self.count = 0
        self.at = -1
        self.after = False
        self.what = None

    def arm(self, at, what, *, after=False):
        self.count, self.at, self.what, self.after = 0, at, what, after

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if name not in ("get", "put", "delete", "scan"):
            return found

        async def call(*args, **options):
            number, self.count = self.count, self.count + 1
            here = number == self.at
            if here and not self.after:
                await self.what()
            done = await found(*args, **options)
            if here and self.after:
                await self.what()
            return done

        return call


class World:
    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.faulty = Store(store)
        self.given_back = []
        self.sessions = self.node(self.faulty)
        self.other = self.node(store)  # where ends come from
        self.standings = Standings(store, clock, lambda _: None, 1 << 40)
        self.logouts = Logouts(store, clock, Whose(store), self.other, self.standings)

    def node(self, store):
        vault = Vault(store, lambda provider, granted: self.given_back.append(granted.refresh_token))
        limits = Limits(idle=36_000_000, absolute=36_000_000)
        return Sessions(store, self.clock, os.urandom, lambda _: None, limits, vault)

    def proof(self, token="refresh", **changes):
        now = self.clock.now()
        proof = SignIn(
            principal=CAROL,
            provider="corp",
            auth_time=now,
            sid="s1",
            granted=Granted(refresh_token=token),
            began=now - 5_000,
            asked_at=now - 1_000,
        )
        return type(proof)(**{name: getattr(proof, name) for name in proof.__struct_fields__} | changes)

    async def kept(self):
        return [one.key for one in await self.store.scan("tokens")]

    async def living(self):
        found = [one.key for one in await self.store.scan("session")]
        return [one for one in found if await self.other.live(one) is not None]

    def logout(self, sid="s1", sub="carol"):
        now = self.clock.now()
        jti = os.urandom(8).hex()
        return Logout(jti=jti, sub=sub, sid=sid, issued_at=now, expires_at=now + 60_000)


@pytest.fixture
async def world(tmp_path):
    clock = FixedClock()
    store = await SqliteStore.open(tmp_path / "ztproxy.db", clock.now)
    yield World(store, clock)
    await store.close()


ENDS: dict[str, Callable[[World], object]] = {
    "all sessions of the person": lambda world: world.standings.end_sessions("user", CAROL.id, "root"),
    "all that began by now": lambda world: world.standings.note(
        "user", CAROL.id, by="signals:tx", ended_before=world.clock.now()
    ),
    "the device's": lambda world: world.standings.end_sessions("device", "dev_1", "root"),
    "logout by sid": lambda world: world.logouts.end("corp", world.logout(sub="")),
    "logout by sid and sub": lambda world: world.logouts.end("corp", world.logout()),
    "logout by sub": lambda world: world.logouts.end("corp", world.logout(sid="")),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_sign_in_that_was_begun_before_the_end_starts_nothing(world, end):
    proof = world.proof()
    await ENDS[end](world)
    world.clock.advance(5)
    with pytest.raises(SignInOverdue) as overdue:
        await world.sessions.start(proof, on="dev_1")
    assert await world.store.scan("session") == [] and await world.kept() == []
    assert world.given_back == ["refresh"]
    assert overdue.value.until <= world.clock.now()
    later = world.proof(began=overdue.value.until)
    assert await world.other.live((await world.sessions.start(later, on="dev_1")).id)


async def test_a_session_without_a_name_falls_with_a_logout_of_the_person(world):
    """The provider names sessions in its logouts, and has not named this one."""
    proof = world.proof(sid="")
    await world.logouts.end("corp", world.logout(sid="s7"))
    with pytest.raises(SignInOverdue):
        await world.sessions.start(proof)


async def test_others_are_not_concerned(world):
    proofs = [
        world.proof(sid="s2"),
        world.proof(principal=Principal(kind="User", id="corp:bob", name="Bob")),
        world.proof(provider="partner", principal=Principal(kind="User", id="partner:carol", name="Carol")),
    ]
    await world.logouts.end("corp", world.logout(sub=""))
    await world.standings.end_sessions("device", "dev_2", "root")
    started = [await world.sessions.start(proof, on="dev_1") for proof in (proofs[0], proofs[2])]
    assert all([await world.other.live(one.id) for one in started])
    with pytest.raises(SignInOverdue):  # the same name at the same provider: whoever has it signs in again
        await world.sessions.start(proofs[1])


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_at_any_moment_of_the_start_is_the_end(world, end):
    number = 0
    while True:

        async def happens():
            world.clock.advance(0.001)
            await ENDS[end](world)

        world.clock.advance(3_600)
        began = world.clock.now()
        world.faulty.arm(number, happens)
        try:
            session = await world.sessions.start(world.proof(sid="s1", began=began), on="dev_1")
            await world.sessions.bind_device(session.id, "dev_1", world.clock.now())
        except SignInOverdue:
            pass
        if world.faulty.count <= number:
            assert len(await world.living()) == 1, "nothing happened"
            break
        assert await world.living() == [], f"lives on after the end at operation {number}"
        number += 1
    assert number > 8


async def test_whoever_dies_between_the_end_and_the_forgetting_leaves_nothing(world):
    """At every operation, before and after its effect; and no grant is lost before the session is over."""
    number, after = 0, False
    while True:

        async def dies():
            raise Died

        session = await world.sessions.start(world.proof(began=world.clock.now()))
        world.faulty.arm(number, dies, after=after)
        died = False
        try:
            await world.sessions.end(session.id, "cut by root")
        except Died:
            died = True
        world.faulty.arm(-1, None)
        over = (await world.other.get(session.id)).ended_at > 0
        assert over or await world.kept() == [session.id], "not lost before the end"
        await Expiry(world.store, world.store, world.clock.now).sweep(world.other)  # after a restart
        assert await world.kept() == ([] if over else [session.id])
        if not over:
            await world.other.end(session.id, "x")
        if not died:
            break
        number, after = (number, True) if not after else (number + 1, False)
    assert number >= 4
    assert len(world.given_back) >= number


async def test_whoever_dies_in_a_start_leaves_no_grant_without_a_session(world):
    number = 0
    while True:

        async def dies():
            raise Died

        world.faulty.arm(number, dies)
        try:
            await world.sessions.start(world.proof(began=world.clock.now()))
            break
        except Died:
            number += 1
        sessions = {one.key for one in await world.store.scan("session")}
        assert set(await world.kept()) <= sessions
    assert number > 6


async def test_what_another_node_left_behind_is_found_from_the_feed(world):
    expiry = Expiry(world.store, world.store, world.clock.now)
    session = await world.sessions.start(world.proof(began=world.clock.now()))
    await expiry.sweep(world.other)
    assert await world.kept() == [session.id]

    async def dies():
        raise Died

    world.faulty.arm(2, dies)  # read, written, and then
    with pytest.raises(Died):
        await world.sessions.end(session.id, "cut by root")
    assert (await world.other.get(session.id)).ended_at and await world.kept() == [session.id]
    await expiry.sweep(world.other)
    assert await world.kept() == [] and world.given_back == ["refresh"]


async def test_a_confirmation_that_comes_after_the_end_keeps_nothing(world):
    """At each operation of it: the browser comes back from the provider while the session is ended."""
    number = 0
    while True:
        session = await world.sessions.start(world.proof(began=world.clock.now()))

        async def ends(session=session):
            await world.other.end(session.id, "cut by root")

        world.faulty.arm(number, ends)
        anew = world.proof(token="anew", began=world.clock.now())
        await world.sessions.confirm_anew(session.id, anew)
        if world.faulty.count <= number:
            break
        assert await world.living() == []
        assert await world.kept() == [], f"kept after the end at operation {number}"
        number += 1
    assert number == 4


async def test_a_renewed_grant_is_given_back_and_not_the_one_before(world):
    session = await world.sessions.start(world.proof(began=world.clock.now()))
    vault = Vault(world.faulty, lambda _, granted: world.given_back.append(granted.refresh_token))
    found = await vault.read(session.id)

    async def renewed():
        held = type(found.held)(provider="corp", granted=Granted(refresh_token="second"), expires_at=1 << 45)
        assert await Vault(world.store, None).write(session.id, held, found.version)

    world.faulty.arm(1, renewed)  # read, and before it is deleted
    await vault.forget(session.id)
    assert world.given_back == ["second"] and await world.kept() == []


async def test_what_was_told_before_a_signal_does_not_settle_it(world):
    """The provider was asked, then claims changed, then the session began: it has to be asked again."""
    session = await world.sessions.start(
        world.proof(began=world.clock.now(), asked_at=world.clock.now() - 700)
    )
    assert session.checked_at == world.clock.now() - 700
    world.clock.advance(60)
    said = Confirmed(principal=CAROL)
    confirmed = await world.sessions.confirm(session.id, said, world.clock.now() - 5)
    assert confirmed.checked_at == world.clock.now() - 5
    await world.sessions.confirm_anew(session.id, world.proof(asked_at=world.clock.now() - 1))
    assert (await world.sessions.get(session.id)).checked_at == world.clock.now() - 1


async def test_a_provider_that_answers_after_the_end_starts_nothing(world):
    """The real exchange, held at the provider."""
    provider = openid.OpenIdProvider()
    server = TestServer(provider.app())
    await server.start_server()
    provider.issuer = str(server.make_url("")).rstrip("/")
    provider.claims = {"sid": "s1"}
    held, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(request):
        held.set()
        await goes_on.wait()
        return await provider.on_token(request)

    provider.answers["/token"] = hold
    async with http_session() as http:
        registration = Provider(
            name="corp", title="Corp", issuer=provider.issuer, client_id="zt", client_secret="s"
        )
        client = OpenIdClient(registration, http, world.clock)
        attempt = Attempt("S" * 43, "N" * 43, "V" * 43, "https://p/cb", started_at=world.clock.now())
        url = provider.authorize(await client.authorization_url(attempt))
        exchange = asyncio.create_task(client.sign_in(dict(parse_qsl(urlsplit(url).query)), attempt))
        await asyncio.wait_for(held.wait(), 20)
        asked_at = world.clock.now()
        world.clock.advance(1)
        await world.logouts.end("corp", world.logout(sub=""))
        goes_on.set()
        proof = await exchange
    await server.close()
    assert (proof.sid, proof.began, proof.asked_at) == ("s1", attempt.started_at, asked_at)
    with pytest.raises(SignInOverdue):
        await world.sessions.start(proof)
    assert await world.living() == []

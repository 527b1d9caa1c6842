"""Signing in: from a host to the portal, from the portal to the provider, and back with a session.

    app host    /login     sets the flow cookie, goes to
    portal      /start     signed in already? hands the session over; else goes to the provider
    portal      /callback  checks the answer, starts the session, goes on to the device check or /start
    app host    /accept    takes the one-time code of its own browser, sets its cookie, goes back

Every step checks the way back anew. A code is worth nothing in a browser without the flow cookie it was made
for, and a provider's answer nothing in a browser that did not ask (login CSRF).
"""

import asyncio
import logging
from hmac import compare_digest
from typing import Final

from aiohttp import web
from msgspec.structs import replace

from ztproxy.administrator.sessions import OtherDevice, SignInLocked, SignInOverdue
from ztproxy.administrator.standing import SKEW
from ztproxy.crypto.ids import new_token
from ztproxy.model.subject import Device, Session
from ztproxy.portal.desk import Desk, at_portal, enter, go
from ztproxy.portal.holdings import proved_by
from ztproxy.portal.journey import Journey, journey_of
from ztproxy.portal.pending import Login
from ztproxy.portal.site import own
from ztproxy.portal.visitor import Visitor, digest_of, give_flow, give_handle
from ztproxy.trust.identity.provider import REASONS, SignIn, SignInRefused, TemporaryProviderError

log = logging.getLogger("ztproxy.portal")

CALLBACK: Final = "callback"
SILENTLY: Final = "c"  # value of `again`: let the provider confirm the session there is
_LONGEST_ANSWER: Final = 4096


async def login(request: web.Request) -> web.Response:
    """Start on any host: remember this browser here, then go to the portal."""
    desk, visitor = enter(request)
    at_app = visitor.host != desk.site.host
    journey = journey_of(request.query, desk.site, visitor.host, default="/" if at_app else "")
    again = request.query.get("again", "")[:1]
    if journey.back.host != visitor.host or not at_app:
        return go(replace(journey, flow="").at(desk.site.origin, "start", again=again))
    flow = visitor.flow or new_token(desk.entropy)
    response = go(replace(journey, flow=digest_of(flow)).at(desk.site.origin, "start", again=again))
    give_flow(response, flow)
    return response


async def start(request: web.Request) -> web.Response:
    """On the portal: hand over the session there is, or have a provider make one."""
    desk, visitor = enter(request)
    if elsewhere := at_portal(desk, visitor, "home"):
        return elsewhere
    journey = journey_of(request.query, desk.site, visitor.host)
    again = request.query.get("again", "")[:1]
    session = await desk.session_of(visitor)
    if session is not None and not again:
        return await _hand_over(desk, session, journey)
    if session is not None and again == SILENTLY and session.provider in desk.clients:
        return await _ask_provider(desk, visitor, session.provider, journey, silent=True)
    fresh = bool(again) and again != SILENTLY
    chosen = request.query.get("provider", "")
    if len(desk.clients) == 1:
        chosen = next(iter(desk.clients))
    if chosen not in desk.clients:
        return _choice(desk, journey, "1" if fresh else "")
    return await _ask_provider(desk, visitor, chosen, journey, fresh=fresh)


def _choice(desk: Desk, journey: Journey, again: str) -> web.Response:
    """The page that asks which provider knows the person."""
    options = [
        (client.provider.title, journey.at(desk.site.origin, "start", again=again, provider=name))
        for name, client in desk.clients.items()
    ]
    return desk.pages.page("providers.html", options=options, back=journey.back)


async def _hand_over(desk: Desk, session: Session, journey: Journey) -> web.Response:
    """Go back to where the person came from; to another host with a one-time code for its browser."""
    back = journey.back
    if back.host == desk.site.host:
        return go(back)
    if not journey.flow:  # that host's own flow cookie first
        return go(journey.at_app("login"))
    if not desk.handoffs.take(session.id):
        return _refused(desk, "too-many-attempts", status=503)
    code = await desk.sessions.new_code(session.id, back.host, journey.flow)
    return go(journey.at_app("accept", code=code))


async def _ask_provider(
    desk: Desk, visitor: Visitor, name: str, journey: Journey, *, fresh: bool = False, silent: bool = False
) -> web.Response:
    """Keep the attempt, bound to this browser, and send the browser to the provider.

    `silent`: the provider is to confirm what it knows, or to say that it would have to ask the person.
    """
    if not desk.sign_ins.take(visitor.network):
        return _refused(desk, "too-many-attempts", status=503)
    attempt = desk.pending.new_attempt(own(desk.site.origin, CALLBACK), fresh=fresh, silent=silent)
    try:
        url = await desk.clients[name].authorization_url(attempt)
    except (TemporaryProviderError, SignInRefused) as error:
        return _failed(desk, visitor, error, journey)
    flow = visitor.flow or new_token(desk.entropy)
    await desk.pending.put_login(Login(provider=name, attempt=attempt, flow=digest_of(flow), journey=journey))
    response = go(url)
    give_flow(response, flow)
    return response


async def callback(request: web.Request) -> web.Response:
    """On the portal: the provider's answer, believed once, in the browser that asked for it."""
    desk, visitor = enter(request)
    if elsewhere := at_portal(desk, visitor, "home"):
        return elsewhere
    answer = {key: value for key, value in request.query.items() if len(value) <= _LONGEST_ANSWER}
    if len(answer) != len(request.query):  # a parameter twice, or too long: RFC 6749 section 3.1
        return _refused(desk, "provider-invalid")
    pending = await desk.pending.take_login(answer.get("state", ""))
    if pending is None:
        return await _nothing_pending(desk, visitor)
    journey = pending.journey
    journey = replace(journey, back=desk.site.way_back(str(journey.back), desk.site.host))
    if not compare_digest(pending.flow, visitor.flow_digest):
        return _foreign(desk, journey)
    if pending.provider not in desk.clients:  # taken out of the configuration meanwhile
        return _refused(desk, "attempt-unknown")
    try:
        sign_in = await desk.clients[pending.provider].sign_in(answer, pending.attempt)
    except (TemporaryProviderError, SignInRefused) as error:
        if pending.attempt.silent and isinstance(error, SignInRefused) and error.reason == "provider-refused":
            return await _ask_provider(desk, visitor, pending.provider, journey)
        return _failed(desk, visitor, error, journey)
    try:
        return await _settle(desk, visitor, pending, sign_in, journey)
    except SignInLocked as locked:
        log.warning("sign-in refused: %s (request %s)", locked, visitor.request_id)
        return _refused(desk, "locked", reference=visitor.request_id)
    except SignInOverdue as overdue:
        log.warning("sign-in refused: %s (request %s)", overdue, visitor.request_id)
        return await _begin_again(desk, pending, overdue.until, journey)


async def _begin_again(desk: Desk, pending: Login, until: int, journey: Journey) -> web.Response:
    """Sessions were ended while this sign-in was under way: it takes one that is begun after that.

    An end is written a little ahead of slow clocks, so the next sign-in waits until it counts as a later one.
    """
    anew = journey.over_again()
    if anew is None:
        return _refused(desk, "ended-meanwhile")
    await asyncio.sleep(min(max(0, until - desk.clock.now()), SKEW) / 1000)
    return go(anew.at(desk.site.origin, "start", again="1" if pending.attempt.fresh else ""))


async def _nothing_pending(desk: Desk, visitor: Visitor) -> web.Response:
    """A used or expired answer: the back button, a second click, or somebody's trick."""
    if await desk.session_of(visitor) is not None:
        return go(desk.site.home)
    return _refused(desk, "attempt-unknown")


def _foreign(desk: Desk, journey: Journey) -> web.Response:
    """The answer came to a browser without the right cookie: start over there.

    Two tabs that started at the same moment end here, and so does a link that somebody else prepared. Nothing
    of the answer is used: whoever sits here proves to the provider who they are.
    """
    anew = journey.over_again()
    return go(anew.at(desk.site.origin, "start")) if anew else _refused(desk, "cookies-blocked")


async def _settle(
    desk: Desk, visitor: Visitor, pending: Login, sign_in: SignIn, journey: Journey
) -> web.Response:
    """Start the session under a new id, bind a device that is proved already, and go on."""
    if pending.attempt.silent and await _confirmed(desk, visitor, sign_in):
        return go(journey.at(desk.site.origin, "start"))
    device = await proved_by(desk.devices, visitor.certificate)
    session = await _session_for(desk, visitor, pending, sign_in, device)
    proved = device is not None and await _bind(desk, session, device)
    check = bool(desk.site.agent_ports) and not proved
    step = (
        journey.at(desk.site.origin, "device", first="1") if check else journey.at(desk.site.origin, "start")
    )
    response = go(step)
    value = await desk.sessions.new_handle(session.id, desk.site.host, drops=visitor.handle)
    give_handle(response, value)
    return response


async def _confirmed(desk: Desk, visitor: Visitor, sign_in: SignIn) -> bool:
    """Whether the session of this browser lives on: the provider says the same person is still signed in."""
    session = await desk.session_of(visitor)
    if session is None or (session.provider, session.principal.id) != (
        sign_in.provider,
        sign_in.principal.id,
    ):
        return False
    return await desk.sessions.confirm_anew(session.id, sign_in) is not None


async def _session_for(
    desk: Desk, visitor: Visitor, pending: Login, sign_in: SignIn, device: Device | None
) -> Session:
    """A new session for every sign-in, except when another tab of this browser was faster by moments."""
    before = await desk.session_of(visitor)
    if (
        before is not None
        and before.principal.id == sign_in.principal.id
        and before.created_at >= pending.attempt.started_at
        and not pending.attempt.fresh
    ):
        return before
    return await desk.sessions.start(
        sign_in,
        ip=visitor.ip,
        user_agent=visitor.user_agent,
        replaces=before.id if before is not None else "",
        on=device.id if device is not None else "",
    )


async def _bind(desk: Desk, session: Session, device: Device) -> bool:
    """Whether the device is the session's now. Somebody else's device never is."""
    if device.owner not in ("", session.principal.id):
        return False
    try:
        return await desk.sessions.bind_device(session.id, device.id, desk.clock.now()) is not None
    except OtherDevice:
        return False


async def accept(request: web.Request) -> web.Response:
    """On an app host: take over the session with the one-time code."""
    desk, visitor = enter(request)
    journey = journey_of(request.query, desk.site, visitor.host, default="/")
    if visitor.host == desk.site.host or journey.back.host != visitor.host:
        return go(desk.site.home)
    code = request.query.get("code", "")
    session = await desk.sessions.redeem(code, visitor.host, visitor.flow_digest) if visitor.flow else None
    if session is None:
        anew = journey.over_again()
        return go(anew.at_app("login")) if anew else _refused(desk, "cookies-blocked")
    response = go(journey.back)
    give_handle(response, await desk.sessions.new_handle(session.id, visitor.host, drops=visitor.handle))
    return response


async def done(request: web.Request) -> web.Response:
    """The end of a sign-in in a second tab."""
    desk, _ = enter(request)
    return desk.pages.message(
        "You are signed in", "Close this tab, go back to the one you came from and reload it."
    )


def _failed(
    desk: Desk, visitor: Visitor, error: TemporaryProviderError | SignInRefused, journey: Journey
) -> web.Response:
    log.warning("sign-in failed: %s (request %s)", error, visitor.request_id)
    temporary = isinstance(error, TemporaryProviderError)
    return _refused(
        desk,
        error.reason if isinstance(error, SignInRefused) else "provider-unavailable",
        status=503 if temporary else 403,
        again=journey.at(desk.site.origin, "start"),
        reference=visitor.request_id,
    )


def _refused(
    desk: Desk, reason: str, *, status: int = 403, again: str = "", reference: str = ""
) -> web.Response:
    again = again or own(desk.site.origin, "start")
    response = desk.pages.message(
        "You are not signed in",
        REASONS[reason],
        status=status,
        links=((again, "Try again"), (str(desk.site.home), "Go to the portal")),
        reference=reference,
    )
    if status == 503:
        response.headers["Retry-After"] = "10"
    return response

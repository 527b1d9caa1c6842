"""Signing in: from a host to the portal, from the portal to the provider, and back with a session.

    app host    /login   sets the flow cookie, goes to
    portal      /start   signed in already? hands the session over; else goes to the provider
    portal      /callback  checks the answer, starts the session, goes on to the device check or /start
    app host    /accept  takes the one-time code of its own browser, sets its cookie, goes back

Every step checks the way back anew. A code is worth nothing in a browser without the flow cookie it was made
for, and a provider's answer nothing in a browser that did not ask (login CSRF).
"""

import logging
import re
from hmac import compare_digest
from typing import Final

from aiohttp import web

from ztproxy.administrator.sessions import OtherDevice
from ztproxy.crypto.ids import new_token
from ztproxy.model.subject import Device, Session
from ztproxy.portal.desk import Desk, at_portal, enter, go
from ztproxy.portal.holdings import proved_by
from ztproxy.portal.pending import Login
from ztproxy.portal.site import Address, own
from ztproxy.portal.visitor import Visitor, digest_of, give_flow, give_handle
from ztproxy.trust.identity.provider import REASONS, SignIn, SignInRefused, TemporaryProviderError

log = logging.getLogger("ztproxy.portal")

CALLBACK: Final = "callback"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LONGEST_ANSWER: Final = 4096


async def login(request: web.Request) -> web.Response:
    """Start on any host: remember this browser here, then go to the portal."""
    desk, visitor = enter(request)
    asked = request.query.get("rd", "/" if visitor.host != desk.site.host else "")
    back = desk.site.way_back(asked, visitor.host)
    flow = visitor.flow or new_token(desk.entropy)
    elsewhere = back.host == visitor.host != desk.site.host
    response = go(
        own(
            desk.site.origin,
            "start",
            rd=str(back),
            flow=digest_of(flow) if elsewhere else "",
            again=request.query.get("again", "")[:1],
            retry=request.query.get("retry", "")[:1],
        )
    )
    if elsewhere:
        give_flow(response, flow)
    return response


async def start(request: web.Request) -> web.Response:
    """On the portal: hand over the session there is, or have a provider make one."""
    desk, visitor = enter(request)
    query = request.query
    if elsewhere := at_portal(desk, visitor, "home"):
        return elsewhere
    back = desk.site.way_back(query.get("rd", ""), visitor.host)
    flow = query.get("flow", "")
    flow = flow if _DIGEST.fullmatch(flow) else ""
    again, retry = bool(query.get("again")), bool(query.get("retry"))
    session = None if again else await desk.session_of(visitor)
    if session is not None:
        return await _hand_over(desk, session, back, flow, retry=retry)
    chosen = query.get("provider", "")
    if len(desk.clients) == 1:
        chosen = next(iter(desk.clients))
    if chosen not in desk.clients:
        return _choice(desk, back, flow, again=again)
    return await _ask_provider(desk, visitor, chosen, back, flow, fresh=again, retry=retry)


def _choice(desk: Desk, back: Address, flow: str, *, again: bool) -> web.Response:
    """The page that asks which provider knows the person."""
    options = [
        (
            client.provider.title,
            own(
                desk.site.origin,
                "start",
                rd=str(back),
                flow=flow,
                again="1" if again else "",
                provider=name,
            ),
        )
        for name, client in desk.clients.items()
    ]
    return desk.pages.page("providers.html", options=options, back=back)


async def _hand_over(desk: Desk, session: Session, back: Address, flow: str, *, retry: bool) -> web.Response:
    """Go back to where the person came from; to another host with a one-time code for its browser."""
    if back.host == desk.site.host:
        return go(back)
    if not flow:  # that host's own flow cookie first
        return go(own(back.origin, "login", rd=back.path))
    if not desk.handoffs.take(session.id):
        return _refused(desk, "too-many-attempts", status=503)
    code = await desk.sessions.new_code(session.id, back.host, flow)
    return go(own(back.origin, "accept", code=code, rd=back.path, retry="1" if retry else ""))


async def _ask_provider(
    desk: Desk, visitor: Visitor, name: str, back: Address, app_flow: str, *, fresh: bool, retry: bool
) -> web.Response:
    """Keep the attempt, bound to this browser, and send the browser to the provider."""
    if not desk.sign_ins.take(visitor.network):
        return _refused(desk, "too-many-attempts", status=503)
    attempt = desk.pending.new_attempt(own(desk.site.origin, CALLBACK), fresh=fresh)
    try:
        url = await desk.clients[name].authorization_url(attempt)
    except (TemporaryProviderError, SignInRefused) as error:
        return _failed(desk, visitor, error, back, app_flow)
    flow = visitor.flow or new_token(desk.entropy)
    await desk.pending.put_login(
        Login(
            provider=name,
            attempt=attempt,
            flow=digest_of(flow),
            back=str(back),
            app_flow=app_flow,
            retry=retry,
        )
    )
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
    if not compare_digest(pending.flow, visitor.flow_digest):
        return _foreign(desk, pending)
    back = desk.site.way_back(pending.back, desk.site.host)
    try:
        sign_in = await desk.clients[pending.provider].sign_in(answer, pending.attempt)
    except (TemporaryProviderError, SignInRefused) as error:
        return _failed(desk, visitor, error, back, pending.app_flow)
    return await _settle(desk, visitor, pending, sign_in, back)


async def _nothing_pending(desk: Desk, visitor: Visitor) -> web.Response:
    """A used or expired answer: the back button, a second click, or somebody's trick."""
    if await desk.session_of(visitor) is not None:
        return go(desk.site.home)
    return _refused(desk, "attempt-unknown")


def _foreign(desk: Desk, pending: Login) -> web.Response:
    """The answer came to a browser without the right cookie: start over there, once.

    Two tabs that started at the same moment end here, and so does a link that somebody else prepared. Nothing
    of the answer is used: whoever sits here proves to the provider who they are.
    """
    if pending.retry:
        return _refused(desk, "cookies-blocked")
    back = desk.site.way_back(pending.back, desk.site.host)
    return go(own(desk.site.origin, "start", rd=str(back), flow=pending.app_flow, retry="1"))


async def _settle(
    desk: Desk, visitor: Visitor, pending: Login, sign_in: SignIn, back: Address
) -> web.Response:
    """Start the session under a new id, bind a device that is proved already, and go on."""
    session = await _session_for(desk, visitor, pending, sign_in)
    device = await proved_by(desk.devices, visitor.certificate)
    proved = device is not None and await _bind(desk, session, device)
    onward = "device" if desk.site.agent_ports and not proved else "start"
    first = "1" if onward == "device" else ""
    response = go(own(desk.site.origin, onward, rd=str(back), flow=pending.app_flow, first=first))
    value = await desk.sessions.new_handle(session.id, desk.site.host, drops=visitor.handle)
    give_handle(response, value)
    return response


async def _bind(desk: Desk, session: Session, device: Device) -> bool:
    """Whether the device is the session's now. Somebody else's device never is."""
    if device.owner not in ("", session.principal.id):
        return False
    try:
        return await desk.sessions.bind_device(session.id, device.id, desk.clock.now()) is not None
    except OtherDevice:
        return False


async def _session_for(desk: Desk, visitor: Visitor, pending: Login, sign_in: SignIn) -> Session:
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
    )


async def accept(request: web.Request) -> web.Response:
    """On an app host: take over the session with the one-time code."""
    desk, visitor = enter(request)
    back = desk.site.way_back(request.query.get("rd", "/"), visitor.host)
    if visitor.host == desk.site.host or back.host != visitor.host:
        return go(desk.site.home)
    code = request.query.get("code", "")
    session = await desk.sessions.redeem(code, visitor.host, visitor.flow_digest) if visitor.flow else None
    if session is None:
        if request.query.get("retry"):
            return _refused(desk, "cookies-blocked")
        return go(own(back.origin, "login", rd=back.path, retry="1"))
    response = go(back)
    give_handle(response, await desk.sessions.new_handle(session.id, visitor.host, drops=visitor.handle))
    return response


async def done(request: web.Request) -> web.Response:
    """The end of a sign-in in a second tab."""
    desk, _ = enter(request)
    return desk.pages.message(
        "You are signed in", "Close this tab, go back to the one you came from and reload it."
    )


def _failed(
    desk: Desk, visitor: Visitor, error: TemporaryProviderError | SignInRefused, back: Address, flow: str
) -> web.Response:
    temporary = isinstance(error, TemporaryProviderError)
    reason = error.reason if isinstance(error, SignInRefused) else "provider-unavailable"
    log.warning("sign-in failed: %s (request %s)", error, visitor.request_id)
    again = own(desk.site.origin, "start", rd=str(back), flow=flow)
    return _refused(desk, reason, status=503 if temporary else 403, again=again, reference=visitor.request_id)


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

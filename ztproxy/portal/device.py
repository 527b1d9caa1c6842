"""The device check: a page that fetches a challenge, has the agent on this machine sign it, posts the proof.

The agent listens on loopback and answers our origin only. Without one the page says what is missing and lets
the person go on: whether a device is needed is for policy to say, not for this page.
"""

import logging
from typing import Final

import msgspec
from aiohttp import web
from msgspec import Struct

from ztproxy.administrator.enrolment import Refused
from ztproxy.administrator.sessions import OtherDevice
from ztproxy.model.subject import Device, Session
from ztproxy.portal.content import read
from ztproxy.portal.desk import Desk, at_portal, enter, go
from ztproxy.portal.holdings import holding_of
from ztproxy.portal.journey import journey_of
from ztproxy.portal.pages import problem, words
from ztproxy.portal.site import own
from ztproxy.portal.visitor import Visitor, same_origin

log = logging.getLogger("ztproxy.portal")

_LONGEST_PROOF: Final = 16 * 1024


class Proof(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page posts."""

    nonce: str
    proof: str


_decode_proof = msgspec.json.Decoder(Proof).decode


async def page(request: web.Request) -> web.Response:
    """The page itself; on an app host, the way to it."""
    desk, visitor = enter(request)
    journey = journey_of(request.query, desk.site, visitor.host, default="/")
    back = journey.back
    if elsewhere := at_portal(desk, visitor, "device", rd=str(back)):
        return elsewhere
    session = await desk.session_of(visitor)
    if session is None:  # signing in passes the device check anyway
        return go(journey.at(desk.site.origin, "start"))
    at_app = back.host != desk.site.host and journey.flow  # in the middle of a sign-in there
    agents = [f"http://127.0.0.1:{port}" for port in desk.site.agent_ports]
    return desk.pages.page(
        "device.html",
        connect=" ".join(["'self'", *agents]),
        agents=agents,
        onward=journey.at(desk.site.origin, "start") if at_app else str(back),
        back=back,
        first=bool(request.query.get("first")),
        again=own(desk.site.origin, "login", rd=str(back), again="1"),
    )


async def nonce(request: web.Request) -> web.Response:
    """Give this session a challenge for its device."""
    desk, visitor = enter(request)
    session = await _session_of_script(request, desk, visitor)
    if not desk.checks.take(session.id):
        return problem("overloaded", "Too many device checks. Wait a few minutes.", 503)
    value = await desk.pending.new_nonce(session.id)
    return web.json_response({"nonce": value, "audience": desk.site.origin})


async def proof(request: web.Request) -> web.Response:
    """Believe a proof, or say why not, and bind the device to the session."""
    desk, visitor = enter(request)
    session = await _session_of_script(request, desk, visitor)
    given = await _read(request)
    if not await desk.pending.take_nonce(given.nonce, session.id):
        return problem("device-proof-expired", "The check took too long. Try again.", 403)
    try:
        device = await desk.devices.verify_proof(given.proof, desk.site.origin, given.nonce)
        bound = await _bind(desk, session, device)
    except Refused as refused:
        log.warning("device proof refused: %s (request %s)", refused, visitor.request_id)
        if refused.code == "locked":
            return problem("locked", "This device is locked. Contact your administrator.", 403)
        return problem("device-proof-refused", "This device is not enrolled here, or no longer.", 403)
    except OtherDevice:
        return problem("device-mismatch", "This session was started on another device.", 403)
    if not bound:
        return problem("session-ended", "Your session has ended. Sign in again.", 401)
    holding = await holding_of(desk.devices, device.id)
    posture = holding.posture if holding else None
    checks = posture.checks if posture else {}
    return web.json_response(
        {
            "name": device.name,
            "reported": posture is not None,
            "healthy": bool(posture and posture.healthy),
            "wanting": [words(name) for name, check in sorted(checks.items()) if check.result != "pass"],
        }
    )


async def _bind(desk: Desk, session: Session, device: Device) -> bool:
    if device.owner and device.owner != session.principal.id:
        raise Refused("device-mismatch", "the device belongs to somebody else")
    return await desk.sessions.bind_device(session.id, device.id, desk.clock.now()) is not None


async def _session_of_script(request: web.Request, desk: Desk, visitor: Visitor) -> Session:
    """The session of a request that only our own page's script can have made. Raises HTTP errors."""
    if visitor.host != desk.site.host or not same_origin(request, desk.site.origin):
        raise web.HTTPForbidden
    if request.content_type != "application/json":  # what a form of another site can not send
        raise web.HTTPUnsupportedMediaType
    session = await desk.session_of(visitor)
    if session is None:
        raise web.HTTPUnauthorized
    return session


async def _read(request: web.Request) -> Proof:
    body = await read(request, _LONGEST_PROOF)
    try:
        return _decode_proof(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest from error

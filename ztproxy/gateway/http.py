"""The story of one request. Start reading here.

`gateway.connection` calls `serve` for every complete head. Objections that need no policy come first and
leave their record too; then the one door answers; then the relay runs, or the refusal is rendered.
"""

from msgspec.structs import replace

from ztproxy.gateway import cors, facts
from ztproxy.gateway.carrier import Carrier
from ztproxy.gateway.client import Client
from ztproxy.gateway.lending import Loan, is_node
from ztproxy.gateway.quotas import seconds
from ztproxy.gateway.refuse import refusal_of
from ztproxy.gateway.relay import Relay
from ztproxy.model.changes import Cors
from ztproxy.model.decision import Refusal
from ztproxy.model.permit import Permit
from ztproxy.model.ports import Answer
from ztproxy.model.request import NOWHERE, AccessRequest, Peer
from ztproxy.model.route import Route
from ztproxy.wire import fields, websocket
from ztproxy.wire.http1 import BadHead, RequestHead


def serve(client: Client, head: RequestHead) -> None:
    """Serve one request: find what it is for, ask the door, relay or refuse."""
    world = client.world
    resource = NOWHERE if head.problem else world.routes.match(head.host, head.path)
    request = facts.of_http(head, resource, client.peer, world.ids.new())
    bucket = client.source.requests
    if bucket is not None and (wait := bucket.take(world.wheel.now)):
        slow_down(client, request, wait)
        return
    wrong = objection(head, request, client.peer)
    if wrong:
        turn_away(client, head, request, wrong)
        return
    if head.method == "OPTIONS" and (rules := cors.asked(head, resource.route)) is not None:
        preflight(client, head, request, rules)
        return
    answer = world.door.authorize(request)
    if isinstance(answer, Permit):
        run(client, head, answer)
    elif isinstance(answer, Refusal):
        client.refuse(answer)
    else:
        client.wait_for(head, answer)


def act(client: Client, head: RequestHead, answer: Answer) -> None:
    """Do what the door said."""
    if isinstance(answer, Permit):
        run(client, head, answer)
    else:
        client.refuse(answer)


def run(client: Client, head: RequestHead, permit: Permit) -> None:
    """Do what was permitted: pass the request on, keep the connection of a connector, or lend a node one."""
    if not permit.route.carries:
        client.run(Relay(client, head, permit))
    else:
        client.run(Loan(client, head, permit) if is_node(client) else Carrier(client, head, permit))


def objection(head: RequestHead, request: AccessRequest, peer: Peer) -> str:
    """Return what is wrong with a request, whatever policy says: a code or a flaw; "" when nothing is."""
    if head.problem:
        return head.problem
    if head.host != peer.tls.sni:
        return "misdirected"  # its certificate rules were those of another host (RFC 9110 section 15.5.20)
    route = request.resource.route
    if route is None:
        return ""  # the door refuses it like a forbidden one
    if route.client_certificate == "required" and peer.tls.certificate is None:
        return "client-certificate-required"
    return _upgrade_objection(head, route, peer) if head.upgrade else ""


def _upgrade_objection(head: RequestHead, route: Route, peer: Peer) -> str:
    if head.upgrade not in route.upgrades or route.portal:
        # An offer of another protocol, like h2c, may be passed over in silence (RFC 9110 section 7.8).
        return "upgrade-not-allowed" if head.upgrade == "websocket" else ""
    if head.upgrade == "websocket" and not websocket.is_handshake(head.method, head.body, head.notes):
        return "websocket-handshake"
    if _comes_with_the_browser(head, peer) and not _own_origin(head, route):
        return "origin-not-allowed"  # cross-site WebSocket hijacking
    return ""


def _comes_with_the_browser(head: RequestHead, peer: Peer) -> bool:
    """Tell whether browsers show what gives access to any page: the cookie, or a certificate.

    Programs show certificates too, and no Origin.
    """
    return head.handle is not None or (peer.tls.certificate is not None and fields.ORIGIN in head.notes)


def _own_origin(head: RequestHead, route: Route) -> bool:
    origin = head.notes.get(fields.ORIGIN, b"").decode("latin-1").lower()
    return origin == f"https://{head.authority}" or origin in route.origins


def slow_down(client: Client, request: AccessRequest, wait: float) -> None:
    """Refuse a source that asks too fast, before it is known who asks.

    The connection ends, too: a flood then has to shake hands for every request, and that is bounded.
    """
    client.world.counters.limited("source-requests")
    refusal = refusal_of("too-many-requests", request.context.request_id, close=True)
    refusal = replace(refusal, retry_after=seconds(wait), detail="source-requests")
    client.refuse(recorded(client, request, refusal))


def turn_away(client: Client, head: RequestHead, request: AccessRequest, wrong: str) -> None:
    """Refuse a request before policy is asked, and have that recorded."""
    refusal = refusal_of(wrong, request.context.request_id, close=bool(head.problem))
    client.refuse(recorded(client, request, refusal))


def preflight(client: Client, head: RequestHead, request: AccessRequest, rules: Cors) -> None:
    """Answer a browser that asks whether a page of another origin may ask. It never shows who asks."""
    if not cors.may_read(rules, head):
        turn_away(client, head, request, "origin-not-allowed")
        return
    try:
        client.world.door.preflight(request, client.peer)
    except Exception:  # noqa: BLE001  whatever went wrong, there is no evidence
        client.refuse(refusal_of("audit-unavailable", request.context.request_id, close=True))
        return
    client.world.counters.preflight()
    client.respond(cors.answer(rules, head), b"", last=False)
    client.finished()


def reject(client: Client, bad: BadHead) -> None:
    """Refuse what is no request."""
    refusal = refusal_of(bad.flaw, client.world.ids.new(), close=True)
    client.refuse(recorded(client, None, refusal))


def recorded(client: Client, request: AccessRequest | None, refusal: Refusal) -> Refusal:
    """Return the refusal once it is on record, another one when it can not be."""
    try:
        client.world.door.refuse(request, client.peer, refusal)
    except Exception:  # noqa: BLE001  it is a refusal either way
        return refusal_of("audit-unavailable", refusal.decision_id, close=True)
    return refusal

"""From an HTTP request to the one shape that every protocol reduces to. Pure; called by `gateway.http`."""

from ztproxy.model.request import AccessRequest, Context, Evidence, Peer, Resource
from ztproxy.wire.http1 import RequestHead


def of_http(head: RequestHead, resource: Resource, peer: Peer, request_id: str) -> AccessRequest:
    """Return what the door is asked."""
    return AccessRequest(
        Evidence(head.handle, peer.tls.certificate),
        resource,
        head.method,
        Context(
            request_id,
            peer.ip,
            head.host,
            head.path,
            _protocol(head, resource) if head.upgrade else "http",
        ),
    )


def _protocol(head: RequestHead, resource: Resource) -> str:
    """Return the protocol that the connection is to be upgraded to, "http" when that is passed over."""
    route = resource.route
    if head.upgrade == "websocket" or (
        route is not None and head.upgrade in route.upgrades and not route.portal
    ):
        return head.upgrade
    return "http"

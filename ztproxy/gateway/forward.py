"""The heads we write: what an upstream is told about a request, and a client about a response.

Pure; called by `gateway.relay` and `gateway.upgrade`. Only names that `wire.fields` lets pass come from the
other side; framing, Host and identity are written anew.
"""

import base64
from typing import Final

import msgspec

from ztproxy.model.permit import Permit
from ztproxy.model.request import ClientCertificate, Peer
from ztproxy.wire.http1 import RequestHead, ResponseHead

_UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: %b\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CLOSE: Final = b"Connection: close\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def peer_lines(peer: Peer) -> bytes:
    """Return the header lines that are the same for all requests of a connection."""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: https\r\n" % peer.ip.encode("ascii")


def request_bytes(head: RequestHead, permit: Permit, peer: Peer, lines: bytes, upgrade: bytes) -> bytes:
    """Return the head that goes to the upstream. `lines` are the connection's `peer_lines`, `upgrade` is the
    protocol to ask for, or b""."""
    route = permit.route
    authority = head.authority.encode("ascii")
    return b"%bHost: %b\r\n%b%b%b%b%bX-Forwarded-Host: %b\r\nZt-Request-Id: %b\r\n%b\r\n" % (
        head.line,
        authority if route.host_header is None else route.host_header,
        head.fields,
        _cookies(head) if route.portal else head.other_cookies,
        head.framing,
        _UPGRADE % upgrade if upgrade else b"",
        lines,
        authority,
        permit.decision_id.encode("ascii"),
        _portal_lines(head, peer) if route.portal else permit.identity,
    )


def response_bytes(head: ResponseHead, framing: bytes, body: bytes, *, close: bool) -> bytes:
    """Return a final response with what is there of its body; `framing` is the line that says where that
    ends."""
    return b"%b%b%b%b\r\n%b" % (head.line, head.fields, framing, _CLOSE if close else b"", body)


def framing_of(head: ResponseHead, request: RequestHead) -> bytes:
    """Return the line that says where the response's body ends; b"" when closing does, or nothing has to.

    With it goes the line that announces what follows the body, to a client that takes that.
    """
    if head.status == 204:
        return b""  # RFC 9110 section 8.6: no Content-Length there
    if head.body >= 0 or request.method == "HEAD" or head.status == 304:
        return head.length
    if request.http10:
        return b""
    return _CHUNKED + head.trailer if request.trailers else _CHUNKED


def interim_bytes(head: ResponseHead) -> bytes:
    """Return an interim response (1xx)."""
    return b"%b%b\r\n" % (head.line, head.fields)


def switching_bytes(head: ResponseHead, protocol: bytes) -> bytes:
    """Return the response that begins another protocol."""
    return b"HTTP/1.1 101 Switching Protocols\r\n%b%b\r\n" % (head.fields, _UPGRADE % protocol)


def handing_over_bytes(protocol: bytes) -> bytes:
    """Return the response that begins a protocol of our own."""
    return b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % (_UPGRADE % protocol)


def _cookies(head: RequestHead) -> bytes:
    return b"".join(b"Cookie: %b\r\n" % value for value in head.cookies)


def _portal_lines(head: RequestHead, peer: Peer) -> bytes:
    """Tell our own portal what only the gateway knows."""
    certificate = peer.tls.certificate
    return b"Zt-Client-Ip: %b\r\nZt-Host: %b\r\n%b" % (
        peer.ip.encode("ascii"),
        head.authority.encode("ascii"),
        b"Zt-Certificate: %b\r\n" % _encode(certificate) if certificate is not None else b"",
    )


def _encode(certificate: ClientCertificate) -> bytes:
    return base64.urlsafe_b64encode(msgspec.json.encode(certificate)).rstrip(b"=")

"""Where transmitters push their events (RFC 8935), mounted by the service on the portal's host.

Whoever asks here is a stranger until the token is verified: everything is bounded, the same sentence answers
whatever is wrong with who sends, and nothing of what came is quoted.
"""

from collections.abc import Iterable
from hmac import compare_digest
from typing import Final, Protocol

from aiohttp import web

from ztproxy.api.problems import answer, render
from ztproxy.model.endpoints import SIGNALS
from ztproxy.trust.identity.provider import SignInRefused, TemporaryProviderError
from ztproxy.trust.signals.remote import RemoteRefused
from ztproxy.trust.signals.token import MAX_TOKEN, TYPE, SetRefused
from ztproxy.trust.signals.transmitter import Transmitter

_CHUNK: Final = 8 * 1024


class Receiver(Protocol):
    """Takes the tokens of one transmitter (administrator.signals.receiver)."""

    transmitter: Transmitter

    async def receive(self, token: str) -> str:
        """Do what a token says. Raises SetRefused and what its docstring there names."""


def routes(receivers: Iterable[Receiver], host: str) -> list[web.RouteDef]:
    """Return the route of pushes, on the portal's `host` only."""
    known = {receiver.transmitter.name: receiver for receiver in receivers}

    async def push(request: web.Request) -> web.Response:
        receiver = known.get(request.match_info["name"])
        if receiver is None or asked_host(request) != host:
            return render("not-found")
        try:
            _check(request, receiver.transmitter)
            await receiver.receive(await _body(request))
        except SetRefused as refused:
            return _refusal(refused)
        except (TemporaryProviderError, SignInRefused, RemoteRefused):
            return render("facts-unavailable")  # its keys are not to be had: it has to send again
        return web.Response(status=202, headers={"Cache-Control": "no-store"})

    return [web.post(SIGNALS + "push/{name}", push)]


def asked_host(request: web.Request) -> str:
    """Return the host the gateway says was asked, without port."""
    return request.headers.get("Zt-Host", "").lower().partition(":")[0]


def _check(request: web.Request, transmitter: Transmitter) -> None:
    """Who sends, then what it says it is. Raises SetRefused."""
    given, expected = request.headers.getall("Authorization", []), transmitter.authorization
    if expected and not (len(given) == 1 and compare_digest(_bytes(given[0]), _bytes(expected))):
        raise SetRefused("authentication_failed", "the Authorization is not the one that was agreed on")
    if request.content_type != TYPE_FIELD or "Content-Encoding" in request.headers:
        raise SetRefused("invalid_request", f"expected {TYPE_FIELD}, not compressed")


TYPE_FIELD: Final = f"application/{TYPE}"


async def _body(request: web.Request) -> str:
    """The token; one byte more than it may have is enough to say no."""
    body = b""
    while len(body) <= MAX_TOKEN and (chunk := await request.content.read(_CHUNK)):
        body += chunk
    if len(body) > MAX_TOKEN:
        raise SetRefused("invalid_request", f"longer than {MAX_TOKEN} characters")
    try:
        return body.decode("ascii")
    except UnicodeDecodeError:
        raise SetRefused("invalid_request", "not a compact JWS") from None


def _refusal(refused: SetRefused) -> web.Response:
    """RFC 8935 section 2.3."""
    response = answer({"err": refused.err, "description": refused.description}, 400)
    response.headers["Content-Language"] = "en"
    return response


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

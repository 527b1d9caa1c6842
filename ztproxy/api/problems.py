"""Problem details (RFC 9457) of the endpoints for agents and programs. Codes are stable and only added to.

Called by every handler of this room. A problem says what to do, never what is inside.
"""

from typing import Final

import msgspec
from aiohttp import web

#: code -> (HTTP status, sentence)
PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "bad-request": (400, "The request is not what this address expects."),
    "body-too-large": (413, "The request body is too large."),
    "media-type-not-supported": (415, "This address expects another content type."),
    "not-found": (404, "There is nothing at this address."),
    "too-many-requests": (429, "Too many attempts. Wait a moment."),
    "enrolment-code-invalid": (403, "This code is not valid, or was used. Ask for a new one."),
    "certificate-request-invalid": (400, "The certificate request is not one we answer."),
    "statement-invalid": (403, "This was not signed by who is enrolled, or not for us, or not now."),
    "proof-invalid": (403, "The device did not answer the question that was asked."),
    "posture-invalid": (400, "This is not a posture document."),
    "posture-replayed": (409, "A newer report of this device is known already."),
    "posture-from-the-future": (400, "The report observed what has not happened yet. Check the clock."),
    "connectors-not-configured": (404, "There is no place here where connectors could dial in."),
    "connector-name-invalid": (400, "This is not a name for a connector."),
    "connector-name-mismatch": (403, "This code is for a connector of another name."),
    "connector-revoked": (403, "This connector was revoked. Have it enrolled anew."),
    "too-many-connectors": (403, "There are too many connectors of this name. Revoke those that are gone."),
    "device-revoked": (403, "This device was revoked."),
    "locked": (403, "Access is locked. Ask an administrator."),
    "facts-unavailable": (503, "This can not be decided at the moment."),
    "audit-unavailable": (503, "This can not be recorded, so it can not be done."),
}

_RETRY: Final[dict[int, str]] = {429: "60", 503: "5"}


class Problem(Exception):
    """Ends a handler with a problem. `code` is one of PROBLEMS."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail


def render(code: str, detail: str = "") -> web.Response:
    """Return the response of a problem."""
    status, title = PROBLEMS[code]
    body = {"type": f"urn:ztproxy:problem:{code}", "title": title, "status": status, "code": code}
    if detail:
        body["detail"] = detail
    response = answer(body, status, "application/problem+json")
    if status in _RETRY:
        response.headers["Retry-After"] = _RETRY[status]
    return response


def answer(value: object, status: int = 200, content_type: str = "application/json") -> web.Response:
    """Return a JSON response that nobody stores."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type=content_type,
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )

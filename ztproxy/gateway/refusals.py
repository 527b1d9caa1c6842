"""The one table that turns a refusal into bytes: problem details for programs, a redirect or page for people.

Called by `gateway.connection` for everything it does not let through. Pure. It must never show what the
refusal does not carry, and never echo what the client sent unescaped.
"""

import base64
import hashlib
from html import escape
from http import HTTPStatus
from importlib.resources import files
from typing import Final
from urllib.parse import quote

import msgspec

from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal
from ztproxy.model.remedies import Remedy, remedies

LOGIN: Final = "/.ztproxy/login"
CONFIRM: Final = "/.ztproxy/login?again=c"  # the provider is asked without showing the person anything
DEVICE: Final = "/.ztproxy/device"
HOME: Final = "/.ztproxy/home"
DONE: Final = "/.ztproxy/done"  # "close this tab": where a sign-in in a second tab ends

#: Seconds after which it is worth trying again what passes by itself, as with the portal's own answers.
_PASSES: Final = 5
# Longer targets are dropped from the redirect: Location lines past 8 KiB are refused by browsers and proxies.
_LONGEST_TARGET: Final = 4096
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_SIGN_IN_CODES: Final = frozenset({"login-required", "session-ended"})

_CSS: Final = files("ztproxy.gateway").joinpath("refusals.css").read_text("ascii").strip()
_CSS_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()

_PAGE_FIELDS: Final = (
    "Content-Type: text/html; charset=utf-8\r\n"
    f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{_CSS_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'\r\n"
)
_PROBLEM_FIELDS: Final = "Content-Type: application/problem+json\r\n"
_COMMON_FIELDS: Final = (
    "Cache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n"
)
# RFC 9110 section 11.6.1 demands a challenge with every 401. Basic, Digest and Negotiate make browsers ask
# for a password; Bearer would promise that tokens are taken. A scheme of our own is ignored by browsers,
# which then show the page, and tells programs what is missing.
_CHALLENGE: Final = 'WWW-Authenticate: Ztproxy-Session realm="ztproxy"\r\n'

_HEAD: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="robots" content="noindex"><title>'
)
_BODY: Final = (
    f"</title><style>{_CSS}</style></head><body><main>"
    '<div class="mark"><svg width="24" height="24" viewBox="0 0 24 24" fill="none" stroke="currentColor" '
    'stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
    '<path d="M12 3l7.5 3v5.5c0 4.6-3.1 8-7.5 9.5-4.4-1.5-7.5-4.9-7.5-9.5V6z"/>'
    '<path d="M12 8.5v4"/><path d="M12 15.6v.01"/></svg></div>'
)


class _Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details, with our extension members."""

    type: str
    title: str
    status: int
    code: str
    remedies: tuple[str, ...]
    decision: str
    detail: str = ""


def render(
    refusal: Refusal,
    *,
    navigation: bool,
    method: str,
    host: str,
    target: str,
    head_only: bool,
    keep_alive: bool,
    date: str = "",
    extra: str = "",
) -> bytes:
    """Return the complete HTTP/1.1 response.

    `navigation`: a person's browser asks for a document (Sec-Fetch-*, Accept). `target`: the request target
    as received. `date`: IMF-fixdate for the Date field, "" leaves it out. `extra`: further header lines, each
    ended by CRLF.
    """
    location = _redirect(refusal, method, target) if navigation else ""
    status = 303 if location else refusal.status
    fields, body = _content(refusal, location, navigation, method, host, target)
    head = (
        _status_line(status)
        + fields
        + _COMMON_FIELDS
        + extra
        + _conditional_fields(refusal, status, keep_alive, date)
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if head_only else body)


def _content(
    refusal: Refusal, location: str, navigation: bool, method: str, host: str, target: str
) -> tuple[str, bytes]:
    if location:
        return f"Location: {location}\r\n", b""
    if navigation:
        return _PAGE_FIELDS, _page(refusal, method, host, target).encode()
    return _PROBLEM_FIELDS, _problem(refusal)


def _redirect(refusal: Refusal, method: str, target: str) -> str:
    """Where a navigation goes by itself; "" when it gets a page.

    A POST is never redirected: its body would be lost without a word.
    """
    if method not in _SAFE_METHODS:
        return ""
    if refusal.code in _SIGN_IN_CODES:
        return _with_return(LOGIN, target)
    if refusal.code == "recheck-required":
        return _with_return(CONFIRM, target)
    if refusal.code == "device-check-required":
        return _with_return(DEVICE, target)
    return ""


def _with_return(path: str, target: str) -> str:
    """Append the way back. Only a path of this host is one, and the portal checks it again."""
    encoded = quote(target, safe="") if target.startswith("/") else ""
    if not 0 < len(encoded) <= _LONGEST_TARGET:
        return path
    return f"{path}{'&' if '?' in path else '?'}rd={encoded}"


def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


def _conditional_fields(refusal: Refusal, status: int, keep_alive: bool, date: str) -> str:
    return (
        (f"Date: {date}\r\n" if date else "")
        + (_CHALLENGE if status == 401 else "")
        + _retry_after(refusal, status)
        + ("Connection: close\r\n" if refusal.close or not keep_alive else "")
    )


def _retry_after(refusal: Refusal, status: int) -> str:
    """When to try again: as long as is known, and with everything that passes (RFC 9110 section 15.6.4)."""
    seconds = refusal.retry_after or (_PASSES if status == 503 else 0)
    return f"Retry-After: {seconds}\r\n" if seconds > 0 else ""


def _sentence(refusal: Refusal) -> str:
    known = CODES.get(refusal.code)
    return known[1] if known else "The request was refused."


def _problem(refusal: Refusal) -> bytes:
    return msgspec.json.encode(
        _Problem(
            type="urn:ztproxy:problem:" + refusal.code,
            title=_sentence(refusal),
            status=refusal.status,
            code=refusal.code,
            remedies=refusal.remedies,
            decision=refusal.decision_id,
            detail=refusal.reason,
        )
    )


def _page(refusal: Refusal, method: str, host: str, target: str) -> str:
    title = escape(_sentence(refusal))
    reason = escape(refusal.reason)
    ways = remedies(refusal.remedies)
    unsent = method not in _SAFE_METHODS
    return "".join(
        (
            _HEAD,
            title,
            _BODY,
            f"<h1>{title}</h1>",
            f'<p class="where">You asked for {escape(host)}.</p>' if host else "",
            f"<p>{reason}</p>" if reason not in ("", title) else "",
            _unsent(refusal) if unsent else "",
            _ways(ways),
            _actions(refusal, ways, DONE if unsent else target, unsent),
            f"<footer><p>Reference <code>{escape(refusal.decision_id)}</code></p>"
            "<p>Quote it when you ask for help: it names this very decision.</p></footer>"
            "</main></body></html>",
        )
    )


def _unsent(refusal: Refusal) -> str:
    again = (
        " Sign in in the new tab, then come back here and reload this page to send it again."
        if refusal.code in _SIGN_IN_CODES
        else " Keep this page open: reloading it sends the data again."
    )
    return f"<p><strong>What you sent was not delivered and is not stored.</strong>{again}</p>"


def _ways(ways: tuple[Remedy, ...]) -> str:
    if not ways:
        return ""
    items = "".join(f"<li>{escape(way.sentence)}</li>" for way in ways)
    return f"<h2>What would change this</h2><ul>{items}</ul>"


def _actions(refusal: Refusal, ways: tuple[Remedy, ...], target: str, new_tab: bool) -> str:
    """Buttons: what the person can do here, and the way to the portal."""
    buttons = {way.path: way.label for way in ways if way.path}
    if refusal.code in _SIGN_IN_CODES:
        buttons = {LOGIN: "Sign in", **buttons}
    if refusal.code == "recheck-required":
        buttons = {CONFIRM: "Confirm my sign-in", **buttons}
    if refusal.code in ("device-check-required", "device-required"):
        buttons = {DEVICE: "Check this device", **buttons}
    tab = ' target="_blank" rel="noopener"' if new_tab else ""
    links = [
        f'<a class="button{"" if number else " first"}" href="{escape(_with_return(path, target))}"{tab}>'
        f"{escape(label)}</a>"
        for number, (path, label) in enumerate(buttons.items())
    ]
    links.append(f'<a class="button" href="{HOME}">Go to the portal</a>')
    return f'<p class="actions">{"".join(links)}</p>'

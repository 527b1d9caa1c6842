"""Refusals as bytes: what programs read, where browsers go, and that nothing sent is echoed raw."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import h11
import pytest

from ztproxy.gateway.refusals import render
from ztproxy.model.codes import CODES
from ztproxy.model.decision import Refusal
from ztproxy.model.remedies import REMEDIES

ID = "0123456789abcdef0123456789abcdef"


def refusal(code="access-denied", **changes):
    return Refusal(**{"code": code, "status": CODES[code][0], "decision_id": ID} | changes)


def answer(given, method="GET", **changes):
    """Render and read back with an independent HTTP implementation."""
    options = {
        "navigation": False,
        "method": method,
        "host": "support.corp.example",
        "target": "/tickets/7?q=a b",
        "head_only": method == "HEAD",
        "keep_alive": True,
    } | changes
    data = render(given, **options)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    head, body = None, b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
    names = [name.decode() for name, _ in head.headers]
    assert len(names) == len(set(names)), "a field appears twice"
    return head.status_code, {n.decode(): v.decode() for n, v in head.headers}, body


@pytest.mark.parametrize("code", CODES)
def test_programs_get_problem_details_for_every_code(code):
    given = refusal(code, remedies=("sign-in", "recheck-device"), reason="Only weekdays.")
    status, fields, body = answer(given)
    assert status == CODES[code][0]
    assert fields["content-type"] == "application/problem+json"
    assert json.loads(body) == {
        "type": f"urn:ztproxy:problem:{code}",
        "title": CODES[code][1],
        "status": status,
        "detail": "Only weekdays.",
        "code": code,
        "remedies": ["sign-in", "recheck-device"],
        "decision": ID,
    }
    assert ("www-authenticate" in fields) == (status == 401)


def test_the_challenge_opens_no_password_dialog():
    _, fields, _ = answer(refusal("login-required"))
    scheme = fields["www-authenticate"].split()[0].lower()
    assert scheme not in {"basic", "digest", "ntlm", "negotiate", "bearer"}


@pytest.mark.parametrize("navigation", [True, False])
@pytest.mark.parametrize("code", CODES)
def test_every_answer_is_private_and_not_stored(code, navigation):
    _, fields, _ = answer(refusal(code), navigation=navigation)
    assert fields["cache-control"] == "no-store"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("code", ["login-required", "session-ended"])
def test_navigation_goes_to_sign_in_on_the_same_host_with_the_way_back(code, method):
    status, fields, body = answer(refusal(code), method, navigation=True, target="/a%2Fb?x=1&rd=//evil#")
    assert (status, body) == (303, b"")
    assert fields["location"].startswith("/.ztproxy/login?rd=")
    assert parse_qs(urlsplit(fields["location"]).query) == {"rd": ["/a%2Fb?x=1&rd=//evil#"]}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_sign_in_is_confirmed_on_the_way_without_a_word(method):
    """Silently: the provider is not to ask the person, and the way back is kept."""
    status, fields, body = answer(refusal("recheck-required"), method, navigation=True, target="/a?b=c")
    assert (status, body) == (303, b"")
    where = urlsplit(fields["location"])
    assert (where.scheme, where.netloc, where.path) == ("", "", "/.ztproxy/login")
    assert parse_qs(where.query) == {"again": ["c"], "rd": ["/a?b=c"]}


def test_what_is_no_navigation_is_told_that_the_sign_in_has_to_be_confirmed():
    status, fields, body = answer(refusal("recheck-required"))
    assert status == 401 and "location" not in fields and "www-authenticate" in fields
    assert json.loads(body)["code"] == "recheck-required"
    status, fields, body = answer(refusal("recheck-required"), "POST", navigation=True)
    assert status == 401 and "location" not in fields
    assert 'href="/.ztproxy/login?again=c&amp;rd=%2F.ztproxy%2Fdone" target="_blank"' in body.decode()
    assert "Confirm my sign-in" in body.decode() and "not delivered" in body.decode()


@pytest.mark.parametrize("target", ["https://evil.example/", "*", "", "//evil.example"])
def test_a_confirmation_leads_nowhere_else(target):
    _, fields, _ = answer(refusal("recheck-required"), navigation=True, target=target)
    query = parse_qs(urlsplit(fields["location"]).query)
    assert query in ({"again": ["c"]}, {"again": ["c"], "rd": [target]})
    assert "rd" not in query or target.startswith("/"), "the portal checks what is left"


def test_device_check_is_automatic_only_for_its_code():
    _, fields, _ = answer(refusal("device-check-required"), navigation=True)
    assert fields["location"].startswith("/.ztproxy/device?rd=%2Ftickets")
    status, fields, body = answer(refusal("device-required", remedies=("recheck-device",)), navigation=True)
    assert status == 403 and "location" not in fields
    assert 'href="/.ztproxy/device?rd=%2Ftickets%2F7%3Fq%3Da%20b"' in body.decode()


def test_a_post_is_never_redirected_and_the_person_is_told():
    status, fields, body = answer(refusal("login-required"), "POST", navigation=True)
    page = body.decode()
    assert status == 401 and "location" not in fields
    assert "not delivered" in page and 'target="_blank"' in page
    assert 'href="/.ztproxy/login?rd=%2F.ztproxy%2Fdone"' in page


def test_a_page_does_not_say_the_same_twice():
    sentence = CODES["access-denied"][1]
    _, _, body = answer(refusal(reason=sentence), navigation=True)
    assert f"<p>{sentence}</p>" not in body.decode()


@pytest.mark.parametrize("target", ["https://evil.example/", "*", "", "evil", "/" + "a" * 5000])
def test_only_a_path_of_bounded_length_is_a_way_back(target):
    _, fields, _ = answer(refusal("login-required"), navigation=True, target=target)
    assert fields["location"] == "/.ztproxy/login"


def test_remedies_keep_the_way_back_beside_what_they_ask_for():
    _, _, body = answer(refusal(remedies=("step-up-mfa",)), navigation=True, target="/x")
    assert 'href="/.ztproxy/login?again=1&amp;rd=%2Fx"' in body.decode()


def test_line_breaks_cannot_enter_the_head():
    _, fields, _ = answer(refusal("login-required"), navigation=True, target="/x\r\nSet-Cookie: a=b")
    assert "set-cookie" not in fields


class _Outline(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_nothing_is_echoed_raw():
    evil = "<script>alert(1)</script>\"'"
    given = refusal(reason=evil, decision_id=evil, remedies=(evil, "sign-in"))
    _, _, body = answer(given, navigation=True, host=evil, target="/" + evil)
    outline = _Outline()
    outline.feed(body.decode())
    assert "script" not in {tag for tag, _ in outline.tags}
    assert outline.text.count("<script>alert(1)") == 4  # host, reason, word of the remedy, decision
    assert all(not name.startswith("on") for _, attrs in outline.tags for name in attrs)


def test_the_page_allows_its_own_style_and_nothing_else():
    _, fields, body = answer(refusal(remedies=tuple(REMEDIES)), navigation=True)
    page = body.decode()
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = fields["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "http" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert ID in page and "/.ztproxy/home" in page
    for remedy in REMEDIES.values():
        assert remedy.sentence in page


def test_head_announces_the_length_and_sends_no_body():
    _, whole, body = answer(refusal(), "GET")
    _, head, nothing = answer(refusal(), "HEAD")
    assert nothing == b"" and head["content-length"] == whole["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("close", "keep_alive", "expected"),
    [(False, True, None), (True, True, "close"), (False, False, "close"), (True, False, "close")],
)
def test_connection_close_is_said_when_it_is_meant(close, keep_alive, expected):
    _, fields, _ = answer(refusal(close=close), keep_alive=keep_alive)
    assert fields.get("connection") == expected


def test_retry_after_and_date():
    _, fields, _ = answer(refusal("overloaded", retry_after=7), date="Sun, 06 Nov 1994 08:49:37 GMT")
    assert fields["retry-after"] == "7" and fields["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    _, fields, _ = answer(refusal("access-denied"))
    assert "retry-after" not in fields and "date" not in fields


@pytest.mark.parametrize("code", [code for code, (status, _) in CODES.items() if status == 503])
def test_what_passes_by_itself_says_when_to_try_again(code: str) -> None:
    _, fields, _ = answer(refusal(code))
    assert fields["retry-after"] == "5"


def test_unknown_code_and_status_still_answer():
    status, _, body = answer(Refusal(code="new-code", status=499, decision_id=ID))
    assert status == 499 and json.loads(body)["title"] == "The request was refused."

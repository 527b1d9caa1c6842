"""Request heads: what is read, equality whole, byte by byte and re-chunked, and h11 as a second opinion."""

import itertools
import tracemalloc
from pathlib import Path

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ztproxy.wire import fields, http1
from ztproxy.wire.flaws import FLAWS
from ztproxy.wire.http1 import CHUNKED, BadHead, RequestHead, RequestReader

LIMIT = 4096


def read(pieces: list[bytes]) -> tuple[RequestHead, bytes] | str | None:
    """Feed pieces; return (head, rest), the code of the refusal, or None while incomplete."""
    reader = RequestReader(LIMIT)
    found = None
    try:
        for number, piece in enumerate(pieces):
            found = reader.feed(piece)
            if found is not None:
                return found[0], found[1] + b"".join(pieces[number + 1 :])
    except BadHead as bad:
        return FLAWS[bad.flaw][0]
    return None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def head(*lines: bytes, first: bytes = b"GET /a HTTP/1.1") -> bytes:
    return b"\r\n".join((first, b"Host: app.example", *lines, b"", b""))


def one(data: bytes) -> RequestHead:
    got = read([data])
    assert isinstance(got, tuple), got
    return got[0]


line = st.one_of(
    st.sampled_from(
        [
            b"Host: app.example",
            b"Content-Length: 5",
            b"Content-Length: 05",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: xchunked",
            b"Connection: close, x-a",
            b"X-A: b",
            b"Cookie: a=b; __Host-ztproxy=x",
            b" folded",
            b"Bad : x",
            b": x",
            b"X: \x00",
            b"X: \x80\xff\t",
            b"X: a\rb",
            b"",
        ]
    ),
    st.binary(max_size=12),
)
ending = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])
anything = st.builds(
    lambda first, lines, end: first + b"".join(a + b for a, b in lines) + end,
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"POST /x?y HTTP/1.1\r\nHost: a\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n",
            b"GET /a//b HTTP/1.1\r\nHost: a\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"",
        ]
    ),
    st.lists(st.tuples(line, ending), max_size=6),
    st.sampled_from([b"\r\n", b"\r\nrest of it", b"", b"\n"]),
)


@settings(max_examples=600, deadline=None)
@given(anything, st.lists(st.integers(0, 500), max_size=8))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [])
def test_pieces_do_not_matter(data: bytes, places: list[int]) -> None:
    whole = read([data])
    assert read([data[i : i + 1] for i in range(len(data))]) == whole
    assert read(cut(data, places)) == whole


@settings(max_examples=600, deadline=None)
@given(anything)
def test_what_we_accept_h11_reads_the_same_way(data: bytes) -> None:
    got = read([data])
    if not isinstance(got, tuple) or got[0].problem:
        return
    ours = got[0]
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode()) == (ours.method, ours.target)
    theirs = dict(event.headers)
    length = theirs.get(b"content-length")
    assert ours.body == (CHUNKED if b"transfer-encoding" in theirs else int(length or 0))


def test_a_head_in_full() -> None:
    got = one(
        head(
            b"Accept: text/html",
            b"X-One:  two ",
            b"Content-Length: 3",
            first=b"POST /a/b?c=%2F HTTP/1.1",
        )
    )
    assert (got.method, got.target, got.path) == ("POST", "/a/b?c=%2F", "/a/b")
    assert (got.host, got.authority, got.body, got.framing) == (
        "app.example",
        "app.example",
        3,
        b"Content-Length: 3\r\n",
    )
    assert got.fields == b"Accept: text/html\r\nX-One:  two \r\n"
    assert got.keep_alive
    assert got.navigation  # a form


def test_values_may_hold_any_text() -> None:
    assert one(head(b"X-Text: \xfc\t~")).fields == b"X-Text: \xfc\t~\r\n"


@pytest.mark.parametrize(
    ("lines", "keep"),
    [((), True), ((b"Connection: close",), False), ((b"Connection: x", b"connection: CLOSE"), False)],
)
def test_keep_alive(lines: tuple[bytes, ...], keep: bool) -> None:
    assert one(head(*lines)).keep_alive is keep


@pytest.mark.parametrize(
    ("lines", "navigation"),
    [
        ((), False),
        ((b"Accept: text/html;q=0.9, */*",), True),
        ((b"Accept: application/json",), False),
        ((b"Accept: text/html", b"Sec-Fetch-Mode: cors"), False),
        ((b"Sec-Fetch-Mode: navigate",), True),
    ],
)
def test_navigation(lines: tuple[bytes, ...], navigation: bool) -> None:
    assert one(head(*lines)).navigation is navigation
    form = head(b"Content-Length: 0", *lines, first=b"POST / HTTP/1.1")
    assert one(form).navigation is navigation
    assert not one(head(*lines, first=b"DELETE / HTTP/1.1")).navigation


def test_limits() -> None:
    assert read([head(b"X: " + b"a" * LIMIT)]) == "head-too-large"
    assert read([b"GET /" + b"a" * LIMIT]) == "head-too-large"
    assert read([head(*(b"X: %d" % i for i in range(101)))]) == "head-too-large"
    assert isinstance(read([head(*(b"X: %d" % i for i in range(98)))]), tuple)
    assert read([head(b"X" * 129 + b": a")]) == "bad-request"


def test_an_idle_connection_holds_no_long_head() -> None:
    short, long = b"X-A: " + b"a" * 5000 + b"\r\n", b"Cookie: c=" + b"c" * 30_000 + b"\r\n"
    reader = RequestReader(32 << 10)
    for lines in (short, long, short, long):
        found = reader.feed(b"GET / HTTP/1.1\r\nHost: a.example\r\n" + lines + b"\r\n")
        assert found is not None
        assert found[0].fields + found[0].other_cookies == lines
        del found
    tracemalloc.start()
    try:
        readers = []
        for _ in range(10):
            readers.append(RequestReader(32 << 10))
            readers[-1].feed(b"GET / HTTP/1.1\r\nHost: a.example\r\n" + long + b"\r\n")
        assert tracemalloc.get_traced_memory()[0] < 10 * 8_000
    finally:
        tracemalloc.stop()


def test_first_lines_that_many_connections_ask_for_in_turn_are_read_once() -> None:
    """64 people with twenty pages each, twice over: else each would be read anew, every time."""
    http1._lines.clear()
    reader = RequestReader(LIMIT)
    asked = [head(first=b"GET /app%d/pages/%d HTTP/1.1" % divmod(number, 20)) for number in range(2560)]
    turns = []
    for _ in range(2):
        turns.append([found[0].path for data in asked if (found := reader.feed(data)) is not None])
    assert turns[0] == [f"/app{number // 20}/pages/{number % 20}" for number in range(2560)]
    # the very first head of a connection is read by itself
    assert all(one is other for one, other in zip(turns[0][1:], turns[1][1:], strict=True))


def test_more_first_lines_than_are_remembered_are_read_all_the_same() -> None:
    reader = RequestReader(LIMIT)
    for _ in range(2):
        for number in range(5000):
            found = reader.feed(head(first=b"GET /%d HTTP/1.1" % number))
            assert found is not None and found[0].path == f"/{number}"


def test_a_slow_head_costs_no_more_than_its_length() -> None:
    data = head(*(b"X-%d: %b" % (i, b"a" * 30) for i in range(90)))
    reader = RequestReader(LIMIT)
    looked_at = 0

    class Counting:
        def __call__(self, line: bytes) -> object:
            nonlocal looked_at
            looked_at += len(line)
            return first(line)

    first = reader._first
    reader._first = Counting()  # type: ignore[assignment]
    for i in range(len(data)):
        reader.feed(data[i : i + 1])
    assert looked_at < 100


@pytest.mark.parametrize(
    "name",
    [
        b"Zt-Principal",
        b"zt_principal",
        b"ZT.PRINCIPAL",
        b"X-Forwarded-For",
        b"X_Forwarded_Host",
        b"Forwarded",
        b"x-real-ip",
        b"X-Original-Uri",
        b"X-Client-Cert",
        b"X-Client-Certificate-Dn",
        b"Client-Cert-Chain",
        b"X-SSL-Subject",
        b"Remote-User",
        b"Remote_Groups",
        b"X-Remote-User",
        b"X-Auth-Request-User",
        b"X-Auth-User",
        b"X_Auth_Groups",
        b"X-Authenticated-Userid",
        b"X-Consumer-Username",
        b"X-Vouch-User",
        b"OIDC_CLAIM_email",
        b"X-Envoy-Original-Path",
        b"X-Tls-Client-Cert",
        b"X-Client-Dn",
        b"X-Amzn-Mtls-Clientcert",
        b"X-ARR-ClientCert",
        b"X-Forward-For",
        b"X-HTTP-Host-Override",
        b"WL-Proxy-Client-Cert",
        b"Proxy-Client-IP",
        b"iv-user",
        b"IV_GROUPS",
        b"SM_USER",
        b"SM_UNIVERSALID",
        b"Shib-Session-ID",
        b"OAM_REMOTE_USER",
        b"X-JWT-Assertion",
        b"X-Userinfo",
        b"X-Endpoint-API-UserInfo",
        b"X-Apigateway-Api-Userinfo",
        b"CloudFront-Viewer-Address",
        b"X-Azure-ClientIP",
        b"Fly-Client-IP",
        b"X-Originating-IP",
        b"Proxy",
        b"Txn-Token",
        b"TE",
        b"Trailer",
        b"Proxy-Authorization",
        b"Content_Length",
    ],
)
def test_names_that_never_pass(name: bytes) -> None:
    kind = fields.of_request(name)
    assert kind != fields.PASS and kind < fields.KEPT


@pytest.mark.parametrize(
    "name", [b"Authorization", b"X-Auth-Token", b"X-Requested-With", b"x_custom", b"Via"]
)
def test_names_that_pass(name: bytes) -> None:
    kind = fields.of_request(name)
    assert kind == fields.PASS or kind > fields.KEPT


def test_the_page_on_identity_names_all_that_is_stripped() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/upstream-identity.md").read_text()
    stripped = {name for name, kind in fields._REQUEST.items() if kind == fields.DROP} - {*fields._HOP_BY_HOP}
    assert [name for name in (*fields._IDENTITY, *sorted(stripped)) if f"`{name.decode()}`" not in page] == []

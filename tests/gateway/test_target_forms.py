"""What the first line may name: a path, this host as a URL, or the server as a whole."""

import pytest
from gateway_fakes import Stage


def get(target: bytes, host: bytes = b"app.example", method: bytes = b"GET", lines: bytes = b"") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + lines + b"\r\n"


@pytest.mark.parametrize(
    ("target", "host", "method", "sent"),
    [
        (b"https://app.example/a?b=c", b"app.example", b"GET", b"/a?b=c"),
        (b"HTTPS://APP.example:443/", b"App.Example", b"GET", b"/"),
        (b"https://app.example:8443/a", b"app.example:8443", b"GET", b"/a"),
        (b"https://app.example", b"app.example", b"GET", b"/"),
        (b"https://app.example?q", b"app.example", b"GET", b"/?q"),
    ],
)
async def test_accepted_and_sent_in_origin_form(
    stage: Stage, target: bytes, host: bytes, method: bytes, sent: bytes
) -> None:
    await stage.says(get(target, host, method))
    assert stage.upstream.take().startswith(method + b" " + sent + b" HTTP/1.1\r\nHost: app.example")
    assert stage.door.requests[0].context.path == sent.partition(b"?")[0].decode()


@pytest.mark.parametrize("target", [b"*", b"https://app.example"])
async def test_options_of_the_server_as_a_whole_concern_no_application(stage: Stage, target: bytes) -> None:
    await stage.says(get(target, method=b"OPTIONS"))
    assert stage.happened()[0] == ("authorize", "OPTIONS", "*")
    assert stage.door.requests[0].resource.route is None
    assert stage.client.take().startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("target", "host", "detail"),
    [
        (b"http://app.example/", b"app.example", "other-authority"),
        (b"https://other.example/", b"app.example", "other-authority"),
        (b"https://app.example:8443/", b"app.example", "other-authority"),
        (b"https://app.example/", b"app.example:8443", "other-authority"),
        (b"https://x@app.example/", b"app.example", "other-authority"),
        (b"https://app.example@evil.example/", b"app.example", "other-authority"),
        (b"https:///a", b"app.example", "other-authority"),
        (b"https://app.example./", b"app.example", "other-authority"),
        (b"https://app.example\\@evil.example/", b"app.example", "other-authority"),
        (b"https://app.example//admin", b"app.example", "empty-segment"),
        (b"https://app.example/../admin", b"app.example", "dot-segment"),
        (b"https://app.example#/admin", b"app.example", "fragment"),
        (b"https:/app.example/", b"app.example", "target-form"),
        (b"https:app.example", b"app.example", "target-form"),
        (b"app.example:443", b"app.example", "target-form"),
        (b"*", b"app.example", "target-form"),
        (b"**", b"app.example", "target-form"),
    ],
)
async def test_refused(stage: Stage, target: bytes, host: bytes, detail: str) -> None:
    await stage.says(get(target, host))
    assert [refusal.detail for refusal in stage.door.refusals] == [detail]
    assert stage.dialler.made == []
    assert stage.client.ended == "close"


async def test_a_url_of_another_server_name_is_misdirected() -> None:
    stage = Stage(sni="other.example")
    await stage.says(get(b"https://app.example/"))
    assert stage.happened()[0] == ("refuse", "misdirected")


@pytest.mark.parametrize(("hops", "sent"), [(b"7", b"6"), (b"010", b"9"), (b"1", b"0")])
async def test_options_count_hops_down(stage: Stage, hops: bytes, sent: bytes) -> None:
    await stage.says(get(b"/", method=b"OPTIONS", lines=b"Max-Forwards: " + hops + b"\r\n"))
    assert b"\r\nMax-Forwards: " + sent + b"\r\n" in stage.upstream.take()


@pytest.mark.parametrize("hops", [b"0", b"000", b"", b"-1", b"x", b"1e3", b"9999999999"])
async def test_options_that_may_go_no_further(stage: Stage, hops: bytes) -> None:
    await stage.says(get(b"/", method=b"OPTIONS", lines=b"Max-Forwards: " + hops + b"\r\n"))
    assert stage.door.refusals[0].detail == "max-forwards"
    assert stage.client.take().startswith(b"HTTP/1.1 501 ")
    assert stage.dialler.made == []


async def test_other_methods_know_no_hops(stage: Stage) -> None:
    await stage.says(get(b"/", lines=b"Max-Forwards: 0\r\n"))
    assert b"forwards" not in stage.upstream.take().lower()

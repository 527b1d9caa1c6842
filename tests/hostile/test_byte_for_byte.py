"""What is authorized is what is forwarded: target and header lines arrive as they were, byte for byte."""

import asyncio
import re

from gateway_fakes import Stage, head_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.wire import fields

segment = st.from_regex(
    r"[A-Za-z0-9._~!$&'()*+,=:@|^\[\]-]{1,12}|%(?:20|22|C3%A9|E2%82%AC|3F|25)", fullmatch=True
)
path = st.lists(segment, max_size=4).map(lambda parts: "/" + "/".join(parts))
query = st.one_of(st.just(""), st.from_regex(r"\?[!$-~]{0,20}", fullmatch=True))
target = st.builds(lambda a, b: (a + b).encode(), path, query).filter(
    lambda found: not re.search(rb"/\.{1,2}(?:/|\?|\Z)", found)
)
name = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True).filter(
    lambda found: fields.of_request(found) == fields.PASS
)
value = st.from_regex(rb"[\t\x20-\x7e\x80-\xff]{0,30}", fullmatch=True)
line = st.tuples(name, st.sampled_from([b":", b": ", b":\t "]), value).map(b"".join)
method = st.sampled_from([b"GET", b"POST", b"DELETE", b"OPTIONS", b"PROPFIND"])


async def sent(data: bytes, size: int) -> Stage:
    stage = Stage()
    for at in range(0, len(data), size):
        stage.connection.data_received(data[at : at + size])
    await stage.turn()
    return stage


@settings(max_examples=300, deadline=None)
@given(method, target, st.lists(line, max_size=8), st.integers(1, 200))
def test_target_and_lines(method: bytes, target: bytes, lines: list[bytes], size: int) -> None:
    data = b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: app.example", *lines, b"", b""))
    stage = asyncio.run(sent(data, size))
    (request,) = stage.door.requests
    assert (request.action, request.context.path) == (
        method.decode(),
        target.partition(b"?")[0].decode(),
    )
    written = stage.upstream.written
    assert written.startswith(b"%b %b HTTP/1.1\r\nHost: app.example\r\n" % (method, target))
    arrived = written.partition(b"\r\n\r\n")[0].split(b"\r\n")[2:]
    assert arrived[: len(lines)] == lines
    assert [one.partition(b":")[0] for one in arrived[len(lines) :]] == [
        b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Zt-Request-Id", b"Zt-Principal",
        b"Zt-Assertion",
    ]  # fmt: skip
    assert head_of(written)[2] == b""

"""Whatever bytes come from either side, in whatever pieces: no crash, no permit for a second reading, and
every path that was opened is closed and written down."""

import asyncio

from gateway_fakes import Stage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: app.example\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /b HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nHost: app.example\r\n\r\n",
    b"GET /w HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil close",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
]


def mangled(wholes: list[bytes]) -> st.SearchStrategy[bytes]:
    whole = st.sampled_from(wholes)
    return st.one_of(
        whole,
        st.builds(
            lambda a, b, at: a[: at % len(a)] + b + a[at % len(a) :],
            whole,
            st.binary(max_size=4),
            st.integers(0, 200),
        ),
        st.builds(lambda a, at: a[: at % len(a)], whole, st.integers(0, 200)),
        st.binary(max_size=30),
    )


step = st.one_of(
    st.tuples(st.just("client"), mangled(REQUESTS)),
    st.tuples(st.just("client"), mangled(REQUESTS)),
    st.tuples(st.just("upstream"), mangled(ANSWERS)),
    st.tuples(st.just("upstream"), mangled(ANSWERS)),
    st.tuples(
        st.sampled_from(["upstream lost", "upstream reset", "full", "drained", "cut", "time"]), st.just(b"")
    ),
)


async def act(stage: Stage, what: str, data: bytes) -> None:
    upstream = stage.dialler.made[-1] if stage.dialler.made else None
    if what == "client" and not stage.client.ended:
        await stage.says(data)
    elif what == "cut":
        stage.paths.cut("session-ended")
    elif what == "time":
        await stage.later(20)
    elif what in ("full", "drained") and not stage.client.ended:
        stage.connection.pause_writing() if what == "full" else stage.connection.resume_writing()
    elif upstream is not None and not upstream.ended:
        if what == "upstream":
            await stage.answers(data)
        elif what.startswith("upstream "):
            upstream.lose(ConnectionResetError() if what.endswith("reset") else None)
    await stage.turn()


async def play(steps: list[tuple[str, bytes]]) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    stage = Stage()
    for what, data in steps:
        await act(stage, what, data)
    stage.client.lose()
    await stage.turn()
    assert reported == []
    assert stage.paths.live == {}
    assert len(stage.ledger.records) == stage.paths.opened
    assert len({record.id for record in stage.ledger.records}) == stage.paths.opened
    assert stage.arrival.left
    stage.upstreams.close()
    await stage.turn()
    assert all(made.ended for made in stage.dialler.made), "a connection belongs to nobody"
    assert len(stage.wheel) == 1  # the crowd itself


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=8))
def test_anything_from_both_sides(steps: list[tuple[str, bytes]]) -> None:
    asyncio.run(play(steps))

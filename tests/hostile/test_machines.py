"""A conversation of client, gateway and application in any order and any pieces, with h11 at both ends.

Whatever happens: a request that reaches an application is one that h11 reads in the client's bytes, with the
same method, target and body; and what the client hears is, as far as it goes, HTTP that h11 understands.
"""

import asyncio
import re

import h11
from gateway_fakes import ROUTE, Stage, Transport
from hostile_cases import LIMIT, cuts, in_origin_form
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

_ID = re.compile(rb"\r\nZt-Request-Id: ([0-9a-f]{32})\r\n")

header = st.sampled_from(
    [
        b"X-A: b", b"Accept: */*", b"Connection: close", b"Connection: x-a", b"TE: trailers",
        b"Connection: TE",
        b"Expect: 100-continue", b"Cookie: a=b", b"Zt-Principal: root", b"Upgrade: h2c", b"Trailer: X-Sum",
    ]
)  # fmt: skip
content = st.sampled_from([b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n", b"hello", b"0\r\n\r\n", b"x", b""])
seed = st.text("abc", max_size=3)


def chunks(data: bytes, size: int, trailer: bytes) -> bytes:
    out = b"".join(
        b"%x\r\n%b\r\n" % (len(data[i : i + size]), data[i : i + size]) for i in range(0, len(data), size)
    )
    return out + b"0\r\n" + trailer + b"\r\n"


def with_body(head: list[bytes], data: bytes, how: str, size: int, trailer: bytes) -> bytes:
    if how == "length":
        return b"\r\n".join((*head, b"Content-Length: %d" % len(data), b"", data))
    if how == "chunks":
        return b"\r\n".join((*head, b"Transfer-Encoding: chunked", b"", chunks(data, size, trailer)))
    return b"\r\n".join((*head, b"", b""))


trailer = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"Host: evil.example\r\n"])
request = st.builds(
    lambda method, target, version, lines, data, how, size, last: with_body(
        [method + b" " + target + b" HTTP/1." + version, b"Host: app.example", *lines],
        data, how if version == b"1" or how != "chunks" else "length", size, last,
    ),
    st.sampled_from([b"POST", b"GET", b"HEAD", b"DELETE"]),
    st.sampled_from([b"/", b"/a?b", b"https://app.example/c", b"//d"]),
    st.sampled_from([b"1", b"1", b"1", b"0"]),
    st.lists(header, max_size=3, unique=True),
    content, st.sampled_from(["length", "chunks", "none"]), st.integers(1, 9), trailer,
)  # fmt: skip
answer = st.builds(
    lambda first, status, lines, data, how, size, last: first + with_body(
        [b"HTTP/1.1 " + status, *lines], data, how, size, last
    ) + (data if how == "close" else b""),
    st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]),
    st.sampled_from([b"200 OK", b"200 OK", b"204 No Content", b"304 Not Modified", b"413 No"]),
    st.lists(st.sampled_from([b"X-A: b", b"Connection: close", b"Set-Cookie: a=b"]), max_size=2, unique=True),
    content, st.sampled_from(["length", "chunks", "close"]), st.integers(1, 9), trailer,
)  # fmt: skip
#: None: as it is. A number: so many bytes lack at the end. Else: (where, bytes to take out, what to put in).
Change = None | int | tuple[int, int, bytes]
change = st.one_of(
    st.none(),
    st.integers(1, 30),
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 6),
        st.sampled_from([b"", b"\r", b"\n", b" ", b"\x00", b"0", b"\r\n"]),
    ),
)


def changed(data: bytes, change: Change) -> bytes:
    if change is None:
        return data
    if isinstance(change, int):
        return data[:-change]
    place, gone, new = change
    at = place % (len(data) + 1)
    return data[:at] + new + data[at + gone :]


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.reported: list[object] = []
        self.runner.get_loop().set_exception_handler(lambda loop, context: self.reported.append(context))
        self.stage: Stage = self.runner.run(self.begin())
        self.clients = [(0, b"")]  # how many requests there had been before, and what each client said
        self.unsaid = b""  # the gateway does not read for now

    async def begin(self) -> Stage:
        return Stage(ROUTE.replaced(retries=0))

    def teardown(self) -> None:
        self.runner.run(self.end())
        self.runner.close()

    async def end(self) -> None:
        stage = self.stage
        stage.client.lose()
        await stage.turn()
        assert stage.paths.live == {}
        assert len(stage.ledger.records) == stage.paths.opened
        stage.upstreams.close()
        await stage.turn()
        assert all(made.ended for made in stage.dialler.made)
        assert len(stage.wheel) == 1  # the crowd itself
        assert self.reported == []

    # ------------------------------------------------------------------ what may happen

    def client_is_there(self) -> bool:
        return not self.stage.client.ended

    def upstream_is_there(self) -> bool:
        return bool(self.stage.dialler.made) and not self.stage.upstream.ended

    async def deliver(self, pieces: list[bytes]) -> None:
        self.unsaid += b"".join(pieces)
        for piece in pieces:
            if self.stage.client.ended or not self.stage.client.reading:
                break
            self.unsaid = self.unsaid[len(piece) :]
            before, said = self.clients[-1]
            self.clients[-1] = before, said + piece
            await self.stage.says(piece)

    @precondition(client_is_there)
    @rule(data=request, change=change, how=seed)
    def ask(self, data: bytes, change: Change, how: str) -> None:
        data = changed(data, change)
        self.runner.run(self.deliver(cuts(data, how) if how else [data]))

    async def hear(self, pieces: list[bytes]) -> None:
        upstream = self.stage.upstream
        for piece in pieces:
            if not upstream.ended:
                upstream.protocol.data_received(piece)  # type: ignore[attr-defined]
                await self.stage.turn()

    @precondition(upstream_is_there)
    @rule(data=answer, change=change, how=seed)
    def reply(self, data: bytes, change: Change, how: str) -> None:
        data = changed(data, change)
        self.runner.run(self.hear(cuts(data, how) if how else [data]))

    @rule(data=request)
    def another_client_asks(self, data: bytes) -> None:
        """The one before leaves; connections to the application stay."""

        async def go() -> None:
            self.stage.client.lose()
            await self.stage.turn()
            self.stage.client, self.stage.connection, _ = self.stage.connect()
            self.unsaid = b""
            self.clients.append((int(self.stage.world.ids.new(), 16), b""))  # ids are numbers here
            await self.deliver([data])

        self.runner.run(go())

    @rule(what=st.sampled_from(["close", "reset", "slow", "fast", "full", "drained", "cut", "on"]))
    def meanwhile(self, what: str) -> None:
        """Something happens at one of the ends, or at the door."""
        self.runner.run(self.happen(what))

    async def happen(self, what: str) -> None:
        stage = self.stage
        if what == "cut":
            stage.paths.cut("session-ended")
        elif what == "on" and self.unsaid and self.client_is_there():
            data, self.unsaid = self.unsaid, b""
            await self.deliver([data])
        elif what in ("full", "drained") and self.client_is_there():
            stage.connection.pause_writing() if what == "full" else stage.connection.resume_writing()
        elif self.upstream_is_there():
            protocol = stage.upstream.protocol
            if what in ("slow", "fast"):
                protocol.pause_writing() if what == "slow" else protocol.resume_writing()
            elif what in ("close", "reset"):
                stage.upstream.lose(ConnectionResetError() if what == "reset" else None)
        await stage.turn()

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def applications_get_what_the_client_sent(self) -> None:
        sent = [(before, requests(said)) for before, said in self.clients]
        for upstream in self.stage.dialler.made:
            for number, method, target, body, complete in forwarded(upstream):
                before, of_client = next(found for found in reversed(sent) if found[0] < number)
                assert number - before <= len(of_client), "a request that h11 does not see"
                theirs = of_client[number - before - 1]
                assert (method, target) == theirs[:2]
                assert theirs[2] == body if complete else theirs[2].startswith(body)
                assert theirs[3] or not complete, "an end that the client has not said"

    @invariant()
    def the_client_understands_what_it_hears(self) -> None:
        methods = [sent[0] for sent in requests(self.clients[-1][1])]
        rest = self.stage.client.written
        for method in [*methods, b"GET"]:
            rest = after_response(method, rest)
        assert rest == b""


Sent = tuple[bytes, bytes, bytes, bool]  # method, target, body, whether it is complete


def requests(data: bytes) -> list[Sent]:
    """Return the requests that h11 sees, the last one perhaps in part."""
    found: list[Sent] = []
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    reader.receive_data(data)
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                found.append((event.method, in_origin_form(event.target), b"", False))
            elif isinstance(event, h11.Data):
                method, target, body, _ = found[-1]
                found[-1] = (method, target, body + bytes(event.data), False)
            elif isinstance(event, h11.EndOfMessage):
                found[-1] = (*found[-1][:3], True)
                reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                    return found
                reader.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


def forwarded(upstream: Transport) -> list[tuple[int, bytes, bytes, bytes, bool]]:
    """Return (number of the decision, method, target, body, complete) of what an upstream was sent."""
    read = requests(upstream.written)
    numbers = [int(found, 16) for found in _ID.findall(upstream.written)]
    assert len(read) >= len(numbers) or b"Zt-Request-Id" in b"".join(body for _, _, body, _ in read)
    return [(number, *sent) for number, sent in zip(numbers, read, strict=False)]


def after_response(method: bytes, data: bytes) -> bytes:
    """Take a response off the front of what a client heard; whatever is there must be one, or begin one."""
    if not data:
        return b""
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "app.example")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    while True:
        event = peer.next_event()
        if isinstance(event, h11.EndOfMessage):
            return bytes(peer.trailing_data[0])
        if event in (h11.NEED_DATA, h11.PAUSED):
            return b""


Conversation.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestConversation = Conversation.TestCase

"""The corpus in `corpus/*.toml`, read and played on the stage of the gateway tests."""

import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
from gateway_fakes import Stage, Transport

from ztproxy.wire.flaws import FLAWS

GET = "GET / HTTP/1.1\nHost: app.example\n\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIMIT = 1 << 16  # what the fake application's own reader takes

_MARK = re.compile(r"\\\n|\\x([0-9a-f]{2})|\\([nrt\\])|\{\{(.+?)\*(\d+)\}\}|\n", re.DOTALL)
_ORIGIN = re.compile(rb"(?i)https://app\.example(?::443)?(?=[/?]|\Z)")
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
#: What we add to a request besides what the client sent.
_OURS = re.compile(
    rb"(?:X-Forwarded-(?:For: 192\.0\.2\.7|Proto: https|Host: [^\r]*)|Zt-Request-Id: [0-9a-f]{32}"
    rb"|Zt-Principal: demo:carol|Zt-Assertion: e\.y\.J)\r\n"
)


Request = tuple[bytes, bytes, bytes]  # method, target, body


@dataclass(frozen=True)
class Case:
    name: str
    file: str
    source: str
    send: bytes = b""
    forwarded: tuple[bytes, ...] = ()
    refused: str = ""
    cut: str = ""
    then: str = ""
    pooled: bool = True
    request: bytes = b""
    answer: bytes = b""
    passed: bytes | None = None
    broken: str | None = None
    ends: str = ""
    h11: str = ""
    nginx: str = ""


def text(written: str) -> bytes:
    """Return the bytes that a text of a case stands for."""

    def one(found: re.Match[str]) -> str:
        if found[0] == "\\\n":
            return ""
        if found[0] == "\n":
            return "\r\n"
        if found[1]:
            return chr(int(found[1], 16))
        if found[2]:
            return _PLAIN[found[2]]
        return text(found[3]).decode("latin-1") * int(found[4])

    return _MARK.sub(one, written).encode("latin-1")


def load() -> list[Case]:
    """Return all cases."""
    found = []
    for file in sorted((Path(__file__).parent / "corpus").glob("*.toml")):
        for entry in tomllib.loads(file.read_text("ascii"))["case"]:
            values: dict[str, Any] = {"file": file.stem, **entry}
            for key in ("send", "request", "answer", "passed"):
                if key in values:
                    values[key] = text(values[key])
            forwarded = [text(one) for one in values.pop("forwarded", ())] * values.pop("times", 1)
            found.append(Case(forwarded=tuple(forwarded), **values))
    return found


CASES = load()
REQUESTS = [case for case in CASES if case.send]
ANSWERS = [case for case in CASES if case.answer]


def code_of(word: str) -> str:
    return FLAWS[word][0] if word in FLAWS else word


def cuts(data: bytes, seed: str) -> list[bytes]:
    """Cut bytes into pieces of 1 to 32 bytes, always the same ones for a seed."""
    pieces, at, number = [], 0, 0
    while at < len(data):
        for size in hashlib.sha256(f"{seed} {number}".encode()).digest():
            pieces.append(data[at : at + 1 + size % 32])
            at += 1 + size % 32
        number += 1
    return [piece for piece in pieces if piece]


def segmentations(data: bytes, name: str) -> dict[str, list[bytes]]:
    ways = {"whole": [data], "twice": cuts(data, name), "thrice": cuts(data, name + "!")}
    # Long cases are long by repetition: single bytes of it would tell nothing new.
    ways["bytes"] = (
        [data[i : i + 1] for i in range(len(data))] if len(data) < 2000 else cuts(data, name + "?")
    )
    return ways


@dataclass
class Application:
    """Reads what reaches it with h11, and answers each request that is complete."""

    stage: Stage
    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)  # method, target, body
    complete: int = 0
    readers: dict[int, h11.Connection] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)

    async def work(self) -> bool:
        """Take what has been sent; tell whether there was anything."""
        busy = False
        for number, upstream in enumerate(self.stage.dialler.made):
            seen = self.sent.get(number, 0)
            data = upstream.written[seen:]
            self.sent[number] = seen + len(data)
            if data and not upstream.ended:
                busy = True
                await self._read(number, upstream, data)
        return busy

    async def _read(self, number: int, upstream: Transport, data: bytes) -> None:
        reader = self.readers.setdefault(number, h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT))
        reader.receive_data(data)
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                self.requests.append((event.method, event.target, b""))
            elif isinstance(event, h11.Data):
                method, target, body = self.requests[-1]
                self.requests[-1] = (method, target, body + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.complete += 1
                await self._answer(reader, upstream)
                if reader.our_state is not h11.IDLE:
                    return
            else:
                return

    async def _answer(self, reader: h11.Connection, upstream: Transport) -> None:
        reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        reader.send(h11.EndOfMessage())
        if reader.their_state is h11.DONE and reader.our_state is h11.DONE:
            reader.start_next_cycle()
        upstream.protocol.data_received(OK)  # type: ignore[attr-defined]
        await self.stage.turn()


@dataclass(frozen=True)
class Outcome:
    """What came of it, whatever the pieces were."""

    forwarded: bytes
    requests: tuple[tuple[bytes, bytes, bytes], ...]
    complete: int  # how many of those had an end
    refusals: tuple[tuple[str, str], ...]  # code, detail
    ends: tuple[tuple[str, str], ...]  # of permitted requests: end, detail
    answers: tuple[bytes, ...]  # status codes
    client: str  # how the client's connection ended
    pooled: int


async def settle(stage: Stage, application: Application) -> None:
    await stage.turn()
    for _ in range(300):
        if not await application.work():
            return
        await stage.turn()


async def play(pieces: list[bytes]) -> tuple[Outcome, Stage]:
    """Have a client send pieces to a gateway before an application that always answers."""
    stage = Stage()
    application = Application(stage)
    events = 0
    for piece in pieces:
        if not stage.client.reading:
            await settle(stage, application)
        if stage.client.ended:
            break
        stage.connection.data_received(piece)
        if len(stage.events) != events or not stage.client.reading:
            await settle(stage, application)
            events = len(stage.events)
    await settle(stage, application)
    forwarded = b"".join(_OURS.sub(b"", upstream.written) for upstream in stage.dialler.made)
    outcome = Outcome(
        forwarded,
        tuple(application.requests),
        application.complete,
        tuple((refusal.code, refusal.detail) for refusal in stage.door.refusals),
        tuple((record.end, record.detail) for record in stage.ledger.records),
        tuple(re.findall(rb"HTTP/1\.1 ([2-5][0-9]{2}) ", stage.client.written)),
        stage.client.ended,
        len(stage.upstreams),
    )
    return outcome, stage


def in_origin_form(target: bytes) -> bytes:
    path = _ORIGIN.sub(b"", target, count=1)
    return path if path.startswith((b"/", b"*")) or path == target else b"/" + path


#: What h11 says of framing fields that it can not take. Among trailers, too, where we pass them over: they
#: have no say there (RFC 9110 section 6.5.1).
_OF_FRAMING = ("bad Content-Length", "conflicting Content-Length", "multiple Transfer", "Only Transfer")


def requests_by_h11(data: bytes) -> list[Request]:
    """Return the complete requests that h11 finds before it objects or needs more."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    reader.receive_data(data)
    found: list[Request] = []
    method = target = body = b""
    within = False  # a request, behind its head
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method, in_origin_form(event.target), b""
                within = True
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, target, body))
                within = False
                reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                    return found
                reader.start_next_cycle()
            else:
                return found
    except h11.ProtocolError as objection:
        if within and str(objection).startswith(_OF_FRAMING):
            return [*found, (method, target, body), *requests_by_h11(reader.trailing_data[0])]
        return found

"""The support desk: tickets, comments, and live updates over a WebSocket.

Everything is kept in memory and bounded; a restart brings the first tickets back.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp import WSMsgType, web
from msgspec import Struct

from ztproxy.demo.apps.identity import CALLER, Assertions
from ztproxy.demo.apps.pages import application, page

STATES: Final = ("open", "waiting", "solved")
PRIORITIES: Final = ("normal", "high", "urgent")
TICKETS: Final = 500
COMMENTS: Final = 200
LISTENERS: Final = 200


class Comment(Struct, frozen=True):
    """What somebody said about a ticket."""

    author: str
    at: str
    text: str


class Ticket(Struct, frozen=True):
    """One request for help; a change makes a new value."""

    number: int
    subject: str
    customer: str
    author: str
    text: str
    state: str = "open"
    priority: str = "normal"
    comments: tuple[Comment, ...] = ()

    def summary(self) -> dict[str, object]:
        """What the list of tickets shows."""
        return {
            "number": self.number,
            "subject": self.subject,
            "customer": self.customer,
            "state": self.state,
            "priority": self.priority,
            "comments": len(self.comments),
        }


FIRST: Final = (
    Ticket(
        1041,
        "Invoices arrive twice since Monday",
        "Nordwind Logistik",
        "Ilse",
        "Our accounting gets every invoice of the week a second time, with a new number.",
        priority="high",
        comments=(Comment("Adam", "yesterday", "The export job ran on both nodes. Stopped on one of them."),),
    ),
    Ticket(
        1042,
        "Cannot change delivery address",
        "Petit Atelier",
        "Luc",
        "Saving the new address ends in an empty page.",
    ),
    Ticket(
        1043,
        "Password mail never comes",
        "Kestrel Optics",
        "Maja",
        "Tried three times, looked into the spam folder too.",
        state="waiting",
        comments=(Comment("Carol", "this morning", "Asked for the mail server's log of 8:15."),),
    ),
    Ticket(
        1044,
        "Warehouse scanner shows yesterday's stock",
        "Nordwind Logistik",
        "Piet",
        "Restarting the scanner helps for about an hour.",
        priority="urgent",
    ),
    Ticket(
        1039,
        "Export to CSV lacks the last column",
        "Sol y Sombra",
        "Inés",
        "The column with the order date is missing.",
        state="solved",
    ),
)


@dataclass
class Desk:
    """The tickets, and the pages that want to hear of them."""

    tickets: dict[int, Ticket] = field(default_factory=lambda: {ticket.number: ticket for ticket in FIRST})
    listeners: set[web.WebSocketResponse] = field(default_factory=set)

    def find(self, state: str, query: str) -> list[Ticket]:
        """Tickets of one state ("solved" or all that are not), newest first."""
        words = query.casefold().split()
        return [
            ticket
            for ticket in sorted(self.tickets.values(), key=lambda ticket: -ticket.number)
            if (ticket.state == "solved") == (state == "solved") and _has(ticket, words)
        ]

    def add(self, subject: str, customer: str, author: str, text: str, priority: str) -> Ticket:
        """A new ticket; the oldest goes when the desk is full."""
        ticket = Ticket(max(self.tickets) + 1, subject, customer, author, text, priority=priority)
        self.tickets[ticket.number] = ticket
        if len(self.tickets) > TICKETS:
            del self.tickets[min(self.tickets)]
        return ticket

    def comment(self, ticket: Ticket, author: str, text: str, state: str) -> Ticket:
        """The ticket with one more comment and perhaps another state."""
        said = Comment(author, datetime.now(UTC).strftime("%d %b %H:%M"), text)
        comments = (*ticket.comments, said)[-COMMENTS:]
        values = {name: getattr(ticket, name) for name in Ticket.__struct_fields__}
        changed = Ticket(**{**values, "comments": comments, "state": state})
        self.tickets[ticket.number] = changed
        return changed

    async def tell(self, event: dict[str, object], listeners: Iterable[web.WebSocketResponse] = ()) -> None:
        """Send an event to every open page; a page that is gone is forgotten by its own handler."""
        text = json.dumps(event)
        for socket in tuple(listeners or self.listeners):
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(2):
                    await socket.send_str(text)


def _has(ticket: Ticket, words: list[str]) -> bool:
    text = f"{ticket.number} {ticket.subject} {ticket.customer} {ticket.text}".casefold()
    return all(word in text for word in words)


DESK: Final = web.AppKey("desk", Desk)


async def index(request: web.Request) -> web.Response:
    """The list of tickets."""
    state, query = request.query.get("state", ""), request.query.get("q", "")[:100]
    return page(
        request, "support.html", tickets=request.app[DESK].find(state, query), state=state, query=query
    )


async def show(request: web.Request) -> web.Response:
    """One ticket with its comments."""
    return page(request, "ticket.html", ticket=_ticket(request), states=STATES)


async def new(request: web.Request) -> web.Response:
    """The form for a new ticket."""
    return page(request, "ticket-new.html", priorities=PRIORITIES)


async def create(request: web.Request) -> web.Response:
    """Open a ticket and tell every page."""
    form = await request.post()
    subject, customer = _text(form.get("subject"), 120), _text(form.get("customer"), 80)
    text, priority = _text(form.get("text"), 4000), _one_of(form.get("priority"), PRIORITIES)
    desk = request.app[DESK]
    ticket = desk.add(subject, customer, request[CALLER].label, text, priority)
    await desk.tell({"kind": "ticket", "ticket": ticket.summary()})
    raise web.HTTPSeeOther(f"/tickets/{ticket.number}")


async def comment(request: web.Request) -> web.Response:
    """Add a comment and tell every page."""
    form = await request.post()
    text, state = _text(form.get("text"), 4000), _one_of(form.get("state"), STATES)
    desk = request.app[DESK]
    ticket = desk.comment(_ticket(request), request[CALLER].label, text, state)
    said = ticket.comments[-1]
    shown = {"ticket": ticket.number, "author": said.author, "at": said.at, "text": said.text}
    await desk.tell({"kind": "comment", "comment": shown})
    await desk.tell({"kind": "ticket", "ticket": ticket.summary()})
    raise web.HTTPSeeOther(f"/tickets/{ticket.number}")


async def live(request: web.Request) -> web.WebSocketResponse:
    """The stream of events; a client may send a ping and gets it back."""
    desk = request.app[DESK]
    if len(desk.listeners) >= LISTENERS:
        raise web.HTTPServiceUnavailable(text="Too many open pages.\n")
    socket = web.WebSocketResponse(heartbeat=30, max_msg_size=4096)
    await socket.prepare(request)
    desk.listeners.add(socket)
    try:
        here = len(desk.listeners)
        await desk.tell({"kind": "hello", "you": request[CALLER].id, "here": here}, [socket])
        await desk.tell({"kind": "presence", "here": here})
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await desk.tell({"kind": "echo", "text": message.data}, [socket])
    finally:
        desk.listeners.discard(socket)
        await desk.tell({"kind": "presence", "here": len(desk.listeners)})
    return socket


def _ticket(request: web.Request) -> Ticket:
    ticket = request.app[DESK].tickets.get(int(request.match_info["number"]))
    if ticket is None:
        raise web.HTTPNotFound(text="There is no such ticket.\n")
    return ticket


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise web.HTTPBadRequest(text="A field is empty or too long.\n")
    return value.strip()


def _one_of(value: object, words: tuple[str, ...]) -> str:
    return value if isinstance(value, str) and value in words else words[0]


def make(assertions: Assertions) -> web.Application:
    """The support desk as an application."""
    app = application(assertions)
    app[DESK] = Desk()
    app.add_routes(
        [
            web.get("/", index),
            web.get("/new", new),
            web.post("/new", create),
            web.get(r"/tickets/{number:\d{1,9}}", show),
            web.post(r"/tickets/{number:\d{1,9}}/comments", comment),
            web.get("/live", live),
        ]
    )
    return app

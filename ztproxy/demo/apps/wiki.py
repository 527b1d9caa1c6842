"""The operations wiki: pages, editing, history. In memory and bounded."""

import difflib
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from ztproxy.demo.apps.identity import CALLER, Assertions
from ztproxy.demo.apps.markup import to_html
from ztproxy.demo.apps.pages import application, page

VERSIONS: Final = 50


class Version(Struct, frozen=True):
    """A page as somebody saved it."""

    text: str
    author: str
    at: str
    note: str = ""


class Page(Struct, frozen=True):
    """A page and all it has been."""

    slug: str
    title: str
    versions: tuple[Version, ...]


def _first(slug: str, title: str, text: str) -> Page:
    return Page(slug, title, (Version(text.strip(), "Adam", "last week", "first version"),))


FIRST: Final = (
    _first(
        "home",
        "Start here",
        """
What operations knows, in one place. Everything here is read on the way to fixing something, so keep it short.

## Most wanted
- [When the database fails over](/failover)
- [Who is on call](/on-call)
- [Before you deploy](/deploy)

Secrets do not belong here. Put them where the deployer reads them.
""",
    ),
    _first(
        "failover",
        "When the database fails over",
        """
The replica takes over by itself within 30 seconds. Look before you touch anything.

## Look
```
dbctl status --cluster orders
dbctl lag --max 5s
```

## Then
- Lag below five seconds: do nothing, write the time into the incident.
- Lag above: **stop the export job first**, it holds the longest transactions.
- No primary after two minutes: call whoever is on [call](/on-call).
""",
    ),
    _first(
        "on-call",
        "Who is on call",
        """
The week changes on Tuesday at 10:00.

- This week: Adam, deputy Rita
- Next week: Rita, deputy Adam

Hand over with a look at the open incidents, not by mail.
""",
    ),
    _first(
        "deploy",
        "Before you deploy",
        """
The pipeline deploys; people do not. It reaches the deployment API with its own certificate and nothing else.

## Check
- The change has been up in staging for an hour.
- Nobody is in the middle of an incident.
- You are there for the next thirty minutes.
""",
    ),
)

PAGES: Final = web.AppKey("pages", dict[str, Page])


async def home(request: web.Request) -> web.Response:
    """The first page."""
    raise web.HTTPFound("/home")


async def show(request: web.Request) -> web.Response:
    """One page."""
    found = _page(request)
    return _render(request, "wiki.html", found, body=to_html(found.versions[-1].text))


async def edit(request: web.Request) -> web.Response:
    """The form with the newest text."""
    found = _page(request)
    text = found.versions[-1].text
    return _render(request, "wiki-edit.html", found, text=text, note="", conflict=False)


async def save(request: web.Request) -> web.Response:
    """Save a new version, unless somebody else did since this form was opened."""
    found, form = _page(request), await request.post()
    text, note = str(form.get("text", "")).replace("\r\n", "\n"), str(form.get("note", ""))[:120]
    if not text.strip() or len(text) > 20_000:
        raise web.HTTPBadRequest(text="The text is empty or too long.\n")
    if form.get("version") != str(len(found.versions)):
        return _render(request, "wiki-edit.html", found, status=409, text=text, note=note, conflict=True)
    at = datetime.now(UTC).strftime("%d %b %H:%M")
    version = Version(text, request[CALLER].label, at, note)
    request.app[PAGES][found.slug] = replace(found, versions=(*found.versions, version)[-VERSIONS:])
    raise web.HTTPSeeOther(f"/{found.slug}")


async def history(request: web.Request) -> web.Response:
    """Every version, newest first, with what changed."""
    found = _page(request)
    before = (None, *found.versions[:-1])
    changes = [
        {
            "number": number,
            "author": new.author,
            "at": new.at,
            "note": new.note,
            "lines": _difference(old, new),
        }
        for number, (old, new) in enumerate(zip(before, found.versions, strict=True), 1)
    ]
    return _render(request, "wiki-history.html", found, changes=changes[::-1])


def _difference(old: Version | None, new: Version) -> list[dict[str, str]]:
    if old is None:
        return []
    kinds = {"+": "added", "-": "removed"}
    lines = difflib.unified_diff(old.text.splitlines(), new.text.splitlines(), lineterm="", n=1)
    return [{"kind": kinds.get(line[:1], "same"), "text": line} for line in list(lines)[2:]]


def _page(request: web.Request) -> Page:
    found = request.app[PAGES].get(request.match_info["slug"])
    if found is None:
        raise web.HTTPNotFound(text="There is no such page.\n")
    return found


def _render(
    request: web.Request, template: str, found: Page, status: int = 200, **values: object
) -> web.Response:
    pages = list(request.app[PAGES].values())
    return page(request, template, status=status, page=found, pages=pages, **values)


def make(assertions: Assertions) -> web.Application:
    """The wiki as an application."""
    app = application(assertions)
    app[PAGES] = {first.slug: first for first in FIRST}
    app.add_routes(
        [
            web.get("/", home),
            web.get("/{slug:[a-z-]{1,40}}", show),
            web.get("/{slug:[a-z-]{1,40}}/edit", edit),
            web.post("/{slug:[a-z-]{1,40}}/edit", save),
            web.get("/{slug:[a-z-]{1,40}}/history", history),
        ]
    )
    return app

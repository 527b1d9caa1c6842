"""What a browser posts, read whole and never more of it than a small form or proof can have.

Used by the pages that take a POST. A body comes in as many pieces as the network likes.
"""

from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

_FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_FORM: Final = 1024
_MOST_FIELDS: Final = 8


async def read(request: web.Request, longest: int) -> bytes:
    """Return the body. Raises HTTPRequestEntityTooLarge past `longest` bytes."""
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > longest:
            raise web.HTTPRequestEntityTooLarge(max_size=longest, actual_size=len(body))
    return body


async def form(request: web.Request) -> dict[str, str]:
    """Return the fields of one of our own forms. Raises HTTPBadRequest, HTTPRequestEntityTooLarge.

    Our forms are short and ASCII; what says to be in another type or encoding was not sent by one of them.
    """
    if request.content_type != _FORM:
        raise web.HTTPBadRequest
    body = await read(request, _LONGEST_FORM)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise web.HTTPBadRequest from error
    return dict(pairs)

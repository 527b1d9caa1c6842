"""The application at a partner's site: `python site_application.py HOST PORT`."""

import asyncio
import sys

from aiohttp import WSMsgType, web

CHUNK = bytes(1 << 18)
SERVED: web.AppKey[list[int]] = web.AppKey("served")


async def down(request: web.Request) -> web.StreamResponse:
    """So many bytes, as fast as they are taken."""
    left = int(request.query["bytes"])
    response = web.StreamResponse(headers={"Content-Length": str(left)})
    await response.prepare(request)
    while left > 0:
        await response.write(CHUNK[:left])
        left -= len(CHUNK)
    return response


async def up(request: web.Request) -> web.Response:
    """How many bytes came."""
    received = 0
    async for chunk in request.content.iter_any():
        received += len(chunk)
    return web.Response(text=str(received))


async def events(request: web.Request) -> web.StreamResponse:
    """An event ten times a second."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.query["count"])):
        await response.write(b"data: %d\n\n" % number)
        await asyncio.sleep(0.1)
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    """What comes."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def slow(request: web.Request) -> web.Response:
    """Takes its time, and says how many have been here."""
    request.app[SERVED].append(1)
    await asyncio.sleep(0.05)
    return web.Response(text=str(len(request.app[SERVED])))


async def answer(request: web.Request) -> web.Response:
    """Everything that a request says of who asks."""
    return web.json_response(
        {"path": request.path, "headers": [list(pair) for pair in request.headers.items()]}
    )


def make() -> web.Application:
    """The application."""
    app = web.Application(client_max_size=4 << 30)
    app.router.add_get("/down", down)
    app.router.add_post("/up", up)
    app.router.add_get("/events", events)
    app.router.add_get("/ws", echo)
    app.router.add_get("/slow", slow)
    app[SERVED] = []
    app.router.add_get("/{path:.*}", answer)
    return app


if __name__ == "__main__":
    web.run_app(make(), host=sys.argv[1], port=int(sys.argv[2]), access_log=None, print=None)

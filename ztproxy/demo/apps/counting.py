"""Counts what arrives, so that a test can prove that a refused request never did.

The count is read at `/__requests` on the application's own port. A request that came through the proxy
(it carries a request id) is served like any other and does not get to see it.
"""

from collections import Counter, deque
from typing import Final

from aiohttp import web

from ztproxy.demo.apps.identity import Next

PATH: Final = "/__requests"
KEPT: Final = 200  # requests remembered one by one
PATHS: Final = 1000  # different paths counted one by one


class Arrivals:
    """What one application was asked since it started."""

    def __init__(self) -> None:
        self.total = 0
        self._paths: Counter[str] = Counter()
        self._last: deque[dict[str, str]] = deque(maxlen=KEPT)

    def note(self, request: web.Request) -> None:
        """One more request."""
        self.total += 1
        line = f"{request.method} {request.path}"
        if line in self._paths or len(self._paths) < PATHS:
            self._paths[line] += 1
        self._last.append(
            {"method": request.method, "path": request.path, "id": request.headers.get("Zt-Request-Id", "")}
        )

    def report(self) -> dict[str, object]:
        """The count as JSON values."""
        return {"total": self.total, "paths": dict(self._paths), "last": list(self._last)}


@web.middleware
async def count(request: web.Request, handler: Next) -> web.StreamResponse:
    """Middleware: note the request, or answer with the count."""
    arrivals = request.app[ARRIVALS]
    if request.path == PATH and "Zt-Request-Id" not in request.headers:
        return web.json_response(arrivals.report())
    arrivals.note(request)
    return await handler(request)


def told(arrivals: Arrivals) -> web.Application:
    """An application that tells the count and nothing else, for those who have no way to the counted one."""

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(arrivals.report())

    app = web.Application()
    app.router.add_get(PATH, tell)
    return app


ARRIVALS: Final = web.AppKey("arrivals", Arrivals)

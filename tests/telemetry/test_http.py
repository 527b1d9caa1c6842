"""The private listener answers machines, and nothing else."""

from pytest_aiohttp.plugin import AiohttpClient

from ztproxy.telemetry import http
from ztproxy.telemetry.health import Health, Readiness
from ztproxy.telemetry.metrics import Counters


async def test_metrics_are_those_of_this_moment(aiohttp_client: AiohttpClient) -> None:
    counters = Counters("0")
    client = await aiohttp_client(http.make(lambda: [counters.snapshot()], Readiness({})))
    counters.refused("login-required")
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert 'ztproxy_refusals_total{code="login-required",worker="0"} 1.0' in await answer.text()


async def test_ready_says_why_not(aiohttp_client: AiohttpClient) -> None:
    state = {"store": "can not write", "workers": ""}
    ready = Readiness({name: lambda name=name: state[name] for name in state})
    client = await aiohttp_client(http.make(list, ready))
    answer = await client.get("/readyz")
    assert answer.status == 503
    assert await answer.json() == {"ready": False, "reasons": ["store: can not write"]}
    state["store"] = ""
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"ready": True, "reasons": []}


async def test_alive_although_not_ready(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(http.make(list, lambda: Health(ready=False, reasons=("x",))))
    assert (await client.get("/healthz")).status == 200
    assert (await client.get("/")).status == 404
    assert (await client.post("/metrics", data=b"x")).status == 405

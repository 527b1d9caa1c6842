"""Requests a second of ztproxy and of everybody else, with 64 and with 1,000 connections."""

from collections.abc import Callable, Sequence

from bench.ground import Ground
from bench.load import Load, app_paths
from bench.products import Running, bare, caddy, envoy, haproxy, nginx, traefik
from bench.products.ztproxy import RecordsMissing, Variant, Ztproxy
from bench.requests import Contest, growth, percent, table

Starter = Callable[[Ground], Running]
FEW: Sequence[Starter] = (
    nginx.plain,
    nginx.auth_request,
    nginx.auth_request_uncounted,
    haproxy.plain,
    caddy.plain,
    caddy.forward_auth,
    traefik.plain,
    traefik.forward_auth,
    envoy.plain,
    envoy.ext_authz,
)
MANY: Sequence[Starter] = (
    nginx.plain,
    nginx.auth_request,
    haproxy.plain,
    caddy.forward_auth,
    envoy.ext_authz,
)
NOTES = [
    "`per s` are requests/s; `ratio` is ztproxy's over theirs, the median of the rounds' ratios.",
    "CPU µs of ztproxy: workers, control (which seals the records) and supervisor, all on core 0.",
    "ztproxy-control-apart: the same with the control process on the other core.",
    "ztproxy-bare: the same gateway with a door that permits everything, and no record.",
    "nginx-auth: its service (constant 204) on the same core and counted; with -uncounted on the other core.",
    "forward-auth and ext-authz services run on the other core and are not counted.",
    "`others` is the share of core 0 that was used by none of the proxy's processes.",
]


def few(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return the table with 64 connections, and what decision and record cost."""
    products = [Ztproxy(ground, Variant())]
    products.append(Ztproxy(ground, Variant("ztproxy-control-apart", control_apart=True)))
    contest, result = _contest(
        ground, products, [*FEW, lambda _: bare.beside(products[0])], 64, rounds, seconds
    )
    return {**result, **_cost(contest)}


def overhead(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return what decision and record cost: the product beside the same gateway without them."""
    products = [Ztproxy(ground, Variant())]
    contest, result = _contest(ground, products, [lambda _: bare.beside(products[0])], 64, rounds, seconds)
    return {**result, **_cost(contest)}


def many(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return the table with 1,000 connections."""
    products = [Ztproxy(ground, Variant())]
    return _contest(ground, products, MANY, 1000, rounds, seconds + 4)[1]


def _cost(contest: Contest) -> dict[str, object]:
    """Return what decision and record add to the CPU time of a request, within the rounds."""
    if not {"ztproxy", "ztproxy-bare"} <= contest.results.keys():
        return {}
    parts = {"in the worker": "workers", "in the whole product": ""}
    grown = {said: growth(contest, "ztproxy", "ztproxy-bare", part) for said, part in parts.items()}
    return {f"decision and record cost, {said}": percent(spread) for said, spread in grown.items()}


def _contest(
    ground: Ground,
    products: Sequence[Ztproxy],
    starters: Sequence[Starter],
    connections: int,
    rounds: int,
    seconds: int,
) -> tuple[Contest, dict[str, object]]:
    runners = [product.running() for product in products]
    failed: list[dict[str, object]] = []
    for number, starter in enumerate(starters):
        try:
            runners.insert(number // 2, starter(ground))  # ours stands in the middle of the round
        except Exception as error:  # noqa: BLE001 - one that does not start must not cost the others' figures
            name = f"{starter.__module__.rpartition('.')[2]} {starter.__name__}"
            failed.append({"proxy": name, "failed": str(error)[-300:]})
    load = Load(ground, f"load-{connections}", paths=app_paths(50))
    ramp = 0.25 if connections < 100 else 4.0  # a thousand handshakes, on a slow machine, are no part of it
    contest = Contest(ground.answered, load, runners, connections=connections, seconds=seconds, ramp=ramp)
    contest.warm_up(1 if connections < 100 else 3)
    for number in range(rounds):
        contest.round(number)
    result: dict[str, object] = {}
    for product in products:
        ground.stop(product.pid)
        name = product.variant.name
        try:
            result[f"records of {name}"] = product.demand_records(contest.answered.get(name, 0))
        except RecordsMissing as error:
            result["failed"] = str(error)
    rows = [*table(contest.finished(), "ztproxy"), *failed]
    return contest, {f"{connections} connections": rows, **result, "notes": NOTES}

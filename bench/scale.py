"""How the cost of a request grows: with workers; with sessions and routes. Each in one contest.

With sessions and routes people come and go: each connection is one person's, at one application (see
`bench.browsers`).
"""

import time
from dataclasses import replace

from bench.browsers import PAGES, REQUESTS, Browsers
from bench.ground import Ground
from bench.load import Load, app_paths
from bench.products.policies import RULES_EACH
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import RAMP, Contest, growth, percent, table
from bench.requests import Load as Asking

MANY_SESSIONS, MANY_ROUTES = 100_000, 2_000
#: Routes and sessions of each line; the first is the small configuration.
SIZES = ((50, 10), (50, MANY_SESSIONS), (MANY_ROUTES, 10), (MANY_ROUTES, MANY_SESSIONS), (1, 10))
CROWD = 64  # connections at a time
#: Seconds in which a product that has just started still reads when each session will end (once).
FRESH = 20


def workers(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table of one worker and of two."""
    one = Variant("one-worker")
    variants = [one, replace(one, name="two-workers", workers=2)]
    variants.append(replace(one, name="two-workers-two-cores", workers=2, pinned=False))
    load = Load(ground, "load", paths=app_paths(one.routes))
    contest = _contest(ground, dict.fromkeys(variants, load), rounds, seconds, ramp=RAMP)
    return {
        "workers": table(contest, one.name),
        "notes": [
            "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
            "Two workers share core 0 with control; `two-workers-two-cores` may use both, beside the load.",
        ],
    }


def sizes(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table of few and many sessions and routes."""
    loads: dict[Variant, Asking] = {}
    for routes, sessions in SIZES:
        variant = Variant(f"routes-{routes}-sessions-{sessions}", routes=routes, sessions=sessions)
        loads[variant] = Browsers(ground, f"load-{variant.name}", sessions=sessions, routes=routes)
    # as many handshakes at once as at the start of a turn are none of its business
    contest = _contest(ground, loads, rounds, seconds + 1, ramp=1.0, pause=FRESH)
    first = next(iter(loads)).name
    return {
        f"sessions and routes, {CROWD} connections": table(contest, first),
        **{f"CPU of a request, {name} beside {first}": said for name, said in growths(contest, first)},
        "notes": [
            "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
            f"Each connection is of one session, drawn from all, at one of all routes, asks for {PAGES} paths"
            f" in turn, and ends after {REQUESTS} requests; another session's takes its place.",
            f"Each route has {RULES_EACH} rules. Handshakes are part of the CPU time, as many everywhere.",
        ],
    }


def growths(contest: Contest, first: str) -> list[tuple[str, str]]:
    """Return by how much CPU time of a request each line needs more than the first, within its rounds."""
    told = []
    for name in contest.results:
        if name != first:
            whole, worker = (growth(contest, name, first, part) for part in ("", "workers"))
            told.append((name, f"{percent(whole)} in all, {percent(worker)} in the worker"))
    return told


def _contest(
    ground: Ground, loads: dict[Variant, Asking], rounds: int, seconds: int, *, ramp: float, pause: int = 0
) -> Contest:
    """Let products take turns, a pause after the start. Raises RecordsMissing: requests have no record."""
    products = [Ztproxy(ground, variant) for variant in loads]
    contest = Contest(
        ground.answered,
        next(iter(loads.values())),
        [product.running() for product in products],
        connections=CROWD,
        seconds=seconds,
        ramp=ramp,
        loads={variant.name: load for variant, load in loads.items()},
    )
    contest.warm_up(4)
    time.sleep(pause)
    for number in range(rounds):
        contest.round(number)
    for product in products:
        ground.stop(product.pid)
    for product in products:
        product.demand_records(contest.answered[product.variant.name])
    return contest.finished()

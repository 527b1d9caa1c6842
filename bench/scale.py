"""How the cost of a request grows: with workers; with sessions and routes. Each in one contest.

With sessions and routes each connection is one person's, at one application (see `bench.browsers`). People
come and go first, then stay: whoever arrives costs something once, which is no request's.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
FOR_GOOD = 1_000_000_000  # requests of a connection that does not end within a turn
#: Seconds in which a product that has just started still reads when each session will end (once).
FRESH = 20


def workers(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table of one worker and of two."""
    one = Variant("one-worker")
    variants = [one, replace(one, name="two-workers", workers=2)]
    variants.append(replace(one, name="two-workers-two-cores", workers=2, pinned=False))
    load = Load(ground, "load", paths=app_paths(one.routes))
    products = [Ztproxy(ground, variant) for variant in variants]
    loads: dict[str, Asking] = {variant.name: load for variant in variants}
    contest = _contest(ground, products, loads, rounds, seconds, ramp=RAMP)
    _end(ground, products, contest.answered)
    return {
        "workers": table(contest, one.name),
        "notes": [
            "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
            "Two workers share core 0 with control; `two-workers-two-cores` may use both, beside the load.",
        ],
    }


def sizes(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return tables of few and many sessions and routes: with people who come and go, and who stay."""
    variants = [
        Variant(f"routes-{routes}-sessions-{sessions}", routes=routes, sessions=sessions)
        for routes, sessions in SIZES
    ]
    first, products = variants[0].name, [Ztproxy(ground, variant) for variant in variants]
    told: dict[str, object] = {}
    answered: Counter[str] = Counter()
    for who, requests in (("come and go", REQUESTS), ("stay", FOR_GOOD)):
        loads: dict[str, Asking] = {
            one.name: Browsers(
                ground, f"{who}-{one.name}", sessions=one.sessions, routes=one.routes, requests=requests
            )
            for one in variants
        }
        # as many handshakes and newcomers at once as at the start of a turn are none of its business
        contest = _contest(ground, products, loads, rounds, seconds + 1, ramp=1.0, pause=0 if told else FRESH)
        answered.update(contest.answered)
        told[f"people who {who}, {CROWD} connections"] = table(contest, first)
        for name, said in growths(contest, first):
            told[f"CPU of a request of people who {who}, {name} beside {first}"] = said
    _end(ground, products, answered)
    told["notes"] = [
        "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
        f"Each connection is of one session, drawn from all, at one of all routes; asks for {PAGES} paths.",
        f"Of those who come and go it ends after {REQUESTS} requests, and another session's takes its place.",
        f"Each route has {RULES_EACH} rules. Handshakes are part of the CPU time, as many everywhere.",
    ]
    return told


def growths(contest: Contest, first: str) -> list[tuple[str, str]]:
    """Return by how much CPU time of a request each line needs more than the first, within its rounds."""
    told = []
    for name in contest.results:
        if name != first:
            whole, worker = (growth(contest, name, first, part) for part in ("", "workers"))
            told.append((name, f"{percent(whole)} in all, {percent(worker)} in the worker"))
    return told


def _contest(
    ground: Ground,
    products: Sequence[Ztproxy],
    loads: dict[str, Asking],
    rounds: int,
    seconds: int,
    *,
    ramp: float,
    pause: int = 0,
) -> Contest:
    """Let products take turns, a pause after the start."""
    contest = Contest(
        ground.answered,
        next(iter(loads.values())),
        [product.running() for product in products],
        connections=CROWD,
        seconds=seconds,
        ramp=ramp,
        loads=loads,
    )
    contest.warm_up(4)
    time.sleep(pause)
    for number in range(rounds):
        contest.round(number)
    return contest.finished()


def _end(ground: Ground, products: Sequence[Ztproxy], answered: Mapping[str, int]) -> None:
    """Stop them. Raises RecordsMissing: requests have no record."""
    for product in products:
        ground.stop(product.pid)
    for product in products:
        product.demand_records(answered[product.variant.name])

"""How the cost of a request grows: with workers; with sessions and routes. Each in one contest.

With sessions and routes each connection is one person's, at one application (see `bench.browsers`). Three
things are told apart: what is merely there, people who stay, and people who come and go, most of whom are new
where there are many.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.browsers import PAGES, REQUESTS, Browsers
from bench.ground import Ground
from bench.load import Load, app_paths
from bench.products.policies import RULES_EACH
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import RAMP, Contest, growth, percent, table
from bench.requests import Load as Asking

MANY_SESSIONS, MANY_ROUTES = 100_000, 2_000
#: Routes and sessions.
Size = tuple[int, int]
SMALL: Size = (50, 10)
LARGE: Size = (MANY_ROUTES, MANY_SESSIONS)
SIZES: tuple[Size, ...] = (SMALL, (50, MANY_SESSIONS), (MANY_ROUTES, 10), LARGE)
CROWD = 64  # connections at a time
FOR_GOOD = 1_000_000_000  # requests of a connection that does not end within a turn
#: Seconds in which a product that has just started still reads when each session will end (once).
FRESH = 20


@dataclass(frozen=True)
class Asked:
    """Who asks for what, and of which products that is asked."""

    name: str
    sizes: tuple[Size, ...]
    requests: int  # of a connection
    drawn: Size | None = None  # the routes and sessions that are asked for; None: all there are
    rounds: int = 1  # in place of one: of two products there can be more


ASKED = (
    Asked("what is merely there", (SMALL, LARGE), FOR_GOOD, drawn=SMALL, rounds=2),
    Asked("people who stay", SIZES, FOR_GOOD),
    Asked("people who come and go", SIZES, REQUESTS),
)


def workers(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table of one worker and of two."""
    one = Variant("one-worker")
    variants = [one, replace(one, name="two-workers", workers=2)]
    variants.append(replace(one, name="two-workers-two-cores", workers=2, pinned=False))
    load = Load(ground, "load", paths=app_paths(one.routes))
    products = [Ztproxy(ground, variant) for variant in variants]
    loads: dict[str, Asking] = {variant.name: load for variant in variants}
    contest = _rounds(_contest(ground, products, loads, seconds, ramp=RAMP), rounds)
    _end(ground, products, contest.answered)
    return {
        "workers": table(contest, one.name),
        "notes": [
            "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
            "Two workers share core 0 with control; `two-workers-two-cores` may use both, beside the load.",
        ],
    }


def sizes(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return what has grown in the large configurations, each of three things by itself, then its tables."""
    products = {
        size: Ztproxy(ground, Variant(_name(size), routes=size[0], sessions=size[1])) for size in SIZES
    }
    grown: list[dict[str, object]] = []
    told: dict[str, object] = {f"CPU time of a request beside {_name(SMALL)}": grown}
    answered: Counter[str] = Counter()
    known: dict[str, set[str]] = {_name(size): set() for size in SIZES}
    for asked in ASKED:
        browsers = {_name(size): _browsers(ground, asked, size) for size in asked.sizes}
        loads: dict[str, Asking] = dict(browsers)
        # as many handshakes and newcomers at once as at the start of a turn are none of its business
        contest = _contest(
            ground,
            [products[size] for size in asked.sizes],
            loads,
            seconds + 1,
            ramp=1.0,
            pause=0 if grown else FRESH,
        )
        before = {name: Counter(load.came()) for name, load in browsers.items()}
        _rounds(contest, rounds * asked.rounds)
        answered.update(contest.answered)
        grown += [{"who": asked.name, **row} for row in growths(contest, _name(SMALL))]
        rows = table(contest, _name(SMALL))
        for name, load in browsers.items():
            known[name].update(before[name])
            since = Counter(load.came()) - before[name]
            for row in rows:
                if row["proxy"] == name and asked.requests == REQUESTS:
                    row["newcomers"] = f"{newcomers(since, known[name]):.0%}"
            known[name].update(since)
        told[f"{asked.name}, {CROWD} connections"] = rows
    _end(ground, list(products.values()), answered)
    told["notes"] = [
        "What is merely there: the same ten people ask at the same 50 applications in both.",
        f"Each other connection is of one session, drawn from all, at one of all routes; {PAGES} paths each.",
        f"Of those who come and go it ends after {REQUESTS} requests, and another session's takes its place: "
        "a handshake, as many everywhere.",
        "`newcomers`: of those connections so many are of somebody who was not at this application before: "
        "each costs a signed assertion. Who stays, comes before anything is counted.",
        "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
        f"Each route has {RULES_EACH} rules.",
    ]
    return told


def growths(contest: Contest, first: str) -> list[dict[str, object]]:
    """Return by how much CPU time of a request each line needs more than the first, within its rounds."""
    rows: list[dict[str, object]] = []
    for name in contest.results:
        if name != first:
            whole, worker = (growth(contest, name, first, part) for part in ("", "workers"))
            rows.append({"of": name, "in all": percent(whole), "in the worker": percent(worker)})
    return rows


def newcomers(came: Counter[str], known: set[str]) -> float:
    """Return which share of all that came was not known before: of those who came several times, once."""
    return len(came.keys() - known) / max(came.total(), 1)


def _name(size: Size) -> str:
    return f"routes-{size[0]}-sessions-{size[1]}"


def _browsers(ground: Ground, asked: Asked, size: Size) -> Browsers:
    routes, sessions = asked.drawn or size
    name = f"{asked.name.replace(' ', '-')}-{_name(size)}"
    return Browsers(
        ground,
        name,
        sessions=sessions,
        routes=routes,
        requests=asked.requests,
        begin=1 + 1000 * ASKED.index(asked),
    )


def _contest(
    ground: Ground,
    products: Sequence[Ztproxy],
    loads: dict[str, Asking],
    seconds: int,
    *,
    ramp: float,
    pause: int = 0,
) -> Contest:
    """Return products that are warm, after a pause."""
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
    return contest


def _rounds(contest: Contest, rounds: int) -> Contest:
    for number in range(rounds):
        contest.round(number)
    return contest.finished()


def _end(ground: Ground, products: Sequence[Ztproxy], answered: Mapping[str, int]) -> None:
    """Stop them. Raises RecordsMissing: requests have no record."""
    for product in products:
        ground.stop(product.pid)
    for product in products:
        product.demand_records(answered[product.variant.name])

"""How the cost of a request grows: workers, sessions, routes. Each against the smallest, in one contest."""

from collections.abc import Sequence
from dataclasses import replace

from bench.ground import Ground
from bench.load import Load, app_paths
from bench.products.policies import RULES_EACH
from bench.products.ztproxy import Variant, Ztproxy, cookies
from bench.requests import Contest, table

SESSIONS = (10, 1_000, 10_000, 100_000)
ROUTES = (1, 50, 500, 2_000)
USED = 1_000  # of many sessions, so many ask in turn


def measure(ground: Ground, *, rounds: int, seconds: int) -> dict[str, object]:
    """Return a table for each thing that grows."""
    one = Variant("one-worker")
    workers = [one, replace(one, name="two-workers", workers=2)]
    workers.append(replace(one, name="two-workers-two-cores", workers=2, pinned=False))
    sessions = [Variant(f"sessions-{count}", routes=1, sessions=count) for count in SESSIONS]
    routes = [Variant(f"routes-{count}", routes=count) for count in ROUTES]
    return {
        "workers": _contest(ground, workers, rounds, seconds),
        "sessions": _contest(ground, sessions, rounds, seconds),
        "routes": _contest(ground, routes, rounds, seconds),
        "notes": [
            "`ratio` is the first line's requests/s over this line's: above 1 means slower than the first.",
            "Two workers share core 0 with control; `two-workers-two-cores` may use both, beside the load.",
            f"Of many sessions {USED} ask. Each route has {RULES_EACH} rules; 50 at most are asked for.",
            "Each line of a table asks as many different requests as the others.",
        ],
    }


def _contest(
    ground: Ground, variants: Sequence[Variant], rounds: int, seconds: int
) -> list[dict[str, object]]:
    products = [Ztproxy(ground, variant) for variant in variants]
    loads = {product.variant.name: _load(ground, product.variant) for product in products}
    first = variants[0].name
    contest = Contest(
        ground.answered,
        loads[first],
        [product.running() for product in products],
        seconds=seconds,
        loads=dict(loads),
    )
    contest.warm_up(3)
    for number in range(rounds):
        contest.round(number)
    for product in products:
        ground.stop(product.pid)
    rows = table(contest.finished(), first)
    for product in products:
        product.demand_records(contest.answered[product.variant.name])
    return rows


def _load(ground: Ground, variant: Variant) -> Load:
    known = cookies(variant.sessions)
    return Load(
        ground,
        f"load-{variant.name}",
        paths=app_paths(variant.routes, 50 if variant.sessions == 1 else USED),
        cookies=known[:: max(1, len(known) // USED)][:USED],
    )

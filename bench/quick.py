"""Requests a second against nginx and Caddy, in under 50 seconds: python -m bench.quick

The last line is one JSON object. `ratio_nginx` and the others are ztproxy's requests/s over theirs, median of
the rounds' ratios; `cpu_us` is the CPU time of a request in the whole product, `cpu_us_worker` in its worker
alone, `cpu_us_nginx_auth` that of nginx with auth_request without the service it asks.
"""

import argparse
import json
import sys
import time

from bench import report
from bench.ground import Ground
from bench.load import Load, app_paths
from bench.pairs import ratios
from bench.products import caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import Contest, table

RATIOS = {
    "ratio_nginx": "nginx",
    "ratio_nginx_auth": "nginx-auth",
    "ratio_nginx_auth_uncounted": "nginx-auth-uncounted",
    "ratio_caddy_forward_auth": "caddy-forward-auth",
}
BUDGET = 49  # seconds in all
ENDING = 3  # of them for stopping and counting records


def main() -> None:
    """Measure, print a table, and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    options = parser.parse_args()
    begin = time.monotonic()
    with Ground() as ground:
        product = Ztproxy(ground, Variant())
        runners = [
            nginx.plain(ground),
            nginx.auth_request(ground),
            product.running(),
            nginx.auth_request_uncounted(ground),
            caddy.forward_auth(ground),
        ]
        load = Load(ground, "load", paths=app_paths(50))
        contest = Contest(ground.answered, load, runners, seconds=options.seconds)
        contest.warm_up()
        print(f"started and warm after {time.monotonic() - begin:.1f} s", flush=True)
        for number in range(options.rounds):
            started = time.monotonic()
            contest.round(number)
            another = time.monotonic() - started + ENDING
            if number and time.monotonic() - begin + another > BUDGET:
                break  # a slow machine has fewer rounds, not a longer run
        if contest.failed:
            sys.exit(f"failed: {contest.failed}")
        ground.stop(product.pid)
        print(product.demand_records(contest.answered["ztproxy"]))
        print(report.render("requests", {"64 connections": table(contest, "ztproxy")}))
    print(f"{time.monotonic() - begin:.1f} s in all")
    sys.stdout.flush()
    print(json.dumps(_line(contest)))


def _line(contest: Contest) -> dict[str, float]:
    ours = contest.rates("ztproxy")
    line = {key: round(ratios(ours, contest.rates(name)).median, 3) for key, name in RATIOS.items()}
    line["cpu_us"] = round(contest.middle("ztproxy", lambda turn: turn.cpu_us), 1)
    line["cpu_us_worker"] = round(contest.middle("ztproxy", lambda turn: turn.cpu["workers"]), 1)
    line["cpu_us_nginx_auth"] = round(contest.middle("nginx-auth-uncounted", lambda turn: turn.cpu_us), 1)
    return line


if __name__ == "__main__":
    main()

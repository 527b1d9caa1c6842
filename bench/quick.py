"""Requests a second against nginx and Caddy, in under 50 seconds: python -m bench.quick

The last line is one JSON object. `ratio_nginx` and the others are ztproxy's requests/s over theirs, median of
the rounds' ratios; `cpu_us` is the CPU time of a request in the whole product, `cpu_us_worker` in its worker
alone, `cpu_us_nginx_auth` that of nginx with auth_request without the service it asks.
"""

import argparse
import json
import sys
import time
from statistics import median

from bench.ground import Ground
from bench.load import Load, app_paths
from bench.pairs import ratios, spread
from bench.products import caddy, nginx
from bench.products.ztproxy import Variant, Ztproxy
from bench.requests import Contest

RATIOS = {
    "ratio_nginx": "nginx",
    "ratio_nginx_auth": "nginx-auth",
    "ratio_nginx_auth_uncounted": "nginx-auth-uncounted",
    "ratio_caddy_forward_auth": "caddy-forward-auth",
}


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
        contest = Contest(ground, load, runners, seconds=options.seconds)
        contest.warm_up()
        print(f"started and warm after {time.monotonic() - begin:.1f} s", flush=True)
        for number in range(options.rounds):
            contest.round(number)
        runners[2].stop()
        print(product.demand_records(contest.asked["ztproxy"]))
        _table(contest)
    print(f"{time.monotonic() - begin:.1f} s in all")
    sys.stdout.flush()
    print(json.dumps(_line(contest)))


def _table(contest: Contest) -> None:
    print(f"{'':22}{'req/s':>8}{'range':>16}{'CPU µs':>8}{'p50 ms':>8}{'p99 ms':>8}{'load':>7}")
    for name, turns in contest.results.items():
        rate = spread(contest.rates(name))
        row = [median(turn.cpu_us for turn in turns), median(turn.p50 for turn in turns) / 1000]
        row += [median(turn.p99 for turn in turns) / 1000]
        numbers = "".join(f"{number:8.1f}" for number in row)
        busy = median(turn.load_busy for turn in turns)
        print(f"{name:22}{rate.median:8.0f}{f'{rate.low:.0f}-{rate.high:.0f}':>16}{numbers}{busy:7.0%}")
        if len(turns[0].cpu) > 1:
            parts = (f"{part} {median(turn.cpu[part] for turn in turns):.1f}" for part in turns[0].cpu)
            print(f"    of that: {', '.join(parts)}")


def _line(contest: Contest) -> dict[str, float]:
    ours = contest.rates("ztproxy")
    line = {key: round(ratios(ours, contest.rates(name)).median, 3) for key, name in RATIOS.items()}
    turns = contest.results["ztproxy"]
    line["cpu_us"] = round(median(turn.cpu_us for turn in turns), 1)
    line["cpu_us_worker"] = round(median(turn.cpu["workers"] for turn in turns), 1)
    beside = contest.results["nginx-auth-uncounted"]
    line["cpu_us_nginx_auth"] = round(median(turn.cpu_us for turn in beside), 1)
    return line


if __name__ == "__main__":
    main()

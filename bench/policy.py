"""What a decision costs, in a small set and a large one, and what happens less often.

Run: python bench/policy.py
"""

import itertools
import timeit
from collections.abc import Callable

from ztproxy.model.request import Context, Resource
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import ANONYMOUS, Check, Device, Facts, Posture, Principal, Session
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.load import load
from ztproxy.policy.routes import RouteTable
from ztproxy.policy.shorthand import render

NOW = 1_772_618_400_000
HOUR = 3_600_000
CAROL = Principal(
    "User", "corp:carol", "https://idp.example", "Carol", "carol@example", ("contractors", "staff")
)
FACTS = Facts(
    CAROL,
    Session("ses_1", CAROL, "corp", NOW - HOUR, NOW - HOUR, ("pwd", "otp")),
    Device("dev_1", "laptop", "00", owner="corp:carol"),
    "mtls",
    NOW,
    Posture(
        "dev_1",
        NOW - 60_000,
        1,
        "ztproxy-agent",
        "self",
        True,
        {"disk_encrypted": Check("pass", NOW)},
        "linux",
    ),
)
HOURS = """@id("{0}") permit (
  principal is User in Group::"contractors", action in Action::"http", resource == Route::"{0}"
)
when {{ context.local.weekday <= 5 && context.local.hour >= 8 && context.local.hour < 18 }};
"""


def measure(name: str, function: Callable[[], object], number: int = 20_000) -> None:
    best = min(timeit.repeat(function, number=number, repeat=5)) / number
    print(f"{name:58s} {best * 1e6:9.2f} µs")


def policies(routes: int, text: Callable[[str], str]) -> tuple[PolicySet, list[Route], list[tuple[str, str]]]:
    names = [f"app{n}" for n in range(routes)]
    upstream = Upstream("http", "127.0.0.1", 9001)
    places = [Route(name, name, f"{name}.example", "/", upstream) for name in names]
    guards = (
        '@id("guard") forbid (principal is User, action, resource) when { principal.session.acr == "low" };\n'
    )
    sources = [("guards", guards), *((name, text(name)) for name in names)]
    return load(sources, places, timezone="Europe/Berlin"), places, sources


def healthy(name: str) -> str:
    return render(name, {"groups": ["contractors"], "device": "healthy"})


def main() -> None:
    for title, text in (("hours", HOURS.format), ("healthy device", healthy)):
        for count in (5, 2000):
            made, places, _ = policies(count, text)
            subject, resource = made.subject(FACTS), Resource("Route", "app3", places[3])
            context = Context("f" * 32, "203.0.113.9", "app3.example", "/tickets/1")
            assert made.decide(subject, resource, "GET", context, NOW).allow
            label = f"decide, {title}, {len(made.policies)} policies"
            measure(label, lambda: made.decide(subject, resource, "GET", context, NOW))  # noqa: B023
    nobody = made.subject(Facts(ANONYMOUS))
    later = itertools.count(NOW, 1000)  # time enough for second opinions on all of them
    measure("decide, default denial", lambda: made.decide(nobody, resource, "GET", context, NOW))
    measure("explain a default denial", lambda: made.explain(nobody, resource, "GET", context, NOW), 2000)
    measure(
        "decide and have it confirmed",
        lambda: made.decide(subject, resource, "GET", context, next(later)),
        500,
    )
    measure("subject, once per change of facts", lambda: made.subject(FACTS))
    table = RouteTable(places)
    measure("match a route among 2000", lambda: table.match("app3.example", "/tickets/1"))
    _, places, sources = policies(200, healthy)
    measure(f"load {len(sources)} sources", lambda: load(sources, places), 3)


if __name__ == "__main__":
    main()

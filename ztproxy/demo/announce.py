"""Tells programs (`demo.json`) and people (the terminal) that the demo is ready, and what is where."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from ztproxy.demo.configuration import Ports
from ztproxy.demo.device import Device
from ztproxy.demo.layout import APPS, POSTURE_MAX_AGE, WORKLOAD, WORKLOAD_APP, Layout, write_json
from ztproxy.demo.people import Person


def tell_programs(layout: Layout, ports: Ports, people: Sequence[Person], device: Device) -> None:
    """Write `demo.json`, whole or not at all."""
    root = layout.root
    upstreams = {app: f"http://127.0.0.1:{getattr(ports, app)}" for app in APPS} | dict(layout.also)
    apps = {app: {"url": layout.url(app), "upstream": upstreams[app]} for app in layout.apps}
    logins = {
        person.username: {"username": person.username, "password": person.password, "role": person.role}
        for person in people
    }
    workload = {
        "id": WORKLOAD,
        "cert": str(root / "workload" / "deployer.pem"),
        "key": str(root / "workload" / "deployer.key"),
        "app": WORKLOAD_APP,
    }
    write_json(
        layout.ready,
        {
            "ready": True,
            "portal": layout.portal,
            "ca": str(root / "tls" / "ca.pem"),
            "apps": apps,
            "people": logins,
            "device": {"id": device.id, "cert": str(device.cert), "key": str(device.key)},
            "workload": workload,
            "config": str(layout.config),
            "metrics": f"http://127.0.0.1:{ports.metrics}/metrics",
            "pid": os.getpid(),
        },
    )


def tell_people(console: Console, layout: Layout, ports: Ports, people: Sequence[Person], why: str) -> None:
    """Print addresses, logins and what to try. `why`: why the applications have no network of their own."""
    console.print(Panel.fit(f"[bold]The demo is ready[/bold]\n{layout.portal}", border_style="green"))
    console.print(_addresses(layout, ports))
    console.print(_logins(people))
    console.print(f"\n{_where(why)}", soft_wrap=True, style="dim")
    console.print("\n[bold]Try[/bold]")
    for line in _ideas(layout):
        console.print(f"  {line}", soft_wrap=True, highlight=False)
    console.print("\nCtrl-C stops everything.", style="dim")


def _where(why: str) -> str:
    through = "reached through a connector and in no other way."
    if why:
        return f"The applications listen on private sockets, {through} (No network namespace: {why}.)"
    return f"The applications are in a network namespace of their own, {through}"


def _command() -> str:
    """How to call the command line that is running this, from the folder one is in."""
    beside = Path(sys.executable).with_name("ztproxy")
    if shutil.which("ztproxy") or not beside.exists():
        return "ztproxy"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _addresses(layout: Layout, ports: Ports) -> Table:
    table = Table("what", "address", "who may", box=None, pad_edge=False, header_style="dim")
    who = {
        "support": "carol, adam; rita reads",
        "wiki": "adam",
        "status": "the pipeline's certificate",
    }
    for app in layout.apps:
        table.add_row(app, layout.url(app), who.get(app, "adam"))
    table.add_row("metrics", f"http://127.0.0.1:{ports.metrics}/metrics", "this machine")
    return table


def _logins(people: Sequence[Person]) -> Table:
    table = Table("\nlogin", "\npassword", "\nrole", box=None, pad_edge=False, header_style="dim")
    for person in people:
        table.add_row(person.username, person.password, person.role)
    return table


def _ideas(layout: Layout) -> list[str]:
    root, config, ztproxy = layout.root, layout.config, _command()
    certificate = f"--cert {root}/workload/deployer.pem --key {root}/workload/deployer.key"
    return [
        f"1. Open {layout.url('support')} and sign in as carol. (The browser does not know the demo's",
        f"   authority: accept the certificate, or trust {root}/tls/ca.pem.) Open a ticket in two windows:",
        "   a comment in one of them appears in the other.",
        f"2. Open {layout.url('wiki')}: refused, with the reason and what would change it.",
        "3. Let the device fail a check, and reload; then let it pass again:",
        f"     {ztproxy} demo posture --dir {root} unhealthy",
        f"     {ztproxy} demo posture --dir {root} healthy",
        f"   With `stop` it falls silent, and is refused after {POSTURE_MAX_AGE} seconds.",
        "4. Be the pipeline:",
        f"     curl --cacert {root}/tls/ca.pem {certificate} {layout.url('status')}/status",
        "5. See who did what, why it was allowed, and that nobody changed the record:",
        f"     {ztproxy} recordings list --config {config}",
        f"     {ztproxy} recordings verify --config {config}",
        "6. End carol's session while a ticket is open:",
        f"     {ztproxy} sessions list --config {config}",
        f"     {ztproxy} sessions cut ID --config {config}",
    ]

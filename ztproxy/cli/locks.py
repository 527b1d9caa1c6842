"""`ztproxy locks`: what nobody passes whatever policies say, and the way to set and remove one."""

from typing import Annotated

import typer

from ztproxy.cli.admin import ask, operator
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, plain, show_json, show_table
from ztproxy.model.durations import milliseconds
from ztproxy.model.standing import LOCKABLE

app = typer.Typer(
    help="Lock people, workloads, devices, sessions, routes, issuers and certificates on every node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ByOption = Annotated[str, typer.Option(help="Who does it, for the record; default: you.")]


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the locks in force: what is locked, since when, until when, by whom and why."""
    locks = ask(config, "GET", "v1", "locks")["locks"]
    if as_json:
        show_json(locks)
        return
    rows = (
        (
            one["id"],
            f"{one['target']} {one['value']}",
            moment(one.get("set_at", 0)),
            moment(one.get("expires_at", 0)) or "removed",
            one.get("set_by", ""),
            one.get("reason", ""),
        )
        for one in locks
    )
    show_table(("ID", "On", "Since", "Until", "By", "Reason"), rows, "no locks")


@app.command()
def add(
    target: Annotated[str, typer.Argument(metavar="WHAT", help=f"One of {', '.join(LOCKABLE)}.")],
    value: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Which: PROVIDER:SUB of a person, a SPIFFE ID, dev_…, ses_…, the name of a route, of a "
            "provider or trust bundle, the SHA-256 of a certificate.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why: for the record, callers are not told.")],
    lasts: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Like 2h or 7d; default: until it is removed.")
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = "",
) -> None:
    """Lock it now: every request is refused on every node, what is open is cut."""
    duration = milliseconds(lasts)
    if lasts and not duration:
        typer.echo(f"ztproxy: --for {plain(lasts)!r} is no duration; write one like 30m, 2h or 7d", err=True)
        raise typer.Exit(2)
    wanted = {"target": target, "value": value, "reason": reason, "by": by or operator(), "lasts": duration}
    answer = ask(config, "POST", "v1", "locks", body=wanted)
    lock = answer["lock"]
    until = f"until {moment(lock['expires_at'])}" if lock.get("expires_at") else "until it is removed"
    typer.echo(f"{lock['id']} is on {plain(lock['target'])} {plain(lock['value'])}, {until}")
    if not answer.get("known"):
        note = f"no {lock['target']} of this name is known here; it is locked, but compare the spelling"
        typer.echo(f"ztproxy: {note}", err=True)


@app.command()
def remove(
    lock: Annotated[str, typer.Argument(metavar="ID", help="Lock id, lck_…")],
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = "",
) -> None:
    """Take a lock away now. Other locks on the same target stay."""
    ask(config, "POST", "v1", "locks", lock, "remove", body={"by": by or operator()})
    typer.echo(f"{plain(lock)} is removed")

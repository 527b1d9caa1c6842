"""`ztproxy sessions`: who is signed in, and the way to end it at once."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ztproxy.cli.admin import ask, operator
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, plain, show_fields, show_json, show_table

app = typer.Typer(
    help="List, show and cut sessions of the running node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Session id, ses_…")]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    ended: Annotated[bool, typer.Option("--ended", help="Ended ones, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List sessions: id, person, device, since when and how they stand."""
    sessions = _all(config, ended)
    if as_json:
        show_json(sessions)
        return
    rows = (
        (one["id"], _person(one), one.get("device_id", ""), moment(one.get("created_at", 0)), _state(one))
        for one in sessions
    )
    show_table(("ID", "Person", "Device", "Since", "State"), rows, "no sessions")


def _all(config: Any, ended: bool) -> list[dict[str, Any]]:
    """Read page after page."""
    found: list[dict[str, Any]] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        query = f"?limit=1000{'&ended=1' if ended else ''}{after}"
        page = ask(config, "GET", "v1", "sessions", query=query)["sessions"]
        found.extend(page)
        if len(page) < 1000:
            return found


@app.command()
def show(session: IdArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show everything that is known about one session."""
    found = ask(config, "GET", "v1", "sessions", session)
    if as_json:
        show_json(found)
        return
    principal = found.get("principal", {})
    show_fields(
        {
            "session": found.get("id", ""),
            "state": _state(found),
            "person": _person(found),
            "principal": principal.get("id", ""),
            "groups": ", ".join(principal.get("groups", ())),
            "provider": found.get("provider", ""),
            "signed in": moment(found.get("created_at", 0)),
            "from": found.get("ip", ""),
            "browser": found.get("user_agent", ""),
            "methods": ", ".join(found.get("amr", ())),
            "device": found.get("device_id", ""),
            "device proved": moment(found.get("device_proved_at", 0)),
            "last seen": moment(found.get("last_seen_at", 0)),
            "ends at the latest": moment(found.get("expires_at", 0)),
            "ended": moment(found.get("ended_at", 0)),
            "ended by": found.get("ended_by", ""),
        }
    )


@app.command()
def cut(
    session: Annotated[str, typer.Argument(metavar="[ID]", help="Session id, ses_…")] = "",
    user: Annotated[
        str, typer.Option("--user", metavar="PROVIDER:SUB", help="All sessions of this person instead.")
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    by: Annotated[str, typer.Option(help="Who cuts it, for the record; default: you.")] = "",
) -> None:
    """End a session now: its live connections are cut, its cookies are worth nothing."""
    if bool(session) == bool(user):
        typer.echo("ztproxy: name a session, or a person with --user", err=True)
        raise typer.Exit(2)
    if user:
        _cut_all(config, user, by)
        return
    answer = ask(config, "POST", "v1", "sessions", session, "end", body={"by": by or operator()})
    typer.echo(f"{session} is cut" if answer.get("ended") else f"{session} was over already")


def _cut_all(config: Path, user: str, by: str) -> None:
    answer = ask(config, "POST", "v1", "users", user, "end", body={"by": by or operator()})
    typer.echo(f"all sessions of {plain(user)} that began until now are cut; signing in again is possible")
    if not answer.get("known"):
        typer.echo("ztproxy: no session of this person is known here; compare the spelling", err=True)


def _person(session: dict[str, Any]) -> str:
    principal = session.get("principal", {})
    return str(principal.get("name") or principal.get("email") or principal.get("id", ""))


def _state(session: dict[str, Any]) -> str:
    if session.get("ended_at"):
        return f"ended: {session.get('ended_by', '')}"
    if 0 < session.get("expires_at", 0) <= time.time() * 1000:
        return "expired"
    return "alive"

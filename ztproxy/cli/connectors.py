"""`ztproxy connectors`: who carries for this proxy, codes to enrol more, and the way to revoke them."""

from typing import Annotated, Any

import typer

from ztproxy.cli.admin import ask, operator
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, plain, show_json, show_table

app = typer.Typer(
    help="List, enrol and revoke the connectors of the running node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ByOption = Annotated[str, typer.Option(help="Who does it, for the record; default: you.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What routes call it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = "",
) -> None:
    """Print a one-time code for a connector of this name; it is good for ten minutes."""
    answer = ask(config, "POST", "v1", "connectors", name, "codes", body={"by": by or operator()})
    typer.echo(answer["code"])
    typer.echo(f"beside the application: ztproxy connector enrol --portal {answer['portal']}", err=True)


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List connectors: since when, how long their certificates last, and what they carry now."""
    answer = ask(config, "GET", "v1", "connectors")
    if as_json:
        show_json(answer)
        return
    rows = [row for one in answer["connectors"] for row in _rows(one)]
    rows += [(name, "", "", "", "", "", "never enrolled") for name in answer["never_enrolled"]]
    columns = ("Connector", "Enrolled", "Version", "Node", "Ready", "Carries", "State")
    show_table(columns, rows, "no connectors")
    for node in answer["nodes"]:
        _warn(node)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME[/INSTANCE]")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show all that is known of a connector, as JSON."""
    found = ask(config, "GET", "v1", "connectors")["connectors"]
    wanted, _, instance = name.partition("/")
    mine = [one for one in found if one["name"] == wanted and instance in ("", one["instance"])]
    if not mine:
        typer.echo(f"no connector is called {plain(name)}", err=True)
        raise typer.Exit(1)
    show_json(mine)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME[/INSTANCE]", help="One, or all of a name.")],
    config: ConfigOption = DEFAULT_CONFIG,
    by: ByOption = "",
) -> None:
    """Revoke now: what they carry is cut, their certificates and codes are worth nothing."""
    path = [part for part in name.split("/") if part]
    if len(path) not in (1, 2):
        typer.echo(f"ztproxy: {plain(name)} is neither NAME nor NAME/INSTANCE", err=True)
        raise typer.Exit(2)
    gone = ask(config, "POST", "v1", "connectors", *path, "revoke", body={"by": by or operator()})["revoked"]
    for key in gone:
        typer.echo(f"{plain(key)} is revoked")
    if not gone:
        typer.echo(f"{plain(name)} is unknown, or was revoked before", err=True)
        raise typer.Exit(1)


def _rows(one: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each node that a connector is connected to, or one that says it is not."""
    first = f"{one['name']}/{one['instance']}", moment(one.get("enrolled_at", 0))
    if one.get("revoked_at"):
        return [(*first, "", "", "", "", f"revoked: {one.get('revoked_by', '')}")]
    if not one["nodes"]:
        ends = moment(one.get("certificate_ends", 0))
        return [(*first, "", "", "", "", f"not connected, certificate until {ends}")]
    return [(*first, at["version"], _node(at), *_numbers(at), _state(at)) for at in one["nodes"]]


def _node(at: dict[str, Any]) -> str:
    """Return how a node is called; one that shares its store with no other has no address."""
    return at["node"] or "this one"


def _numbers(at: dict[str, Any]) -> tuple[str, str]:
    return str(at["ready"]), str(at["carrying"])


def _state(at: dict[str, Any]) -> str:
    if at["silent"]:
        return f"unknown: the node is silent, as of {moment(at['at'])}"
    return "draining" if at["draining"] else "connected"


def _warn(node: dict[str, Any]) -> None:
    """Say what the table can not know."""
    if node["silent"]:
        typer.echo(f"{plain(node['node'])} is silent: what it has is as of {moment(node['at'])}", err=True)
    if node["left_out"]:
        typer.echo(f"{plain(node['node'])} has {node['left_out']} more connectors; ask there", err=True)

"""`ztproxy devices`: enrolled devices, codes to enrol more, and the way to revoke one."""

from typing import Annotated

import typer

from ztproxy.cli.admin import ask, operator
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, show_json, show_table

app = typer.Typer(
    help="List, enrol and revoke devices of the running node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List devices: id, name, owner, since when and whether they are revoked."""
    devices = ask(config, "GET", "v1", "devices")["devices"]
    if as_json:
        show_json(devices)
        return
    rows = (
        (
            one["id"],
            one.get("name", ""),
            one.get("owner", ""),
            moment(one.get("enrolled_at", 0)),
            f"revoked: {one.get('revoked_by', '')}" if one.get("revoked_at") else "enrolled",
        )
        for one in devices
    )
    show_table(("ID", "Name", "Owner", "Enrolled", "State"), rows, "no devices")


@app.command()
def code(
    name: Annotated[str, typer.Argument(help="What the device will be called.")],
    owner: Annotated[str, typer.Option(help="Principal id of its owner, PROVIDER:SUB.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print a one-time code; `ztproxy agent enrol` on the device turns it into a certificate."""
    typer.echo(ask(config, "POST", "v1", "devices", "codes", body={"name": name, "owner": owner})["code"])


@app.command()
def revoke(
    device: Annotated[str, typer.Argument(metavar="ID", help="Device id, dev_…")],
    config: ConfigOption = DEFAULT_CONFIG,
    by: Annotated[str, typer.Option(help="Who revokes it, for the record; default: you.")] = "",
) -> None:
    """Revoke a device now: what it has open is cut, its certificate is worth nothing."""
    answer = ask(config, "POST", "v1", "devices", device, "revoke", body={"by": by or operator()})
    if not answer.get("revoked"):
        typer.echo(f"{device} is unknown, or was revoked before", err=True)
        raise typer.Exit(1)
    typer.echo(f"{device} is revoked")

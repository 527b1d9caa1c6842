"""`ztproxy agent`: the program that runs on a device. It needs no configuration of the proxy."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from ztproxy.agent import program
from ztproxy.cli.tables import JsonOption, moment, show_fields, show_json
from ztproxy.telemetry.log import configure

app = typer.Typer(
    help="Enrol this device, and report its state.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEFAULT_DIR: Final = Path("~/.local/share/ztproxy-agent")
DirOption = Annotated[
    Path,
    typer.Option("--dir", envvar="ZTPROXY_AGENT_DIR", help="Folder of this device's key."),
]


@app.command()
def enrol(
    portal: Annotated[str, typer.Argument(help="Address of the portal, https://HOST[:PORT].")],
    code: Annotated[
        str,
        typer.Option(prompt=True, envvar="ZTPROXY_ENROLMENT_CODE", help="One-time enrolment code."),
    ],
    folder: DirOption = DEFAULT_DIR,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority of the portal's certificate.")
    ] = None,
    name: Annotated[str, typer.Option(help="What this device is called; default: its host name.")] = "",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Loopback port on which pages find the agent.")
    ] = program.DEFAULT_PORT,
    replace: Annotated[bool, typer.Option(help="Give up the device that is enrolled here.")] = False,
) -> None:
    """Enrol this device with a one-time code. The key is made here and never leaves."""
    task = program.enrol(portal, code, folder.expanduser(), ca=ca, name=name, port=port, replace=replace)
    try:
        identity = asyncio.run(task)
    except program.AgentError as error:
        raise _told(error) from None
    typer.echo(f"enrolled as {identity.name} ({identity.id}); next: ztproxy agent run")


@app.command()
def run(
    folder: DirOption = DEFAULT_DIR,
    posture_file: Annotated[
        Path | None, typer.Option(help="JSON file of check results, instead of looking at this machine.")
    ] = None,
    interval: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between reports.")] = 30.0,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Another loopback port than at enrolment.")
    ] = None,
) -> None:
    """Report this device's state and answer sign-in pages, until told to stop."""
    configure("info", "text")
    try:
        asyncio.run(program.run(folder.expanduser(), posture_file=posture_file, interval=interval, port=port))
    except program.AgentError as error:
        raise _told(error) from None


@app.command()
def status(folder: DirOption = DEFAULT_DIR, as_json: JsonOption = False) -> None:
    """Show who this device is and how its last report went."""
    try:
        found = program.status(folder.expanduser())
    except program.AgentError as error:
        raise _told(error) from None
    identity, last = found.identity, found.status
    fields = {
        "device": identity.id,
        "name": identity.name,
        "portal": identity.portal,
        "last report": moment(last.at) or "never",
        "accepted": "yes" if last.accepted else f"no: {last.error or 'not sent yet'}",
        "healthy": "yes" if last.healthy else "no",
        "checks": ", ".join(f"{name} {result}" for name, result in sorted(last.checks.items())),
        "certificate ends": moment(last.certificate_ends),
    }
    show_json(fields) if as_json else show_fields(fields)


def _told(error: program.AgentError) -> typer.Exit:
    typer.echo(f"ztproxy agent: {error}", err=True)
    return typer.Exit(1)

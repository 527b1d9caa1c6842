"""`ztproxy connector`: the program beside an application. It needs no configuration of the proxy.

Exit codes: 0 done, 1 it did not work, 2 wrongly called, 3 somebody has to enrol it (anew).
"""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from ztproxy.cli.problems import report
from ztproxy.cli.tables import moment, plain
from ztproxy.config.problems import ConfigProblems
from ztproxy.connector import configuration as files
from ztproxy.connector import probing, program
from ztproxy.connector.configuration import Configuration
from ztproxy.connector.state import ConnectorError, Folder
from ztproxy.net import loop
from ztproxy.telemetry.log import configure

app = typer.Typer(
    help="Carry to applications beside this program, for proxies that can not reach them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEFAULT: Final = Path("/etc/ztproxy/connector.yaml")
FileOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ZTPROXY_CONNECTOR_CONFIG", help="The connector's own file."),
]
CODE: Final = "ZTPROXY_ENROLMENT_CODE"


@app.command()
def enrol(
    portal: Annotated[str, typer.Option(help="Address of the portal, https://HOST[:PORT].")],
    code: Annotated[str, typer.Option(prompt=True, envvar=CODE, help="One-time enrolment code.")],
    config: FileOption = DEFAULT,
    name: Annotated[str, typer.Option(help="Refuse a code that is for another name than this.")] = "",
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of authorities to trust for portal and proxies; default: the system's."),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Give up the connector that is enrolled here.")] = False,
) -> None:
    """Enrol with a one-time code. The key is made here and never leaves."""
    read = _read(config)
    task = program.enrol(portal, code, Folder(read.state), name=name, ca=ca or read.ca, replace=replace)
    try:
        identity = asyncio.run(task)
    except ConnectorError as error:
        raise _told(error) from None
    typer.echo(f"enrolled as {plain(identity.key)}; next: ztproxy connector run")


@app.command()
def run(
    config: FileOption = DEFAULT,
    portal: Annotated[str, typer.Option(help="Enrol there first, if nothing is enrolled here.")] = "",
    code: Annotated[str, typer.Option(envvar=CODE, help="One-time enrolment code, for --portal.")] = "",
    ca: Annotated[Path | None, typer.Option(help="As for `enrol`, for --portal.")] = None,
) -> None:
    """Dial the proxies and carry what the file allows, until told to stop; SIGHUP has the file read anew."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is being read for the first time
    read = _read(config)
    configure(read.log.level, read.log.format)
    folder = Folder(read.state)
    try:
        if portal and code and not folder.enrolled:
            asyncio.run(program.enrol(portal, code, folder, ca=ca or read.ca))
        loop.run(program.run(read, lambda: files.load(config)))
    except ConnectorError as error:
        raise _told(error) from None


@app.command()
def check(
    config: FileOption = DEFAULT,
    offline: Annotated[bool, typer.Option("--offline", help="Dial nobody.")] = False,
) -> None:
    """Check the file, who this connector is, and whether proxies and applications are there."""
    read = _read(config)
    folder = Folder(read.state)
    typer.echo(f"{config}: sound, allows {len(read.allow)} applications")
    try:
        identity, context = folder.identity(), folder.context(read.ca)
        proxies = program.proxies_of(read, identity)
    except ConnectorError as error:
        raise _told(error) from None
    typer.echo(f"  connector    {plain(identity.key)} of {plain(identity.portal)}")
    typer.echo(f"  certificate  until {moment(folder.term()[1])}")
    if offline:
        return

    async def dial() -> bool:
        well = True
        async for found in probing.findings(proxies, context, read.allow):
            well = well and not found.why
            typer.echo(f"  {plain(found.what)}: {plain(found.why) or 'there'}", err=bool(found.why))
        return well

    if not asyncio.run(dial()):
        raise typer.Exit(1)


def _read(config: Path) -> Configuration:
    try:
        return files.load(config)
    except ConfigProblems as error:
        report(error.problems)
        raise typer.Exit(1) from None


def _told(error: ConnectorError) -> typer.Exit:
    typer.echo(f"ztproxy connector: {error}", err=True)
    return typer.Exit(error.exit_code)

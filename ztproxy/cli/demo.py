"""`ztproxy demo`: everything at once on this machine, and what its device reports."""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import typer
from rich.console import Console

from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import APPS, Layout

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
errors: Final = Console(stderr=True, highlight=False)
DirOption = Annotated[Path, typer.Option("--dir", help="Folder for keys, people, state and logs.")]


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    folder: DirOption = Path("demo"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the front door.")] = 8443,
    also: Annotated[
        list[str] | None,
        typer.Option(help="NAME=http://HOST:PORT: a further application, for administrators. Repeatable."),
    ] = None,
) -> None:
    """Run a provider, applications, the proxy, a workload and a device on loopback, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        context.obj = folder
        return
    from ztproxy.demo.run import run

    layout = Layout(folder.resolve(), port, tuple(_application(text) for text in also or ()))
    try:
        asyncio.run(run(layout, Console(highlight=False)))
    except DemoProblem as problem:
        raise _told(problem) from None


@app.command()
def posture(
    context: typer.Context,
    state: Annotated[
        Literal["healthy", "unhealthy", "stop"],
        typer.Argument(help="What the device reports from now on; `stop`: nothing any more."),
    ],
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder of the running demo.")] = None,
) -> None:
    """Change what the demo's device reports. Returns when the proxy has taken notice."""
    from ztproxy.demo.device import change

    try:
        typer.echo(asyncio.run(change((folder or context.obj).resolve(), state)))
    except DemoProblem as problem:
        raise _told(problem) from None


def _application(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    parts = urlsplit(address)
    if not re.fullmatch("[a-z][a-z0-9-]{0,30}", name) or name in (*APPS, "portal"):
        raise typer.BadParameter(f"{name!r} can not be the name of a further application")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{address!r} is not an address like http://127.0.0.1:8888")
    return name, address


def _told(problem: DemoProblem) -> typer.Exit:
    errors.print(str(problem), style="red", soft_wrap=True)
    if problem.remedy:
        errors.print(f"What to do: {problem.remedy}", soft_wrap=True)
    return typer.Exit(1)

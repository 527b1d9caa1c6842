"""`ztproxy upgrade`: have the running node become the program that is installed now.

The supervisor answers before it becomes another program; whether that went well is asked afterwards. Exit
code 0: the new program serves; 1: it does not, and the old one goes on.
"""

import http.client
import time
from pathlib import Path
from typing import Any, Final

import typer

from ztproxy.cli.admin import Refused, ask, asked, socket_of
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.reload import wish

PATIENCE: Final = 240.0  # seconds for the new program to get ready
STEP: Final = 0.3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let the installed program take the place of the running one; nobody is refused meanwhile."""
    before = _last(config)
    wish(config, "upgrade")
    event = _after(config, before)
    if event["outcome"] != "applied":
        typer.echo(f"ztproxy: the old program goes on: {event.get('detail', '')}", err=True)
        raise typer.Exit(1)
    typer.echo(f"done: {event.get('detail', '')}")


def _after(config: Path, before: Any) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        event = _last_or(config, before)
        if event != before and event is not None and event["event"] == "upgrade":
            found: dict[str, Any] = event
            return found
        time.sleep(STEP)
    typer.echo("ztproxy: it is not known what came of it; see the log", err=True)
    raise typer.Exit(1)


def _last_or(config: Path, before: Any) -> Any:
    """A question that was asked just when the control process changed hands is asked again."""
    try:
        return _upgraded(asked(socket_of(config), "GET", "/v1/node", None, STEP * 30))
    except (OSError, http.client.HTTPException, Refused):
        return before


def _last(config: Path) -> Any:
    return _upgraded(ask(config, "GET", "v1", "node"))


def _upgraded(found: Any) -> Any:
    """Return the last upgrade; nodes of before say only what happened last at all."""
    return found.get("upgraded", found["last"])

"""`ztproxy status`: what runs, and what it serves by."""

from typing import Any

import typer

from ztproxy.cli.admin import ask
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, show_fields, show_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show the version that runs, the configuration in force and what last happened to either."""
    found = ask(config, "GET", "v1", "node")
    if as_json:
        show_json(found)
        return
    show_fields(
        {
            "version": found["version"],
            "workers": found["workers"],
            "configuration": found["configuration"],
            "policies": found["policies"],
            "routes": found["routes"],
            "in force since": moment(found["since"]),
            "last": _told(found["last"]),
        }
    )


def _told(event: dict[str, Any] | None) -> str:
    if event is None:
        return ""
    by = f" by {event['by']}" if event["by"] else ""
    detail = f": {event['detail']}" if event["detail"] else ""
    return f"{event['event']} {event['outcome']} at {moment(event['at'])}{by}{detail}"

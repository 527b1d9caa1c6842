"""`ztproxy status`: what runs, and what it serves by."""

from typing import Annotated, Any

import typer

from ztproxy.cli.admin import ask
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, show_fields, show_json

StateOption = Annotated[
    bool, typer.Option("--state", help="Show what the store and the workers hold, to compare nodes by.")
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False, with_state: StateOption = False
) -> None:
    """Show the version that runs, the configuration in force and what last happened to either.

    With --state also what the store and each worker hold: nodes with the same digest are in the same state.
    """
    found = ask(config, "GET", "v1", "node")
    if with_state:
        found["state"] = ask(config, "GET", "v1", "node", "state", patience=60.0)
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
            **_held(found.get("state")),
        }
    )


def _held(state: dict[str, Any] | None) -> dict[str, str]:
    """Return a line for each who holds something, as soon as one differs; else one for all."""
    if state is None:
        return {}
    every = [*state["workers"], *filter(None, [state["store"]])]
    lines = {
        one["of"]: f"{one['digest']} ({one['records']} records, change {one['version']})" for one in every
    }
    if state["store"] is None:
        return lines | {"store": "is written to all the time"}
    if len({one["digest"] for one in every}) == 1:
        return {"state": f"{lines['store']}, in the store and in {len(state['workers'])} workers"}
    return lines


def _told(event: dict[str, Any] | None) -> str:
    if event is None:
        return ""
    by = f" by {event['by']}" if event["by"] else ""
    detail = f": {event['detail']}" if event["detail"] else ""
    return f"{event['event']} {event['outcome']} at {moment(event['at'])}{by}{detail}"

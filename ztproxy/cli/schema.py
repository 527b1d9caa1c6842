"""`ztproxy schema`: the configuration's JSON Schema, for editors."""

import json

import typer

from ztproxy.config.schema import json_schema

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    typer.echo(json.dumps(json_schema(), indent=2))

"""`ztproxy schema`: the configuration's JSON Schema for editors, or its reference page."""

import json
from typing import Annotated

import typer

from ztproxy.config.reference import markdown
from ztproxy.config.schema import json_schema

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def schema(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The reference page instead.")] = False,
) -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    typer.echo(markdown() if as_markdown else json.dumps(json_schema(), indent=2), nl=not as_markdown)

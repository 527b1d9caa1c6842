"""How verbs show lists and single things: aligned for people, JSON for programs."""

import datetime as calendar
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def show_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """Print rows below their columns, or say that there is nothing."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "ID")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if table.row_count:
        Console(highlight=False, soft_wrap=False).print(table)
    else:
        typer.echo(nothing)


def show_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing, a field a line, leaving out what is empty."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if value not in ("", None, [], (), {}):
            typer.echo(f"{name:<{width}}  {plain(str(value))}")


def moment(ms: int) -> str:
    """Write a time in ms since the epoch as local time; "" for never."""
    if not ms:
        return ""
    return calendar.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def plain(text: str) -> str:
    """Escape what could move the cursor of a terminal: names come from people we do not know."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)

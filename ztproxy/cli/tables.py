"""How verbs show lists and single things: aligned for people, JSON for programs."""

import datetime as calendar
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBOUNDED = 1 << 16
WHOLE = {"ID": 30}
WORD = 8
GAP = 2  # between columns
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def show_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """Print rows below their columns, or say that there is nothing.

    A terminal gets columns that fit into it, anything else one line for each row.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        typer.echo(nothing)
        return
    console = Console(highlight=False)
    every = [list(column) for column in zip(columns, *cells, strict=True)]
    widths = _widths(every, console.width if console.is_terminal else UNBOUNDED)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    console.width = max(console.width, sum(widths) + GAP * len(widths))
    console.print(table)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Take from the widest columns until all fit, but no more than each can give.

    Ids stay whole, so that they can be copied, and so do most words.
    """
    widths = [max(map(cell_len, cells)) for cells in columns]
    longest = [
        max((cell_len(word) for cell in cells for word in cell.split()), default=1) for cells in columns
    ]
    least = [min(word, WHOLE.get(cells[0], WORD)) for word, cells in zip(longest, columns, strict=True)]
    while sum(widths) + GAP * len(widths) > room:
        give = [(width, at) for at, width in enumerate(widths) if width > least[at]]
        if not give:
            break
        widths[max(give)[1]] -= 1
    return widths


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

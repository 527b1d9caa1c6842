"""How problems are told to the person at the terminal. Imported by many verbs: it must import little."""

from collections.abc import Iterable

import typer

from ztproxy.config.problems import Problem


def report(problems: Iterable[Problem]) -> None:
    """Print problems to standard error: place and message on one line, the remedy below it."""
    found = list(problems)
    for problem in found:
        where = f"{problem.where}: " if problem.where else ""
        place = f"{problem.file}:{problem.line}:{problem.column}"
        typer.echo(f"{typer.style(place, bold=True)}: {where}{problem.message}", err=True)
        if problem.remedy:
            typer.echo(f"    {typer.style('remedy:', fg='green')} {problem.remedy}", err=True)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    typer.echo(f"\n{count}; nothing was started or changed.", err=True)

"""`ztproxy reload`: have the running node take up its configuration files as they are now.

Prints what is in force, or every problem with its place and remedy. Exit code 0: in force; 1: it is not, and
nothing has changed.
"""

from pathlib import Path

import typer

from ztproxy.cli.admin import ask, operator
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.problems import report
from ztproxy.config.problems import Problem

PATIENCE = 600.0  # seconds: policies can be many, and their tests more

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def reload(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check the files and let them be in force everywhere, or nowhere."""
    wish(config, "reload")


def wish(config: Path, what: str) -> None:
    """Ask for it and say what came of it; exit with 1 when it was refused."""
    found = ask(config, "POST", "v1", "node", what, body={"by": operator()}, patience=PATIENCE)
    if found["done"]:
        typer.echo(found["text"])
        return
    if problems := [Problem(**one) for one in found.get("problems", ())]:
        report(problems)
    else:
        typer.echo(f"ztproxy: {found['text']}; nothing has changed", err=True)
    raise typer.Exit(1)

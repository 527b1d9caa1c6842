"""`ztproxy version`."""

import platform

import typer

from ztproxy import __version__

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def version() -> None:
    """Print the version of ztproxy and of the Python it runs on."""
    typer.echo(f"ztproxy {__version__} (Python {platform.python_version()})")

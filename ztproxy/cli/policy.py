"""`ztproxy policy`: what is in effect, word for word."""

import typer

from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.problems import report
from ztproxy.config.load import load_all
from ztproxy.config.policies import places_of, read_sources
from ztproxy.config.problems import ConfigProblems
from ztproxy.policy import builtin

app = typer.Typer(
    help="Show the policies in effect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _verbs() -> None:
    """Show the policies in effect."""


@app.command()
def show(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print all Cedar text: files, what routes say in shorthand, and what is built in."""
    try:
        settings, policies = load_all(config)
    except ConfigProblems as error:
        report(error.problems)
        raise typer.Exit(1) from None
    typer.echo(f"// policy set {policies.digest}")
    sources = read_sources(settings, places_of(settings)).policies
    for name, text in (*sources, (builtin.FILE, builtin.policies_for(settings.routes()))):
        typer.echo(f"\n// ---- {name}\n{text.rstrip()}")

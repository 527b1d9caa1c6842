"""`ztproxy run`: hand over to the service room."""

from typing import Annotated

import typer

from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Number of worker processes; overrides the configuration."),
    ] = None,
) -> None:
    """Serve until told to stop. SIGHUP reloads the configuration, SIGTERM drains and ends."""
    from ztproxy.service.run import main

    raise typer.Exit(main(config, workers) or 0)

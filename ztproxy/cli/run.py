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
    """Serve until told to stop (SIGTERM, SIGINT); SIGHUP reloads, SIGUSR2 upgrades."""
    from ztproxy.cli.problems import report
    from ztproxy.config.problems import ConfigProblems
    from ztproxy.service.run import AlreadyRunning, main

    try:
        main(config, workers)
    except ConfigProblems as error:
        report(error.problems)
        raise typer.Exit(1) from None
    except (AlreadyRunning, OSError) as error:
        typer.echo(f"ztproxy: {error}", err=True)
        raise typer.Exit(1) from None

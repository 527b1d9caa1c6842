"""`ztproxy init`: a complete configuration to start from, or what an existing one names and lacks."""

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.cli.materials import complete, write
from ztproxy.cli.problems import report
from ztproxy.config import values, yaml
from ztproxy.config.problems import ConfigProblems
from ztproxy.net.keyfiles import KeyFileError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where the configuration lives, or shall live.")],
    domain: Annotated[str, typer.Option(help="Domain of the hosts in a new configuration.")] = "corp.example",
) -> None:
    """Write configuration, policies, certificates and secrets that are not there; overwrite nothing."""
    try:
        for path in _made(directory.absolute(), _checked(domain)):
            typer.echo(f"made {path}")
    except ConfigProblems as error:
        report(error.problems)
        raise typer.Exit(1) from None
    except (OSError, ValueError, KeyFileError) as error:
        typer.echo(f"ztproxy: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"next: ztproxy check --config {directory / 'ztproxy.yaml'}")


def _checked(domain: str) -> str:
    try:
        return str(values.host(domain))
    except ValueError:
        raise typer.BadParameter(f"{domain!r} is not a domain", param_hint="--domain") from None


def _made(directory: Path, domain: str) -> Iterator[Path]:
    config = directory / "ztproxy.yaml"
    if not config.exists():
        yield from _starter(files("ztproxy.cli") / "starter", directory, domain)
    tree, problems = yaml.parse(config.read_bytes(), str(config))
    if tree is None or problems:
        raise ConfigProblems(problems)
    yield from complete(directory, tree)


def _starter(source: Traversable, target: Path, domain: str) -> Iterator[Path]:
    """Copy the starting configuration, made out for the domain."""
    for entry in source.iterdir():
        path = target / entry.name
        if entry.is_dir():
            yield from _starter(entry, path, domain)
        elif not path.exists():
            yield write(path, entry.read_text(encoding="utf-8").replace("corp.example", domain))

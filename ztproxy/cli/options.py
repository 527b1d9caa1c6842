"""Options that several verbs share, so that they are spelt and explained alike everywhere."""

from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_CONFIG: Final = Path("/etc/ztproxy/ztproxy.yaml")

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ZTPROXY_CONFIG", help="Configuration file.", show_default=True),
]

"""connector.yaml: what a connector may carry to, and where it keeps who it is.

Read by `cli.connector`, strictly and with all mistakes at once, like the proxy's own file. Nothing in it is a
secret, and nothing a proxy says ever changes what it allows.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, PlainValidator, ValidationError

from ztproxy.config import yaml
from ztproxy.config.explain import explain
from ztproxy.config.files import Files
from ztproxy.config.places import Places
from ztproxy.config.problems import ConfigProblems, Problem
from ztproxy.config.secrets import wrong
from ztproxy.config.section import Section
from ztproxy.config.values import DialAddress, DrainTime, FilePath, Milliseconds
from ztproxy.connector.allowed import place

DEFAULT_STATE: Final = Path("/var/lib/ztproxy-connector")
MOST: Final = 1000  # entries of the list


def _entry(raw: object) -> str:
    """Read an entry of the list: it stays as it is written, but it is one."""
    try:
        place(raw if isinstance(raw, str) else "")
    except ValueError:
        remedy = "write http://HOST:PORT, https://HOST:PORT, tcp://HOST:PORT or unix:/PATH"
        raise wrong("not an application's address", remedy) from None
    return str(raw)


Entry = Annotated[str, PlainValidator(_entry)]


class Bounds(Section):
    """What bounds a connector."""

    carrying: int = Field(default=4096, ge=1, le=65_536)
    """Connections to applications at once."""
    dial: Milliseconds = 5_000
    """Time for one of them to stand."""
    handshake: Milliseconds = 10_000
    """Time for a connection to a proxy to stand."""


class Log(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["json", "text"] = "json"
    """`json` for machines, `text` for eyes."""


class Configuration(Section):
    """Configuration of a connector."""

    model_config = ConfigDict(title="ztproxy connector configuration")

    state: FilePath = DEFAULT_STATE
    """Directory of its key and certificate. Private to the connector."""
    allow: tuple[Entry, ...] = Field(min_length=1, max_length=MOST)
    """Applications that it carries to, whatever a proxy asks: http://HOST:PORT, https://HOST:PORT,
    tcp://HOST:PORT or unix:/PATH."""
    proxies: tuple[DialAddress, ...] = Field(default=(), max_length=64)
    """`HOST:PORT` of the proxies to dial; default: those that the portal told."""
    ca: FilePath | None = None
    """PEM file of authorities to trust for portal and proxies; default: what was given when it was enrolled,
    else the system's."""
    drain: DrainTime = 30_000
    """Time that connections get to end when the connector stops."""
    limits: Bounds = Bounds()
    """Bounds."""
    log: Log = Log()
    """The log."""


def load(path: Path) -> Configuration:
    """Read and check the file. Raises ConfigProblems with all that is wrong."""
    path = path.absolute()
    try:
        with path.open("rb") as file:
            raw = file.read(yaml.MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        remedy = "write one: `allow: [http://127.0.0.1:8080]` is enough to begin with"
        raise ConfigProblems([Problem(str(path), 1, 1, "", f"can not be read: {reason}", remedy)]) from error
    tree, problems = yaml.parse(raw, str(path))
    if tree is None or problems:
        raise ConfigProblems(problems)
    surroundings: dict[str, Any] = {"file": path, "environ": {}, "files": Files(), "drafting": False}
    try:
        return Configuration.model_validate(tree.plain(), context=surroundings)
    except ValidationError as error:
        raise ConfigProblems(explain(error, Configuration, Places(str(path), tree))) from error

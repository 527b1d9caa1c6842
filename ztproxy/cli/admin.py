"""Asking the running node, over the private socket in its state directory.

Used by the verbs about sessions and devices. Who may enter the state directory may ask; nothing is listened
for on a network. There is no second way that reads the database behind the node's back.
"""

import getpass
import http.client
import os
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import typer

from ztproxy.config import yaml
from ztproxy.config.problems import ConfigProblems, Problem

DEFAULT_STATE: Final = "/var/lib/ztproxy"


class Refused(Exception):
    """The node answered, and the answer is no; the text is for the person who asked."""


def socket_of(config: Path) -> Path:
    """Return the admin socket of the node that runs with this configuration. Raises ConfigProblems.

    Only `state` is read, so that a configuration with a mistake elsewhere does not keep anybody from
    cutting a session.
    """
    config = config.absolute()
    try:
        tree, problems = yaml.parse(config.read_bytes(), str(config))
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise ConfigProblems([Problem(str(config), 1, 1, "", reason, "name it with --config")]) from None
    if tree is None:
        raise ConfigProblems(problems)
    state = tree.child("state")
    text = state.scalar if state is not None and isinstance(state.scalar, str) else DEFAULT_STATE
    return Path(os.path.normpath(config.parent / text)) / "run" / "admin.sock"


def ask(
    config: Path,
    method: str,
    *path: str,
    body: object = None,
    query: str = "",
    patience: float = 15.0,
) -> Any:
    """Return the node's JSON answer, or tell the person why there is none and exit with 1."""
    target = "/" + "/".join(quote(step, safe="") for step in path) + query
    try:
        return asked(socket_of(config), method, target, body, patience)
    except ConfigProblems as error:
        message = str(error)
    except Refused as error:
        message = str(error)
    except (FileNotFoundError, ConnectionError):
        message = f"no node is running with {config} (nobody listens on {socket_of(config)})"
    except TimeoutError:
        message = "the node can not be asked: no answer in time"
    except (OSError, http.client.HTTPException) as error:
        message = f"the node can not be asked: {error}"
    typer.echo(f"ztproxy: {message}", err=True)
    raise typer.Exit(1)


def asked(path: Path, method: str, target: str, body: object, patience: float) -> Any:
    """Return the JSON answer. Raises Refused, OSError, http.client.HTTPException."""
    connection = _Private(path, patience)
    try:
        data = msgspec.json.encode(body) if body is not None else None
        connection.request(method, target, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raise Refused(f"the node answered {answer.status} and no JSON") from None
    if answer.status >= 400:
        raise Refused(str(value.get("detail") or value.get("code") or answer.status))
    return value


class _Private(http.client.HTTPConnection):
    """HTTP over a socket of this machine. A program that asks once has no use for a loop and a client of its
    own, which take longer to import than the node to answer."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__("node", timeout=patience)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def operator() -> str:
    """Return who is at the keyboard, for the record: the one behind sudo, too."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} ({user})" if behind and behind != user else user

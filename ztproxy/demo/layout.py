"""Where things lie in the demo's folder, and what they are called. Pure; read by everything in `demo`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import json

DOMAIN: Final = "ztproxy.localhost"
TRUST_DOMAIN: Final = "demo.ztproxy.localhost"
PORTAL: Final = f"portal.{DOMAIN}"
APPS: Final = ("support", "wiki", "status")
CONNECTOR: Final = "apps"  # the name of the connector that reaches the applications
WORKLOAD: Final = f"spiffe://{TRUST_DOMAIN}/ci/deployer"
WORKLOAD_APP: Final = "status"
POSTURE_MAX_AGE: Final = 30  # seconds; short, so that one can watch a report grow old
POSTURE_EVERY: Final = 5  # seconds between two reports


@dataclass(frozen=True)
class Layout:
    """The demo's folder, the port of its front door, and what stands behind it."""

    root: Path
    port: int
    also: tuple[tuple[str, str], ...] = ()  # name and address of further applications behind the proxy

    @property
    def apps(self) -> tuple[str, ...]:
        """Names of all applications behind the proxy."""
        return (*APPS, *(name for name, _ in self.also))

    @property
    def portal(self) -> str:
        """External address of the portal."""
        return self.url("portal")

    def url(self, name: str) -> str:
        """External address of an application."""
        return f"https://{name}.{DOMAIN}:{self.port}"

    def path(self, *parts: str) -> Path:
        """A path inside the folder; what holds it is made, for the owner only."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def config(self) -> Path:
        """The configuration that `ztproxy run` is given."""
        return self.root / "ztproxy.yaml"

    @property
    def ready(self) -> Path:
        """What tells programs that the demo is ready."""
        return self.root / "demo.json"

    @property
    def posture(self) -> Path:
        """What the device's agent reads its state from."""
        return self.root / "device" / "posture.json"


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Put a file in place whole: nobody reads half of it, and nobody reads it before its mode is set."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Put a value in place as JSON, for people's eyes too."""
    write(path, json.format(json.encode(value), indent=2) + b"\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; None when there is none."""
    try:
        return json.decode(path.read_bytes())
    except FileNotFoundError:
        return None

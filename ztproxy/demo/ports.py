"""Ports on loopback for the demo's programs: a folder keeps its ports for as long as they are free."""

import contextlib
import socket

from msgspec import ValidationError, convert
from msgspec.structs import asdict

from ztproxy.demo.configuration import Ports
from ztproxy.demo.errors import DemoProblem
from ztproxy.demo.layout import Layout, read_json, write_json


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def claim_front(port: int) -> None:
    """DemoProblem when the front door's port can not be had."""
    if not is_free(port):
        raise DemoProblem(
            f"Port {port} on 127.0.0.1 is in use, or not yours to use.",
            "choose another one: ztproxy demo --port 9443 (make demo PORT=9443)",
        )


def prepare(layout: Layout) -> Ports:
    """The ports of this folder; new ones for those that somebody else took meanwhile."""
    path = layout.path("ports.json")
    try:
        known = asdict(convert(read_json(path) or {}, Ports))
    except ValidationError:
        known = {}
    names = Ports.__struct_fields__
    kept = {name: port for name, port in known.items() if port != layout.port and is_free(port)}
    ports = Ports(**{**dict(zip(names, _unused(len(names)), strict=True)), **kept})
    write_json(path, asdict(ports))
    return ports


def _unused(count: int) -> list[int]:
    """Different ports that are free now: all are bound at once, then let go."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]

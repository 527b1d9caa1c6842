"""Routes, facts and policies the tests of this room share."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace

from ztproxy.model.request import Context, Resource
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import Check, Device, Facts, Posture, Principal, Session
from ztproxy.policy.engine import PolicySet
from ztproxy.policy.load import load

#: Wednesday, 2026-03-04T10:00:00Z
NOW = 1_772_618_400_000
ORIGIN = Upstream("http", "127.0.0.1", 9001)

CAROL = Principal(
    "User",
    "corp:carol",
    issuer="https://idp.example",
    name="Carol",
    email="carol@example",
    groups=("contractors",),
)


def route(name: str, **more: object) -> Route:
    values = {"app": name, "host": f"{name}.example", "prefix": "/", "upstream": ORIGIN} | more
    return Route(name=name, **values)  # type: ignore[arg-type]


ROUTES = [route("support"), route("wiki", labels=frozenset({"internal"})), route("status-api")]


def facts(**changes: object) -> Facts:
    """Carol, on her healthy device."""
    session = Session("ses_1", CAROL, "corp", NOW - 600_000, NOW - 600_000, amr=("pwd", "otp"))
    device = Device("dev_1", "laptop", "00", owner=CAROL.id)
    checks = {"disk_encrypted": Check("pass", NOW - 60_000), "home_grown": Check("pass", NOW)}
    posture = Posture("dev_1", NOW - 60_000, 1, "ztproxy-agent", "self", True, checks, "linux")
    known = Facts(CAROL, session, device, "mtls", NOW - 60_000, posture)
    return replace(known, **changes)


def context(**changes: object) -> Context:
    return Context("f" * 32, "203.0.113.9", "support.example", "/tickets/1").replaced(**changes)


def to(name: str) -> Resource:
    return Resource("Route", name)


def policies(*texts: str, routes: Iterable[Route] = ROUTES, **options: object) -> PolicySet:
    """Load these texts as files a.cedar, b.cedar, …"""
    sources = [(f"{'abcdefgh'[n]}.cedar", text) for n, text in enumerate(texts)]
    return load(sources, list(routes), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def differential() -> ModuleType:
    path = Path(__file__).with_name("differential.py")
    spec = importlib.util.spec_from_file_location("policy_differential", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def the() -> ModuleType:
    """This module, for its helpers."""
    return sys.modules[__name__]


Maker = Callable[..., PolicySet]

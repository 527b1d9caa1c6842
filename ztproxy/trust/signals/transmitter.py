"""What is configured about somebody who tells us, and what its discovery document says.

Used by `trust.signals.remote`, `administrator.signals` and the API. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct, field

from ztproxy.trust.identity.fetch import check_url
from ztproxy.trust.identity.provider import SignInRefused
from ztproxy.trust.signals.events import Action

PUSH: Final = "urn:ietf:rfc:8935"
POLL: Final = "urn:ietf:rfc:8936"

_METHODS: Final = {
    # What transmitters wrote before the RFCs had numbers.
    "https://schemas.openid.net/secevent/risc/delivery-method/push": PUSH,
    "https://schemas.openid.net/secevent/risc/delivery-method/poll": POLL,
}


class OAuth(Struct, frozen=True):
    """How we get a token for the management API: the client credentials grant."""

    token_endpoint: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...] = ("ssf.manage", "ssf.read")

    def __repr__(self) -> str:
        return f"OAuth({self.client_id!r})"


class Transmitter(Struct, frozen=True, kw_only=True):
    """Somebody who tells us. Times in ms."""

    name: str  # of its Source record, in locks and records; never changes
    issuer: str  # compared exactly
    audiences: tuple[str, ...]
    delivery: Literal["push", "poll"]
    providers: tuple[str, ...]  # whose people it may speak about
    issuers: dict[str, str] = field(default_factory=dict)  # `iss` of its subjects -> provider
    device_names: bool = False  # whether enrolled devices also go by their names
    events: tuple[str, ...] = ()  # asked for, by name
    actions: dict[str, tuple[Action, ...]] = field(default_factory=dict)  # instead of DEFAULTS
    max_age: int = 86_400_000  # of a token
    verify_every: int = 300_000
    authorization: str = ""  # what a push must bring along; "" = nothing
    token: str = ""  # of the management API
    oauth: OAuth | None = None
    managed: bool = True  # whether we make and keep the stream
    endpoint: str = ""  # where it pushes to
    ca: str = ""  # PEM file trusted for it; "" is the system's

    def __repr__(self) -> str:  # secrets stay out of logs and tracebacks
        return f"Transmitter({self.name!r}, issuer={self.issuer!r})"


class Metadata(Struct, frozen=True):
    """The part of a discovery document we use. "" for an endpoint it has not."""

    jwks_uri: str
    configuration_endpoint: str = ""
    status_endpoint: str = ""
    verification_endpoint: str = ""
    methods: tuple[str, ...] = ()
    critical: frozenset[str] = frozenset()


def discovery_url(issuer: str, word: str = "ssf-configuration") -> str:
    """Return where the discovery document is: the well-known part goes between host and path."""
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}/.well-known/{word}{parts.path.rstrip('/')}"


def read_metadata(body: Mapping[str, Any], issuer: str) -> Metadata:
    """Return what a discovery document says. Raises SignInRefused."""
    if body.get("issuer") != issuer:
        raise SignInRefused("provider-invalid", "discovery names another issuer")
    endpoints = ("configuration_endpoint", "status_endpoint", "verification_endpoint")
    return Metadata(
        jwks_uri=check_url(body.get("jwks_uri"), "jwks_uri"),
        **{name: check_url(body[name], name) for name in endpoints if body.get(name) is not None},
        methods=tuple(_METHODS.get(name, name) for name in _texts(body.get("delivery_methods_supported"))),
        critical=frozenset(_texts(body.get("critical_subject_members"))),
    )


def _texts(value: object) -> tuple[str, ...]:
    listed = value[:64] if isinstance(value, list) else ()
    return tuple(one for one in listed if isinstance(one, str))

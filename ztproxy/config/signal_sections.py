"""The section of signals: who tells us, and whom we tell. Used by `config.settings`."""

from collections import Counter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from ztproxy.config.secrets import wrong
from ztproxy.config.section import Section
from ztproxy.config.values import FilePath, Issuer, Milliseconds, Name, ProviderName, SecretValue

HOUR: Final = 3_600_000


def _plain(text: str) -> str:
    if not text.isprintable() or not text.isascii() or " " in text:
        raise wrong("not an identifier", "write it exactly as the other side does, without blanks")
    return text


Identifier = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_plain)]
Event = Literal[
    "session-revoked",
    "token-claims-change",
    "credential-change",
    "assurance-level-change",
    "device-compliance-change",
    "session-established",
    "session-presented",
    "risk-level-change",
    "account-credential-change-required",
    "account-purged",
    "account-disabled",
    "account-enabled",
    "identifier-changed",
    "identifier-recycled",
    "credential-compromise",
    "opt-in",
    "opt-out-initiated",
    "opt-out-cancelled",
    "opt-out-effective",
    "recovery-activated",
    "recovery-information-changed",
    "sessions-revoked",
]
Told = Literal["session-established", "session-presented", "session-revoked", "device-compliance-change"]


class OAuth(Section):
    """How a token for the management API is got: the client credentials grant."""

    token_endpoint: Issuer
    """Token endpoint of the transmitter's authorization server."""
    client_id: Identifier
    """Our client id there."""
    client_secret: SecretValue
    """Our client secret, `env:NAME` or `file:PATH`."""
    scopes: tuple[Identifier, ...] = ("ssf.manage", "ssf.read")
    """Scopes to ask for."""


class SubjectIssuer(Section):
    """An issuer that subjects of this transmitter carry, and the provider whose people these are."""

    issuer: Issuer
    """`iss` of subjects."""
    provider: ProviderName
    """Name of one of `identity.providers`, whose `sub` is the same."""


class Reaction(Section):
    """What is done about one event, instead of the default."""

    event: Event
    """The event."""
    do: tuple[Literal["end", "recheck", "note", "lock", "unlock"], ...] = ()
    """`end` ends sessions that began before; `recheck` has the provider asked anew; `note` makes risk or
    compliance a fact for policies; `lock` locks the subject until `unlock` of the same transmitter. Nothing:
    the event is only recorded."""


class Transmitter(Section):
    """A transmitter of security events (OpenID Shared Signals): an identity provider, a device management."""

    name: Name
    """Its name in records, locks and policies."""
    issuer: Issuer
    """Issuer exactly as its discovery document says it."""
    audience: tuple[Identifier, ...] = Field(default=(), max_length=8)
    """What its tokens may be made out for; default: the portal's origin."""
    delivery: Literal["push", "poll"] = "push"
    """`push`: it sends to `https://PORTAL/.ztproxy/signals/push/NAME`; `poll`: we ask it."""
    authorization: SecretValue | None = None
    """What the Authorization field of a push must be, whole: `Bearer …`."""
    token: SecretValue | None = None
    """Bearer token for its management API. With `token` or `oauth` the stream is made and kept by us;
    without, it was set up at the transmitter."""
    oauth: OAuth | None = None
    """How a token for its management API is got."""
    providers: tuple[ProviderName, ...] | None = None
    """Whose people it may speak about; default: of all `identity.providers`."""
    issuers: tuple[SubjectIssuer, ...] = ()
    """Further issuers in its subjects; those of `identity.providers` are known."""
    device_names: bool = False
    """Whether its devices may be named as ours are: give serial numbers as names when enrolling. A name
    that a device chose by itself proves nothing."""
    events: tuple[Event, ...] = Field(default=(), max_length=30)
    """Events to ask for; default: all."""
    actions: tuple[Reaction, ...] = ()
    """What is done about events, instead of the defaults."""
    max_age: Milliseconds = 24 * HOUR
    """Tokens issued longer ago are refused."""
    verify: Milliseconds = 300_000
    """How often a verification is asked for, so that silence means that nothing happened."""
    ca: FilePath | None = None
    """PEM file of authorities to trust for this transmitter instead of the system's."""

    @model_validator(mode="after")
    def _can_be_heard(self) -> "Transmitter":
        if self.token is not None and self.oauth is not None:
            raise wrong("two ways to the management API", "give `token` or `oauth`")
        if self.delivery == "poll" and self.token is None and self.oauth is None:
            raise wrong("polls need a token", "give `token` or `oauth`")
        if self.delivery == "poll" and self.authorization is not None:
            raise wrong("`authorization` has no effect: nothing is pushed", "remove it")
        twice = [event for event, count in Counter(one.event for one in self.actions).items() if count > 1]
        if twice:
            raise wrong(f"{twice[0]} is given twice in `actions`", "say it once")
        if not 1000 <= self.verify <= HOUR:
            raise wrong("not a usable time between verifications", "choose from 1s to 1h")
        return self


class SignalReceiver(Section):
    """Somebody whom we tell what happens to sessions and devices here. It makes its stream by itself."""

    name: Name
    """Its name in records; its client id at our token endpoint."""
    secret: SecretValue
    """Its client secret at our token endpoint, and its bearer token if it knows no other way."""
    audience: Identifier
    """`aud` of the tokens it gets."""
    subjects: Literal["complex", "iss_sub", "email"] = "complex"
    """How people are named: `complex` has user, session and device."""
    events: tuple[Told, ...] = Field(
        default=("session-established", "session-presented", "session-revoked", "device-compliance-change"),
        min_length=1,
    )
    """What it may be told."""


class Signals(Section):
    """Shared signals: others tell us what ends trust, and we tell others."""

    transmitters: tuple[Transmitter, ...] = Field(default=(), max_length=64)
    """Who tells us."""
    receivers: tuple[SignalReceiver, ...] = Field(default=(), max_length=64)
    """Whom we tell."""

"""The words of sign-in: what is configured about an identity provider, what a sign-in proved, how one fails.

Used by `trust.identity.oidc`, the portal and `administrator.sessions`.
"""

import re
from typing import Final, Literal

from msgspec import Struct

from ztproxy.crypto.jwk import ALGORITHMS
from ztproxy.model.subject import Principal

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Provider(Struct, frozen=True):
    """Our registration at one OpenID provider."""

    name: str  # prefix of principal ids; never changes
    title: str  # shown on the sign-in page
    issuer: str  # compared exactly, RFC 8414 section 3.3
    client_id: str
    client_secret: str = ""  # "" for a public client; PKCE protects both
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    ca: str = ""  # PEM file trusted for this provider; "" is the system's

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("a provider's name is made of a-z, 0-9 and -")
        if not self.algorithms or not ALGORITHMS.issuperset(self.algorithms):
            raise ValueError(f"provider {self.name}: allowed algorithms are {', '.join(sorted(ALGORITHMS))}")
        if "openid" not in self.scopes:
            raise ValueError(f"provider {self.name}: scopes must contain openid")

    def __repr__(self) -> str:  # the secret stays out of logs and tracebacks
        return f"Provider(name={self.name!r}, issuer={self.issuer!r}, client_id={self.client_id!r})"


class Granted(Struct, frozen=True):
    """What a provider can be asked again with. Secret: it is stored apart from the session, sealed, and never
    leaves the control process. Without a refresh token the access token serves while it lives."""

    refresh_token: str = ""
    access_token: str = ""
    access_until: int = 0  # ms
    nonce: str = ""  # of the sign-in: a renewed ID token that names one names this
    groups_from: Literal["", "id_token", "userinfo"] = ""

    def __repr__(self) -> str:
        return f"Granted(refresh={bool(self.refresh_token)}, groups_from={self.groups_from!r})"


class Confirmed(Struct, frozen=True):
    """What a provider says of a person now. None = as before."""

    principal: Principal | None = None
    amr: tuple[str, ...] | None = None
    acr: str | None = None
    auth_time: int | None = None  # ms


class SignIn(Struct, frozen=True):
    """What a sign-in proved. Times in ms since the epoch."""

    principal: Principal
    provider: str
    auth_time: int
    amr: tuple[str, ...] = ()  # RFC 8176 values
    acr: str = ""
    sid: str = ""  # the provider's name of its session
    granted: Granted | None = None  # to ask again with
    began: int = 0  # when it was begun: the proof is no older, and may be as old
    asked_at: int = 0  # when the provider was asked for what it says here


class GrantEnded(Exception):
    """The provider says for good that this person is not signed in any more. The text holds no secret."""


class CannotAsk(Exception):
    """The provider can not be asked without the person's browser: there is nothing to ask with."""


class TemporaryProviderError(Exception):
    """The provider can not be reached or is out of order; trying again later may help.

    The text is for the log; people are told REASONS["provider-unavailable"].
    """


class SignInRefused(Exception):
    """This sign-in is over. `reason` is a key of REASONS; the text is for the log and holds no secret."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


#: What people are told. Nothing of it depends on what a provider sent.
REASONS: Final[dict[str, str]] = {
    "provider-unavailable": "The sign-in service can not be reached at the moment.",
    "provider-invalid": "The sign-in service answered in a way that can not be trusted.",
    "provider-refused": "The sign-in service did not sign you in.",
    "provider-mixed-up": "The answer came from another sign-in service than the one that was asked.",
    "token-invalid": "The sign-in service's statement about you could not be verified.",
    "not-fresh": "The sign-in service did not ask you to prove again who you are.",
    "attempt-unknown": "This sign-in has expired or was used before.",
    "attempt-foreign": "This sign-in was started in another browser.",
    "cookies-blocked": "Your browser did not keep the cookie that signing in needs.",
    "ended-meanwhile": "Your sessions were ended while you signed in.",
    "locked": "Access with this account is locked. Contact your administrator.",
    "too-many-attempts": "Too many sign-ins were started from your network. Wait a few minutes.",
}

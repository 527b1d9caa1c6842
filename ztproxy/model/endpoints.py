"""Where our own endpoints are, on every host: for rooms that must not know each other and have to agree."""

from typing import Final

#: Everything below is ours; no route may lie there.
OWN: Final = "/.ztproxy/"

#: What device agents ask the portal for.
ENROL: Final = OWN + "devices/enrol"
POSTURE: Final = OWN + "devices/posture"
RENEW: Final = OWN + "devices/renew"

#: What connectors ask the portal for.
ENROL_CONNECTOR: Final = OWN + "connectors/enrol"
RENEW_CONNECTOR: Final = OWN + "connectors/renew"

#: Where connectors dial in, on their own host.
CARRY: Final = OWN + "carry"


def lending(connector: str) -> str:
    """Return where nodes borrow a connection of a connector, on the same host."""
    return f"{CARRY}/{connector}"


#: The public keys of our assertions.
JWKS: Final = OWN + "jwks.json"

#: Below it: what transmitters of signals push to, and what receivers of ours ask.
SIGNALS: Final = OWN + "signals/"

#: Below it: what identity providers tell about sign-outs, by the name of the provider.
LOGOUT: Final = OWN + "back-channel-logout/"

#: Where receivers learn all of the above (SSF 1.0 section 7).
SSF_DISCOVERY: Final = "/.well-known/ssf-configuration"

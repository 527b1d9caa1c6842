"""Where our own endpoints are, on every host: for rooms that must not know each other and have to agree."""

from typing import Final

#: Everything below is ours; no route may lie there.
OWN: Final = "/.ztproxy/"

#: What device agents ask the portal for.
ENROL: Final = OWN + "devices/enrol"
POSTURE: Final = OWN + "devices/posture"
RENEW: Final = OWN + "devices/renew"

#: The public keys of our assertions.
JWKS: Final = OWN + "jwks.json"

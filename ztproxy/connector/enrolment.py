"""Becoming a connector, and staying one: a code and a key become a certificate, and that a newer one.

Called by `connector.program` and `connector.renewal`. Whatever the portal answers is checked against what was
asked before it replaces anything.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from ztproxy.connector.state import ConnectorError, Folder, Identity
from ztproxy.crypto import statements
from ztproxy.crypto.csr import make_request
from ztproxy.crypto.jose import sign
from ztproxy.model.endpoints import ENROL_CONNECTOR, RENEW_CONNECTOR
from ztproxy.net import keyfiles
from ztproxy.net.portal import JOSE, JSON, Credentials, PortalRefused, PortalUnreachable, origin_of, post


class Issued(Struct, frozen=True):
    """A certificate as the portal hands it out, and where connectors dial."""

    connector: dict[str, str]
    certificate: str
    not_after: int
    host: str
    proxies: tuple[str, ...]
    portal: str = ""

    def identity(self, portal: str) -> Identity:
        """Return who this is for. Raises ConnectorError."""
        try:
            name, instance = self.connector["name"], self.connector["instance"]
        except KeyError as error:
            raise ConnectorError("the portal's answer names no connector") from error
        return Identity(name=name, instance=instance, portal=portal, host=self.host, proxies=self.proxies)


async def enrol(
    portal: str, code: str, folder: Folder, *, name: str = "", ca: Path | None = None, replace: bool = False
) -> Identity:
    """Enrol with a one-time code and write the folder. Raises ConnectorError.

    `portal` is the portal's address, `name` what the code is expected to be for ("" = whatever it says), `ca`
    a PEM file of authorities trusted for portal and proxies from now on (default: the system's).
    """
    try:
        origin = origin_of(portal)
    except ValueError as error:
        raise ConnectorError(str(error)) from error
    if folder.enrolled and not replace:
        raise ConnectorError(
            f"{folder.path}: {folder.identity().key} is enrolled here already; see --replace"
        )
    folder.prepare()
    key = keyfiles.new_key()
    body = msgspec.json.encode({"code": code, "csr": make_request(key, name or "connector"), "name": name})
    try:
        authorities = None if ca is None else keyfiles.read(ca)
        issued = await post(origin + ENROL_CONNECTOR, body, JSON, Credentials(ca=ca), Issued)
    except (PortalRefused, PortalUnreachable, keyfiles.KeyFileError, OSError) as error:
        raise ConnectorError(str(error)) from error
    if issued.portal != origin:
        raise ConnectorError(f"the portal calls itself {issued.portal[:200]!r}: enrol with that address")
    identity = issued.identity(origin)
    folder.create(identity, key, issued.certificate, authorities)
    return identity


async def renew(folder: Folder, now: int, ca: Path | None = None) -> Identity:
    """Have the enrolled key certified anew and write what came; `now` (ms) is the portal's time.

    Returns who this is now: it may dial other proxies than before. Raises PortalRefused, PortalUnreachable,
    ConnectorError.
    """
    identity = folder.identity()
    claims = statements.renewal(identity.signer, identity.portal, now)
    statement = sign(claims, folder.signer(), statements.CONNECTOR_RENEWAL)
    credentials = Credentials(ca=ca or folder.ca)  # and no certificate: on the portal's host it is nobody's
    url = identity.portal + RENEW_CONNECTOR
    issued = await post(url, statement.encode("ascii"), JOSE, credentials, Issued)
    renewed = issued.identity(identity.portal)
    if renewed.signer != identity.signer:
        raise ConnectorError("the portal handed out a certificate of somebody else")
    folder.write_certificate(issued.certificate, identity)
    if renewed != identity:
        folder.write_identity(renewed)
    return renewed

"""A worker's proof that it is one of this node, and what it believes of other nodes.

Used by `service.worker` when it borrows from another node. The key is made here and never leaves: the control
process certifies it for half a day, as `spiffe://TRUST-DOMAIN/node/NAME`, by an authority that is believed
for this one thing and vouches for no caller. Who steals a worker's memory can borrow connections of
connectors until then, which a worker could anyhow, and be locked out by name.
"""

import asyncio
import os
import ssl
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ztproxy.model.messages import CertificateIssued
from ztproxy.net import keyfiles
from ztproxy.net.clock import Clock
from ztproxy.service.link import Link

#: Life of such certificates, and what has to be left of it when one is shown, for what is borrowed ends with
#: it. In ms.
LIFETIME: Final = 12 * 3_600_000
SPARE: Final = LIFETIME // 2


class Membership:
    """Made once per worker."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._key = keyfiles.new_key()
        self._issued: CertificateIssued | None = None
        self._made: tuple[str, ssl.SSLContext] | None = None  # of which authorities, and what came of it
        self._busy = asyncio.Lock()

    async def context(self, authorities: str) -> ssl.SSLContext | None:
        """Return what another node is dialled with, None as long as nobody certifies us.

        `authorities` (PEM) are believed beside the system's. Raises OSError, ssl.SSLError among them.
        """
        async with self._busy:
            issued = await self._certificate()
            if issued is None:
                return None
            if self._made is None or self._made[0] != authorities:
                pem = issued.pem.encode("ascii") + keyfiles.key_pem(self._key)
                self._made = authorities, await asyncio.to_thread(_context, authorities, pem)
            return self._made[1]

    async def _certificate(self) -> CertificateIssued | None:
        now, issued = self._clock.now(), self._issued
        if issued is not None and now < issued.not_after - SPARE:
            return issued
        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        renewed = await self._link.certificate(public)
        if renewed is not None:
            self._issued, self._made = renewed, None
            return renewed
        return issued if issued is not None and now < issued.not_after else None


def _context(authorities: str, own: bytes) -> ssl.SSLContext:
    """Make the context; what libraries take as files only is lent to them as anonymous memory."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    if authorities:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=authorities)
    descriptor = os.memfd_create("ztproxy", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, own)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context

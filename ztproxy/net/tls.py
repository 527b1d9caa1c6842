"""TLS contexts: for the listener one per server certificate and client certificate mode, for upstreams one
per trusted file.

Built by `service` from settings on start; files are read then and never later. Session tickets are off: a
resumed session would carry a client certificate that was checked at another time.
"""

import ssl
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct

from ztproxy.model.resource import TlsFiles, Upstream
from ztproxy.model.route import ClientCertificateMode, Route
from ztproxy.net.certificates import Bundle

#: What a host asks of those who shake hands: a client certificate of one of its callers or not, or one of a
#: connector. No host believes both kinds.
Mode = ClientCertificateMode | Literal["connectors"]

#: Kinds of certificates of our own programs: nobody to any application.
PROGRAMS: Final = ("connector", "node")


class KeyPair(Struct, frozen=True):
    """A server certificate as files: PEM chain, leaf first, and PEM key."""

    certificate: Path
    key: Path


class NoNames(ValueError):
    """A server certificate without DNS names can never be chosen."""


def dns_names(certificate: Path) -> tuple[str, ...]:
    """Return the lower-case DNS names of the first certificate in a PEM file. Raises OSError, NoNames."""
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as none:
        raise NoNames(f"{certificate}: no subject alternative name") from none
    found = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    if not found:
        raise NoNames(f"{certificate}: no DNS name")
    return found


def modes_of(routes: Iterable[Route]) -> dict[str, Mode]:
    """Return the client certificate mode of each host's handshake.

    The routes of a host share the handshake: where they differ it asks without insisting, and a route that
    requires a certificate refuses by itself. The portal goes along with the routes of its host.
    """
    wanted: dict[str, set[ClientCertificateMode]] = {}
    ours: dict[str, Mode] = {}
    for route in routes:
        if route.carries:
            ours[route.host] = "connectors"
        elif route.portal:
            ours[route.host] = route.client_certificate
        else:
            wanted.setdefault(route.host, set()).add(route.client_certificate)
    shared: dict[str, Mode] = {
        host: modes.pop() if len(modes) == 1 else "optional" for host, modes in wanted.items()
    }
    return ours | shared


_VERIFY_MODE: Final[property] = vars(ssl.SSLContext)["verify_mode"]


class ServerContext(ssl.SSLContext):
    """A context that verifies clients, and of which aiofastnet believes that it verifies nobody.

    All that aiofastnet asks this for is whether to decode what a client has shown. It does so by way of a
    file in the directory for temporary ones, at every handshake: nobody here reads what comes of it, and
    where that directory is full or read-only, nobody with a certificate would get in. Whom OpenSSL verifies
    does not hang on it. Should that ever change, no client is asked for a certificate, so nobody is known
    by one.
    """

    __slots__ = ()

    @property
    def verify_mode(self) -> ssl.VerifyMode:  # type: ignore[override]  # whoever sets it is told
        """Say that nobody is verified, see above."""
        return ssl.CERT_NONE

    @property
    def verifies(self) -> ssl.VerifyMode:
        """What OpenSSL demands of clients."""
        return ssl.VerifyMode(_VERIFY_MODE.__get__(self))

    @verifies.setter
    def verifies(self, mode: ssl.VerifyMode) -> None:
        _VERIFY_MODE.__set__(self, mode)


_Contexts = Mapping[Mode, ServerContext]


class ServerContexts:
    """Chooses the TLS context of a connection by its server name."""

    def __init__(
        self,
        pairs: Iterable[KeyPair],
        modes: Mapping[str, Mode],
        bundles: Iterable[Bundle],
    ) -> None:
        """Read every file now. Raises OSError (ssl.SSLError among them), ValueError."""
        self.bundles = tuple(bundles)
        self._modes = dict(modes)
        used: set[Mode] = {"off", *self._modes.values()}
        self._exact: dict[str, _Contexts] = {}
        self._below: dict[str, _Contexts] = {}  # wildcards, by the parent's name
        for pair in pairs:
            contexts: _Contexts = {
                mode: server_context(pair, mode, believed(mode, self.bundles)) for mode in used
            }
            for name in dns_names(pair.certificate):
                if name.startswith("*."):
                    self._below.setdefault(name[2:], contexts)
                else:
                    self._exact.setdefault(name, contexts)

    def choose(self, name: str) -> ServerContext | None:
        """Return the context for a lower-case server name; None for a name we hold no certificate for."""
        contexts = self._exact.get(name) or self._below.get(name.partition(".")[2])
        if contexts is None:
            return None
        return contexts[self._modes.get(name, "off")]

    def carries(self, name: str) -> bool:
        """Tell whether connectors and nodes come to a host of this name, and nobody else."""
        return self._modes.get(name) == "connectors"

    def believed(self, name: str) -> tuple[Bundle, ...]:
        """Return whom a host of this name believes."""
        return believed(self._modes.get(name, "off"), self.bundles)


def believed(mode: Mode, bundles: Iterable[Bundle]) -> tuple[Bundle, ...]:
    """Return the bundles that a host of this mode believes: our own programs on one."""
    return tuple(bundle for bundle in bundles if (bundle.kind in PROGRAMS) is (mode == "connectors"))


def server_context(pair: KeyPair, mode: Mode, bundles: Iterable[Bundle]) -> ServerContext:
    """Make a server context that believes these bundles. Raises OSError (ssl.SSLError too), ValueError."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    ours = mode == "connectors"  # both ends are our own program: nothing old is to be got on with
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if ours else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(pair.certificate, pair.key)
    anchors = [anchor for bundle in bundles for anchor in bundle.anchors]
    if ours and not anchors:
        raise ValueError("nobody vouches for connectors")
    if mode != "off" and anchors:
        context.verifies = ssl.CERT_OPTIONAL if mode == "optional" else ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata="".join(map(_pem, anchors)))
    return context


def client_context(ca: str | None, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Make a context for upstreams that trusts one PEM file, or the system, and shows a certificate if given.
    Raises OSError."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def client_contexts(
    upstreams: Iterable[Upstream], at: Callable[[str], Path] = Path
) -> dict[TlsFiles, ssl.SSLContext]:
    """Return a context for each set of files that https upstreams name; `at` says where they can be read.

    Raises OSError."""
    wanted = {one.tls_files for one in upstreams if one.scheme == "https"}
    return {files: client_context(*(one and str(at(one)) for one in files)) for files in wanted}


def distrusted(before: Iterable[Bundle], after: Iterable[Bundle]) -> frozenset[str]:
    """Return the names of bundles that no longer vouch for all they did: gone, narrower, or another kind.

    Who was let in by one of them has to show a certificate again.
    """
    now = {bundle.name: bundle for bundle in after}
    return frozenset(bundle.name for bundle in before if not _covers(now.get(bundle.name), bundle))


def _covers(wider: Bundle | None, bundle: Bundle) -> bool:
    return (
        wider is not None
        and wider.anchors >= bundle.anchors
        and (wider.kind, wider.trust_domain) == (bundle.kind, bundle.trust_domain)
    )


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")

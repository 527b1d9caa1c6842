"""Files that the configuration names: they are there, and are what they should be."""

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from ztproxy.config.places import Places
from ztproxy.config.problems import Problem
from ztproxy.config.settings import Settings
from ztproxy.config.yaml import Loc

MAX_PEM = 4 << 20

#: sun_path of unix(7) holds 108 bytes with its final NUL.
MAX_SOCKET_PATH = 107


def authorities(settings: Settings, places: Places) -> Iterator[Problem]:
    """Files of trusted authorities."""
    for path, loc, roots in _authorities(settings):
        found = read_certificates(settings, path)
        if isinstance(found, str):
            remedy = f"put the authority's certificate (PEM) into {path}"
            yield places.problem(found, remedy, *loc)
        elif roots and not all(map(_is_authority, found)):
            yield places.problem(
                f"{path} holds a certificate that is no authority (basicConstraints CA)",
                "name the root that signs the clients, not a client's certificate",
                *loc,
            )


def _authorities(settings: Settings) -> Iterator[tuple[Path, Loc, bool]]:
    for index, bundle in enumerate(settings.client_certificates):
        yield bundle.ca, ("client_certificates", index, "ca"), True
    if settings.connectors is not None and settings.connectors.ca:
        yield settings.connectors.ca, ("connectors", "ca"), False
    for index, provider in enumerate(settings.identity.providers):
        if provider.ca:
            yield provider.ca, ("identity", "providers", index, "ca"), False
    for index, route in enumerate(settings.route_settings):
        if route.tls and route.tls.ca:
            yield route.tls.ca, ("routes", index, "tls", "ca"), False


def read_certificates(settings: Settings, path: Path) -> list[x509.Certificate] | str:
    """Return the certificates of a PEM file, or what is wrong with it."""
    try:
        pem = settings.files.read(path, MAX_PEM)
        if len(pem) > MAX_PEM:
            return f"{path} is larger than {MAX_PEM} bytes"
        return x509.load_pem_x509_certificates(pem)
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} is not there"
    except IsADirectoryError:
        return f"{path} is not a file"
    except OSError as error:
        return f"{path} can not be read: {(error.strerror or 'unreadable').lower()}"
    except ValueError:
        return f"{path} holds no certificate that can be read"


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def state(settings: Settings, places: Places) -> Iterator[Problem]:
    """The state directory can be one, and the sockets in it can be bound."""
    path = settings.state_dir
    longest = path / "run" / "control.sock"
    if len(str(longest).encode()) > MAX_SOCKET_PATH:
        yield places.problem("the path is too long for the sockets in it", "use a shorter path", "state")
    if path.exists() and not path.is_dir():
        yield places.problem(f"{path} is not a directory", "name a directory", "state")

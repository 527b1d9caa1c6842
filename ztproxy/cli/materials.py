"""Keys, certificates and secrets for a configuration that names files which are not there yet.

Called by `ztproxy init`. Never overwrites a file; private ones are created with mode 0600 and never readable
by others, not even for a moment.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ztproxy.config.yaml import Node
from ztproxy.crypto.encoding import encode_base64url
from ztproxy.crypto.issue import create_authority, issue_server, load_authority, pem
from ztproxy.crypto.signing import Issuer
from ztproxy.crypto.template import Term, term
from ztproxy.net import keyfiles
from ztproxy.net.clock import SystemClock, entropy

DAY: Final = 86_400_000
AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397


def complete(base: Path, tree: Node) -> Iterator[Path]:
    """Make what the configuration names and is not there; yield every file made."""
    for entry in _items(tree, "tls", "certificates"):
        cert, key = _file(base, entry, "cert"), _file(base, entry, "key")
        if cert and key and not cert.exists() and not key.exists():
            yield from _server(cert, key, hosts_of(tree))
    for bundle in _items(tree, "client_certificates"):
        path = _file(base, bundle, "ca")
        if path and not path.exists():
            yield from _authority(path, path.with_suffix(".key"), f"{_text(bundle, 'name')} authority")
    for provider in _items(tree, "identity", "providers"):
        path = _file(base, provider, "client_secret")
        if path and not path.exists():
            yield write(path, encode_base64url(entropy(32)) + "\n", mode=0o600)


def hosts_of(tree: Node) -> tuple[str, ...]:
    """Return the hosts a configuration answers on."""
    sections = [tree.child(name) for name in ("portal", "connectors")]
    hosts = [_text(section, "host") for section in sections if section]
    for route in _items(tree, "routes"):
        hosts.append(_text(route, "from").removeprefix("https://").partition("/")[0])
    return tuple(dict.fromkeys(host for host in hosts if host))


def write(path: Path, text: str, *, mode: int = 0o644) -> Path:
    """Create a file that must not exist yet. Raises FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if mode & 0o044 else 0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _server(cert: Path, key: Path, hosts: tuple[str, ...]) -> Iterator[Path]:
    root, root_key = cert.with_name("ca.pem"), cert.with_name("ca.key")
    if not root.exists():
        yield from _authority(root, root_key, "ztproxy starting authority")
    own = keyfiles.new_key()
    leaf = issue_server(_load(root, root_key), own.public_key(), _term(SERVER_DAYS), dns_names=hosts)
    yield write(key, keyfiles.key_pem(own).decode("ascii"), mode=0o600)
    yield write(cert, pem(leaf))


def _authority(cert: Path, key: Path, name: str) -> Iterator[Path]:
    own = keyfiles.new_key()
    issuer = create_authority(name, own, _term(AUTHORITY_DAYS))
    yield write(key, keyfiles.key_pem(own).decode("ascii"), mode=0o600)
    yield write(cert, pem(issuer.certificate))


def _load(cert: Path, key: Path) -> Issuer:
    return load_authority(keyfiles.load_key(key), keyfiles.read(cert), SystemClock().now())


def _term(days: int) -> Term:
    return term(SystemClock().now(), days * DAY, entropy)


def _items(tree: Node, *keys: str) -> tuple[Node, ...]:
    node: Node | None = tree
    for key in keys:
        node = node.child(key) if node is not None else None
    return node.items or () if node is not None else ()


def _text(node: Node, key: str) -> str:
    value = node.child(key)
    return value.scalar if value is not None and isinstance(value.scalar, str) else ""


def _file(base: Path, node: Node, key: str) -> Path | None:
    text = _text(node, key)
    return base / text.removeprefix("file:") if text and not text.startswith("env:") else None

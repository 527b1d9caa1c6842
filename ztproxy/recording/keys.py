"""The key that signs checkpoints: a PEM file of the state directory.

Used by `recording.log`. The private key leaves this process in no form.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ztproxy.net import keyfiles


class LogKeyError(Exception):
    """The signing key can not be used."""


def load_key(path: Path, *, create: bool) -> Ed25519PrivateKey:
    """Read the key; with `create` make one when there is none. Raises LogKeyError, OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if not create:
            raise LogKeyError(f"{path} is missing: without it nobody can go on with this log") from None
        return _create(path)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise LogKeyError(f"{path} is not an unencrypted Ed25519 key in PEM form")
    return key


def _create(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    try:
        keyfiles.private_folder(path.parent)
        keyfiles.write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except keyfiles.KeyFileError as error:
        raise LogKeyError(str(error)) from error
    return key

"""Small precious files: private keys, certificates, counters. Written whole or not at all, mode first.

Called at start-up and by the agent; blocking, a few KiB each. A private key that others may read is refused
instead of used. Contents never appear in an error.
"""

import base64
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ztproxy.crypto.certificates import CertificateError, LeafFacts, leaf_facts

#: Bytes of a file read at most.
MAX_FILE: Final = 64 * 1024

_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(Exception):
    """A file that can not be used; the message names the file and the reason, never the content."""


def new_key() -> EllipticCurvePrivateKey:
    """Return a new P-256 private key."""
    return generate_private_key(SECP256R1())


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter, with its parents. Raises KeyFileError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & _OTHERS:
            path.chmod(0o700)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    return path


def load_or_create_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the P-256 key in a file, made first if there is none. Raises KeyFileError.

    Two processes that start at once end up with one and the same key.
    """
    if not path.exists():
        _create(path, key_pem(new_key()))
    return load_key(path)


def load_or_create(path: Path, data: bytes) -> bytes:
    """Return the content of a private file, which is `data` if there was none. Raises KeyFileError."""
    if not path.exists():
        _create(path, data)
    return read(path, private=True)


def load_or_create_rsa_key(path: Path) -> RSAPrivateKey:
    """Return the RSA key in a file, made first if there is none. Raises KeyFileError."""
    if not path.exists():
        key = generate_rsa_key(65537, 2048)
        _create(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        loaded = load_pem_private_key(read(path, private=True), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not a private key in PEM without a password") from error
    if not isinstance(loaded, RSAPrivateKey) or loaded.key_size < 2048:
        raise KeyFileError(f"{path}: not an RSA key of 2048 bits or more")
    return loaded


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """Return the P-256 key in a file. Raises KeyFileError, also when others may read the file."""
    data = read(path, private=True)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not a private key in PEM without a password") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise KeyFileError(f"{path}: not a P-256 key")
    return key


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read(path: Path, *, private: bool = False) -> bytes:
    """Return a file's content. Raises KeyFileError; `private` demands that only the owner may read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    if private and mode & _OTHERS:
        raise KeyFileError(f"{path}: others may read it; run: chmod 600 {path}")
    if len(data) > MAX_FILE:
        raise KeyFileError(f"{path}: too large")
    return data


def leaf_in(path: Path) -> LeafFacts | None:
    """Return what the first certificate of a PEM file says, None when there is none that can be read."""
    try:
        return leaf_of(read(path))
    except (KeyFileError, CertificateError):
        return None


def leaf_of(pem: bytes) -> LeafFacts:
    """Return what the first certificate of a PEM chain says. Raises CertificateError."""
    try:
        begin = pem.index(_PEM_BEGIN) + len(_PEM_BEGIN)
        return leaf_facts(base64.b64decode(pem[begin : pem.index(b"-----END", begin)]))
    except ValueError as error:
        raise CertificateError("not a certificate in PEM") from error


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file: durable, and never seen half-written. Raises KeyFileError."""
    try:
        temporary = _temporary(path, data, mode)
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def _create(path: Path, data: bytes) -> None:
    """Like `write`, but whoever came first wins."""
    try:
        temporary = _temporary(path, data, 0o600)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def _temporary(path: Path, data: bytes, mode: int) -> Path:
    """A durable file beside `path`; mkstemp makes it for the owner alone before a byte is in it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

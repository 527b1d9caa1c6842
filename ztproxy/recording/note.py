"""Checkpoints of the sealed log, as signed notes (C2SP signed-note, tlog-checkpoint).

The sealer signs, `recording.verify` opens. A note is text, an empty line and signature lines; ours is
signed with Ed25519 and its first three lines are origin, number of records and the hash of the last one.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

_ED25519: Final = b"\x01"  # signature type of C2SP signed-note
_DASH: Final = "\N{EM DASH}"
_ORIGIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_FILE: Final = re.compile(r"file (log-\d{8}\.jsonl) (\d{1,18})")
_SEALED: Final = re.compile(r"sealed (\d{1,18})")
_JOURNAL: Final = re.compile(r"journal ([a-z0-9][a-z0-9-]{0,63}) (\d{1,18})")
_COUNT: Final = re.compile(r"0|[1-9]\d{0,17}")


class NoteError(Exception):
    """The note, key or signature is not what it should be. The message says which and how."""


class WrongKey(NoteError):
    """The note is signed, but by another key."""


class PublicKey(Struct, frozen=True):
    """A verifier key: a name and an Ed25519 public key."""

    name: str
    raw: bytes  # 32 bytes

    @property
    def id(self) -> bytes:
        """Return the four bytes that name the key in signature lines."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    def text(self) -> str:
        """Return the key as one line: NAME+HEXID+BASE64."""
        return f"{self.name}+{self.id.hex()}+{b64encode(_ED25519 + self.raw).decode()}"


class Checkpoint(Struct, frozen=True):
    """What the signer saw: the state of the whole log at one moment."""

    origin: str
    count: int  # records
    head: bytes  # SHA-256 of the last line
    sealed_at: int  # ms since the epoch
    file: str = ""  # the last file of the log, "" while there is none …
    length: int = 0  # … and how many bytes of it are sealed
    journals: tuple[tuple[str, int], ...] = ()  # per journal the number of the last sealed entry


def first_hash(origin: str) -> bytes:
    """Return what stands for the previous line of a log's first line."""
    return hashlib.sha256(origin.encode()).digest()


def parse_key(text: str) -> PublicKey:
    """Read a verifier key. Raises NoteError."""
    name, _, rest = text.strip().partition("+")
    _, _, encoded = rest.partition("+")
    material = _decode(encoded)
    if not _ORIGIN.fullmatch(name) or material[:1] != _ED25519 or len(material) != 33:
        raise NoteError("not an Ed25519 key of the form NAME+ID+BASE64")
    key = PublicKey(name, material[1:])
    if key.text() != text.strip():
        raise NoteError("the key does not have the id it names")
    return key


def public_key(origin: str, key: Ed25519PrivateKey) -> PublicKey:
    """Return the verifier key of a log's signing key."""
    if not _ORIGIN.fullmatch(origin):
        raise NoteError("an origin is made of letters, digits and . _ / : -")
    return PublicKey(origin, key.public_key().public_bytes_raw())


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """Return the signed note."""
    text = _render(checkpoint)
    identity = public_key(checkpoint.origin, key).id
    signature = b64encode(identity + key.sign(text.encode())).decode()
    return f"{text}\n{_DASH} {checkpoint.origin} {signature}\n".encode()


def open_note(note: bytes, key: PublicKey) -> Checkpoint:
    """Verify the signature, then read the text. Raises WrongKey, NoteError."""
    try:
        text, separator, signatures = note.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise NoteError("the checkpoint is not text") from None
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the checkpoint is cut short")
    text += "\n"
    _verify(text.encode(), signatures.split("\n")[:-1], key)
    checkpoint = _parse(text)
    if checkpoint.origin != key.name:
        raise NoteError("the checkpoint is of another log")
    return checkpoint


def _verify(text: bytes, lines: list[str], key: PublicKey) -> None:
    by_others = False
    for line in lines:
        name, _, encoded = line.removeprefix(f"{_DASH} ").partition(" ")
        if not line.startswith(f"{_DASH} ") or not name:
            raise NoteError("a signature line of the checkpoint is malformed")
        blob = _decode(encoded)
        if name != key.name or blob[:4] != key.id:
            by_others = True
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.raw).verify(blob[4:], text)
        except InvalidSignature:
            raise NoteError("the signature of the checkpoint is not valid: it was altered") from None
        return
    raise WrongKey("the checkpoint is signed by another key" if by_others else "the checkpoint is not signed")


def _render(checkpoint: Checkpoint) -> str:
    lines = [checkpoint.origin, str(checkpoint.count), b64encode(checkpoint.head).decode()]
    lines.append(f"sealed {checkpoint.sealed_at}")
    if checkpoint.file:
        lines.append(f"file {checkpoint.file} {checkpoint.length}")
    lines += [f"journal {name} {entry}" for name, entry in checkpoint.journals]
    return "\n".join(lines) + "\n"


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")[:-1]
    if len(lines) < 4 or not _COUNT.fullmatch(lines[1]) or not (sealed := _SEALED.fullmatch(lines[3])):
        raise NoteError("the checkpoint is malformed")
    file, length, journals = "", 0, []
    for line in lines[4:]:
        if found := _FILE.fullmatch(line):
            file, length = found[1], int(found[2])
        elif found := _JOURNAL.fullmatch(line):
            journals.append((found[1], int(found[2])))
    head = _decode(lines[2])
    return Checkpoint(lines[0], int(lines[1]), head, int(sealed[1]), file, length, tuple(journals))


def _decode(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise NoteError("not valid base64") from None
    if b64encode(data).decode() != text:  # one spelling per value, so that no bit of a note is loose
        raise NoteError("not canonical base64")
    return data

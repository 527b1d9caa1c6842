"""Who can sign in to the demo. Passwords are made once for each folder and kept in `people.json`."""

import secrets
from typing import Final

from msgspec import Struct, convert

from ztproxy.demo.layout import Layout, read_json, write_json


class Person(Struct, frozen=True):
    """Somebody with a login at the demo's provider."""

    username: str
    name: str
    role: str
    group: str
    password: str


CAST: Final = (
    ("carol", "Carol Contreras", "contractor", "contractors"),
    ("adam", "Adam Adler", "administrator", "administrators"),
    ("rita", "Rita Rossi", "reviewer", "reviewers"),
)


def prepare(layout: Layout) -> tuple[Person, ...]:
    """The people of this folder."""
    path = layout.path("people.json")
    known = read_json(path)
    if known is None:
        known = [
            {"username": username, "name": name, "role": role, "group": group, "password": _password()}
            for username, name, role, group in CAST
        ]
        write_json(path, known)
    return convert(known, tuple[Person, ...])


def _password() -> str:
    """Easy to copy, hard to guess: four groups of four letters, 72 bits."""
    letters = "abcdefghjkmnpqrstuvwxyz"  # without those that look like digits
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))

"""Subjects of events: RFC 9493 identifiers and those SSF 1.0 adds, read strictly, and when two are the same.

Called by `trust.signals.token` and `administrator.signals`. Pure. A format nobody here knows is kept by its
name: it never matches anything.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct

#: Format -> its members, all of them texts and required.
FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "account": ("uri",),
    "email": ("email",),
    "iss_sub": ("iss", "sub"),
    "opaque": ("id",),
    "phone_number": ("phone_number",),
    "did": ("url",),
    "uri": ("uri",),
    "jwt_id": ("iss", "jti"),
    "saml_assertion_id": ("issuer", "assertion_id"),
}

#: Members of complex subjects that we can place.
PLACED: Final = frozenset({"user", "device", "session"})

_LISTS: Final[dict[str, str]] = {"ip-addresses": "ip-addresses"}
_LONGEST: Final = 2048
_MOST: Final = 16  # aliases, addresses, members of a complex subject


class SubjectRefused(ValueError):
    """Not a subject identifier; the message says why and quotes nothing."""


class Simple(Struct, frozen=True):
    """One identifier. `values` are in the order of FORMATS; none for a format we do not know."""

    format: str
    values: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the format is one we can read."""
        return bool(self.values)


class Aliases(Struct, frozen=True):
    """Several identifiers of the same subject."""

    identifiers: tuple[Simple, ...]


class Complex(Struct, frozen=True):
    """A subject described by several members: user, device, session and others."""

    members: dict[str, Simple | Aliases]

    def get(self, name: str) -> Simple | Aliases | None:
        """Return a member, None when it is not defined."""
        return self.members.get(name)


Subject = Simple | Aliases | Complex


def read_subject(value: object) -> Subject:
    """Return a subject identifier. Raises SubjectRefused."""
    if not isinstance(value, dict):
        raise SubjectRefused("the subject is not an object")
    name = value.get("format")
    if name == "complex" or (name is None and _looks_complex(value)):  # early drafts left the format out
        return _complex(value)
    return _identifier(value)


def matches(ours: Subject, theirs: Subject) -> bool:
    """SSF 1.0 section 5: simple ones are identical; of complex ones every member defined on both sides is."""
    if isinstance(ours, Complex) and isinstance(theirs, Complex):
        return all(
            matches(member, found)
            for name, member in ours.members.items()
            if (found := theirs.get(name)) is not None
        )
    if isinstance(ours, Complex) or isinstance(theirs, Complex):
        return False
    return any(one.known and one == other for one in each(ours) for other in each(theirs))


def each(subject: Simple | Aliases) -> tuple[Simple, ...]:
    """Return the identifiers a subject that is not complex goes by."""
    return subject.identifiers if isinstance(subject, Aliases) else (subject,)


def unprocessable(subject: Subject, critical: Collection[str]) -> bool:
    """Whether a member that the transmitter calls critical is one we can not process."""
    if not isinstance(subject, Complex):
        return False
    return any(
        name not in PLACED or not any(one.known for one in each(member))
        for name, member in subject.members.items()
        if name in critical
    )


def _looks_complex(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(isinstance(member, dict) for member in value.values())


def _complex(value: Mapping[str, Any]) -> Complex:
    members = {name: member for name, member in value.items() if name != "format"}
    if not members or len(members) > _MOST:
        raise SubjectRefused("a complex subject has no members, or too many")
    return Complex({_name(name): _identifier(member) for name, member in members.items()})


def _identifier(value: object) -> Simple | Aliases:
    if not isinstance(value, dict):
        raise SubjectRefused("an identifier is not an object")
    if value.get("format") != "aliases":
        return _simple(value)
    listed = value.get("identifiers")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST:
        raise SubjectRefused("aliases are not a list, empty or too many")
    if any(isinstance(one, dict) and one.get("format") == "aliases" for one in listed):
        raise SubjectRefused("aliases of aliases")  # RFC 9493 section 3.2.8
    return Aliases(tuple(_simple(one) for one in listed))


def _simple(value: object) -> Simple:
    if not isinstance(value, dict):
        raise SubjectRefused("an identifier is not an object")
    name = _name(value.get("format", value.get("subject_type")))  # RISC drafts said subject_type
    name = name.replace("iss-sub", "iss_sub")
    if name in _LISTS:
        listed = value.get(_LISTS[name])
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST:
            raise SubjectRefused("addresses are not a list, empty or too many")
        return Simple(name, tuple(_text(one) for one in listed))
    return Simple(name, tuple(_text(value.get(member)) for member in FORMATS.get(name, ())))


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isprintable():
        raise SubjectRefused("an identifier does not say its format")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise SubjectRefused("a member of an identifier is absent or malformed")
    return value

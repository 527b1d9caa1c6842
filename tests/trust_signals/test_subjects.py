"""Subjects: all formats are read, SSF's match rule, critical members; and which events give reason to act."""

import pytest

from ztproxy.trust.signals.events import DEFAULTS, actions_for
from ztproxy.trust.signals.subjects import (
    Aliases,
    Complex,
    Simple,
    SubjectRefused,
    matches,
    read_subject,
    unprocessable,
)

SIMPLE = [
    {"format": "account", "uri": "acct:carol@corp.example"},
    {"format": "email", "email": "carol@corp.example"},
    {"format": "iss_sub", "iss": "https://idp.example", "sub": "145234573"},
    {"format": "opaque", "id": "11112222333344445555"},
    {"format": "phone_number", "phone_number": "+12065550100"},
    {"format": "did", "url": "did:example:123456/did/url/path?versionId=1"},
    {"format": "uri", "uri": "spiffe://corp.example/ci/deploy"},
    {"format": "jwt_id", "iss": "https://idp.example", "jti": "B70BA622-9515-4353-A866-823539EECBC8"},
    {"format": "saml_assertion_id", "issuer": "https://idp.example", "assertion_id": "_8e8dc5f69a98"},
    {"format": "ip-addresses", "ip-addresses": ["10.29.37.75", "2001:db8::1"]},
]
USER, OTHER = SIMPLE[2], SIMPLE[1]
SESSION = {"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}


@pytest.mark.parametrize("value", SIMPLE)
def test_simple_formats(value):
    subject = read_subject(value)
    assert isinstance(subject, Simple) and subject.known and subject.format == value["format"]
    assert matches(subject, read_subject(dict(reversed(value.items()))))
    assert all(matches(subject, read_subject(other)) == (other == value) for other in SIMPLE)


def test_aliases_are_any_of_them():
    subject = read_subject({"format": "aliases", "identifiers": SIMPLE[1:3]})
    assert isinstance(subject, Aliases)
    assert matches(subject, read_subject(OTHER)) and not matches(subject, read_subject(SIMPLE[0]))


def test_complex_ones_match_where_both_sides_say_something():
    ours = read_subject({"format": "complex", "user": USER, "session": SESSION})
    assert matches(ours, read_subject({"format": "complex", "user": USER}))
    assert matches(ours, read_subject({"format": "complex", "user": USER, "session": SESSION}))
    assert matches(ours, read_subject({"format": "complex", "device": SIMPLE[3]}))
    assert not matches(ours, read_subject({"format": "complex", "user": OTHER, "session": SESSION}))
    assert not matches(ours, read_subject({"format": "complex", "user": USER, "session": SIMPLE[3]}))
    assert not matches(ours, read_subject(USER))


def test_complex_ones_of_before_have_no_format():
    assert isinstance(read_subject({"user": USER, "session": SESSION}), Complex)


def test_formats_nobody_knows_match_nothing():
    strange = read_subject({"format": "fingerprint", "value": "x"})
    assert not strange.known and not matches(strange, strange)


def test_critical_members_have_to_be_understood():
    subject = read_subject({"format": "complex", "user": USER, "tenant": SIMPLE[3]})
    assert unprocessable(subject, {"tenant"}) and not unprocessable(subject, {"user"})
    strange = read_subject({"format": "complex", "user": {"format": "fingerprint", "value": "x"}})
    assert unprocessable(strange, {"user"}) and not unprocessable(read_subject(USER), {"user"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "carol",
        {},
        {"format": 7},
        {"format": "email"},
        {"format": "email", "email": ""},
        {"format": "email", "email": ["carol@corp.example"]},
        {"format": "email", "email": "x" * 3000},
        {"format": "email", "email": "carol@corp.example\n"},
        {"format": "iss_sub", "sub": "carol"},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [USER]}]},
        {"format": "aliases", "identifiers": [USER] * 17},
        {"format": "ip-addresses", "ip-addresses": "10.0.0.1"},
        {"format": "complex"},
        {"format": "complex", "user": "carol"},
        {"format": "complex", "user": {"format": "complex", "user": USER}, "x": {"format": ""}},
        {"format": "complex", **{f"m{number}": USER for number in range(17)}},
    ],
)
def test_what_is_no_subject(value):
    with pytest.raises(SubjectRefused):
        read_subject(value)


@pytest.mark.parametrize(
    ("name", "members", "actions"),
    [
        ("session-revoked", {}, ("end",)),
        ("credential-change", {"change_type": "create"}, ()),
        ("credential-change", {"change_type": "revoke"}, ("end",)),
        ("credential-change", {}, ("end",)),
        ("assurance-level-change", {"change_direction": "increase"}, ()),
        ("assurance-level-change", {}, ("end",)),
        ("device-compliance-change", {"current_status": "compliant"}, ("note",)),
        ("device-compliance-change", {"current_status": "not-compliant"}, ("note", "end")),
        ("risk-level-change", {"current_level": "MEDIUM"}, ("note",)),
        ("risk-level-change", {"current_level": "HIGH"}, ("note", "end")),
        ("opt-in", {}, ()),
        ("", {}, ()),
    ],
)
def test_what_an_event_gives_reason_to(name, members, actions):
    assert actions_for(name, members, {}) == actions


def test_what_is_configured_goes_before_the_default():
    assert actions_for("session-revoked", {}, {"session-revoked": ()}) == ()
    assert actions_for("risk-level-change", {"current_level": "HIGH"}, {"risk-level-change": ("note",)}) == (
        "note",
    )
    assert all(actions_for(name, {}, {}) is not None for name in DEFAULTS)

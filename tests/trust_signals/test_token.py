"""SETs: every event of the standards is read; whatever is forged, bent or mis-addressed is refused, with
its code.
"""

import json

import pytest
from caep_transmitter import CAEP, EXAMPLES, RISC, SSF, new_rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from ztproxy.crypto.jwk import read_key_set
from ztproxy.trust.signals.events import NAMES
from ztproxy.trust.signals.subjects import Simple
from ztproxy.trust.signals.token import ALGORITHMS, MAX_TOKEN, Expected, SetRefused, read

CAROL = {"format": "iss_sub", "iss": "https://idp.example", "sub": "carol"}
EVENT = CAEP + "session-revoked"
DAY = 86_400_000


def verify(signer, clock, token, **changes):
    keys = read_key_set(json.dumps(signer.jwks).encode(), ALGORITHMS)
    expected = {"issuer": signer.issuer, "audiences": (signer.audience,), "max_age": DAY} | changes
    return read(token, keys, Expected(**expected), clock.now())


def refused(signer, clock, token, **changes):
    with pytest.raises(SetRefused) as caught:
        verify(signer, clock, token, **changes)
    assert token[:20] not in str(caught.value)
    return caught.value.err


@pytest.mark.parametrize("uri", EXAMPLES)
def test_every_event_of_the_standards_is_read(signer, clock, uri):
    event = verify(signer, clock, signer.make(uri, CAROL))
    assert event.name == NAMES[uri] == uri.rpartition("/")[2]
    assert event.subject == Simple("iss_sub", ("https://idp.example", "carol"))
    assert event.happened_at <= clock.now()


def test_account_events_below_caep_are_those_of_risc(signer, clock):
    assert verify(signer, clock, signer.make(CAEP + "account-disabled", CAROL)).name == "account-disabled"


def test_an_event_nobody_knows_is_genuine_and_has_no_name(signer, clock):
    assert verify(signer, clock, signer.make("https://example.com/events/x", CAROL, {})).name == ""


def test_es256_and_several_audiences(signer, clock):
    signer.key = ECKey.generate_key("P-256", {"kid": "t1"})
    token = signer.make(EVENT, CAROL, aud=["https://other.example", signer.audience])
    assert verify(signer, clock, token).name == "session-revoked"


def test_subject_inside_the_event_as_before_the_final_standards(signer, clock):
    token = signer.make(RISC + "account-disabled", None, {"subject": CAROL, "reason": "hijacking"})
    assert verify(signer, clock, token).subject.values == ("https://idp.example", "carol")


def test_reasons_for_administrators(signer, clock):
    assert verify(signer, clock, signer.make(EVENT, CAROL)).reason().startswith("Landspeed")
    assert verify(signer, clock, signer.make(EVENT, CAROL, {"reason_admin": {"de": "x\n"}})).reason() == ""


@pytest.mark.parametrize(
    ("changes", "err"),
    [
        ({"iss": "https://evil.example"}, "invalid_issuer"),
        ({"iss": None}, "invalid_issuer"),
        ({"aud": "https://someone.else.example"}, "invalid_audience"),
        ({"aud": None}, "invalid_audience"),
        ({"aud": {"a": 1}}, "invalid_audience"),
        ({"sub": "carol"}, "invalid_request"),
        ({"exp": 1_900_000_000}, "invalid_request"),
        ({"exp": None, "sub": ""}, "invalid_request"),
        ({"iat": None}, "invalid_request"),
        ({"iat": "1800000000"}, "invalid_request"),
        ({"iat": True}, "invalid_request"),
        ({"iat": 1_800_000_000 + 600}, "invalid_request"),
        ({"iat": 1_800_000_000 - 2 * 86_400}, "invalid_request"),
        ({"jti": None}, "invalid_request"),
        ({"jti": ""}, "invalid_request"),
        ({"jti": "x" * 300}, "invalid_request"),
        ({"jti": 7}, "invalid_request"),
        ({"sub_id": None}, "invalid_request"),
        ({"sub_id": "carol"}, "invalid_request"),
        ({"sub_id": {"format": "iss_sub", "iss": "https://idp.example"}}, "invalid_request"),
        ({"events": None}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"events": {EVENT: {}, CAEP + "credential-change": {}}}, "invalid_request"),
        ({"events": {EVENT: "now"}}, "invalid_request"),
        ({"events": {EVENT: {"event_timestamp": "now"}}}, "invalid_request"),
        ({"events": {EVENT: {"subject": {"format": "email", "email": "x@y.z"}}}}, "invalid_request"),
        ({"events": {EVENT: {"a": [[[[[[[[[[[1]]]]]]]]]]]}}}, "invalid_request"),
        ({"txn": 5}, "invalid_request"),
    ],
)
def test_claims_that_are_not_as_they_must_be(signer, clock, changes, err):
    assert refused(signer, clock, signer.make(EVENT, CAROL, **changes)) == err


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "logout+jwt", None, "secevent+jwt+x"])
def test_a_token_of_another_type_is_no_set(signer, clock, typ):
    token = signer.sign(signer.claims(EVENT, {}, CAROL), header={"typ": typ})
    assert refused(signer, clock, token) == "invalid_request"


def test_forged_and_confused_signatures(signer, clock):
    claims = signer.claims(EVENT, {}, CAROL)
    honest = signer.sign(claims)
    head, body, signature = honest.split(".")
    other = signer.sign({**claims, "jti": "other"}).split(".")[1]
    assert refused(signer, clock, signer.sign(claims, key=new_rsa())) == "invalid_key"
    assert refused(signer, clock, f"{head}.{other}.{signature}") == "invalid_key"
    assert refused(signer, clock, signer.hmac_with_public_key(claims)) == "invalid_key"
    assert refused(signer, clock, signer.sign(claims, header={"alg": "RS384"})) == "invalid_key"
    assert refused(signer, clock, signer.sign(claims, header={"kid": "unknown"})) == "invalid_key"
    assert refused(signer, clock, signer.unsigned(claims)) == "invalid_request"
    assert refused(signer, clock, signer.unsigned(claims) + signature) == "invalid_key"
    assert refused(signer, clock, f"{head}.{body}.") == "invalid_request"


@pytest.mark.filterwarnings("ignore:Key size")
def test_short_keys_are_no_keys(signer, clock):
    signer.key = new_rsa(1024)
    assert refused(signer, clock, signer.make(EVENT, CAROL)) == "invalid_key"


def test_ambiguous_and_demanding_tokens(signer, clock):
    claims = json.dumps(signer.claims(EVENT, {}, CAROL))
    twice = claims[:-1] + ', "iss": "https://evil.example"}'
    assert refused(signer, clock, signer.sign(None, raw=twice)) == "invalid_request"
    assert refused(signer, clock, signer.sign(None, raw="[1]")) == "invalid_request"
    crit = {"crit": ["b64"], "b64": True}
    assert refused(signer, clock, signer.sign(json.loads(claims), header=crit)) == "invalid_request"
    assert refused(signer, clock, signer.sign(json.loads(claims), header={"kid": "../../x"})) in (
        "invalid_request",
        "invalid_key",
    )


def test_oversized(signer, clock):
    token = signer.make(EVENT, CAROL, {"reason_admin": {"en": "x" * MAX_TOKEN}})
    assert refused(signer, clock, token) == "invalid_request"


def test_verification_names_its_stream(signer, clock):
    stream = {"format": "opaque", "id": "f67e39a0"}
    event = verify(signer, clock, signer.make(SSF + "verification", stream, {"state": "abc"}))
    assert (event.name, event.text("state")) == ("verification", "abc")
    assert refused(signer, clock, signer.make(SSF + "verification", None, {})) == "invalid_request"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["iss", "aud", "iat", "jti", "sub_id", "events", "txn", "toe", "sub", "exp", "x"]),
        _json,
        max_size=4,
    ),
    members=_json,
)
def test_signed_nonsense_is_refused_or_read_and_nothing_else(changes, members):
    from caep_transmitter import Signer

    from ztproxy.net.clock import FixedClock

    clock, signer = FixedClock(), Signer()
    signer.now = lambda: clock.now() // 1000
    try:
        token = signer.sign(signer.claims(EVENT, members, CAROL, **changes))
    except UnicodeEncodeError:
        return
    try:
        event = verify(signer, clock, token)
    except SetRefused:
        return
    assert event.jti and event.uri and changes.get("sub") is None and changes.get("exp") is None


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_strangers_bytes_are_refused(text):
    with pytest.raises(SetRefused):
        read(text, (), Expected("i", ("a",), DAY), 1)

"""A filled stencil says what the ordinary record of the same permit says; what it can not say it refuses."""

import itertools

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from ztproxy.administrator import stencil
from ztproxy.administrator.evidence import decision_record
from ztproxy.model.decision import Decision
from ztproxy.model.record import DecisionRecord, OutcomeRecord
from ztproxy.model.request import AccessRequest, ClientCertificate, Context, Evidence, Resource
from ztproxy.model.subject import ANONYMOUS, UNKNOWN, Device, Facts, Posture, Principal, Session
from ztproxy.recording.glimpse import Beginning, OfCaller, OfDecision
from ztproxy.trust.caller import Caller

NOW = 1_800_000_000_000
PERSON = Principal(kind="User", id="t:carol", name='Cärol "C" \u2028', groups=("contractors", "stäff"))
SESSION = Session(id="ses_1", principal=PERSON, provider="t", created_at=NOW, auth_time=NOW)
DEVICE = Device(id="dev_1", name="laptop", spki="aa")
POSTURE = Posture(device_id="dev_1", reported_at=NOW - 20, seq=1, source="a", level="self", healthy=True)
CERTIFICATE = ClientCertificate(
    kind="device",
    bundle="devices",
    subject="spiffe://t/device/dev_1",
    fingerprint="ab" * 32,
    spki="aa",
    not_before=0,
    not_after=NOW + 1,
    serial="1",
)
FACTS = [
    Facts(principal=ANONYMOUS),
    Facts(principal=PERSON, session=SESSION),
    Facts(principal=PERSON, session=SESSION, device=DEVICE, device_proof="agent", device_proved_at=NOW - 9),
    Facts(
        principal=PERSON,
        session=SESSION,
        device=DEVICE,
        device_proof="mtls",
        device_proved_at=NOW,
        posture=POSTURE,
        feed_age=4000,
    ),
    Facts(principal=PERSON, session=SESSION, device=DEVICE, posture=replace(POSTURE, healthy=False)),
    Facts(principal=PERSON, session=SESSION, device=UNKNOWN, posture=UNKNOWN),
    Facts(principal=Principal(kind="Workload", id="spiffe://t/ci", name="ci"), certificate_expires_at=NOW),
]
DECISIONS = [Decision(True, "permit", ("a",)), Decision(True, "permit", ("a", "b"), (), (("record", "x"),))]


def request(path: str = "/a/b~c'd", certificate: ClientCertificate | None = None) -> AccessRequest:
    context = Context("0" * 32, ip="2001:db8::7", host="app.test", path=path, protocol="websocket")
    return AccessRequest(Evidence("d" * 64, certificate), Resource("Route", "app"), "GET", context)


def filled(asked: AccessRequest, facts: Facts, decision: Decision) -> bytes:
    caller, permit = stencil.of_caller(facts), stencil.of_permit(asked, decision, "digest")
    return b"%b,%b,%b}" % (stencil.beginning(asked, Caller(facts), NOW), caller.text, permit.text)


@pytest.mark.parametrize(
    ("facts", "decision", "certificate"), [*itertools.product(FACTS, DECISIONS, (None, CERTIFICATE))]
)
def test_a_filled_stencil_is_the_record(
    facts: Facts, decision: Decision, certificate: ClientCertificate | None
) -> None:
    asked = request(certificate=certificate)
    expected = decision_record(asked, Caller(facts=facts), decision, "digest", NOW, None, None)
    assert msgspec.json.decode(filled(asked, facts, decision), type=DecisionRecord) == expected


def test_each_part_says_what_belongs_to_it_and_no_more() -> None:
    """`recording.admit` puts a gap in the place of what says anything else."""
    for facts, decision, certificate in itertools.product(FACTS, DECISIONS, (None, CERTIFICATE)):
        asked = request(certificate=certificate)
        msgspec.json.decode(stencil.beginning(asked, Caller(facts), NOW) + b"}", type=Beginning)
        msgspec.json.decode(b"{%b}" % stencil.of_caller(facts).text, type=OfCaller)
        msgspec.json.decode(b"{%b}" % stencil.of_permit(asked, decision, "digest").text, type=OfDecision)


@pytest.mark.parametrize("path", ["/a?b", "/a\x00", "/ä", "/" + "a" * 2048, "/\u2028"])
def test_odd_paths_are_left_to_the_audit(path: str) -> None:
    with pytest.raises(stencil.TooOdd):
        filled(request(path), FACTS[1], DECISIONS[0])


@pytest.mark.parametrize("name", ["\ud800", "x" * 40_000])
def test_odd_names_are_left_to_the_audit(name: str) -> None:
    with pytest.raises(stencil.TooOdd):
        stencil.of_caller(Facts(principal=replace(PERSON, name=name), session=SESSION))


def test_no_path_breaks_out_of_its_string() -> None:
    asked = request('/","allow":false,"x":"\\')
    record = msgspec.json.decode(filled(asked, FACTS[1], DECISIONS[0]), type=DecisionRecord)
    assert record.allow
    assert record.path == asked.context.path


def test_the_text_of_a_record_stays_as_it_is() -> None:
    asked = request('/a/"b')
    head = b'{"kind":"decision","id":"00000000000000000000000000000000","at":1800000000000,'
    middle = b'"ip":"2001:db8::7","path":"/a/\\"b",'
    who, permit = stencil.of_caller(FACTS[3]).text, stencil.of_permit(asked, DECISIONS[0], "digest").text
    ages = b'"device_proof_age":0,"posture_age":20,'
    assert filled(asked, FACTS[3], DECISIONS[0]) == b"%b%b%b%b,%b}" % (head, ages, middle, who, permit)
    shown = b'"certificate":"%b",' % CERTIFICATE.fingerprint.encode()
    certified = filled(request('/a/"b', CERTIFICATE), FACTS[3], DECISIONS[0])
    assert certified == b"%b%b%b%b%b,%b}" % (head, ages, shown, middle, who, permit)


def test_times_and_paths_are_not_mixed_up() -> None:
    caller = Caller(FACTS[3])
    asked = [request(f"/{number}") for number in range(5000)]  # more than are remembered
    for turn in range(2):
        for number, one in enumerate(asked):
            now = NOW + number // 3 + turn
            begun = stencil.beginning(one, caller, now)
            record = msgspec.json.decode(begun + b"}", type=Beginning)
            assert (record.at, record.path, record.posture_age) == (now, f"/{number}", now - NOW + 20)


def test_texts_are_written_once_unless_they_are_long() -> None:
    stencil._texts.clear()
    many = [f"/app{number // 20}/pages/{number % 20}" for number in range(2560)]
    first = [stencil._quoted(text) for text in many]
    assert all(stencil._quoted(text) is one for text, one in zip(many, first, strict=True))
    long = "/" + "x" * 2000
    assert stencil._quoted(long) == stencil._quoted(long) is not stencil._quoted(long)


NUMBERS = st.one_of(st.integers(-2, 700), st.integers(-(1 << 63), (1 << 63) - 1))
NAMES = st.one_of(st.just("ses_abcdefghijklmnopqrstuvwxyz"), st.just(""), st.text(max_size=40))


@given(NUMBERS, NAMES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
@example(NOW, "ses_1", 200, 0, 1024, 0, 0)
@example(NOW, "ses_1", 599, 5, 0, 255, 255)
@example(NOW, "", 600, 5, 0, 256, 256)
@example(NOW, 'ses_"\\', 0, 0, 0, 0, -1)
def test_a_complete_exchange_is_written_as_its_record_is(
    now: int, session: str, status: int, received: int, sent: int, duration: int, first_byte: int
) -> None:
    said = (now, session, status, received, sent, duration, first_byte)
    try:
        written = stencil.completed("0f" * 16, *said)
    except stencil.TooOdd:
        assert "?" in session or not (session.isascii() and session.isprintable())
        return
    assert written == msgspec.json.encode(OutcomeRecord("0f" * 16, *said))

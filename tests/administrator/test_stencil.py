"""A filled stencil says what the ordinary record of the same permit says; what it can not say it refuses."""

import itertools

import msgspec
import pytest
from msgspec.structs import replace

from ztproxy.administrator import stencil
from ztproxy.administrator.evidence import decision_record
from ztproxy.model.decision import Decision
from ztproxy.model.record import DecisionRecord
from ztproxy.model.request import AccessRequest, ClientCertificate, Context, Evidence, Resource
from ztproxy.model.subject import ANONYMOUS, UNKNOWN, Device, Facts, Posture, Principal, Session
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
    return stencil.filled(caller, permit, asked, Caller(facts), NOW)


@pytest.mark.parametrize(
    ("facts", "decision", "certificate"), [*itertools.product(FACTS, DECISIONS, (None, CERTIFICATE))]
)
def test_a_filled_stencil_is_the_record(
    facts: Facts, decision: Decision, certificate: ClientCertificate | None
) -> None:
    asked = request(certificate=certificate)
    expected = decision_record(asked, Caller(facts=facts), decision, "digest", NOW, None, None)
    assert msgspec.json.decode(filled(asked, facts, decision), type=DecisionRecord) == expected


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

"""Decisions as records: every value stands in its own field."""

from msgspec.structs import asdict

from ztproxy.administrator.evidence import decision_record
from ztproxy.model.decision import Decision, Explanation, NearMiss, Refusal
from ztproxy.model.request import AccessRequest, ClientCertificate, Context, Evidence, Resource
from ztproxy.model.subject import UNKNOWN, Device, Facts, Posture, Principal, Session
from ztproxy.trust.caller import Caller

NOW = 1_800_000_000_000
PRINCIPAL = Principal(kind="User", id="t:carol", name="Carol", groups=("contractors",))
SESSION = Session(id="ses_1", principal=PRINCIPAL, provider="t", created_at=NOW, auth_time=NOW)
DEVICE = Device(id="dev_1", name="laptop", spki="aa")
POSTURE = Posture(device_id="dev_1", reported_at=NOW - 20, seq=1, source="a", level="self", healthy=True)
CERTIFICATE = ClientCertificate(
    kind="device",
    bundle="devices",
    subject="spiffe://t/device/dev_1",
    fingerprint="the-fingerprint",
    spki="aa",
    not_before=0,
    not_after=NOW + 1,
    serial="1",
)
REQUEST = AccessRequest(
    subject=Evidence(handle="c" * 43, certificate=CERTIFICATE),
    resource=Resource("Route", "support"),
    action="POST",
    context=Context("the-id", ip="192.0.2.7", host="support.test", path="/tickets", protocol="websocket"),
)


def facts(**changes: object) -> Facts:
    known = {
        "session": SESSION,
        "device": DEVICE,
        "device_proof": "mtls",
        "device_proved_at": NOW - 10,
        "posture": POSTURE,
        "feed_age": 30,
    }
    return Facts(principal=PRINCIPAL, **(known | changes))  # type: ignore[arg-type]


def test_each_value_stands_in_its_own_field() -> None:
    record = decision_record(
        REQUEST,
        Caller(facts=facts(), handle="digest", key="digest"),
        Decision(False, "forbid", ("a-policy",), ("an-error",)),
        "the-digest",
        NOW,
        Refusal(code="access-denied", status=403, decision_id="the-id", remedies=("request-jit",)),
        Explanation((), (), (NearMiss("b-policy", ("x == 1", "y")),)),
    )
    assert asdict(record) == {
        "id": "the-id",
        "at": NOW,
        "allow": False,
        "decided": "forbid",
        "principal": "User::t:carol",
        "name": "Carol",
        "groups": ("contractors",),
        "session": "ses_1",
        "device": "dev_1",
        "device_proof": "mtls",
        "device_proof_age": 10,
        "posture": "healthy",
        "posture_age": 20,
        "feed_age": 30,
        "ip": "192.0.2.7",
        "certificate": "the-fingerprint",
        "resource": "Route::support",
        "action": "POST",
        "protocol": "websocket",
        "host": "support.test",
        "path": "/tickets",
        "policies": ("a-policy",),
        "errors": ("an-error",),
        "policy_set": "the-digest",
        "code": "access-denied",
        "remedies": ("request-jit",),
        "near_misses": ("b-policy: x == 1 and y",),
        "detail": "",
        "standing": (),
        "sources": (),
    }


def test_what_is_not_there_has_no_age() -> None:
    permitted = Decision(True, "permit", ("a-policy",))

    def of(known: Facts) -> tuple[str, str, int, int]:
        record = decision_record(REQUEST, Caller(facts=known), permitted, "d", NOW, None, None)
        assert (record.allow, record.code, record.remedies, record.near_misses) == (True, "", (), ())
        return record.device, record.posture, record.posture_age, record.device_proof_age

    assert of(facts(posture=None)) == ("dev_1", "missing", -1, 10)
    assert of(facts(posture=UNKNOWN)) == ("dev_1", "unknown", -1, 10)
    assert of(facts(device=None, posture=None, device_proof="")) == ("", "", -1, -1)
    assert of(facts(device=UNKNOWN, posture=UNKNOWN, device_proof="")) == ("", "", -1, -1)

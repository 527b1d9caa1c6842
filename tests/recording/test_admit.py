"""What may become a line of the log: a known end spares looking at it, and never hides what is wrong."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.administrator import stencil
from ztproxy.model.decision import Decision
from ztproxy.model.request import AccessRequest, ClientCertificate, Context, Evidence, Resource
from ztproxy.model.subject import Device, Facts, Principal, Session
from ztproxy.recording.admit import Admission
from ztproxy.recording.glimpse import Decided, glimpse
from ztproxy.recording.line import Malformed
from ztproxy.trust.caller import Caller

NOW = 1_800_000_000_000
CAROL = Principal(kind="User", id="t:carol", name="Cärol", groups=("contractors",))
SESSION = Session(id="ses_1", principal=CAROL, provider="t", created_at=NOW, auth_time=NOW)
DEVICE = Device(id="dev_1", name="laptop", spki="aa")
FACTS = Facts(
    principal=CAROL,
    session=SESSION,
    device=DEVICE,
    device_proof="mtls",
    device_proved_at=NOW - 9,
    feed_age=12,
)
CERTIFICATE = ClientCertificate("device", "devices", "spiffe://t/dev_1", "ab" * 32, "aa", 0, NOW, "1")
DECISION = Decision(True, "permit", ("a", "b"))


def filled(number: int, path: str = "/tickets", certificate: ClientCertificate | None = None) -> bytes:
    """Return the record of a permit as workers write it."""
    context = Context(f"{number:032x}", ip="192.0.2.7", host="app.test", path=path, protocol="http")
    asked = AccessRequest(Evidence("d" * 64, certificate), Resource("Route", "app"), "GET", context)
    who, permit = stencil.of_caller(FACTS), stencil.of_permit(asked, DECISION, "digest")
    return stencil.filled(who, permit, asked, Caller(FACTS), NOW + number)


def primed() -> Admission:
    """Return what has seen that end before."""
    admission = Admission()
    admission.admit([filled(1)])
    assert len(admission._ends) == 1
    return admission


@pytest.mark.parametrize("certificate", [None, CERTIFICATE])
def test_a_known_end_says_what_the_whole_says(certificate: ClientCertificate | None) -> None:
    admission = primed()
    records = [filled(n, f'/a/"{n}\\', certificate) for n in range(2, 5)]
    assert admission.admit(records) == [glimpse(record) for record in records]
    assert len(admission._ends) == 1


def test_a_space_in_a_path_is_no_end() -> None:
    admission = primed()
    record = filled(2, "/a b, c")
    assert admission.admit([record]) == [glimpse(record)]
    assert admission.admit([filled(3)]) == [glimpse(filled(3))]
    assert len(admission._ends) == 1


@pytest.mark.parametrize("more", [b'"unheard":1,', b'"session":"ses_2",', b'"principal":"x",'])
def test_a_head_with_more_in_it_is_looked_at_whole(more: bytes) -> None:
    record = filled(2).replace(b'"path":', more + b'"path":')
    assert primed().admit([record]) == [glimpse(record)]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a number that is none": lambda r: r.replace(b'"device_proof_age":', b'"device_proof_age":x'),
    "a time that is text": lambda r: r.replace(b'"at":%d' % (NOW + 2), b'"at":"5"'),
    "no comma before the end": lambda r: r.replace(b'"path":"/tickets",', b'"path":"/tickets"x'),
    "two commas before the end": lambda r: r.replace(b'"path":"/tickets",', b'"path":"/tickets",,'),
    "a quote in the path": lambda r: r.replace(b"/tickets", b'/tick"ets'),
    "a control character in the path": lambda r: r.replace(b"/tickets", b"/tick\x01ets"),
    "nothing where a part of it should be": lambda r: r.replace(b"/tickets", bytes(8)),
    "an object that ends in the head": lambda r: r.replace(b'"/tickets",', b'"/tickets"},'),
    "an object that begins in the head": lambda r: r.replace(b'"path":', b'"path":{"a":'),
    "two records": lambda r: r + r,
    "an end cut short": lambda r: r[:-1],
    "more behind the end": lambda r: r + b"}",
    "a line break": lambda r: r.replace(b"/tickets", b"/tick\nets"),
    "what the end says, of another type": lambda r: r.replace(b'"path":', b'"allow":5,"path":'),
    "no id": lambda r: r.replace(b'"id":', b'"ip":'),
    "bytes that are no text": lambda r: r.replace(b"/tickets", b"/tick\xffets"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_known_end_hides_nothing_that_is_wrong(change: str) -> None:
    altered = CHANGES[change](filled(2))
    assert altered != filled(2)
    for admission in (Admission(), primed()):
        for _ in range(2):  # nothing that was refused is remembered
            with pytest.raises(Malformed):
                admission.admit([altered])


def test_an_end_that_could_say_something_of_the_head_is_not_remembered() -> None:
    """Else the record would say one thing, and what was seen of it another."""
    admission = Admission()
    for more in (b',"id":"x"}', b',"at":1}', b',"kind":"decision"}', b',"ip":"x"}', b',"unheard":1}'):
        records = [filled(n)[:-1] + more for n in (1, 2)]
        try:
            assert admission.admit(records) == [glimpse(record) for record in records]
        except Malformed:
            with pytest.raises(Malformed):
                glimpse(records[0])
    assert admission._ends == {}


@given(st.data())
def test_whatever_is_changed_is_seen_as_without_a_memory(data: st.DataObject) -> None:
    """Any byte anywhere: what the memory admits is one JSON object, and says what it is seen to say."""
    record = bytearray(filled(2))
    for _ in range(data.draw(st.integers(1, 3))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(
            st.sampled_from(b'",:{}[]\\0a\x00\x1f ')
        )
    altered = bytes(record)
    try:
        [seen] = primed().admit([altered])
    except Malformed:
        return
    assert isinstance(json.loads(altered), dict)
    assert seen == glimpse(altered)


def test_the_memory_is_bounded() -> None:
    admission = Admission()
    for number in range(5000):
        record = filled(1).replace(b'"ses_1"', b'"ses_%d"' % number)
        [seen] = admission.admit([record])
        assert isinstance(seen, Decided) and seen.session == f"ses_{number}"
    assert 0 < len(admission._ends) <= 4096
    admission.admit([filled(1).replace(b'"digest"', b'"' + b"d" * 5000 + b'"')])
    assert max(map(len, admission._ends)) <= 4096

"""Lines for upstreams: signed once for each caller, device and audience, and never for another one's."""

import asyncio

import pytest
from msgspec.structs import replace

from ztproxy.model.messages import AssertionSigned, AssertionWanted
from ztproxy.model.resource import Upstream
from ztproxy.model.route import Route
from ztproxy.model.subject import Device, Facts, Principal, Session
from ztproxy.service.identities import KEPT, RENEW, SPARE, LinkedIdentities
from ztproxy.trust.caller import NOBODY, Caller

NOW = 1_800_000_000_000
LIFE = 300_000
ROUTE = Route(name="a", app="a", host="a.test", prefix="/", upstream=Upstream("http", "127.0.0.1", 1))
CAROL = Principal(kind="User", id="t:carol", name="Cär\r\nol", groups=("contractors",))
SESSION = Session(id="ses_1", principal=CAROL, provider="t", created_at=NOW, auth_time=NOW)
PERSON = Caller(Facts(principal=CAROL, session=SESSION))
LAPTOP = Device(id="dev_1", name="laptop", spki="aa")
ON_LAPTOP = Caller(Facts(principal=CAROL, session=SESSION, device=LAPTOP))


class Control:
    """Signs at once and remembers what for; `away` answers nothing."""

    def __init__(self) -> None:
        self.asked: list[AssertionWanted] = []
        self.away = False

    async def assertion(self, wanted: AssertionWanted) -> AssertionSigned | None:
        self.asked.append(wanted)
        number = len(self.asked)
        await asyncio.sleep(0)
        if self.away:
            return None
        token = f"{wanted.session or wanted.workload}.{wanted.device}.{number}"
        return AssertionSigned(ask=1, token=token, expires_at=NOW + LIFE)


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def identities(control: Control) -> LinkedIdentities:
    return LinkedIdentities(control, {"a": "https://a.test"})  # type: ignore[arg-type]


async def test_lines_are_fetched_once_and_kept(identities: LinkedIdentities, control: Control) -> None:
    assert identities.lines(PERSON, ROUTE, NOW) is None
    both = await asyncio.gather(*(identities.fetch(PERSON, ROUTE, NOW) for _ in range(2)))
    assert both[0] == both[1] == identities.lines(PERSON, ROUTE, NOW)
    assert both[0] == (b"Zt-Principal: t:carol\r\nZt-Name: C%C3%A4r%0D%0Aol\r\nZt-Assertion: ses_1..1\r\n")
    assert [(one.audience, one.session, one.workload) for one in control.asked] == [
        ("https://a.test", "ses_1", "")
    ]


async def test_an_assertion_never_names_a_device_that_another_connection_proved(
    identities: LinkedIdentities, control: Control
) -> None:
    plain, proved = await asyncio.gather(
        identities.fetch(PERSON, ROUTE, NOW), identities.fetch(ON_LAPTOP, ROUTE, NOW)
    )
    assert plain is not None and plain.endswith(b"Zt-Assertion: ses_1..1\r\n")
    assert proved is not None and proved.endswith(b"Zt-Assertion: ses_1.dev_1.2\r\n")
    for _ in range(3):  # both stay at hand, in turn
        assert identities.lines(PERSON, ROUTE, NOW) == plain
        assert identities.lines(ON_LAPTOP, ROUTE, NOW) == proved
    assert len(control.asked) == 2


async def test_control_is_told_whose_session_it_is_and_the_device_it_is_bound_to(
    identities: LinkedIdentities, control: Control
) -> None:
    bound = replace(SESSION, device_id="dev_9")
    await identities.fetch(Caller(Facts(principal=CAROL, session=bound, device=LAPTOP)), ROUTE, NOW)
    machine = Principal(kind="Workload", id="spiffe://t/ci", name="ci")
    await identities.fetch(Caller(Facts(principal=machine)), ROUTE, NOW)
    told = [(one.person, one.bound, one.device) for one in control.asked]
    assert told == [("t:carol", "dev_9", "dev_1"), ("", "", "")]


async def test_another_principal_is_vouched_for_anew(identities: LinkedIdentities) -> None:
    await identities.fetch(PERSON, ROUTE, NOW)
    more = Principal(kind="User", id="t:carol", name="Carol", groups=("contractors", "admins"))
    assert identities.lines(Caller(Facts(principal=more, session=SESSION)), ROUTE, NOW) is None


async def test_lines_are_renewed_in_time_and_not_used_to_their_end(
    identities: LinkedIdentities, control: Control
) -> None:
    first = await identities.fetch(PERSON, ROUTE, NOW)
    assert identities.lines(PERSON, ROUTE, NOW + LIFE - RENEW) == first
    await asyncio.sleep(0.01)
    assert len(control.asked) == 2 and identities.lines(PERSON, ROUTE, NOW) != first
    assert identities.lines(PERSON, ROUTE, NOW + LIFE - SPARE) is None


async def test_nobody_needs_no_lines_and_silence_gives_none(
    identities: LinkedIdentities, control: Control
) -> None:
    assert identities.lines(NOBODY, ROUTE, NOW) == b""
    control.away = True
    assert await identities.fetch(PERSON, ROUTE, NOW) is None
    assert identities.lines(PERSON, ROUTE, NOW) is None


async def test_lines_are_of_one_route_and_a_bounded_number(
    identities: LinkedIdentities, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await identities.fetch(PERSON, ROUTE, NOW)
    identities._origins["b"] = "https://b.test"
    other = Route(name="b", app="b", host="b.test", prefix="/", upstream=ROUTE.upstream)
    assert identities.lines(PERSON, other, NOW) is None
    second = await identities.fetch(PERSON, other, NOW)
    assert first != second == identities.lines(PERSON, other, NOW)
    ready = identities._ready
    assert ready.count == 2
    ready.put("b", PERSON.whose, ready.by_whose[PERSON.whose]["b"])
    assert ready.count == 2, "what takes the place of another one is not one more"
    ready.count = KEPT
    await identities.fetch(ON_LAPTOP, ROUTE, NOW)
    assert ready.count == 1 and identities.lines(PERSON, other, NOW) is None, "all are signed anew"


async def test_what_was_signed_for_an_origin_is_good_for_no_other(
    identities: LinkedIdentities, control: Control
) -> None:
    lines = await identities.fetch(PERSON, ROUTE, NOW)
    same = LinkedIdentities(control, {"a": "https://a.test", "b": "https://b.test"}, identities)  # type: ignore[arg-type]
    moved = LinkedIdentities(control, {"a": "https://z.test"}, identities)  # type: ignore[arg-type]
    assert same.lines(PERSON, ROUTE, NOW) == lines
    assert moved.lines(PERSON, ROUTE, NOW) is None and moved._ready.count == 0

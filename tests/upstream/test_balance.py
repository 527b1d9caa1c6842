"""Who is next: shares by weight, an even order, and nobody left out for ever or all at once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ztproxy.model.resource import Ejection
from ztproxy.upstream.balance import Balancer

weights = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@given(weights)
def test_shares_are_exact_and_the_order_is_even(weights: list[int]) -> None:
    balancer = Balancer(weights, Ejection())
    total = sum(weights)
    picks = [balancer.pick(0.0) for _ in range(3 * total)]
    for start in (0, total, 2 * total):
        assert Counter(picks[start : start + total]) == dict(enumerate(weights))
    for length in range(1, total):  # stride scheduling: nobody is off by more than one for each other target
        counts = Counter(picks[:length])
        for index, weight in enumerate(weights):
            assert abs(counts[index] * total - length * weight) < total * max(2, len(weights) - 1)


@given(weights, st.data())
def test_whatever_happens_somebody_is_chosen_and_the_rules_hold(
    weights: list[int], data: st.DataObject
) -> None:
    rule = Ejection(failures=2, least=10, longest=40, share=data.draw(st.integers(1, 100)))
    balancer, now, count = Balancer(weights, rule), 0.0, len(weights)
    allowed = min(max(1, count * rule.share // 100), count - 1)
    for _ in range(data.draw(st.integers(0, 40))):
        index = data.draw(st.integers(0, count - 1))
        match data.draw(st.sampled_from(["fail", "fail", "fail", "succeed", "time", "sick", "well"])):
            case "fail":
                before = sum(not balancer.usable(one) for one in range(count))
                if balancer.failed(index, now):
                    assert before < allowed
            case "succeed":
                balancer.succeeded(index)
            case "time":
                now += data.draw(st.sampled_from([1.0, 10.0, 100.0]))
            case "sick":
                balancer.checked(index, healthy=False)
            case "well":
                balancer.checked(index, healthy=True)
        picked = balancer.pick(now)
        usable = [one for one in range(count) if balancer.usable(one)]
        assert picked in (usable or range(count))
        assert balancer.ejected <= allowed
        others = set()
        while (other := balancer.another({picked, *others}, now)) is not None:
            others.add(other)
        assert others | {picked} == set(usable or range(count))
    for one in range(count):
        balancer.checked(one, healthy=True)
    balancer.pick(now + 1000)
    assert all(balancer.usable(one) for one in range(count))
    assert balancer.ejected == 0


def ejected_for(balancer: Balancer, index: int, now: float) -> float:
    """Fail until it is left out; return for how long."""
    while not balancer.failed(index, now):
        pass
    seconds = 0.0
    while not balancer.usable(index):
        seconds += 1
        balancer.pick(now + seconds)
    return seconds


def test_each_time_takes_longer_up_to_a_limit_and_good_conduct_is_forgiven() -> None:
    balancer = Balancer([1, 1], Ejection(failures=3, least=10, longest=35))
    now, times = 100.0, []
    for _ in range(4):
        times.append(ejected_for(balancer, 0, now))
        now += times[-1] + 1
    assert times == [10, 20, 35, 35]
    assert ejected_for(balancer, 0, now + 36) == 10
    assert balancer.ejections(0) == 5


def test_failures_count_only_in_a_row() -> None:
    balancer = Balancer([1, 1], Ejection(failures=3))
    for _ in range(5):
        assert not balancer.failed(0, 0)
        assert not balancer.failed(0, 0)
        balancer.succeeded(0)
    assert balancer.usable(0)


def test_one_may_be_left_out_whatever_the_share_but_never_the_last() -> None:
    alone = Balancer([1], Ejection(failures=1, share=100))
    assert not alone.failed(0, 0)
    pair = Balancer([1, 1], Ejection(failures=1, share=1))
    assert pair.failed(0, 0)
    assert not pair.failed(1, 0)
    assert {pair.pick(1) for _ in range(9)} == {1}


def test_unhealthy_targets_count_against_the_share() -> None:
    balancer = Balancer([1, 1, 1, 1], Ejection(failures=1, share=50))
    balancer.checked(0, healthy=False)
    assert balancer.failed(1, 0)
    assert not balancer.failed(2, 0)
    assert {balancer.pick(1) for _ in range(9)} == {2, 3}


def test_when_all_are_unhealthy_all_are_tried() -> None:
    balancer = Balancer([1, 1], Ejection())
    balancer.checked(0, healthy=False)
    balancer.checked(1, healthy=False)
    assert {balancer.pick(0) for _ in range(4)} == {0, 1}


def test_who_comes_back_has_no_arrears() -> None:
    balancer = Balancer([1, 1], Ejection(failures=1, least=10))
    balancer.failed(0, 0)
    for _ in range(50):
        balancer.pick(1)
    assert Counter(balancer.pick(11) for _ in range(10)) == {0: 5, 1: 5}

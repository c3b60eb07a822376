from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.sheets.ranking import CREDIBLE, Ranked, next_pair, rank, rank_by, settled


def simulated(strengths: Sequence[float], count: int, rng: random.Random) -> list[tuple[int, int]]:
    """Votes of somebody who follows the Bradley-Terry model, on pairs drawn at random."""
    votes = []
    for _ in range(count):
        one, other = rng.sample(range(len(strengths)), 2)
        prefers_one = rng.random() < 1 / (1 + math.exp(strengths[other] - strengths[one]))
        votes.append((one, other) if prefers_one else (other, one))
    return votes


def order(ranked: list[Ranked]) -> list[Hashable]:
    return [row.item for row in ranked]


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-4)


def test_nothing_to_rank() -> None:
    assert rank([], []) == []
    assert not settled([])


def test_an_only_item_is_its_own_average() -> None:
    (row,) = rank(["a"], [])
    assert (row.strength, row.spread, row.chance, row.wins, row.losses) == (near(0), near(0), near(0.5), 0, 0)
    assert not settled([row])


def test_without_votes_all_stay_in_order_with_the_priors_spread() -> None:
    ranked = rank("abcd", [])
    assert order(ranked) == list("abcd")
    # The prior's variance is 1, a quarter of which is the average's own.
    assert [(row.strength, row.spread, row.chance) for row in ranked] == [(near(0), near(math.sqrt(0.75)), near(0.5))] * 4
    assert [row.ahead for row in ranked] == [near(0.5)] * 3 + [1.0]
    assert not settled(ranked)


def test_one_vote_moves_two_items_apart_and_settles_nothing() -> None:
    best, middle, worst = rank("abc", [("c", "a")])
    assert [best.item, middle.item, worst.item] == ["c", "b", "a"]
    assert best.strength == near(-worst.strength)
    assert 0.5 < best.chance < 0.75
    assert (best.wins, best.losses, worst.wins, worst.losses) == (1, 0, 0, 1)
    assert (middle.strength, middle.spread) == (near(0), near(math.sqrt(2 / 3)))
    assert best.low < 0 < best.high
    assert not settled([best, middle, worst])


def test_the_posterior_of_one_vote_is_the_integral() -> None:
    best, _worst = rank("ab", [("a", "b")])
    # The difference d of two strengths is N(0, 2) before the vote and weighted by 1 / (1 + exp(-d)) after it.
    steps = [i / 1000 for i in range(-15_000, 15_001)]
    weights = [math.exp(-d * d / 4) / (1 + math.exp(-d)) for d in steps]
    mean = sum(w * d for w, d in zip(weights, steps, strict=True)) / sum(weights)
    variance = sum(w * (d - mean) ** 2 for w, d in zip(weights, steps, strict=True)) / sum(weights)
    assert best.strength == pytest.approx(mean / 2, abs=1e-3)
    assert best.spread == pytest.approx(math.sqrt(variance) / 2, abs=1e-3)


def test_a_cycle_is_a_tie_in_the_order_of_items() -> None:
    for _ in range(5):  # choix draws the order in which it visits votes
        ranked = rank("dcba", [("a", "b"), ("b", "c"), ("c", "a")])
        assert order(ranked) == list("dcba")
        assert [row.strength for row in ranked] == [near(0)] * 4
        assert ranked[0].spread > ranked[1].spread


def test_ties_above_and_below_the_average_keep_the_order_of_items() -> None:
    votes = [(winner, loser) for winner in "xy" for loser in "zw"] * 3
    for _ in range(5):
        assert order(rank("wyxz", votes)) == ["y", "x", "w", "z"]


def test_votes_that_contradict_each_other_leave_items_equal_and_better_known() -> None:
    first, second = rank("ab", [("a", "b"), ("b", "a")] * 20)
    assert (first.item, first.strength, second.strength) == ("a", near(0), near(0))
    assert first.spread < 0.3 < rank("ab", [])[0].spread
    assert (first.wins, first.losses) == (20, 20)
    assert not settled([first, second])


def test_votes_that_all_agree_settle_it_and_stay_finite() -> None:
    assert not settled(rank("ab", [("a", "b")] * 2))
    ranked = rank("ab", [("a", "b")] * 300)
    assert settled(ranked)
    assert 0.85 < ranked[0].chance < 1
    assert ranked[0].high < 3, "the prior keeps strengths finite"


def test_the_first_is_not_settled_while_any_other_may_be_stronger() -> None:
    clear = [("a", "b")] * 30
    assert settled(rank("ab", clear))
    unseen = rank("abc", clear)
    assert order(unseen) == ["a", "c", "b"]
    assert not settled(unseen)
    assert settled(rank("abc", [*clear, *[("a", "c")] * 5]))
    # d is third with hardly a vote: harder to tell from the first than the second is, of which much is known.
    ranked = rank("abd", [*[("a", "b")] * 30, *[("b", "a")] * 10, ("b", "d")])
    assert order(ranked) == ["a", "b", "d"]
    assert ranked[0].ahead < 0.95 < rank("ab", [*[("a", "b")] * 30, *[("b", "a")] * 10])[0].ahead


def test_known_strengths_are_recovered() -> None:
    truth = [1.5, 0.75, 0.0, -0.75, -1.5]
    ranked = rank(range(5), simulated(truth, 600, random.Random(3)))
    assert order(ranked) == [0, 1, 2, 3, 4]
    assert all(row.low < truth[row.item] < row.high for row in ranked)
    assert settled(ranked)
    assert sum(row.strength for row in ranked) == near(0)


def test_more_votes_narrow_the_spread() -> None:
    votes = simulated([0.5, 0.0, -0.5], 400, random.Random(1))
    spreads = [max(row.spread for row in rank(range(3), votes[:count])) for count in (0, 10, 50, 400)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < spreads[0] / 5


def test_intervals_hold_the_truth_and_chances_come_true_as_often_as_they_say() -> None:
    rng = random.Random(7)
    held, expected = [], []
    for _ in range(80):
        drawn = [rng.gauss(0, 1) for _ in range(6)]
        truth = [value - sum(drawn) / 6 for value in drawn]
        ranked = rank(range(6), simulated(truth, 25, rng))
        held += [row.low < truth[row.item] < row.high for row in ranked]
        expected += [(row.chance, 1 / (1 + math.exp(-truth[row.item]))) for row in ranked if row.chance > 0.6]
    assert sum(held) / len(held) == pytest.approx(CREDIBLE, abs=0.04)
    assert sum(said for said, _ in expected) / len(expected) == pytest.approx(sum(true for _, true in expected) / len(expected), abs=0.03)


def test_the_first_is_truly_ahead_as_often_as_it_is_said_to_be() -> None:
    rng = random.Random(8)
    said, true = [], []
    for _ in range(300):
        truth = [rng.gauss(0, 1), rng.gauss(0, 1)]
        first, second = rank(range(2), simulated(truth, 4, rng))
        said.append(first.ahead)
        true.append(truth[first.item] > truth[second.item])
    assert 0.6 < sum(said) / len(said) < 0.9
    assert sum(said) / len(said) == pytest.approx(sum(true) / len(true), abs=0.05)


def test_a_hundred_items_and_five_hundred_votes_are_quick() -> None:
    rank("ab", [("a", "b")])  # scipy is imported
    rng = random.Random(0)
    votes = simulated([rng.gauss(0, 1) for _ in range(100)], 500, rng)
    started = time.thread_time()
    assert len(rank(range(100), votes)) == 100
    assert time.thread_time() - started < 3  # some 0.3 s


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.permutations(range(n)).map(lambda p: (p[0], p[1]))))))
def test_any_votes_give_a_whole_ranking(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, votes = case
    ranked = rank(range(count), votes)
    assert sorted(order(ranked)) == list(range(count))
    assert sum(row.wins for row in ranked) == sum(row.losses for row in ranked) == len(votes)
    assert sum(row.strength for row in ranked) == near(0)
    assert all(row.low < row.strength < row.high and 0 < row.chance < 1 and 0 < row.spread < 1 for row in ranked)
    assert all(before.strength > after.strength - 1e-3 for before, after in pairwise(ranked))


def test_votes_on_what_is_not_there_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="“z”, which is not ranked here; there is a, b"):
        rank("ab", [("a", "z")])
    with pytest.raises(InvalidRequest, match="“a” and itself"):
        rank("ab", [("a", "a")])
    with pytest.raises(InvalidRequest, match="cell 9"):
        rank_by({1: "a", 2: "b"}, [(1, 2), (9, 1)])
    with pytest.raises(ValueError, match="only once"):
        rank("aba", [])


def test_groups_are_ranked_by_the_votes_between_them() -> None:
    groups = {0: 5.0, 1: 5.0, 2: 7.5, 3: 7.5, 4: 12.0}
    votes = [(0, 2), (1, 3), (0, 1), (1, 0), (2, 3), (3, 2), (0, 3)]
    ranked = rank_by(groups, votes)
    assert [(row.item, row.wins, row.losses) for row in ranked] == [(5.0, 3, 0), (12.0, 0, 0), (7.5, 0, 3)]
    same = rank([5.0, 7.5, 12.0], [(5.0, 7.5)] * 3)
    assert [row.strength for row in ranked] == [near(row.strength) for row in same]


def test_a_hundred_cells_are_all_shown_before_one_is_shown_again_and_quickly() -> None:
    rng, votes = random.Random(4), []
    started = time.thread_time()
    for _ in range(50):
        votes.append(next_pair(range(100), votes, [], rng))
    assert time.thread_time() - started < 5  # some 8 ms a pair
    assert Counter(cell for vote in votes for cell in vote) == dict.fromkeys(range(100), 1)


def test_every_pair_is_shown_once_and_then_none() -> None:
    rng, votes, skipped = random.Random(2), [], []
    while (pair := next_pair(range(6), votes, skipped, rng)) is not None:
        (votes if rng.random() < 0.7 else skipped).append(pair)
        times = Counter(cell for shown in [*votes, *skipped] for cell in shown)
        assert max(times[cell] for cell in range(6)) - min(times[cell] for cell in range(6)) <= 2
    assert votes
    assert skipped
    assert Counter(frozenset(pair) for pair in [*votes, *skipped]) == {frozenset((i, j)): 1 for i in range(6) for j in range(i)}


def test_with_repeats_there_is_always_a_pair_and_the_least_shown_comes_first() -> None:
    rng, votes = random.Random(2), []
    for _ in range(12):
        votes.append(next_pair([4, 8, 9], votes, [], rng, repeats=True))
    assert set(Counter(frozenset(vote) for vote in votes).values()) == {4}


@pytest.mark.parametrize("cells", [[], [3]])
def test_there_is_no_pair_of_fewer_than_two_cells(cells: list[int]) -> None:
    assert next_pair(cells, [], [], random.Random(0)) is None
    assert next_pair(cells, [], [], random.Random(0), repeats=True) is None


def test_pairs_and_sides_are_drawn_and_can_be_drawn_again() -> None:
    drawn = Counter(next_pair([0, 1, 2], [], [], random.Random(seed)) for seed in range(600))
    assert len(drawn) == 6
    assert min(drawn.values()) > 60
    assert next_pair(range(9), [], [], random.Random(5)) == next_pair(range(9), [], [], random.Random(5))

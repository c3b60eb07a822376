"""Which of several things a person prefers, from blind comparisons of two at a time, and how sure that is.

The Bradley-Terry model: one thing is preferred to another with probability 1 / (1 + exp(-(difference of their strengths))).
Votes count as independent, so many votes on few pictures tell about those pictures, not about all that a setting could draw.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import NormalDist

from engine.errors import InvalidRequest

Vote = tuple[int, int]
"""Indexes of two cells: the one that was preferred, the other one."""

PRIOR_SPREAD = 1.0
"""Standard deviation of log strengths before any vote: the better of two taken at random then wins about 73 % of the votes,
and a handful of votes that all agree does not look like certainty."""

CREDIBLE = 0.90
"""The posterior probability that a strength lies from `low` to `high`."""

SURE = 0.95
"""The posterior probability from which the first counts as settled."""

TIED = 1e-4
"""Log strengths nearer than this are equal: choix visits votes in an order drawn at random, which moves results by about 1e-6."""


@dataclass(frozen=True)
class Ranked:
    """What the votes say about one item. Strengths are logarithms of odds, measured from the average of all items ranked."""

    item: Hashable
    strength: float
    """Posterior mean; its mean over all items is 0."""
    spread: float
    """Posterior standard deviation of the strength."""
    low: float
    """The strength's credible interval (CREDIBLE, central) begins here."""
    high: float
    """The strength's credible interval ends here."""
    chance: float
    """To be preferred to an average item, 0 to 1: the logistic function of strength / sqrt(1 + pi * spread ** 2 / 8),
    MacKay's approximation (The evidence framework applied to classification networks, 1992) of its posterior mean."""
    wins: int
    losses: int
    ahead: float
    """Posterior probability to be truly stronger than the item ranked below from which it is hardest to tell; 1 when none is below."""


def rank(items: Sequence[Hashable], votes: Sequence[tuple[Hashable, Hashable]]) -> list[Ranked]:
    """All items, best first, from votes (preferred item, other item); equally strong ones stay in the order of `items`.

    An item without votes is there with what the prior says of it. Takes about 0.6 ms a vote, and half a second the first
    time, when scipy is imported. Raises InvalidRequest for a vote on an unknown item, or between an item and itself.
    """
    places = {item: place for place, item in enumerate(items)}
    if len(places) != len(items):
        raise ValueError("an item can be ranked only once")
    pairs = [_pair(vote, places) for vote in votes]
    means, covariance = _posterior(len(items), pairs)
    wins, losses = Counter(winner for winner, _ in pairs), Counter(loser for _, loser in pairs)
    order = _best_first(means)
    ranked = []
    for position, i in enumerate(order):
        ahead = min((_stronger(i, j, means, covariance) for j in order[position + 1 :]), default=1.0)
        # max: rounding could leave a variance of 0, that of an only item, below it.
        ranked.append(_ranked(items[i], means[i], math.sqrt(max(covariance[i][i], 0.0)), wins[i], losses[i], ahead))
    return ranked


def rank_by(groups: Mapping[int, Hashable], votes: Sequence[Vote]) -> list[Ranked]:
    """`rank` over groups of cells (all cells with CFG scale 5, say); `groups` gives each cell's own.

    Votes between two cells of one group say nothing about groups and are left out. Raises InvalidRequest for a vote on a
    cell that is in no group.
    """
    unknown = {cell for vote in votes for cell in vote} - groups.keys()
    if unknown:
        raise InvalidRequest(f"There are votes on cell {min(unknown)}, which is in none of the groups: leave them out or give it one.")
    between = [(groups[winner], groups[loser]) for winner, loser in votes if groups[winner] != groups[loser]]
    return rank(list(dict.fromkeys(groups.values())), between)


def settled(ranked: Sequence[Ranked]) -> bool:
    """Whether the first is stronger than each of the others, taken one by one, with a posterior probability of SURE or more."""
    return len(ranked) > 1 and ranked[0].ahead >= SURE


def next_pair(
    cells: Sequence[int], votes: Sequence[Vote], skipped: Sequence[tuple[int, int]], rng: random.Random, *, repeats: bool = False
) -> tuple[int, int] | None:
    """The two cells to show next, (left, right): of the pairs shown least often, one whose cells were shown least often.

    `skipped` are pairs that were shown without a vote. Ties and sides are drawn from `rng`. None when every pair has been
    shown, since the same person's second look at two pictures is hardly news; with `repeats` only when there are no two cells.
    """
    shown = [*votes, *skipped]
    times_pair = Counter(frozenset(pair) for pair in shown)
    times = Counter(cell for pair in shown for cell in pair)
    pairs = list(combinations(cells, 2))
    if not repeats:
        pairs = [pair for pair in pairs if frozenset(pair) not in times_pair]
    if not pairs:
        return None
    rng.shuffle(pairs)  # the smallest that comes first is then one drawn at random
    one, other = min(pairs, key=lambda pair: (times_pair[frozenset(pair)], times[pair[0]] + times[pair[1]]))
    return (one, other) if rng.random() < 0.5 else (other, one)


def _pair(vote: tuple[Hashable, Hashable], places: Mapping[Hashable, int]) -> tuple[int, int]:
    """The places of a vote's two items."""
    winner, loser = vote
    for item in vote:
        if item not in places:
            known = ", ".join(str(known) for known in places)
            raise InvalidRequest(f"There are votes on “{str(item)[:80]}”, which is not ranked here; there is {known[:300] or 'nothing'}.")
    if winner == loser:
        raise InvalidRequest(f"There is a vote between “{str(winner)[:80]}” and itself: votes are between two different things.")
    return places[winner], places[loser]


def _posterior(count: int, pairs: list[tuple[int, int]]) -> tuple[list[float], list[list[float]]]:
    """Means and covariance of the log strengths, measured from their average.

    Votes depend on differences only. So the average keeps its prior variance whatever the votes are, is independent of
    the differences, and leaves the covariance by a subtraction.
    """
    import choix  # scipy: half a second that the page need not wait for

    precision = 1 / PRIOR_SPREAD**2
    means, covariance = choix.ep_pairwise(count, pairs, precision, model="logit")
    average = 1 / (precision * max(count, 1))
    return means.tolist(), (covariance - average).tolist()


def _best_first(means: list[float]) -> list[int]:
    """Places from the strongest to the weakest; a run of ties keeps its order."""
    falling = sorted(range(len(means)), key=lambda i: -means[i])
    runs = dict.fromkeys(falling[:1], 0)
    for before, i in pairwise(falling):
        runs[i] = runs[before] + (means[before] - means[i] > TIED)
    return sorted(runs, key=lambda i: (runs[i], i))


def _stronger(one: int, other: int, means: list[float], covariance: list[list[float]]) -> float:
    """The posterior probability that one item is truly stronger than the other."""
    variance = covariance[one][one] + covariance[other][other] - 2 * covariance[one][other]
    return NormalDist().cdf((means[one] - means[other]) / math.sqrt(variance))


def _ranked(item: Hashable, strength: float, spread: float, wins: int, losses: int, ahead: float) -> Ranked:
    reach = NormalDist().inv_cdf((1 + CREDIBLE) / 2) * spread
    chance = 1 / (1 + math.exp(-strength / math.sqrt(1 + math.pi * spread**2 / 8)))
    return Ranked(item, strength, spread, strength - reach, strength + reach, chance, wins, losses, ahead)

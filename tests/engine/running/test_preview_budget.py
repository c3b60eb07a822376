from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.running.preview_budget import NAMED_SHARE, PATIENCE, SHARE, Account, PreviewBudget, PreviewBudgets
from engine.running.preview_options import BEST_FIRST, METHODS, PreviewOptions

STEADY = [1.0] * 60
"""Ticks of one second."""


@dataclass
class Run:
    """A run of one image: what was shown after each tick, and the seconds that went into it."""

    shown: list[str | None] = field(default_factory=list)
    worked: float = 0.0
    spent: float = 0.0

    def steps_of(self, method: str) -> list[int]:
        return [step for step, name in enumerate(self.shown) if name == method]


def simulate(costs: Mapping[str, float], ticks: Iterable[float], *, share: float = 0.1, images: int = 1, slower: float = 1.0) -> Run:
    """`slower`: how many times its announced cost a preview really takes."""
    budget, run, seen = PreviewBudget(share), Run(), []
    for seconds in ticks:
        budget.worked(seconds)
        run.worked += seconds
        method = budget.choose(costs, images, seen)
        run.shown.append(method)
        if method is not None:
            seen.append(method)
            budget.spent(costs[method] * images * slower)
            run.spent += costs[method] * images * slower
    return run


def test_options_default_to_auto_at_every_step() -> None:
    assert PreviewOptions() == PreviewOptions("auto", 1)
    assert all(PreviewOptions().due(step) for step in range(1, 10))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_accepted(method: str) -> None:
    assert PreviewOptions(method).method == method


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="There is no preview method “best”; there is auto, linear, tiny, vae, off"):
        PreviewOptions("best")


@pytest.mark.parametrize("every", [0, -1, 1001, float("nan")])
def test_an_interval_out_of_range_is_refused_with_the_range(every: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"every 1 to 1,000 steps; it was {every}"):
        PreviewOptions(every=every)


def test_a_preview_is_due_at_each_nth_step() -> None:
    assert [step for step in range(1, 13) if PreviewOptions("vae", every=4).due(step)] == [4, 8, 12]


def test_nothing_is_due_when_previews_are_off() -> None:
    assert not any(PreviewOptions("off").due(step) for step in range(1, 50))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    costs=st.dictionaries(st.sampled_from(BEST_FIRST), st.floats(0.0001, 3), max_size=3),
    ticks=st.lists(st.floats(0.001, 5), min_size=1, max_size=120),
    share=st.sampled_from([0.01, *SHARE.values(), 0.5]),
    images=st.integers(1, 8),
    slower=st.floats(0.5, 4),
)
def test_the_time_spent_stays_within_the_share(
    costs: dict[str, float], ticks: list[float], share: float, images: int, slower: float
) -> None:
    run = simulate(costs, ticks, share=share, images=images, slower=slower)
    overrun = max(costs.values(), default=0) * images * max(slower - 1, 0)
    assert run.spent <= share * run.worked + overrun + 1e-9
    assert {name for name in run.shown if name} <= set(costs)


def test_over_a_long_run_the_share_is_kept_and_made_use_of() -> None:
    run = simulate({"vae": 0.45, "linear": 0.001}, STEADY * 10)
    assert 0.9 * 0.1 * run.worked < run.spent <= 0.1 * run.worked + 0.45


def test_the_vae_is_shown_when_it_can_be_paid_every_few_steps() -> None:
    run = simulate({"vae": 0.45, "tiny": 0.05, "linear": 0.001}, STEADY)
    steps = run.steps_of("vae")
    assert steps[0] <= PATIENCE
    assert max(later - earlier for earlier, later in pairwise(steps)) <= PATIENCE


def test_a_vae_cheaper_than_a_steps_earnings_is_shown_at_every_step() -> None:
    assert simulate({"vae": 0.09, "linear": 0.001}, STEADY).shown == ["vae"] * len(STEADY)


def test_the_tiny_decoder_steps_in_where_the_vae_is_too_dear() -> None:
    run = simulate({"vae": 0.9, "tiny": 0.3, "linear": 0.001}, STEADY)
    assert run.steps_of("tiny")
    assert not run.steps_of("vae")


def test_a_vae_that_is_too_dear_leaves_linear_at_every_step() -> None:
    assert simulate({"vae": 0.51, "linear": 0.001}, STEADY).shown == ["linear"] * len(STEADY)


def test_linear_fills_in_before_the_first_vae_and_never_after_it() -> None:
    run = simulate({"vae": 0.45, "linear": 0.001}, STEADY)
    first = run.steps_of("vae")[0]
    assert run.shown[:first] == ["linear"] * first
    assert first > 0
    assert set(run.shown[first:]) == {"vae", None}


def test_filling_in_does_not_starve_the_vae() -> None:
    run = simulate({"vae": 0.45, "linear": 0.02}, STEADY)
    assert run.steps_of("vae")[0] <= 2 * PATIENCE


def test_a_fill_in_that_would_delay_the_vae_is_left_out() -> None:
    run = simulate({"vae": 0.45, "linear": 0.05}, STEADY)
    assert run.shown[: PATIENCE - 1] == [None] * (PATIENCE - 1)
    assert run.shown[PATIENCE - 1] == "vae"


def test_costs_count_once_for_every_picture_of_a_tick() -> None:
    assert simulate({"vae": 0.09, "linear": 0.001}, STEADY, images=1).shown[0] == "vae"
    assert simulate({"vae": 0.09, "linear": 0.001}, STEADY, images=8).shown == ["linear"] * len(STEADY)


def test_nothing_is_chosen_when_nothing_can_be_paid() -> None:
    assert simulate({"vae": 100, "tiny": 50, "linear": 10}, STEADY).shown == [None] * len(STEADY)


def test_nothing_is_chosen_before_any_work_or_without_a_previewer() -> None:
    assert PreviewBudget(0.1).choose({"linear": 0.001}, 1) is None
    assert simulate({}, STEADY).shown == [None] * len(STEADY)
    assert simulate({"vae": 0.001}, STEADY, share=0.0).shown == [None] * len(STEADY)


def test_a_debt_is_worked_off_before_the_next_preview() -> None:
    budget = PreviewBudget(0.1)
    budget.worked(1.0)
    budget.spent(1.0)
    chosen = []
    for _ in range(15):
        budget.worked(1.0)
        chosen.append(budget.choose({"linear": 0.05}, 1))
    assert chosen[:9] == [None] * 9
    assert chosen[-1] == "linear"


def test_what_is_saved_up_pays_for_no_burst() -> None:
    budget = PreviewBudget(0.1)
    for _ in range(1000):
        budget.worked(1.0)
    bought = 0
    while budget.choose({"linear": 0.1}, 1) and bought < 100:
        budget.spent(0.1)
        bought += 1
    assert 1 <= bought <= 4 * PATIENCE


def test_linear_does_not_follow_vae_when_ticks_get_faster() -> None:
    run = simulate({"vae": 0.4, "linear": 0.001}, [5.0] * 3 + [0.5] * 40)
    assert run.steps_of("vae")
    assert not [step for step in run.steps_of("linear") if step > run.steps_of("vae")[0]]


def test_linear_does_not_follow_vae_when_more_images_join() -> None:
    budget = PreviewBudget(0.1)
    for _ in range(20):
        budget.worked(1.0)
    assert budget.choose({"vae": 0.4, "linear": 0.001}, 1) == "vae"
    assert budget.choose({"vae": 0.4, "linear": 0.001}, 4, seen=["vae"]) != "linear"


# Previewers asked for by name.


def shown_by_name(budget: PreviewBudget, cost: float, ticks: int) -> list[int]:
    """The ticks of one second each after which a preview of this cost is made."""
    shown = []
    for tick in range(1, ticks + 1):
        budget.worked(1.0)
        if budget.afford([cost]):
            shown.append(tick)
            budget.spent(cost)
    return shown


@pytest.mark.parametrize(("cost", "between"), [(0.05, 1), (0.1, 1), (0.4, 4), (2.0, 20), (5.0, 50)])
def test_one_asked_for_by_name_is_shown_as_often_as_it_can_be_paid(cost: float, between: int) -> None:
    shown = shown_by_name(PreviewBudget(0.1), cost, 200)
    assert len(shown) == pytest.approx(200 / between, abs=1)
    assert {later - earlier for earlier, later in pairwise(shown)} <= {between, between + 1}  # the one more: rounding


def test_of_several_asked_for_by_name_the_first_that_can_be_paid_are_made() -> None:
    budget = PreviewBudget(1.0)
    assert budget.afford([0.1]) == 0
    budget.worked(1.0)
    assert [budget.afford(costs) for costs in ([], [0.5], [0.5, 0.5], [0.5, 0.6], [0.3] * 9, [2.0, 0.1])] == [0, 1, 2, 1, 3, 0]


# Several owners.

ANN, BEN = Account("Ann", named=False), Account("Ben", named=False)
BENS_VAE = Account("Ben", named=True)
VAE = {"vae": 0.45, "linear": 0.001}


def shown_to(accounts: list[Account], ticks: int, present: set[str]) -> dict[Account, list[str | None]]:
    """What each sees of an image of its own that takes part in every tick of one second."""
    budgets, seen = PreviewBudgets(0.1), {account: [] for account in accounts}
    for _ in range(ticks):
        budgets.worked(1.0, accounts, present)
        for account in accounts:
            budget = budgets[account]
            shown = [name for name in seen[account] if name]
            method = ("vae" if budget.afford([VAE["vae"]]) else None) if account.named else budget.choose(VAE, 1, shown)
            seen[account].append(method)
            budget.spent(VAE.get(method, 0.0))
    return seen


def looks(shown: list[str | None]) -> int:
    return sum(method is not None for method in shown)


@pytest.mark.parametrize("other", [BEN, BENS_VAE])
def test_what_one_looks_at_is_not_paid_by_another(other: Account) -> None:
    alone = shown_to([ANN], 60, {"Ann"})[ANN]
    beside = shown_to([ANN, other], 60, {"Ann", "Ben"})[ANN]
    assert looks(beside) >= looks(alone) / 2
    assert beside == shown_to([ANN, BEN], 60, {"Ann", "Ben"})[ANN]


def test_all_owners_together_stay_within_the_share() -> None:
    seen = shown_to([ANN, BENS_VAE, BENS_VAE, Account("Cid", named=True)], 400, {"Ann", "Ben", "Cid"})
    spent = sum(VAE.get(method, 0.0) for shown in seen.values() for method in shown)
    assert 0.5 * 0.1 * 400 < spent <= 0.1 * 400


def test_alone_one_asked_for_by_name_may_double_the_time() -> None:
    assert NAMED_SHARE == 1.0
    assert looks(shown_to([BENS_VAE], 60, {"Ben"})[BENS_VAE]) == 60
    assert looks(shown_to([BENS_VAE], 60, {"Ben", "Ann"})[BENS_VAE]) == 60 * 0.1 // 0.45


def test_what_was_saved_up_alone_does_not_hold_up_who_comes() -> None:
    budgets = PreviewBudgets(0.1)
    for _ in range(100):
        budgets.worked(1.0, [BENS_VAE], {"Ben"})
    budgets.worked(1.0, [BENS_VAE, ANN], {"Ben", "Ann"})
    assert budgets[BENS_VAE].afford([0.1] * 100) <= 4 * PATIENCE


def test_an_owner_who_only_waits_counts_as_one_who_is_held_up() -> None:
    budgets = PreviewBudgets(0.1)
    budgets.worked(1.0, [BENS_VAE], {"Ben", "Ann"})
    assert budgets[BENS_VAE].afford([0.2]) == 0


def test_who_leaves_is_forgotten() -> None:
    budgets = PreviewBudgets(0.1)
    for visitor in range(100):
        budgets.worked(1.0, [Account(str(visitor), named=False), Account(str(visitor), named=True)], {str(visitor)})
        assert len(budgets) == 2
    budgets.worked(1.0, [], set())
    assert len(budgets) == 0

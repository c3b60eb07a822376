from __future__ import annotations

import pytest

from engine.catalog import Catalog, Limits, ModelSpec
from engine.errors import InvalidRequest
from engine.plan import Plan, plan_images, random_seed
from engine.recipe import MAX_SEED, RANDOM_SEEDS, make_recipe

CATALOG = Catalog([ModelSpec(name="starter", title="Starter", source="owner/starter")])


def plan(count: int = 1, exact: bool = False, limits: Limits | None = None, **recipe: object) -> Plan:
    return plan_images(make_recipe(**recipe), CATALOG, limits or Limits(), count=count, exact=exact)


def test_one_picture_is_a_plan_of_one_cell_with_the_recipe_as_it_is() -> None:
    (cell,) = plan(seed=7, prompt="a fox").cells
    assert cell.index == 0
    assert cell.recipe == make_recipe(seed=7, prompt="a fox")


def test_several_images_differ_in_nothing_but_their_seeds() -> None:
    cells = plan(count=4, seed=10, prompt="a fox", steps=9).cells
    assert [cell.index for cell in cells] == [0, 1, 2, 3]
    assert [cell.recipe.seed for cell in cells] == [10, 11, 12, 13]
    assert {cell.recipe.replace(seed=0) for cell in cells} == {make_recipe(prompt="a fox", steps=9)}


@pytest.mark.parametrize("exact", [False, True])
def test_exact_is_handed_on(exact: bool) -> None:
    assert plan(exact=exact).exact is exact


@pytest.mark.parametrize(("count", "shown"), [(0, "0"), (-3, "-3"), (101, "101"), (10**6, "1,000,000")])
def test_a_number_of_images_out_of_range_is_refused_with_the_range(count: int, shown: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Number of images must be from 1 to 100; it was {shown}\.$"):
        plan(count=count)


def test_the_largest_allowed_number_of_images_is_planned() -> None:
    assert len(plan(count=5, limits=Limits(max_images=5)).cells) == 5


def test_seeds_may_go_up_to_the_last_one() -> None:
    assert plan(count=3, seed=MAX_SEED - 2).cells[-1].recipe.seed == MAX_SEED


def test_seeds_past_the_last_one_are_refused_with_it() -> None:
    with pytest.raises(InvalidRequest, match=r"^The last seed would be above 9,007,199,254,740,991: start lower"):
        plan(count=3, seed=MAX_SEED - 1)


def test_a_model_that_is_not_on_offer_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="There is no model “other” here"):
        plan(model="other")


def test_what_the_operator_forbids_is_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidRequest, match="Steps must be at most 10 here"):
        plan(steps=11, limits=Limits(max_steps=10))


def test_random_seeds_are_short_and_differ() -> None:
    seeds = {random_seed() for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed < RANDOM_SEEDS for seed in seeds)

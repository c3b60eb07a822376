"""Forecast: counted at once, there are the calls that there are one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recipes.families import Needs, classifier_free
from engine.recipes.recipe import Recipe
from engine.running import forecast
from engine.running.forecast import Calls, count_calls
from engine.running.packing import ADMITTED_A_TICK, Packer
from tests.plain_packing import calls_one_by_one


def image(seed: int = 0, **changes) -> Recipe:
    usual = {"prompt": "a cat", "seed": seed, "steps": 3, "scheduler": "Euler", "guidance_scale": 5, "width": 64, "height": 64}
    return Recipe(**{**usual, **changes})


def one_by_one(recipes: list[Recipe], needs: Callable[[Recipe], Needs], packer: Packer, **way: bool) -> Calls:
    return Counter((recipe.width * recipe.height, call.width) for call, recipe in calls_one_by_one(recipes, needs, packer, **way))


def otherwise(recipe: Recipe) -> Needs:
    """Of a kind of model that takes one row a word, and whose calls are of texts of one length."""
    return Needs(tuple(enumerate(recipe.prompt.split())), (recipe.width, recipe.height, len(recipe.prompt)))


IMAGES = st.builds(
    image, seed=st.integers(0, 3), steps=st.sampled_from((1, 2, 3, 7, 20, 31)), guidance_scale=st.sampled_from((1, 4, 9)),
    scheduler=st.sampled_from(("Euler", "Heun", "PNDM")), width=st.sampled_from((64, 64, 96)),
    prompt=st.sampled_from(("a cat", "an owl", "an old cat")),
)  # fmt: skip
ALIKE = st.builds(lambda seeds, one: [one.replace(seed=seed) for seed in range(seeds)], st.integers(1, 40), IMAGES)
"""What most grids are: images of equally many steps."""
STAIRS = st.builds(
    lambda count, most: [image(i, steps=1 + i * most // count) for i in range(count)], st.integers(1, 25), st.integers(1, 60)
)
"""No two of equally many."""


@given(
    recipes=st.one_of(st.lists(IMAGES, min_size=1, max_size=40), ALIKE, STAIRS), needs=st.sampled_from((classifier_free, otherwise)),
    max_rows=st.integers(1, 24),
    exact=st.booleans(), together=st.booleans(), padded=st.booleans(), narrowed=st.sampled_from([(), ((64 * 64, 3),)]),
)  # fmt: skip
@settings(deadline=None, max_examples=120)
def test_counted_at_once_there_are_the_calls_that_there_are_one_by_one(recipes, needs, max_rows, exact, together, padded, narrowed) -> None:
    packing = {"max_rows": max_rows, "padded": padded, "native_pixels": 64 * 64, "narrowed": narrowed}
    way = {"exact": exact, "together": together}
    assert count_calls(recipes, needs, Packer(**packing), **way) == one_by_one(recipes, needs, Packer(**packing), **way)


def test_nothing_to_make_takes_no_call() -> None:
    assert count_calls([], classifier_free, Packer()) == Counter()


def test_a_grid_of_seeds_and_scales_shares_its_first_call() -> None:
    recipes = [image(seed, guidance_scale=scale, prompt="an owl") for seed, scale in product(range(3), (1, 5, 9))]
    # First call: one unconditional and one conditional row a seed. Then 1 + 2 + 2 rows a seed.
    assert count_calls(recipes, classifier_free, Packer(max_rows=32)) == {(64 * 64, 3 * 2): 1, (64 * 64, 15): 2}


def test_more_images_than_are_admitted_at_once_join_a_tick_later() -> None:
    recipes = [image(seed, steps=2) for seed in range(ADMITTED_A_TICK + 1)]
    assert count_calls(recipes, classifier_free, Packer(max_rows=64)) == {(64 * 64, 32): 1, (64 * 64, 34): 1, (64 * 64, 2): 1}


def test_exact_calls_have_one_width() -> None:
    assert count_calls([image(seed, steps=2) for seed in range(5)], classifier_free, Packer(), exact=True) == {(64 * 64, 8): 4}


def test_sizes_do_not_share_calls() -> None:
    assert count_calls([image(0, steps=1), image(1, steps=1, width=96)], classifier_free, Packer()) == {(64 * 64, 2): 1, (64 * 96, 2): 1}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("max_rows", [2, 16, 64])
@pytest.mark.parametrize("scales", [(5,) * 4, (1, 3, 5, 9)], ids=["equal rows", "one row or two"])
def test_most_calls_of_a_long_run_are_counted_without_being_packed(monkeypatch, together, max_rows, scales) -> None:
    """A hundred images of 150 steps take up to 15,000 calls; a few for each image are packed, whatever the steps are."""
    packed = []
    pick = forecast._Forecast._pick
    monkeypatch.setattr(forecast._Forecast, "_pick", lambda *given: packed.append(1) or pick(*given))
    recipes = [image(seed, steps=150, guidance_scale=scale) for seed, scale in product(range(25), scales)]
    forecast._counted.cache_clear()
    assert count_calls(recipes, classifier_free, Packer(max_rows), together=together).total() >= 400
    assert len(packed) <= 5 * len(recipes)


def test_other_words_and_seeds_are_not_counted_anew(monkeypatch) -> None:
    recipes = [image(seed, guidance_scale=scale) for seed, scale in product(range(3), (1, 5))]
    forecast._counted.cache_clear()
    counts = count_calls(recipes, classifier_free, Packer(), together=True)
    monkeypatch.delattr(forecast, "_Forecast")
    others = [recipe.replace(seed=recipe.seed + 9, prompt="while somebody types") for recipe in recipes]
    assert count_calls(others, classifier_free, Packer(), together=True) == counts
    counts.clear()
    assert count_calls(others, classifier_free, Packer(), together=True) != counts, "what is counted is the asker's own"

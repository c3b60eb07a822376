"""Batch: an image among others equals the image alone, and the calls and rows it costs are what they should be."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch

from engine.diffusion.denoiser import Denoiser
from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe
from engine.running.forecast import count_calls
from engine.running.packing import Packer
from tests.plain_packing import calls_one_by_one
from tests.tiny import SIZE

ROUNDING = 1e-3
"""Of latents: a wider batch lets the CPU add in another order (about 1e-6 a call)."""

PROMPTS = ("a red apple", "an owl", "a cat", "")


def mixed_recipes(model_recipe) -> dict[int, Recipe]:
    """Eight images that share nothing but their size."""
    schedulers = ("DPM++ 2M Karras", "Euler a", "DDIM", "Heun", "PNDM", "DPM++ SDE", "UniPC", "LCM")
    scales = (7.5, 1, 3, 1, 12, 5, 1.5, 1)
    return {
        i: model_recipe(
            seed=i, prompt=PROMPTS[i % 4], negative_prompt=PROMPTS[(i + 1) % 4],
            scheduler=schedulers[i], guidance_scale=scales[i], steps=2 + i % 3,
        )
        for i in range(8)
    }  # fmt: skip


def tiny_recipe(**changes) -> Recipe:
    return Recipe(**{"width": SIZE, "height": SIZE, **changes})


def finish(denoiser: Denoiser, trajectories: dict) -> dict[int, torch.Tensor]:
    """The final latents by key, after all ticks."""
    while advances := denoiser.tick():
        assert [advance.error for advance in advances if advance.error] == []
    return {key: one.latents for key, one in trajectories.items()}


def run(family, recipes: dict[int, Recipe], *, exact: bool = False) -> dict[int, torch.Tensor]:
    denoiser = Denoiser(family)
    return finish(denoiser, {key: denoiser.admit(key, recipe, exact=exact) for key, recipe in recipes.items()})


def run_each_alone(family, recipes: dict[int, Recipe], *, exact: bool = False) -> dict[int, torch.Tensor]:
    return {key: run(family, {key: recipe}, exact=exact)[key] for key, recipe in recipes.items()}


def run_admitted_one_a_tick(family, recipes: dict[int, Recipe], *, exact: bool = False) -> dict[int, torch.Tensor]:
    denoiser, trajectories = Denoiser(family), {}
    for key, recipe in recipes.items():
        trajectories[key] = denoiser.admit(key, recipe, exact=exact)
        denoiser.tick()
    return finish(denoiser, trajectories)


def assert_close(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) <= ROUNDING


def assert_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("together", [run, run_admitted_one_a_tick])
def test_fast_images_among_others_differ_by_rounding_only(tiny_family, together):
    recipes = mixed_recipes(tiny_recipe)
    assert_close(together(tiny_family, recipes), run_each_alone(tiny_family, recipes))


@pytest.mark.parametrize("together", [run, run_admitted_one_a_tick])
def test_exact_images_among_others_are_bit_equal(tiny_family, together):
    recipes = mixed_recipes(tiny_recipe)
    assert_equal(together(tiny_family, recipes, exact=True), run_each_alone(tiny_family, recipes, exact=True))


def test_fast_images_between_exact_ones_change_no_bit(tiny_family):
    recipes = mixed_recipes(tiny_recipe)
    denoiser = Denoiser(tiny_family)
    trajectories = {key: denoiser.admit(key, recipe, owner=str(key), exact=key % 2 == 0) for key, recipe in recipes.items()}
    finish(denoiser, trajectories)
    exact = {key: recipe for key, recipe in recipes.items() if key % 2 == 0}
    assert_equal({key: trajectories[key].latents for key in exact}, run_each_alone(tiny_family, exact, exact=True))


def test_embedded_model_among_others(starter_family, catalog):
    recipes = mixed_recipes(catalog.default.recipe)
    alone = {key: recipes[key] for key in (0, 1, 5)}
    fast, exact = run(starter_family, recipes), run(starter_family, recipes, exact=True)
    assert_close({key: fast[key] for key in alone}, run_each_alone(starter_family, alone))
    assert_equal({key: exact[key] for key in alone}, run_each_alone(starter_family, alone, exact=True))


def test_an_unguided_image_costs_one_row_and_a_guided_one_two(tiny_family):
    for scale, rows in ((1, 1), (1.1, 2)):
        denoiser = Denoiser(tiny_family)
        finish(denoiser, {"it": denoiser.admit("it", tiny_recipe(guidance_scale=scale, scheduler="Euler", steps=3))})
        assert (denoiser.calls, denoiser.rows_run) == (3, 3 * rows)


def test_images_of_different_step_counts_share_calls(tiny_family):
    denoiser = Denoiser(tiny_family, max_rows=16)
    trajectories = {steps: denoiser.admit(steps, tiny_recipe(seed=steps, scheduler="Euler", steps=steps)) for steps in (2, 5, 3, 7)}
    finish(denoiser, trajectories)
    assert denoiser.calls == 7
    assert denoiser.rows_run == 2 * (2 + 5 + 3 + 7)
    assert [trajectories[steps].bucket for steps in (2, 3, 5, 7)] == [8] * 4


def test_a_call_is_never_wider_than_max_rows(tiny_family):
    denoiser = Denoiser(tiny_family, max_rows=5)
    trajectories = {seed: denoiser.admit(seed, tiny_recipe(seed=seed, scheduler="Euler", steps=2)) for seed in range(4)}
    finish(denoiser, trajectories)
    assert {one.bucket for one in trajectories.values()} == {4}
    assert (denoiser.calls, denoiser.rows_run) == (4, 16)


def test_exact_calls_are_always_of_the_fixed_width(tiny_family):
    denoiser = Denoiser(tiny_family, exact_rows=8)
    finish(denoiser, {"it": denoiser.admit("it", tiny_recipe(scheduler="Euler", steps=3), exact=True)})
    assert (denoiser.calls, denoiser.rows_run) == (3, 24)


def test_padding_changes_nothing_but_rounding(tiny_family):
    recipes = {key: recipe for key, recipe in mixed_recipes(tiny_recipe).items() if key < 3}
    denoiser = Denoiser(tiny_family, padded=True)
    padded = finish(denoiser, {key: denoiser.admit(key, recipe) for key, recipe in recipes.items()})
    assert_close(padded, run_each_alone(tiny_family, recipes))


def grid_recipes(model_recipe) -> dict[int, Recipe]:
    """4 x 4: seeds by schedulers, each scheduler with a step count and a CFG scale of its own."""
    kinds = (("Euler", 3, 1), ("DDIM", 5, 5), ("Heun", 2, 7), ("PNDM", 4, 3))
    cells = product(range(4), kinds)
    return {
        i: model_recipe(prompt="an owl", seed=seed, scheduler=scheduler, steps=steps, guidance_scale=scale)
        for i, (seed, (scheduler, steps, scale)) in enumerate(cells)
    }


@pytest.mark.parametrize("max_rows", [2, 5, 8, 32])
@pytest.mark.parametrize(("exact", "together", "padded"), [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 1, 1)])
def test_a_grid_of_seeds_and_schedulers_costs_what_is_forecast(tiny_family, max_rows, exact, together, padded):
    recipes = grid_recipes(tiny_recipe)
    packing = {"max_rows": max_rows, "padded": bool(padded)}
    denoiser = Denoiser(tiny_family, **packing)
    for key, recipe in recipes.items():
        denoiser.admit(key, recipe, exact=bool(exact), together=bool(together))
    widths = []
    while denoiser.tick():
        widths.append(denoiser.width)
    asked = list(recipes.values()), classifier_free, Packer(**packing)
    assert [call.width for call, _ in calls_one_by_one(*asked, exact=bool(exact), together=bool(together))] == widths
    assert count_calls(*asked, exact=bool(exact), together=bool(together)) == Counter((SIZE * SIZE, width) for width in widths)


def test_a_grid_of_seeds_and_schedulers_takes_as_many_calls_as_its_longest_image(tiny_family):
    recipes = grid_recipes(tiny_recipe)
    denoiser = Denoiser(tiny_family, max_rows=32)
    finish(denoiser, {key: denoiser.admit(key, recipe) for key, recipe in recipes.items()})
    # The longest image has 5 steps: 5 calls, of 4 seeds x (1 + 2 + 2 + 2) rows while all four schedulers run.
    assert (denoiser.calls, denoiser.rows_run) == (5, 28 + 28 + 28 + 16 + 16)
    one_by_one = [count_calls([recipe], classifier_free, Packer()) for recipe in recipes.values()]
    assert sum(calls.total() for calls in one_by_one) == 4 * (3 + 5 + 3 + 5)


def test_the_first_call_is_shared_where_it_is_equal(tiny_family):
    """Three CFG scales of one seed and prompt ask the network the same question first."""
    recipes = {i: tiny_recipe(prompt="an owl", scheduler="Euler a", steps=3, guidance_scale=scale) for i, scale in enumerate((1, 5, 9))}
    denoiser = Denoiser(tiny_family)
    together = finish(denoiser, {key: denoiser.admit(key, recipe) for key, recipe in recipes.items()})
    assert (denoiser.calls, denoiser.rows_run) == (3, 2 + 5 + 5)
    assert_close(together, run_each_alone(tiny_family, recipes))
    assert_equal(run(tiny_family, recipes, exact=True), run_each_alone(tiny_family, recipes, exact=True))


def test_given_noise_shares_nothing_with_a_seeds_own(tiny_family):
    denoiser = Denoiser(tiny_family)
    own = denoiser.admit("own", tiny_recipe(steps=1, scheduler="Euler"))
    given = denoiser.admit("given", tiny_recipe(steps=1, scheduler="Euler"), latents=torch.zeros(4, 16, 16))
    finish(denoiser, {})
    assert denoiser.rows_run == 4
    assert not torch.equal(own.latents, given.latents)

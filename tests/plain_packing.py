"""The network calls of a plan one after the other, packed by the packer that the denoiser uses: slow and plain, to compare counts with.

tests/engine/diffusion/test_batch.py holds it to what the denoiser itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from engine.recipes.families import Needs
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import scheduler_row
from engine.running.packing import ADMITTED_A_TICK, Call, Packer, load_of


def calls_one_by_one(
    recipes: Sequence[Recipe], needs: Callable[[Recipe], Needs], packer: Packer, *, exact: bool = False, together: bool = False
) -> Iterator[tuple[Call, Recipe]]:
    """The calls of one job on an otherwise idle device, with one of the recipes in each."""
    left = {i: scheduler_row(recipe.scheduler).calls(recipe.steps) for i, recipe in enumerate(recipes)}
    done = dict.fromkeys(left, 0)
    waiting = list(left)
    loads = {}  # of the images under way
    while waiting or loads:
        for i in waiting[:ADMITTED_A_TICK]:
            loads[i] = load_of(recipes[i], needs(recipes[i]), i, 0, exact=exact, together=together)
        del waiting[:ADMITTED_A_TICK]
        call = packer.pick(loads)
        yield call, recipes[call.images[0]]
        for i in call.images:
            done[i] += 1
            if done[i] == left[i]:
                del loads[i]
            elif done[i] == 1:
                loads[i] = load_of(recipes[i], needs(recipes[i]), i, 1, exact=exact, together=together)
            elif together:
                loads[i] = replace(loads[i], behind=done[i])

"""Plan: all cells of a request, complete before a device is touched."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.catalog import Catalog, Limits
from engine.errors import InvalidRequest
from engine.recipe import MAX_SEED, RANDOM_SEEDS, Recipe


@dataclass(frozen=True)
class Cell:
    """One image of a plan. `index` is its place; its recipe is concrete."""

    index: int
    recipe: Recipe


@dataclass(frozen=True)
class Plan:
    """The cells of one request. `exact` asks for a fixed network batch, so that neighbours change no bit."""

    cells: tuple[Cell, ...]
    exact: bool = False


def random_seed() -> int:
    return random.SystemRandom().randrange(RANDOM_SEEDS)


def plan_images(recipe: Recipe, catalog: Catalog, limits: Limits, *, count: int = 1, exact: bool = False) -> Plan:
    """`count` images of one recipe with seeds seed, seed+1, ... Raises InvalidRequest before anything runs."""
    if not 1 <= count <= limits.max_images:
        raise InvalidRequest(f"Number of images must be from 1 to {limits.max_images}; it was {count:,}.")
    if recipe.seed + count - 1 > MAX_SEED:
        raise InvalidRequest(f"The last seed would be above {MAX_SEED:,}: start lower or make fewer images.")
    catalog.find(recipe.model)
    limits.check(recipe)
    return Plan(tuple(Cell(i, recipe.replace(seed=recipe.seed + i)) for i in range(count)), exact)

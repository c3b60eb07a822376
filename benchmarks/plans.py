"""What is drawn: one picture with the catalog's own settings, and comparison grids of it. No torch here."""

from __future__ import annotations

from engine.recipes.axes import Offer
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.plan import AxisLine, Grid, Plan, plan_grid, plan_images
from engine.recipes.recipe import Recipe

SCALES = {3: "1, 5, 9", 5: "1-9 (+2)", 8: "1-8", 10: "1-10"}
"""Cells along a grid's side -> the CFG scales of its rows; its columns are as many seeds."""


def one_picture(catalog: Catalog, number: int) -> Plan:
    """One picture; a new number is a new prompt, which nobody has encoded already."""
    return plan_images(_recipe(catalog, number), catalog, Limits())


def square(catalog: Catalog, number: int, side: int, *, exact: bool = False) -> Plan:
    """A grid of `side` seeds by as many CFG scales of one prompt; a new number is a new prompt and new seeds."""
    first = number * side
    seeds = AxisLine(axis="seed", values=f"{first}-{first + side - 1}")
    scales = AxisLine(axis="cfg", values=SCALES[side])
    return plan_grid(Grid(recipe=_recipe(catalog, number), x=seeds, y=scales, exact=exact), Offer(catalog, Limits()))


def _recipe(catalog: Catalog, number: int) -> Recipe:
    return catalog.default.recipe(prompt=f"an owl, noto style {number}", seed=number)

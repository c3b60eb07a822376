"""Plans and pictures to make sheets of."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

from engine.pictures.made import Made, Provenance
from engine.recipes.plan import AxisLine, Cell, Grid, Plan, plan_grid
from engine.recipes.recipe import make_recipe
from engine.sheets.drawing import draw_sheet
from engine.sheets.layout import Page, Tile
from tests.engine.recipes.offer import OFFER

COLOURS = ["#ff0000", "#00ff00", "#0000ff", "#ffff00", "#ff00ff", "#00ffff", "#800000", "#008000", "#000080"]
PROVENANCE = Provenance("rev", "cpu", "float32", 2, False, 4, 4, 1.5)
any_text = st.text(st.characters(), max_size=60) | st.sampled_from(["\ud800", "\0", "a\nb", "🦊", "שלום", "x" * 4000, "word " * 800])
examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def flat(colour: str, width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def page(columns: int, rows: int, title: str = "", size: tuple[int, int] = (64, 64)) -> Page:
    cells = [(x, y) for y in range(rows) for x in range(columns)]
    return Page(title, {cell: Tile(flat(COLOURS[index % len(COLOURS)], *size)) for index, cell in enumerate(cells)})


def labelled(shown: Page) -> Image.Image:
    columns, rows = ["1", "4.5", "7.5"], ["11", "22", "33"]
    return draw_sheet(columns, rows, [shown], heading="a fox", details=["20 steps"], x_title="CFG scale", y_title="Seed")


LABELLED = labelled(page(3, 3))


def plan_of(x: str = "seed: 1, 2, 3", y: str = "cfg: 4, 8", z: str = "", **recipe: object) -> Plan:
    parts = {at: text.partition(": ") for at, text in {"x": x, "y": y, "z": z}.items() if text}
    lines = {at: AxisLine(axis=axis, values=values) for at, (axis, _, values) in parts.items()}
    given = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 4, **recipe}
    return plan_grid(Grid(recipe=make_recipe(**given), **lines), OFFER)


def made_of(plan: Plan, colour: Callable[[Cell], str] = lambda cell: "red", facts: Provenance = PROVENANCE) -> dict[int, Made]:
    """Pictures as if none of them could be saved."""
    images = {cell.index: Image.new("RGB", (cell.recipe.width, cell.recipe.height), colour(cell)) for cell in plan.cells}
    return {cell.index: Made(cell.recipe, facts, "0" * 64, None, images[cell.index], "no disk") for cell in plan.cells}

"""The contact sheet of a grid's plan: what its cells show, and the words around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, Place, Plan
from engine.sheets.drawing import draw_sheet
from engine.sheets.layout import MAX_PIXELS, Page, Tile, scaled
from engine.sheets.lettering import missing_scripts

TILE = 256
"""Pixels: what a smaller picture's longer side is enlarged to in a sheet, so that labels have room and small models can be seen."""

GONE = "its file is gone"


def sheet_image(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str] = {}) -> Image.Image:
    """The sheet of a grid's plan with the pictures there are; `messages` stand in cells that have none.

    Raises InvalidRequest when it has too many cells for one picture.
    """
    # Pictures that are shown smaller are kept no larger than that: hundred large ones would be more than a gigabyte.
    pixels = sum(cell.recipe.width * cell.recipe.height for cell in plan.cells)
    factor = min(1.0, math.sqrt(MAX_PIXELS / pixels))
    return draw_pages(plan, {cell.place: tile_of(cell, made, messages, factor) for cell in plan.cells}, range(plan.shape[2]), TILE)


def missing_letters(plan: Plan) -> str:
    """A sentence about what a drawn sheet shows as boxes, as no font has it; "" where there is nothing."""
    words = [*plan.titles, *(label for labels in plan.labels for label in labels), plan.heading, plan.negative_heading]
    if not (missing := missing_scripts(words)):
        return ""
    told = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
    return f"The sheet's words need letters ({told}) that no font on this machine has, and are boxes there: install one, such as Noto Sans."


def draw_pages(plan: Plan, tiles: Mapping[Place, Tile], pages: Iterable[int], tile: int) -> Image.Image:
    """The sheet of those pages (indexes of Z), with the tiles that cells have by their places."""
    columns, rows, _ = plan.labels
    drawn = [Page(_page_title(plan, z), {place[:2]: one for place, one in tiles.items() if place[2] == z}) for z in pages]
    x_title, y_title, _ = plan.titles
    negative = [f"Negative prompt: {plan.negative_heading}"] if plan.negative_heading else []
    return draw_sheet(
        columns, rows, drawn, heading=plan.heading, details=[*negative, _settings(plan)], x_title=x_title, y_title=y_title, tile=tile
    )  # fmt: skip


def tile_of(cell: Cell, made: Mapping[int, Made], messages: Mapping[int, str], factor: float) -> Tile:
    """A cell as the sheet shows it; its picture is held at `factor` of its size."""
    size, one = (cell.recipe.width, cell.recipe.height), made.get(cell.index)
    if one is None:
        return Tile(None, messages.get(cell.index, ""), size)
    try:
        image = open_picture(one)
    except InvalidRequest:
        return Tile(None, GONE, size)
    if factor < 1:
        image = image.resize(scaled(image.size, factor), Image.Resampling.LANCZOS)
    return Tile(image, note_of(one), size)


def note_of(made: Made) -> str:
    """What is said of a picture in its cell: how far it came, where it was stopped."""
    facts = made.provenance
    return f"unfinished, {facts.step} of {facts.total}" if facts.unfinished else ""


def _page_title(plan: Plan, z: int) -> str:
    return f"{plan.titles[2]}: {plan.labels[2][z]}" if plan.titles[2] else ""


def _settings(plan: Plan) -> str:
    """The settings that no axis varies, in one line."""
    assert plan.grid is not None, "a sheet is of a grid"
    recipe, varied = plan.grid.recipe, {field for row in plan.axes for field in row.fields}
    told = {
        "model": recipe.model, "seed": f"seed {recipe.seed}", "steps": f"{recipe.steps} steps", "scheduler": recipe.scheduler,
        "guidance_scale": f"CFG scale {recipe.guidance_scale:g}", "width": f"width {recipe.width}", "height": f"height {recipe.height}",
    }  # fmt: skip
    told = {field: text for field, text in told.items() if field not in varied}
    if told.keys() >= {"width", "height"}:
        told |= {"width": f"{recipe.width}x{told.pop('height').removeprefix('height ')}"}
    if recipe.clip_skip > 1 and "clip_skip" not in varied:
        told["clip_skip"] = f"CLIP skip {recipe.clip_skip}"
    return ", ".join(told.values())

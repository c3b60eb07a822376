"""What a person takes away of a comparison grid: its sheet as a picture, all cells with a table of them, and the sheet developing."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.pictures.metadata import grid_texts, png_bytes
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, Place, Plan
from engine.recipes.recipe import Recipe
from engine.sheets.lettering import missing_scripts
from engine.sheets.sheet import ANIMATION_PIXELS, MAX_PIXELS, Page, Tile, animate, draw_sheet, sheet_png

Look = Callable[[Mapping[int, int]], Mapping[int, Image.Image]]
"""Gives the pictures of cells after a step of each, as Engine.frames does for a job; leaves out what is not kept."""

TILE = 256
"""Pixels: what a smaller picture's longer side is enlarged to in a sheet, so that labels have room and small models can be seen."""

FRAMES = 24
"""Of an animation, the finished pictures included: the most that is told apart in a few seconds."""

FRAME_SECONDS = 0.125

LONGEST_NAME = 120
"""Bytes of a file's name in an archive: half of what file systems take, as the folder it is unpacked to adds to Windows' 260."""

FORMULA_MARKS = tuple("=+-@\t\r\n＝＋－＠")
"""What makes a spreadsheet take a text for a formula (OWASP, "CSV Injection")."""

GONE = "its file is gone"


def sheet_image(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str] = {}) -> Image.Image:
    """The sheet of a grid's plan with the pictures there are; `messages` stand in cells that have none.

    Raises InvalidRequest when it has too many cells for one picture.
    """
    # Pictures that are shown smaller are kept no larger than that: hundred large ones would be more than a gigabyte.
    pixels = sum(cell.recipe.width * cell.recipe.height for cell in plan.cells)
    factor = min(1.0, math.sqrt(MAX_PIXELS / pixels))
    return _drawn(plan, {cell.place: _tile(cell, made, messages, factor) for cell in plan.cells}, range(plan.shape[2]), TILE)


def sheet_file(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str] = {}) -> bytes:
    """The sheet as a PNG that carries its grid. Raises InvalidRequest when it has too many cells for one picture."""
    return sheet_png(sheet_image(plan, made, messages), grid_texts(plan))


def missing_letters(plan: Plan) -> str:
    """A sentence about what a drawn sheet shows as boxes, as no font has it; "" where there is nothing."""
    words = [*plan.titles, *(label for labels in plan.labels for label in labels), plan.heading, plan.negative_heading]
    if not (missing := missing_scripts(words)):
        return ""
    told = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
    return f"The sheet's words need letters ({told}) that no font on this machine has, and are boxes there: install one, such as Noto Sans."


def animation(plan: Plan, made: Mapping[int, Made], look: Look, page: int = 0, messages: Mapping[int, str] = {}) -> bytes:
    """A page of the sheet developing, as an animated WebP: every cell at the same part of its way, up to FRAMES parts evenly
    spaced, and the pictures last. A cell whose steps are not kept shows its picture throughout.

    Raises InvalidRequest when the page has no picture.
    """
    cells = [cell for cell in plan.cells if cell.place[2] == page]
    ways = {cell.index: made[cell.index].provenance for cell in cells if cell.index in made}
    if not ways:
        raise InvalidRequest("There is no picture on this page yet: wait for its first one.")
    count = min(FRAMES, max(way.total for way in ways.values()))
    side = math.isqrt(ANIMATION_PIXELS // (count * len(cells)))
    factor = min(1.0, side / max(max(cell.recipe.width, cell.recipe.height) for cell in cells))
    tiles = {cell.index: _shrunk(_tile(cell, made, messages, factor), factor) for cell in cells}
    frames = []
    for part in range(1, count + 1):
        steps = {index: min(max(1, round(part / count * way.total)), way.step) for index, way in ways.items()}
        seen = look(steps) if part < count else {}
        shown = {cell.place: replace(tiles[cell.index], image=seen.get(cell.index, tiles[cell.index].image)) for cell in cells}
        frames.append(_drawn(plan, shown, [page], min(TILE, side)))
    return animate(frames, FRAME_SECONDS)


def cells_zip(plan: Plan, made: Mapping[int, Made], target: BinaryIO | Path, messages: Mapping[int, str] = {}) -> None:
    """Writes an archive: every picture's file as it is on disk, the sheet, the grid, and a table of all cells as CSV and JSON.

    Raises InvalidRequest when the sheet has too many cells for one picture, OSError when `target` cannot be written.
    """
    records = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # PNGs do not get smaller
        for cell in plan.cells:
            content = picture_file(made.get(cell.index))
            name = _file_name(plan, cell) if content is not None else ""
            if content is not None:
                archive.writestr(name, content)
            records.append(_record(plan, cell, made.get(cell.index), name, messages.get(cell.index, "")))
        archive.writestr("recipes.csv", _table(plan, records))
        archive.writestr("recipes.json", json.dumps(records, ensure_ascii=False, indent=1))
        archive.writestr("grid.json", json.dumps(plan.grid.model_dump(mode="json"), ensure_ascii=False, indent=1))
        archive.writestr("sheet.png", sheet_file(plan, made, messages))


def picture_file(made: Made | None) -> bytes | None:
    """A picture's file as it is on disk, or would be; None where there is none."""
    if made is None:
        return None
    if made.path is None:
        return png_bytes(open_picture(made), made.recipe, made.provenance)
    try:
        return made.path.read_bytes()
    except OSError:
        return None


def _place_name(plan: Plan, place: Place) -> str:
    """Where a cell is, counted from 1 along the axes there are: "x1-y2"."""
    return "-".join(f"{name}{at + 1}" for name, title, at in zip("xyz", plan.titles, place, strict=True) if title) or "x1"


def _drawn(plan: Plan, tiles: Mapping[Place, Tile], pages: Iterable[int], tile: int) -> Image.Image:
    columns, rows, _ = plan.labels
    drawn = [Page(_page_title(plan, z), {place[:2]: one for place, one in tiles.items() if place[2] == z}) for z in pages]
    x_title, y_title, _ = plan.titles
    negative = [f"Negative prompt: {plan.negative_heading}"] if plan.negative_heading else []
    return draw_sheet(
        columns, rows, drawn, heading=plan.heading, details=[*negative, _settings(plan)], x_title=x_title, y_title=y_title, tile=tile
    )  # fmt: skip


def _page_title(plan: Plan, z: int) -> str:
    return f"{plan.titles[2]}: {plan.labels[2][z]}" if plan.titles[2] else ""


def _settings(plan: Plan) -> str:
    """The settings that no axis varies, in one line."""
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


def _tile(cell: Cell, made: Mapping[int, Made], messages: Mapping[int, str], factor: float) -> Tile:
    """A cell as the sheet shows it; its picture is held at `factor` of its size."""
    size, one = (cell.recipe.width, cell.recipe.height), made.get(cell.index)
    if one is None:
        return Tile(None, messages.get(cell.index, ""), size)
    try:
        image = open_picture(one)
    except InvalidRequest:
        return Tile(None, GONE, size)
    if factor < 1:
        image = image.resize(_scaled(image.size, factor), Image.Resampling.LANCZOS)
    return Tile(image, _note(one), size)


def _shrunk(tile: Tile, factor: float) -> Tile:
    return replace(tile, size=_scaled(tile.size, factor))


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _note(made: Made) -> str:
    facts = made.provenance
    return f"unfinished, {facts.step} of {facts.total}" if facts.unfinished else ""


def _file_name(plan: Plan, cell: Cell) -> str:
    """A name that every file system takes: letters that have a meaning on one of them, or none at all, become spaces."""
    kept = "".join(" " if sign in '<>:"/\\|?*' or unicodedata.category(sign)[0] == "C" else sign for sign in plan.name_of(cell))
    whole = f"{_place_name(plan, cell.place)} {' '.join(kept.split())}"
    return whole.encode()[: LONGEST_NAME - len(".png")].decode("utf-8", "ignore").rstrip(" .") + ".png"


def _record(plan: Plan, cell: Cell, made: Made | None, file: str, message: str) -> dict[str, Any]:
    """All that is told of one cell."""
    note = message or "not made"
    if made is not None:
        note = _note(made) if file else GONE
    return {
        "file": file, "place": cell.place, "values": plan.values_at(cell.place), "recipe": cell.recipe.model_dump(mode="json"),
        "provenance": asdict(made.provenance) if made else None, "sha256": made.sha256 if made else "", "note": note,
    }  # fmt: skip


def _table(plan: Plan, records: Iterable[Mapping[str, Any]]) -> bytes:
    """The records as CSV: UTF-8 with a mark that says so, as spreadsheets expect it; no text is taken for a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    titles = list(plan.values_at((0, 0, 0)))
    writer.writerow([_plain(name) for name in ("file", "place", *titles, *Recipe.model_fields, "seconds", "sha256", "note")])
    for one in records:
        recipe = {**one["recipe"], "style": one["recipe"]["style"]["name"] if one["recipe"]["style"] else ""}
        seconds = one["provenance"]["seconds"] if one["provenance"] else ""
        row = (one["file"], _place_name(plan, one["place"]), *one["values"].values(), *recipe.values(), seconds, one["sha256"], one["note"])
        writer.writerow([_plain(value) for value in row])
    return text.getvalue().encode("utf-8-sig")


def _plain(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA_MARKS) else value

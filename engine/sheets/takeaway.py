"""Files that a person takes away of a comparison grid: its sheet as a picture, and all cells with a table of them."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from engine.pictures.encoding import encoded
from engine.pictures.made import Made, Provenance
from engine.pictures.metadata import grid_texts, png_bytes, text_chunks
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, Place, Plan
from engine.recipes.recipe import Recipe
from engine.sheets.sheet import GONE, note_of, sheet_image

LONGEST_NAME = 120
"""Bytes of a file's name in an archive: half of what file systems take, as the folder it is unpacked to adds to Windows' 260."""

FORMULA_MARKS = tuple("=+-@\t\r\n＝＋－＠")
"""What makes a spreadsheet take a text for a formula (OWASP, "CSV Injection")."""


def sheet_file(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str] = {}) -> bytes:
    """The sheet as a PNG that carries its grid. Raises InvalidRequest when it has too many cells for one picture."""
    return sheet_png(sheet_image(plan, made, messages), grid_texts(plan))


def sheet_png(image: Image.Image, texts: Mapping[str, str]) -> bytes:
    """The sheet as a PNG file with those text chunks."""
    # 3 instead of 6 takes half the time for a few per cent more bytes, which counts at tens of millions of pixels.
    return encoded(image, "PNG", pnginfo=text_chunks(texts), compress_level=3)


def cells_zip(plan: Plan, made: Mapping[int, Made], target: BinaryIO | Path, messages: Mapping[int, str] = {}) -> None:
    """Writes an archive: every picture's file as it is on disk, the sheet, the grid, and a table of all cells as CSV and JSON.

    Raises InvalidRequest when the sheet has too many cells for one picture, OSError when `target` cannot be written, ValueError for a
    plan of no grid.
    """
    if plan.grid is None:
        raise ValueError("only the plan of a grid has a sheet to take away")
    records = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # PNGs do not get smaller
        for cell in plan.cells:
            content = picture_file(made.get(cell.index))
            name = _file_name(plan, cell) if content is not None else ""
            if content is not None:
                archive.writestr(name, content)
            records.append(_record(plan, cell, made.get(cell.index), name, messages.get(cell.index, "")))
        archive.writestr("recipes.csv", _table(plan, records))
        archive.writestr("recipes.json", json.dumps([one.as_json() for one in records], ensure_ascii=False, indent=1))
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


@dataclass(frozen=True)
class _Record:
    """All that is told of one cell."""

    file: str
    """Its name in the archive; "" where there is none."""
    place: Place
    values: Mapping[str, str]
    recipe: Recipe
    provenance: Provenance | None
    sha256: str
    note: str

    def as_json(self) -> dict[str, Any]:
        """As json.dumps takes it."""
        return {
            **vars(self), "recipe": self.recipe.model_dump(mode="json"),
            "provenance": asdict(self.provenance) if self.provenance else None,
        }  # fmt: skip


def _record(plan: Plan, cell: Cell, made: Made | None, file: str, message: str) -> _Record:
    values = plan.values_at(cell.place)
    if made is None:
        return _Record(file, cell.place, values, cell.recipe, None, "", message or "not made")
    return _Record(file, cell.place, values, cell.recipe, made.provenance, made.sha256, note_of(made) if file else GONE)


def _place_name(plan: Plan, place: Place) -> str:
    """Where a cell is, counted from 1 along the axes there are: "x1-y2"."""
    return "-".join(f"{name}{at + 1}" for name, title, at in zip("xyz", plan.titles, place, strict=True) if title) or "x1"


def _file_name(plan: Plan, cell: Cell) -> str:
    """A name that every file system takes: letters that have a meaning on one of them, or none at all, become spaces."""
    kept = "".join(" " if sign in '<>:"/\\|?*' or unicodedata.category(sign)[0] == "C" else sign for sign in plan.name_of(cell))
    whole = f"{_place_name(plan, cell.place)} {' '.join(kept.split())}"
    return whole.encode()[: LONGEST_NAME - len(".png")].decode("utf-8", "ignore").rstrip(" .") + ".png"


def _table(plan: Plan, records: Iterable[_Record]) -> bytes:
    """The records as CSV: UTF-8 with a mark that says so, as spreadsheets expect it; no text is taken for a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    titles = list(plan.values_at((0, 0, 0)))
    writer.writerow([_plain(name) for name in ("file", "place", *titles, *Recipe.model_fields, "seconds", "sha256", "note")])
    for one in records:
        settings = {**dict(one.recipe), "style": one.recipe.style.name if one.recipe.style else ""}
        seconds = one.provenance.seconds if one.provenance else ""
        row = (one.file, _place_name(plan, one.place), *one.values.values(), *settings.values(), seconds, one.sha256, one.note)
        writer.writerow([_plain(value) for value in row])
    return text.getvalue().encode("utf-8-sig")


def _plain(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA_MARKS) else value

"""What a picture file says of itself: A1111's infotext, which other tools read, and Darkroom's own record.

Both go into PNG text chunks: "parameters" (A1111's convention) and "darkroom" (canonical JSON, exact). A contact sheet
carries the grid it was made from, a picture its recipe.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from engine.errors import UnreadablePicture
from engine.events import Provenance
from engine.infotext import MAX_RECORD, infotext, parse_infotext
from engine.plan import Grid, Plan
from engine.recipe import Recipe

SCHEMA = 1

A1111_AXES = {
    "seed": "Seed", "cfg": "CFG Scale", "steps": "Steps", "scheduler": "Sampler", "size": "Size", "model": "Checkpoint name",
    "style": "Styles", "clip_skip": "Clip skip", "replace": "Prompt S/R",
}  # fmt: skip
"""Axis -> what A1111's script "X/Y/Z plot" calls it; the others have no like there."""


@dataclass(frozen=True)
class Found:
    """Settings read from a picture. `settings` are Recipe fields; `notes` say what could not be taken over.

    `grid` is that of a contact sheet, whose settings are those that the grid began from.
    """

    settings: dict[str, Any]
    source: str
    """ "Darkroom" or "A1111"."""
    notes: tuple[str, ...] = ()
    grid: Grid | None = None


def png_bytes(image: Image.Image, recipe: Recipe, provenance: Provenance) -> bytes:
    """The picture as a PNG file that carries its recipe and provenance."""
    texts = {"parameters": infotext(recipe, provenance), "darkroom": record(recipe, provenance)}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text_chunks(texts))
    return buffer.getvalue()


def text_chunks(texts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """What PIL.Image.save takes as `pnginfo` to write these texts; lone surrogates, which no file holds, become "?"."""
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text.encode("utf-8", "replace").decode())
    return chunks


def record(recipe: Recipe, provenance: Provenance) -> str:
    """Darkroom's own chunk: canonical JSON of the recipe and its provenance."""
    return _canonical({"schema": SCHEMA, "recipe": recipe.model_dump(mode="json"), "provenance": asdict(provenance)})


def grid_texts(plan: Plan) -> dict[str, str]:
    """What a contact sheet's PNG carries: its grid, from which it is planned again, and A1111's text of the recipe it began from.

    Raises ValueError for a plan of no grid.
    """
    if plan.grid is None:
        raise ValueError("only the plan of a grid has a grid to write down")
    plot = {"Script": "X/Y/Z plot"}
    for name in "xyz":
        line = getattr(plan.grid, name)
        if line and line.axis in A1111_AXES:
            plot |= {f"{name.upper()} Type": A1111_AXES[line.axis], f"{name.upper()} Values": line.values}
    content = {"schema": SCHEMA, "grid": plan.grid.model_dump(mode="json")}
    return {"parameters": infotext(plan.grid.recipe, more=plot), "darkroom": _canonical(content)}


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Record:
    """Darkroom's own record in a picture."""

    recipe: Recipe
    provenance: Provenance


def read_record(file: Path) -> tuple[Record, Image.Image]:
    """Darkroom's record in a picture, and the picture. Raises UnreadablePicture when it carries none, OSError when it is gone."""
    texts, image = _open_png(file)
    try:
        content = json.loads(texts["darkroom"])
        return Record(Recipe.model_validate(content["recipe"]), Provenance(**content["provenance"])), image
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnreadablePicture("This PNG carries no record of Darkroom's.") from None


def read_picture(file: Path) -> Found:
    """The settings, and a sheet's grid, in a PNG made by Darkroom or A1111. Raises UnreadablePicture with what is the matter.

    What it returns is somebody else's text: plain strings and numbers, checked by Recipe before they are used.
    """
    texts, _ = _open_png(file)
    if "darkroom" in texts:
        try:
            content = json.loads(texts["darkroom"])
            grid = Grid.model_validate(content["grid"]) if "grid" in content else None
            recipe = grid.recipe if grid else Recipe.model_validate(content["recipe"])
            return Found(dict(recipe), "Darkroom", grid=grid)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass  # damaged, or from a later version: the infotext may still do
    if "parameters" in texts:
        imported = parse_infotext(texts["parameters"])
        return Found(imported.settings, "A1111", imported.notes)
    raise UnreadablePicture("This PNG carries no settings: only pictures made by Darkroom or A1111, not edited since, do.")


def _open_png(file: Path) -> tuple[dict[str, str], Image.Image]:
    """A PNG's text chunks and pixels, which are read too, as a truncated file shows only then."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG",)) as image:
                image.load()
                return {key: value[:MAX_RECORD] for key, value in image.text.items()}, image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadablePicture("This picture is too large to be read for its settings.") from None
    except (OSError, ValueError, SyntaxError, IndexError, struct.error) as error:  # what Pillow raises on damaged chunks
        if isinstance(error, FileNotFoundError):
            raise
        if _head(file) == b"\x89PNG\r\n\x1a\n":
            raise UnreadablePicture("This PNG is damaged or was cut short: copy it again from where it came from.") from None
        raise UnreadablePicture("This file is no PNG picture, whatever its name says: drop a PNG made by Darkroom or A1111.") from None


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(8)

"""What a picture file says of itself: A1111's infotext, which other tools read, and Darkroom's own record.

Both go into PNG text chunks: "parameters" (A1111's convention) and "darkroom" (canonical JSON, exact). A contact sheet
carries the grid it was made from, a picture its recipe.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

import engine
from engine.errors import InvalidRequest, UnreadablePicture
from engine.events import Provenance
from engine.plan import Grid, Plan
from engine.recipe import Recipe, make_recipe
from engine.schedulers import scheduler_from_infotext, scheduler_row

SCHEMA = 1
MAX_RECORD = 512 * 1024
"""Characters of a text chunk that are looked at. Our own longest is a grid's: three lines of MAX_LINE = 20,000 characters, four
texts of MAX_PROMPT = 4,000 and a thousand of names are 77,000, each at most six ("\\u0001") in JSON: 462,000, and 1,000 of keys."""

A1111_AXES = {
    "seed": "Seed", "cfg": "CFG Scale", "steps": "Steps", "scheduler": "Sampler", "size": "Size", "model": "Checkpoint name",
    "style": "Styles", "clip_skip": "Clip skip", "replace": "Prompt S/R",
}  # fmt: skip
"""Axis -> what A1111's script "X/Y/Z plot" calls it; the others have no like there."""

_PAIR = re.compile(r'(?<![\w \-/])[ ]?(\w[\w \-/]{1,60}+):[ ]?("(?:\\.|[^\\"])++"|[^,]*+)(?:,|$)')
"""One "Key: value" of an infotext's last line, as A1111's own reader splits it; its keys are bounded and its
repeats possessive, so that no stranger's text takes more than linear time."""


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


def infotext(recipe: Recipe, provenance: Provenance | None = None, more: Mapping[str, str] | None = None) -> str:
    """The recipe as A1111 writes it: prompt, "Negative prompt:" line, and a last line of settings, `more` among them."""
    row = scheduler_row(recipe.scheduler)
    lines = [recipe.full_prompt.strip()]
    if recipe.full_negative_prompt.strip():
        lines.append("Negative prompt: " + recipe.full_negative_prompt.strip())
    pairs = {
        "Steps": recipe.steps,
        "Sampler": row.sampler,
        "Schedule type": row.schedule_type,
        "CFG scale": f"{recipe.guidance_scale:g}",
        "Seed": recipe.seed,
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": provenance.model_revision[:10] if provenance else None,
        "Model": recipe.model,
        "Clip skip": recipe.clip_skip if recipe.clip_skip > 1 else None,
        "RNG": "CPU",
        **(more or {}),
        "Version": f"Darkroom {engine.__version__}",
    }
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


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
        return parse_infotext(texts["parameters"])
    raise UnreadablePicture("This PNG carries no settings: only pictures made by Darkroom or A1111, not edited since, do.")


def parse_infotext(text: str) -> Found:
    """The settings in an A1111 infotext. Raises UnreadablePicture when its last line holds none."""
    *lines, last = text[:MAX_RECORD].strip().split("\n")
    pairs = {key: _unquoted(value) for key, value in _PAIR.findall(last)}
    if "Steps" not in pairs:
        raise UnreadablePicture("The text in this picture is no list of settings that A1111 writes.")
    prompt, negative, in_negative = [], [], False
    for line in lines:
        if line.startswith("Negative prompt:"):
            in_negative, line = True, line.removeprefix("Negative prompt:").strip()
        (negative if in_negative else prompt).append(line)
    settings: dict[str, Any] = {"prompt": "\n".join(prompt).strip(), "negative_prompt": "\n".join(negative).strip()}
    notes = _read_pairs(pairs, settings)
    return Found(settings, "A1111", tuple(notes))


def _read_pairs(pairs: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """Moves what Recipe knows from `pairs` into `settings`; returns a note for each that it cannot take."""
    notes = []
    raw: dict[str, Any] = {
        "steps": pairs.get("Steps"), "guidance_scale": pairs.get("CFG scale"), "seed": pairs.get("Seed"),
        "clip_skip": pairs.get("Clip skip", "1"),  # it is left out at 1, by A1111 and by us
    }  # fmt: skip
    if size := re.fullmatch(r"(\d{1,6})x(\d{1,6})", pairs.get("Size", "")):
        raw["width"], raw["height"] = size.groups()
    for field, value in raw.items():
        if value is None:
            continue
        try:
            settings[field] = getattr(make_recipe(**{field: value}), field)
        except InvalidRequest as error:
            notes.append(str(error))
    if "Sampler" in pairs:
        try:
            settings["scheduler"] = scheduler_from_infotext(pairs["Sampler"], pairs.get("Schedule type"))
        except InvalidRequest as error:
            notes.append(str(error))
    if "Model" in pairs:
        settings["model"] = pairs["Model"][:500]
    return notes


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


def _quoted(value: Any) -> str:
    """A1111's rule: JSON quotes when the value holds a comma, a colon or a line end."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        try:
            # A lone surrogate, legal in JSON, cannot be encoded for the page.
            return str(json.loads(value)).encode("utf-8", "replace").decode()
        except ValueError:
            return value
    return value.strip()


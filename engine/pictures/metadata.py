"""What a picture file says of itself: A1111's infotext, which other tools read, and Darkroom's own record.

Both go into PNG text chunks: "parameters" (A1111's convention) and "darkroom" (canonical JSON, exact). A contact sheet
carries the grid it was made from, a picture its recipe. What is read back is text alone; of pixels only `read_record` wants any.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin
from pydantic import TypeAdapter

from engine.errors import InvalidRequest, UnreadablePicture
from engine.pictures.containers import read_texts
from engine.pictures.encoding import encoded
from engine.pictures.foreign import read_foreign
from engine.pictures.infotext import Imported, infotext, parse_infotext
from engine.pictures.leftovers import stopped_note
from engine.pictures.made import Provenance
from engine.recipes.plan import Grid, Plan
from engine.recipes.recipe import Recipe, Settings, make_recipe

SCHEMA = 1
"""Of our own record. A reader takes what it knows of a later one and says so; a change that it would read wrongly is a new key."""

MOST_EXIF = 65_527
"""Bytes of EXIF data in a JPEG: its segment counts 65,535 at most, two for the count and six for the segment's name."""

_LATER = "It was made by a newer Darkroom: update this one to have all of its settings."

_NOTHING = (
    "This picture carries no settings. Darkroom, A1111 and its forks, ComfyUI, InvokeAI, SwarmUI and others write them into their "
    "files; most editors, messengers and web sites take them out."
)

_PROVENANCE = TypeAdapter(Provenance)

A1111_AXES = {
    "seed": "Seed", "cfg": "CFG Scale", "steps": "Steps", "scheduler": "Sampler", "size": "Size", "model": "Checkpoint name",
    "style": "Styles", "clip_skip": "Clip skip", "replace": "Prompt S/R",
}  # fmt: skip
"""Axis -> what A1111's script "X/Y/Z plot" calls it; the others have no like there."""


@dataclass(frozen=True)
class Found:
    """Settings read from a picture; `notes` say what could not be taken over.

    `grid` is that of a contact sheet, whose settings are those that the grid began from.
    """

    settings: Settings
    source: str
    """The tool that made it, such as "Darkroom" or "A1111"."""
    notes: tuple[str, ...] = ()
    grid: Grid | None = None
    exact: bool | None = None
    """Whether it was made in the fixed batch; None where the file does not say."""
    model_hash: str = ""
    """Of the model's file, where the text has one."""


def png_bytes(image: Image.Image, recipe: Recipe, provenance: Provenance) -> bytes:
    """The picture as a PNG file that carries its recipe and provenance."""
    texts = {"parameters": infotext(recipe, provenance), "darkroom": record(recipe, provenance)}
    return encoded(image, "PNG", pnginfo=text_chunks(texts))


def export_bytes(image: Image.Image, recipe: Recipe, provenance: Provenance, kind: str) -> bytes:
    """The picture as a smaller file, "JPEG" or "WEBP", that carries A1111's text where A1111 puts it: in the EXIF tag UserComment.

    The tag holds the character code "UNICODE" and the text in UTF-16 (Exif 2.3, 4.6.5), big-endian, as EXIF itself is here. Raises
    InvalidRequest where the text is longer than a JPEG takes.
    """
    text = infotext(recipe, provenance).encode("utf-8", "replace").decode()
    exif = Image.Exif()
    exif.endian = ">"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    content = exif.tobytes()
    if kind == "JPEG" and len(content) > MOST_EXIF:
        raise InvalidRequest("The settings are too long for a JPEG file, which holds 64 KiB of them: take PNG or WebP.")
    return encoded(image, kind, exif=content, quality=95)


def text_chunks(texts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """What PIL.Image.save takes as `pnginfo` to write these texts; lone surrogates, which no file holds, become "?".

    All but ASCII goes into iTXt, which is UTF-8: readers differ about whether tEXt is Latin-1, as its specification says.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        add = chunks.add_text if text.isascii() else chunks.add_itxt
        add(key, text.encode("utf-8", "replace").decode())
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
    try:
        content = json.loads(read_texts(file).found["darkroom"])
        found = Record(Recipe.model_validate(content["recipe"]), _PROVENANCE.validate_python(content["provenance"]))
        with Image.open(file, formats=("PNG",)) as image:
            image.load()  # a file cut short shows only then
            return found, image
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnreadablePicture("This PNG carries no record of Darkroom's.") from None
    except (OSError, SyntaxError, IndexError, struct.error, Image.DecompressionBombError) as error:  # what Pillow raises
        if isinstance(error, FileNotFoundError):
            raise
        raise UnreadablePicture("The pixels of this PNG are damaged.") from None


def read_picture(file: Path) -> Found:
    """The settings, and a sheet's grid, in a picture made by Darkroom, A1111 or a tool that `engine.pictures.foreign` knows.

    Raises UnreadablePicture with what is the matter, OSError when the file is gone.

    What it returns is somebody else's text: plain strings and numbers, checked by Recipe before they are used.
    """
    texts = read_texts(file)
    found = _read_own(texts.found) or _read_others(texts.found)
    if found is None:
        raise UnreadablePicture(texts.trouble or _NOTHING)
    return found


def _read_others(texts: Mapping[str, str]) -> Found | None:
    """What A1111 or another tool wrote. None when nothing is written; raises UnreadablePicture when it cannot be read."""
    readers: list[Callable[[Mapping[str, str]], Imported | None]] = [_read_infotext, read_foreign]
    if texts.get("parameters", "").lstrip().startswith("{"):  # JSON, though a prompt may begin so too
        readers.reverse()
    refusal = None
    for read in readers:
        try:
            if imported := read(texts):
                return Found(imported.settings, imported.tool, imported.notes, model_hash=imported.model_hash)
        except UnreadablePicture as error:
            refusal = refusal or error
    if refusal:
        raise refusal
    return None


def _read_infotext(texts: Mapping[str, str]) -> Imported | None:
    return parse_infotext(texts["parameters"]) if "parameters" in texts else None


def _read_own(texts: Mapping[str, str]) -> Found | None:
    """What our own record says. None when there is none, or it is damaged: the infotext may still do."""
    try:
        content = json.loads(texts["darkroom"])
    except (KeyError, ValueError, RecursionError):
        return None
    schema = content.get("schema") if isinstance(content, dict) else None
    later = isinstance(schema, int) and schema > SCHEMA
    try:
        grid = Grid.model_validate(content["grid"]) if "grid" in content else None
        recipe = grid.recipe if grid else Recipe.model_validate(content["recipe"])
        return Found(Settings(**dict(recipe)), "Darkroom", (*([_LATER] if later else []), *_stopped(content)), grid, _exact(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        return _read_later(content, texts) if later else None


def _exact(content: Mapping[str, Any]) -> bool | None:
    provenance = content.get("provenance")
    exact = provenance.get("exact") if isinstance(provenance, dict) else None
    return exact if isinstance(exact, bool) else None


def _stopped(content: Mapping[str, Any]) -> list[str]:
    """A note when the picture of a record was stopped on its way."""
    with suppress(KeyError, TypeError, ValueError):
        provenance = Provenance(**content["provenance"])
        if provenance.unfinished:
            return [stopped_note(f"{provenance.step:d} of {provenance.total:d}")]
    return []


def _read_later(content: Mapping[str, Any], texts: Mapping[str, str]) -> Found:
    """What is known here of a later version's record, or else of its infotext. Raises UnreadablePicture when nothing is."""
    grid = content.get("grid")
    fields = grid.get("recipe") if isinstance(grid, dict) else content.get("recipe")
    settings: dict[str, Any] = {}
    notes, unknown = (), ["the grid"] if grid else []
    for name, value in (fields if isinstance(fields, dict) else {}).items():
        try:
            settings[name] = getattr(make_recipe(**{name: value}), name)
        except (InvalidRequest, RecursionError):
            unknown.append(f"“{name[:40].encode('utf-8', 'replace').decode()}”")  # JSON may hold halves of surrogates
    if "style" in settings and "prompt" not in settings:  # words round nothing
        del settings["style"]
        unknown.append("“style”")
    if not settings:
        try:
            imported = parse_infotext(texts.get("parameters", ""))
            settings, notes = {**imported.settings}, imported.notes
        except UnreadablePicture:
            raise UnreadablePicture(f"{_LATER} Nothing else in it can be read.") from None
    missed = f"Not taken over: {', '.join(unknown[:5])}{' and more' if len(unknown) > 5 else ''}." if unknown else ""
    return Found(Settings(**settings), "Darkroom", tuple(filter(None, (_LATER, missed, *notes))))

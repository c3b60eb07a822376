"""What a contact sheet's script is told: values made of values, and their types. No engine, no disk, no gradio here.

The fields' names are those that ui/assets/*.js read. Whoever answers chooses what of these parts to tell: `live` adds where
pictures are found, `saved_page` leaves out what only its maker's machine knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NotRequired, TypedDict

from PIL import Image

from engine.pictures.infotext import infotext
from engine.pictures.made import Made
from engine.recipes.plan import Cell, Place, Plan, differences
from engine.running.events import End
from engine.running.job import Standing
from engine.sheets import ranking
from engine.sheets.labels import told_apart
from ui.sheet.view import LOSSLESS_BELOW, CellView, JobView, image_uri, png_uri

TILE = 160
"""Pixels of a developing cell's longer side."""

SPRITE = 960
"""Pixels of the longer side of all developing cells together: however many they are, a frame stays below some 250 KB."""

TOLD_NOTICES = 2
"""Of a sheet's notices: a phone has room for no more, and the others say the same of other words."""

LABEL_ROOM = 36
"""Characters of a label that are surely seen over a column: three lines of the narrowest that is common."""

NOT_SAVED = "not saved"

BESIDE = (("left", (-1, 0, 0)), ("right", (1, 0, 0)), ("above", (0, -1, 0)), ("below", (0, 1, 0)), ("page before", (0, 0, -1)),
          ("next page", (0, 0, 1)))  # fmt: skip

Changes = list[tuple[str, str, str]]
"""(setting, its value in one, its value in the other) of each that differs."""


class SheetCell(TypedDict):
    """One cell of a sheet, whatever becomes of it. `size` is (width, height) in pixels."""

    index: int
    place: Place
    size: tuple[int, int]
    name: str


class Sheet(TypedDict):
    """What a sheet is made of. `labels`, `shown` (the same, short) and `titles` are of X, Y and Z."""

    labels: Sequence[Sequence[str]]
    shown: Sequence[Sequence[str]]
    titles: Sequence[str]
    cells: list[SheetCell]
    heading: str
    negative: str


class State(TypedDict):
    """How a cell stands. `src` is where its picture is found, for those who can be told; `mark` a word or two in its corner."""

    index: int
    state: str
    step: int
    total: int
    message: str
    mark: str
    src: NotRequired[str]


class Sprite(TypedDict):
    """Many pictures in one: tiles of `width` x `height` pixels, `across` in a row, of these `cells` in this order."""

    src: str
    across: int
    width: int
    height: int
    cells: list[int]


class SoFar(TypedDict):
    """How many cells the sheet has, and whether all of them have ended."""

    count: int
    done: bool


class Frame(SoFar):
    """What is new. `percent` is how much of the run is done, 0 to 100; `unknown` when nobody can tell."""

    version: int
    status: str
    notices: str
    percent: float
    unknown: bool
    cells: list[State]
    sprite: Sprite | None


class Film(TypedDict):
    """The cells of a page at one part of their ways; `whole` when all of them have come that far."""

    sprite: Sprite | None
    whole: bool


class Neighbour(TypedDict):
    """A cell beside another, and what differs in it."""

    where: str
    cell: int
    changes: Changes


class Look(TypedDict):
    """One cell, looked at closer. `src` is where its picture is found, for those who can be told."""

    file: str
    status: str
    message: str
    settings: str
    neighbours: list[Neighbour]
    src: NotRequired[str]


class Row(TypedDict):
    """One of those that are ranked. `at` is its strength, `low` to `high` where it surely is, 0 to 100 within its table."""

    name: str
    record: str
    chance: str
    at: float
    low: float
    high: float


class Table(TypedDict):
    """A ranking, best first, and what it comes to in a sentence."""

    title: str
    verdict: str
    rows: list[Row]


def sheet(plan: Plan) -> Sheet:
    """What the sheet of a grid's plan is made of."""
    cells: list[SheetCell] = [
        {"index": cell.index, "place": cell.place, "size": (cell.recipe.width, cell.recipe.height), "name": plan.name_of(cell)}
        for cell in plan.cells
    ]
    shown = [told_apart(labels, lambda label: len(label) <= LABEL_ROOM) for labels in plan.labels]
    return {
        "labels": plan.labels, "shown": shown, "titles": plan.titles, "cells": cells, "heading": plan.heading,
        "negative": plan.negative_heading,
    }  # fmt: skip


def state(cell: CellView, mark: str) -> State:
    """How a cell stands, without its picture. The mark is the asker's choice among `how_far`, `from_disk` and `not_saved`."""
    return {"index": cell.index, "state": cell.state, "step": cell.step, "total": cell.total, "message": cell.message, "mark": mark}


def how_far(cell: CellView) -> str:
    """How far a stopped cell came; "" for any other."""
    if cell.state != "stopped":
        return ""
    return f"{cell.step}/{cell.total}" if cell.step else "not begun"


def from_disk(cell: CellView) -> str:
    """That its picture had been made before; "" where it was made now."""
    return "from disk" if cell.reused else ""


def not_saved(cell: CellView) -> str:
    """That its picture could not be written; "" where it was, or where there is none."""
    return NOT_SAVED if cell.made is not None and cell.made.path is None else ""


def so_far(standing: Standing) -> SoFar:
    """All that there is to tell when nothing has happened."""
    # Of this standing, not of the job: its last cell may end meanwhile, and nobody asks again after "done".
    ended = sum(isinstance(event, End) for event in standing.cells.values())
    return {"count": len(standing.plan.cells), "done": ended == len(standing.plan.cells)}


def frame(standing: Standing, view: JobView, states: list[State], shown: Sprite | None, notices: int = TOLD_NOTICES) -> Frame:
    """What is new, with those cells' states and a picture of those that develop; so many `notices` are told in full."""
    run = this_run(standing, view)
    return {
        **so_far(standing), "version": standing.version, "status": run.status, "notices": _notices(view.notices, notices),
        "percent": round(100 * run.part, 1), "unknown": bool(view.loading) and view.loaded_part < 0, "cells": states, "sprite": shown,
    }  # fmt: skip


def this_run(standing: Standing, view: JobView) -> JobView:
    """The run that is going on, or was the last: of a sheet that has grown, the cells added last."""
    if not standing.earlier or len(standing.earlier) == len(view.cells):
        return view
    return replace(view, cells=tuple(cell for cell in view.cells if cell.index not in standing.earlier), noun="new pictures")


def on_page(standing: Standing, view: JobView, page: int) -> list[CellView]:
    """The cells of one Z value."""
    return [told for cell, told in zip(standing.plan.cells, view.cells, strict=True) if cell.place[2] == page]


def developing(cells: Sequence[CellView], most: int = TILE) -> Sprite | None:
    """One picture of those cells that develop, as far as there is anything to see."""
    return sprite({cell.index: cell.preview for cell in cells if cell.preview is not None}, most)


def steps_at(cells: Sequence[CellView], at: int, longest: int) -> tuple[dict[int, int], bool]:
    """The step of each cell at one part of its way, after step `at` of the longest run, and whether all have come that far.

    A cell that has not is shown at its last step so far; one that has not begun is left out.
    """
    wanted = {cell.index: max(1, round(at / longest * cell.total)) for cell in cells if cell.total}
    there = {cell.index: min(wanted[cell.index], cell.step) for cell in cells if cell.index in wanted and cell.step}
    return there, all(cell.ended or there.get(cell.index) == wanted.get(cell.index, -1) for cell in cells)


def sprite(images: Mapping[int, Image.Image], most: int = TILE) -> Sprite | None:
    """Many pictures in one, in rows of equal tiles; None for none.

    Tiles are as large as the largest picture, up to `most` pixels of the longer side and their share of SPRITE. Small ones are without
    loss where large ones are asked for: they are seen enlarged, and JPEG's blocks with them.
    """
    if not images:
        return None
    width, height = (max(image.size[side] for image in images.values()) for side in (0, 1))
    across = math.ceil(math.sqrt(len(images)))
    scale = min(1.0, most / max(width, height), SPRITE / across / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    whole = Image.new("RGB", (across * width, math.ceil(len(images) / across) * height))
    for place, image in enumerate(images.values()):
        tile = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
        whole.paste(tile, (place % across * width, place // across * height))
    enlarged = most > TILE and width * height <= LOSSLESS_BELOW
    src = png_uri(whole) if enlarged else image_uri(whole)
    return {"src": src, "across": across, "width": width, "height": height, "cells": list(images)}


def look(plan: Plan, cell: CellView, unsaved: str) -> Look:
    """One cell: what is known of it, without its picture; `unsaved` is said of a picture that could not be written."""
    made = cell.made
    return {
        "file": (made.path.name if made.path else "picture.png") if made else "",
        "status": f"{how_made(made)}, {saved_as(made) or unsaved}" if made else "", "message": cell.message,
        "settings": infotext(cell.recipe, made.provenance if made else None), "neighbours": neighbours(plan, plan.cell(cell.index)),
    }  # fmt: skip


def how_made(made: Made) -> str:
    """How long a picture took, or how far one that was stopped came."""
    facts = made.provenance
    return f"Unfinished: step {facts.step} of {facts.total}" if facts.unfinished else f"Made in {facts.seconds:.1f} s"


def saved_as(made: Made) -> str:
    """The name of a picture's file; "" when it has none."""
    return f"saved as {made.path.name}" if made.path else ""


def neighbours(plan: Plan, cell: Cell) -> list[Neighbour]:
    """The cells beside a cell, and what differs in each."""
    places = {other.place: other for other in plan.cells}
    x, y, z = cell.place
    beside = [(where, places.get((x + across, y + down, z + pages))) for where, (across, down, pages) in BESIDE]
    return [{"where": where, "cell": one.index, "changes": differences(cell.recipe, one.recipe)} for where, one in beside if one]


def table(title: str, ranked: Sequence[ranking.Ranked], name: Callable[[Any], str]) -> Table:
    """What was ranked, best first, with the names that `name` gives."""
    low, high = min(one.low for one in ranked), max(one.high for one in ranked)
    span = max(high - low, 1e-9)

    def percent(strength: float) -> float:
        return round(100 * (strength - low) / span, 1)

    rows: list[Row] = [
        {
            "name": name(one.item), "record": f"{one.wins} : {one.losses}", "chance": f"{one.chance:.0%}",
            "at": percent(one.strength), "low": percent(one.low), "high": percent(one.high),
        }
        for one in ranked
    ]  # fmt: skip
    return {"title": title, "verdict": _verdict(ranked, name(ranked[0].item)), "rows": rows}


def _verdict(ranked: Sequence[ranking.Ranked], best: str) -> str:
    if ranking.settled(ranked):
        return f"{best} is best, with a certainty of at least {ranking.SURE:.0%}."
    if len(ranked) < 2 or ranked[0].strength - ranked[1].strength <= ranking.TIED:
        return "None of them is ahead: pick on."
    return f"{best} is ahead, but not certainly: pick on to be surer."


def _notices(texts: Sequence[str], most: int) -> str:
    """Notices in one text: each cell of a grid may have one of its own."""
    more = len(texts) - most
    return " ".join(texts[:most]) + (f" And {more} more like these." if more > 0 else "")

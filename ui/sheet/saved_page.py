"""A sheet as one HTML file that needs nothing else: the page's own scripts, and all that they would ask the server.

What is in it may come from a stranger's picture: it is JSON that no text can break out of, read by scripts that set text as
text, under a policy that runs no other script and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import differences
from engine.running.job import Job
from engine.sheets.sheet import GONE
from engine.sheets.takeaway import picture_file
from ui.sheet import answers
from ui.sheet.answers import Changes, Look, Sheet, Sprite, State
from ui.sheet.view import LOSSLESS_BELOW, CellView, data_uri, image_uri, standing_view
from ui.theme import read_asset

Frames = Callable[[Mapping[int, int]], Mapping[int, Image.Image]]
"""Gives the pictures of cells after a step of each, as Engine.frames does for a job."""

SCRIPTS = ("sheet.js", "loupe.js", "saved_page.js")
STYLES = ("saved_page.css", "sheet.css")

LONGER_SIDE = 768
"""Pixels of a picture in the page: hundred of them are some 15 MB, which can be sent by mail."""

QUALITY = 90
"""Of its JPEG: at 75 two pictures that are compared differ by their blocks too."""

FILM_FRAMES = 50
"""Of a page's film: more are not told apart on a scrubber as wide as a phone, and a frame of 100 cells takes 100 KB."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Darkroom: contact sheet</title>
<style>{style}</style>
</head>
<body>
<main class="sheet"></main>
<script type="application/json" id="held">{held}</script>
<script>{script}</script>
</body>
</html>
"""


class FilmFrame(TypedDict):
    """A page's cells after step `at` of the longest run on it."""

    at: int
    sprite: Sprite


class Held(TypedDict):
    """All that saved_page.js answers from. `sprites` and `films` are of each Z value, `looks` of each cell; `changes` too, against the
    first one. `pictures` are there once, by cell, "" for one whose file is gone."""

    sheet: Sheet
    status: str
    states: list[State]
    sprites: list[Sprite | None]
    films: list[list[FilmFrame]]
    looks: dict[int, Look]
    changes: dict[int, Changes]
    pictures: dict[int, str]


def saved_page(job: Job, frames: Frames) -> str:
    """The page of a job's sheet as it is now, with the steps that `frames` still has."""
    script, style = ("\n".join(map(read_asset, names)) for names in (SCRIPTS, STYLES))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return PAGE.format(policy=POLICY.format(script=digest), style=style, script=script, held=_json(_held(job, frames)))


def _json(content: Held) -> str:
    """JSON that can stand in a <script>: without "<" nothing in it ends the element, or begins a comment."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _held(job: Job, frames: Frames) -> Held:
    standing = job.standing()
    plan, view = standing.plan, standing_view(job, standing)
    pages = [answers.on_page(standing, view, page) for page in range(plan.shape[2])]
    pictures = {cell.index: _picture_uri(cell.made) for cell in view.cells if cell.made}
    status = answers.this_run(standing, view).status
    return {
        "sheet": answers.sheet(plan),
        "status": status if view.ended else f"{len(pictures)} of {len(plan.cells)} pictures when this page was saved",
        "states": [_state(cell, pictures) for cell in view.cells],
        "sprites": [answers.developing(cells) for cells in pages],
        "films": [_film(cells, frames) for cells in pages],
        "looks": {cell.index: answers.look(plan, cell, answers.NOT_SAVED) for cell in view.cells},
        "changes": {cell.index: differences(plan.cells[0].recipe, cell.recipe) for cell in plan.cells},
        "pictures": pictures,
    }


def _picture_uri(made: Made) -> str:
    """A picture as the page holds it, "" when its file is gone: small ones as they are, with their settings, others as JPEG."""
    try:
        image = open_picture(made)
    except InvalidRequest:
        return ""
    if image.width * image.height <= LOSSLESS_BELOW:
        content = picture_file(made)
        return data_uri(content, "png") if content else ""
    small = image.copy()
    small.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    return image_uri(small, QUALITY)


def _state(cell: CellView, pictures: Mapping[int, str]) -> State:
    """How a cell stands, without what only its maker asks: whether its picture was on the disk, and where."""
    told = answers.state(cell, answers.how_far(cell) or answers.not_saved(cell))
    return {**told, "message": GONE} if pictures.get(cell.index) == "" else told


def _film(cells: Sequence[CellView], frames: Frames) -> list[FilmFrame]:
    """A page's cells after up to FILM_FRAMES steps, evenly spaced; the last one is in the pictures."""
    longest = max((cell.total for cell in cells), default=0)
    count = min(FILM_FRAMES, longest - 1)
    places = [round(1 + part * (longest - 2) / max(count - 1, 1)) for part in range(count)]
    film = [(at, answers.sprite(frames(answers.steps_at(cells, at, longest)[0]))) for at in places]
    return [{"at": at, "sprite": sprite} for at, sprite in film if sprite]

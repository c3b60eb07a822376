"""A sheet as one HTML file that needs nothing else: the page's own scripts, and all that they would ask the server.

What is in it may come from a stranger's picture: it is JSON that no text can break out of, read by scripts that set text as
text, under a policy that runs no other script and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Plan, differences
from engine.running.job import Job
from engine.sheets.sheet import GONE
from engine.sheets.takeaway import picture_file
from ui.sheet.view import LOSSLESS_BELOW, data_uri, image_uri
from ui.theme import read_asset

Answer = dict[str, Any]
Ask = Callable[[Any], Answer]
"""From the question of a sheet's script, {"question", "key", ...}, to its answer."""

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


def saved_page(ask: Ask, job: Job) -> str:
    """The page of a job's sheet as it is now, from a LiveSheet's answers. Raises InvalidRequest when the job is not kept any more."""
    script, style = ("\n".join(map(read_asset, names)) for names in (SCRIPTS, STYLES))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return PAGE.format(policy=POLICY.format(script=digest), style=style, script=script, held=_json(_held(ask, job)))


def _json(content: Any) -> str:
    """JSON that can stand in a <script>: without "<" nothing in it ends the element, or begins a comment."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _held(ask: Ask, job: Job) -> Answer:
    """All that saved_page.js answers from. `changes` of each cell are against the first one; a picture stands there once."""

    def answered(question: str, **details: int) -> Answer:
        answer = ask({"question": question, "key": job.key, **details})
        if "error" in answer:
            raise InvalidRequest(answer["error"])
        return answer

    plan, made = job.plan, job.made()
    frames = [answered("frame", seen=-1, page=0)]
    seen = frames[0]["version"]
    frames += [answered("frame", seen=seen, page=page, turned=True) for page in range(1, plan.shape[2])]
    pictures = {index: _picture_uri(one) for index, one in made.items()}
    states = [_state(state, pictures) for state in frames[0]["cells"]]
    totals = {state["index"]: state["total"] for state in states}
    return {
        "sheet": answered("sheet"),
        "status": frames[0]["status"] if frames[0]["done"] else f"{len(made)} of {len(plan.cells)} pictures when this page was saved",
        "states": states,
        "sprites": [frame["sprite"] for frame in frames],
        "films": [_film(answered, page, _longest(plan, page, totals)) for page in range(plan.shape[2])],
        "looks": {cell.index: _look(answered("look", cell=cell.index), made.get(cell.index), pictures) for cell in plan.cells},
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


def _state(state: Answer, pictures: dict[int, str]) -> Answer:
    """A cell's state without its picture, and without what only its maker asks: whether it was on the disk, and where."""
    kept = {name: value for name, value in state.items() if name != "src"}
    kept["mark"] = kept["mark"].replace("from disk", "")
    return {**kept, "message": GONE} if pictures.get(state["index"]) == "" else kept


def _longest(plan: Plan, page: int, totals: dict[int, int]) -> int:
    """Steps of the longest run on a page, which its scrubber counts."""
    return max((totals.get(cell.index, 0) for cell in plan.cells if cell.place[2] == page), default=0)


def _film(answered: Callable[..., Answer], page: int, longest: int) -> list[Answer]:
    """The page's cells after up to FILM_FRAMES steps, evenly spaced; the last one is in the pictures."""
    count = min(FILM_FRAMES, longest - 1)
    places = [round(1 + part * (longest - 2) / max(count - 1, 1)) for part in range(count)]
    frames = [{"at": at, "sprite": answered("film", page=page, at=at, longest=longest)["sprite"]} for at in places]
    return [frame for frame in frames if frame["sprite"]]


def _look(look: Answer, made: Made | None, pictures: dict[int, str]) -> Answer:
    """What is said of a cell, without its picture and without a folder of this machine."""
    kept = {name: value for name, value in look.items() if name != "src"}
    if made is not None and made.unsaved:
        kept["status"] = kept["status"].replace(made.unsaved, "not saved")
    return kept

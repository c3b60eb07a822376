"""What the contact sheet's script asks the server while a person watches, looks back and looks closer.

The script asks for the next frame once it has drawn the last one: a slow browser or line gets fewer frames, never a
queue of them, and a sheet nobody looks at costs nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from engine.errors import EngineError, InvalidRequest
from engine.pictures.infotext import infotext
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, Plan, differences
from engine.running.engine import Engine
from engine.running.events import TERMINAL, Failed
from engine.running.job import Job
from engine.sheets import ranking
from engine.sheets.difference import compare
from engine.sheets.labels import told_apart
from engine.sheets.sheet import missing_letters
from ui.sheet import view as views
from ui.sheet.saved_page import Answer
from ui.sheet.takeaway import DRAWN, Takeaway
from ui.sheet.view import CellView, file_src, image_uri, picture_src, png_uri, thumbnail_src

TILE = 160
"""Pixels of a developing cell's longer side."""

SPRITE = 960
"""Pixels of the longer side of all developing cells together: however many they are, a frame stays below some 250 KB."""

TOLD_NOTICES = 2
"""Of a sheet's notices: a phone has room for no more, and the others say the same of other words."""

LABEL_ROOM = 36
"""Characters of a label that are surely seen over a column: three lines of the narrowest that is common."""

MAX_VOTES = 2000
"""Votes of one blind test: choix takes about half a millisecond for each."""

BESIDE = (("left", (-1, 0, 0)), ("right", (1, 0, 0)), ("above", (0, -1, 0)), ("below", (0, 1, 0)), ("page before", (0, 0, -1)),
          ("next page", (0, 0, 1)))  # fmt: skip


class LiveSheet:
    """Answers a sheet's questions. What is asked comes from a browser: anything may be in it."""

    def __init__(self, engine: Engine, takeaway: Takeaway):
        self.engine = engine
        self.takeaway = takeaway
        self._answers: Mapping[str, Callable[[Job, Answer], Answer]] = {
            "sheet": self._sheet, "frame": self._frame, "film": self._film, "look": self._look, "pair": self._pair,
            "blind": self._blind, "ranking": self._ranking, "take": self._take, "stop": self._stop,
        }  # fmt: skip

    def ask(self, asked: Any) -> Answer:
        """The answer to {"question", "key", ...}; {"error": a sentence} when there is none."""
        try:
            answer = self._answers.get(_text(asked, "question")) if isinstance(asked, dict) else None
            if answer is None:
                raise InvalidRequest("This page is of another version of Darkroom: reload it.")
            job = self.engine.job_of_key(_text(asked, "key"))
            if job is None:
                raise InvalidRequest("This sheet is not kept any more: press Compare again; its pictures are taken from the disk.")
            return answer(job, asked)
        except EngineError as error:
            return {"error": str(error)}

    def _sheet(self, job: Job, asked: Answer) -> Answer:
        """What the sheet is made of."""
        plan = job.plan
        cells = [
            {"index": cell.index, "place": cell.place, "size": [cell.recipe.width, cell.recipe.height], "name": plan.name_of(cell)}
            for cell in plan.cells
        ]
        shown = [told_apart(labels, lambda label: len(label) <= LABEL_ROOM) for labels in plan.labels]
        return {
            "labels": plan.labels, "shown": shown, "titles": plan.titles, "cells": cells, "heading": plan.heading,
            "negative": plan.negative_heading,
        }  # fmt: skip

    def _frame(self, job: Job, asked: Answer) -> Answer:
        """What has changed since the version that the script has seen, with one picture for all cells that develop.

        A page that was just `turned` to needs that picture even when nothing has changed.
        """
        standing = job.standing()
        seen, page = _whole(asked, "seen"), _whole(asked, "page")
        # Of this standing, not of the job: its last cell may end meanwhile, and nobody asks again after "done".
        ended = sum(isinstance(event, TERMINAL) for event in standing.cells.values())
        answer: Answer = {"count": len(standing.plan.cells), "done": ended == len(standing.plan.cells)}
        if standing.version == seen and not asked.get("turned"):
            return answer
        view = views.standing_view(job, standing)
        now = view
        if standing.earlier and len(standing.earlier) < len(view.cells):  # what is told is of the cells added last
            now = replace(view, cells=tuple(cell for cell in view.cells if cell.index not in standing.earlier), noun="new pictures")
        on_page = {cell.index for cell in standing.plan.cells if cell.place[2] == page}
        developing = {cell.index: cell.preview for cell in view.cells if cell.index in on_page and cell.preview is not None}
        return {
            **answer, "version": standing.version, "status": now.status, "notices": _notices(view.notices),
            "percent": round(100 * now.part, 1), "unknown": bool(view.loading) and view.loaded_part < 0,
            "cells": [_state(cell) for cell in view.cells if standing.changed.get(cell.index, -1) > seen],
            "sprite": sprite(developing),
        }  # fmt: skip

    def _film(self, job: Job, asked: Answer) -> Answer:
        """All cells of a page at one part of their way: after step `at` of the longest run, the others in proportion."""
        at, longest, page = _whole(asked, "at"), max(_whole(asked, "longest"), 1), _whole(asked, "page")
        standing = job.standing()
        cells = [cell for cell in views.standing_view(job, standing).cells if standing.plan.cell(cell.index).place[2] == page]
        wanted = {cell.index: max(1, round(at / longest * cell.total)) for cell in cells if cell.total}
        there = {cell.index: min(wanted[cell.index], cell.step) for cell in cells if cell.index in wanted and cell.step}
        whole = all(cell.ended or there.get(cell.index) == wanted.get(cell.index, -1) for cell in cells)
        return {"sprite": sprite(self.engine.frames(job, there)), "whole": whole}

    def _look(self, job: Job, asked: Answer) -> Answer:
        """One cell: its picture, its settings, and what differs from the cells beside it."""
        cell = _cell(job, asked, "cell")
        end = job.end(cell.index)
        made: Made | None = getattr(end, "made", None)
        answer: Answer = {
            "src": "", "file": "", "status": "", "message": end.message if isinstance(end, Failed) else "",
            "settings": infotext(cell.recipe, made.provenance if made else None),
            "neighbours": _neighbours(job.plan, cell),
        }  # fmt: skip
        if made is not None:
            facts = made.provenance
            progress = f"Unfinished: step {facts.step} of {facts.total}" if facts.unfinished else f"Made in {facts.seconds:.1f} s"
            saved = f"saved as {made.path.name}" if made.path else made.unsaved
            answer |= {"src": picture_src(made), "file": made.path.name if made.path else "picture.png", "status": f"{progress}, {saved}"}
        return answer

    def _pair(self, job: Job, asked: Answer) -> Answer:
        """Two cells: their pictures, how much they differ and where, and in which settings."""
        one, other = _cell(job, asked, "a"), _cell(job, asked, "b")
        made = job.made()
        if one.index not in made or other.index not in made:
            raise InvalidRequest("Only two cells that have a picture can be compared: wait until both are finished.")
        answer: Answer = {
            "a": picture_src(made[one.index]), "b": picture_src(made[other.index]),
            "changes": differences(one.recipe, other.recipe), "heat": "", "figures": "",
        }  # fmt: skip
        try:
            difference = compare(open_picture(made[one.index]), open_picture(made[other.index]))
        except InvalidRequest as error:  # of two sizes, or a file that is gone: the rest can still be seen
            return {**answer, "figures": str(error)}
        if difference.same:
            return {**answer, "figures": "The two pictures are equal in every pixel."}
        figures = f"Largest difference {difference.largest} of 255, mean {difference.mean:.2f}; {difference.part:.0%} of the pixels differ."
        return {**answer, "figures": figures, "heat": png_uri(difference.image)}

    def _blind(self, job: Job, asked: Answer) -> Answer:
        """The next two pictures to choose between, without anything that tells which they are."""
        cells = _finished(job)
        if len(cells) < 2:
            raise InvalidRequest("A blind test needs at least two finished pictures: wait for them.")
        votes, skipped = _pairs(asked, "votes", cells), _pairs(asked, "skipped", cells)
        pair = ranking.next_pair(list(cells), votes, skipped, random.Random())
        if pair is None:
            return {"pair": None}
        shown = {frozenset(one) for one in [*votes, *skipped]}
        left = math.comb(len(cells), 2) - len(shown)
        return {"pair": list(pair), "pictures": [png_uri(open_picture(cells[index])) for index in pair], "left": left}

    def _ranking(self, job: Job, asked: Answer) -> Answer:
        """The order that the votes suggest, of each axis' values and of the cells, and how sure it is."""
        plan, cells = job.plan, _finished(job)
        votes = _pairs(asked, "votes", cells)
        if not votes:
            raise InvalidRequest("Nothing was picked yet, so there is nothing to rank.")
        places = {cell.index: cell.place for cell in plan.cells}
        tables = []
        for axis, (title, labels) in enumerate(zip(plan.titles, plan.labels, strict=True)):
            if len(labels) > 1:
                ranked = ranking.rank_by({index: places[index][axis] for index in cells}, votes)
                tables.append(_table(title, ranked, lambda value, labels=labels: labels[value]))
        names = {cell.index: plan.name_of(cell) for cell in plan.cells}
        if len(tables) != 1:  # of one axis, its values are the cells
            tables.append(_table("Cells", ranking.rank(list(cells), votes), names.__getitem__))
        return {"tables": tables}

    def _take(self, job: Job, asked: Answer) -> Answer:
        """A file of the sheet, ready to be fetched."""
        kind = _text(asked, "kind")
        file = self.takeaway.write(job, kind, _whole(asked, "page"), self.ask)
        return {"url": file_src(file), "name": file.name, "notice": missing_letters(job.plan) if kind in DRAWN else ""}

    def _stop(self, job: Job, asked: Answer) -> Answer:
        wanted = asked.get("cells")
        if not isinstance(wanted, list):
            raise InvalidRequest("“cells” must be a list of cells.")
        known = {one for one in wanted if isinstance(one, int)}
        self.engine.stop(job, {cell.index for cell in job.plan.cells if cell.index in known})
        return {}


def sprite(images: Mapping[int, Image.Image]) -> Answer | None:
    """Many pictures in one, in rows of equal tiles; None for none.

    Tiles are as large as the largest picture, up to TILE and their share of SPRITE.
    """
    if not images:
        return None
    width, height = (max(image.size[side] for image in images.values()) for side in (0, 1))
    across = math.ceil(math.sqrt(len(images)))
    scale = min(1.0, TILE / max(width, height), SPRITE / across / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (across * width, math.ceil(len(images) / across) * height))
    for place, image in enumerate(images.values()):
        tile = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
        sheet.paste(tile, (place % across * width, place // across * height))
    return {"src": image_uri(sheet), "across": across, "width": width, "height": height, "cells": list(images)}


def _neighbours(plan: Plan, cell: Cell) -> list[Answer]:
    """The cells beside a cell, and what differs in each."""
    places = {other.place: other for other in plan.cells}
    x, y, z = cell.place
    beside = [(where, places.get((x + across, y + down, z + pages))) for where, (across, down, pages) in BESIDE]
    return [{"where": where, "cell": one.index, "changes": differences(cell.recipe, one.recipe)} for where, one in beside if one]


def _state(cell: CellView) -> Answer:
    state: Answer = {
        "index": cell.index, "state": cell.state, "step": cell.step, "total": cell.total, "message": cell.message, "mark": _mark(cell),
    }  # fmt: skip
    if cell.made is not None:
        try:
            state["src"] = thumbnail_src(cell.made)
        except InvalidRequest as error:
            state["message"] = str(error)
    return state


def _notices(texts: Sequence[str]) -> str:
    """Notices in one text: each cell of a grid may have one of its own."""
    more = len(texts) - TOLD_NOTICES
    return " ".join(texts[:TOLD_NOTICES]) + (f" And {more} more like these." if more > 0 else "")


def _mark(cell: CellView) -> str:
    if cell.state == "stopped":
        return f"{cell.step}/{cell.total}" if cell.step else "not begun"
    if cell.reused:
        return "from disk"
    return "not saved" if cell.made is not None and cell.made.path is None else ""


def _table(title: str, ranked: Sequence[ranking.Ranked], name: Callable[[Any], str]) -> Answer:
    low, high = min(one.low for one in ranked), max(one.high for one in ranked)
    span = max(high - low, 1e-9)

    def percent(strength: float) -> float:
        return round(100 * (strength - low) / span, 1)

    rows = [
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


def _finished(job: Job) -> dict[int, Made]:
    return {index: made for index, made in sorted(job.made().items()) if not made.provenance.unfinished}


def _text(asked: Answer, name: str) -> str:
    value = asked.get(name)
    return value if isinstance(value, str) else ""


def _whole(asked: Answer, name: str) -> int:
    value = asked.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1_000_000:
        raise InvalidRequest(f"“{name}” must be a whole number.")
    return value


def _cell(job: Job, asked: Answer, name: str) -> Cell:
    return job.plan.cell(_whole(asked, name))


def _pairs(asked: Answer, name: str, cells: Mapping[int, Made]) -> list[tuple[int, int]]:
    """Pairs of finished cells, as a list of lists from the browser."""
    given = asked.get(name)
    if not isinstance(given, list) or len(given) > MAX_VOTES:
        raise InvalidRequest(f"A blind test takes up to {MAX_VOTES:,} votes.")
    pairs = [(one[0], one[1]) for one in given if isinstance(one, list) and len(one) == 2 and one[0] != one[1]]
    if len(pairs) != len(given) or not all(isinstance(index, int) and index in cells for one in pairs for index in one):
        raise InvalidRequest("These votes are not of this sheet: begin the blind test anew.")
    return pairs

"""What the contact sheet's script asks the server while a person watches, looks back and looks closer.

The script asks for the next frame once it has drawn the last one: a slow browser or line gets fewer frames, never a
queue of them, and a sheet nobody looks at costs nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import TypedDict

from engine.errors import EngineError, InvalidRequest
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, differences
from engine.running.engine import Engine
from engine.running.job import Job
from engine.sheets import ranking
from engine.sheets.difference import compare
from engine.sheets.sheet import missing_letters
from ui.sheet import answers
from ui.sheet.answers import Changes, Film, Frame, Look, Sheet, SoFar, State, Table
from ui.sheet.takeaway import DRAWN, Takeaway
from ui.sheet.view import CellView, file_src, picture_src, png_uri, standing_view, thumbnail_src

MAX_VOTES = 2000
"""Votes of one blind test: choix takes about half a millisecond for each."""

Asked = Mapping[str, object]
"""A question as it came from a browser: anything may be in it."""


class Refusal(TypedDict):
    """Why there is no answer, in a sentence."""

    error: str


class Pair(TypedDict):
    """Two pictures and what differs: `heat` shows where, "" where they cannot be compared or are equal."""

    a: str
    b: str
    changes: Changes
    heat: str
    figures: str


class Blind(TypedDict):
    """Two pictures to choose between; `left` pairs have not been shown yet, these two among them."""

    pair: list[int]
    pictures: list[str]
    left: int


class NoPair(TypedDict):
    """Every pair has been shown."""

    pair: None


class Ranking(TypedDict):
    """What the votes say, a table for each axis."""

    tables: list[Table]


class File(TypedDict):
    """Where a file of the sheet is fetched; `notice` is a sentence about it, or ""."""

    url: str
    name: str
    notice: str


class Heard(TypedDict):
    """What was asked for is done, and there is nothing to say."""


Answer = Sheet | SoFar | Frame | Film | Look | Pair | Blind | NoPair | Ranking | File | Heard | Refusal


class LiveSheet:
    """Answers a sheet's questions."""

    def __init__(self, engine: Engine, takeaway: Takeaway):
        self.engine = engine
        self.takeaway = takeaway
        self._answers: Mapping[str, Callable[[Job, Asked], Answer]] = {
            "sheet": self._sheet, "frame": self._frame, "film": self._film, "look": self._look, "pair": self._pair,
            "blind": self._blind, "ranking": self._ranking, "take": self._take, "stop": self._stop,
        }  # fmt: skip

    def ask(self, asked: object) -> Answer:
        """The answer to {"question", "key", ...}; {"error": a sentence} when there is none."""
        try:
            question: Asked = asked if isinstance(asked, dict) else {}
            answer = self._answers.get(_text(question, "question"))
            if answer is None:
                raise InvalidRequest("This page is of another version of Darkroom: reload it.")
            job = self.engine.job_of_key(_text(question, "key"))
            if job is None:
                raise InvalidRequest("This sheet is not kept any more: press Compare again; its pictures are taken from the disk.")
            return answer(job, question)
        except EngineError as error:
            return {"error": str(error)}

    def _sheet(self, job: Job, asked: Asked) -> Sheet:
        return answers.sheet(job.plan)

    def _frame(self, job: Job, asked: Asked) -> SoFar | Frame:
        """What has changed since the version that the script has seen, with one picture for all cells that develop.

        A page that was just `turned` to needs that picture even when nothing has changed. With `large`, pictures come as large as
        they are, as far as a frame of all of them stays small.
        """
        standing, large = job.standing(), bool(asked.get("large"))
        seen, page = _whole(asked, "seen"), _whole(asked, "page")
        if standing.version == seen and not asked.get("turned"):
            return answers.so_far(standing)
        view = standing_view(job, standing)
        states = [_state(cell, large) for cell in view.cells if standing.changed.get(cell.index, -1) > seen]
        cells = answers.on_page(standing, view, page)
        if large:
            return answers.frame(standing, view, states, answers.developing(cells, answers.SPRITE), len(view.notices))
        return answers.frame(standing, view, states, answers.developing(cells))

    def _film(self, job: Job, asked: Asked) -> Film:
        """All cells of a page at one part of their way: after step `at` of the longest run, the others in proportion."""
        at, longest, page = _whole(asked, "at"), max(_whole(asked, "longest"), 1), _whole(asked, "page")
        standing = job.standing()
        steps, whole = answers.steps_at(answers.on_page(standing, standing_view(job, standing), page), at, longest)
        return {"sprite": answers.sprite(self.engine.frames(job, steps)), "whole": whole}

    def _look(self, job: Job, asked: Asked) -> Look:
        """One cell: its picture, its settings, and what differs from the cells beside it."""
        standing = job.standing()
        index = standing.plan.cell(_whole(asked, "cell")).index
        [cell] = [one for one in standing_view(job, standing).cells if one.index == index]
        told = answers.look(standing.plan, cell, cell.made.unsaved if cell.made else "")
        told["src"] = picture_src(cell.made) if cell.made else ""
        return told

    def _pair(self, job: Job, asked: Asked) -> Pair:
        """Two cells: their pictures, how much they differ and where, and in which settings."""
        one, other = _cell(job, asked, "a"), _cell(job, asked, "b")
        made = job.made()
        if one.index not in made or other.index not in made:
            raise InvalidRequest("Only two cells that have a picture can be compared: wait until both are finished.")
        answer: Pair = {
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

    def _blind(self, job: Job, asked: Asked) -> Blind | NoPair:
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

    def _ranking(self, job: Job, asked: Asked) -> Ranking:
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
                tables.append(answers.table(title, ranked, lambda value, labels=labels: labels[value]))
        names = {cell.index: plan.name_of(cell) for cell in plan.cells}
        if len(tables) != 1:  # of one axis, its values are the cells
            tables.append(answers.table("Cells", ranking.rank(list(cells), votes), names.__getitem__))
        return {"tables": tables}

    def _take(self, job: Job, asked: Asked) -> File:
        """A file of the sheet, ready to be fetched."""
        kind = _text(asked, "kind")
        file = self.takeaway.write(job, kind, _whole(asked, "page"))
        return {"url": file_src(file), "name": file.name, "notice": missing_letters(job.plan) if kind in DRAWN else ""}

    def _stop(self, job: Job, asked: Asked) -> Heard:
        wanted = asked.get("cells")
        if not isinstance(wanted, list):
            raise InvalidRequest("“cells” must be a list of cells.")
        known = {one for one in wanted if isinstance(one, int)}
        self.engine.stop(job, {cell.index for cell in job.plan.cells if cell.index in known})
        return {}


def _state(cell: CellView, large: bool = False) -> State:
    """How a cell stands, with the thumbnail of its picture, or the picture itself."""
    told = answers.state(cell, answers.how_far(cell) or answers.from_disk(cell) or answers.not_saved(cell))
    if cell.made is not None:
        try:
            told["src"] = picture_src(cell.made) if large else thumbnail_src(cell.made)
        except InvalidRequest as error:
            told["message"] = str(error)
    return told


def _finished(job: Job) -> dict[int, Made]:
    return {index: made for index, made in sorted(job.made().items()) if not made.provenance.unfinished}


def _text(asked: Asked, name: str) -> str:
    value = asked.get(name)
    return value if isinstance(value, str) else ""


def _whole(asked: Asked, name: str) -> int:
    value = asked.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1_000_000:
        raise InvalidRequest(f"“{name}” must be a whole number.")
    return value


def _cell(job: Job, asked: Asked, name: str) -> Cell:
    return job.plan.cell(_whole(asked, name))


def _pairs(asked: Asked, name: str, cells: Mapping[int, Made]) -> list[tuple[int, int]]:
    """Pairs of finished cells, as a list of lists from the browser."""
    given = asked.get(name)
    if not isinstance(given, list) or len(given) > MAX_VOTES:
        raise InvalidRequest(f"A blind test takes up to {MAX_VOTES:,} votes.")
    pairs = [(one[0], one[1]) for one in given if isinstance(one, list) and len(one) == 2 and one[0] != one[1]]
    if len(pairs) != len(given) or not all(isinstance(index, int) and index in cells for one in pairs for index in one):
        raise InvalidRequest("These votes are not of this sheet: begin the blind test anew.")
    return pairs

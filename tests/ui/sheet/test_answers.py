"""What a sheet's script is told, part by part: values in, values out, no engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from engine.pictures.infotext import infotext
from engine.pictures.made import Made, Provenance
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.events import Cancelled, Event, Failed, Finished, Notice, Preview
from engine.running.job import Job, Standing
from tests.ui.data_uri import picture_of
from ui.sheet import answers
from ui.sheet.view import CellView, JobView, standing_view

SMALL = Image.new("RGB", (16, 8), (200, 30, 60))


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"prompt": "an owl", "seed": 7, "steps": 4, "width": 64, "height": 32, **changes})


def made(step: int = 4, *, path: Path | None = Path("owl.png"), seconds: float = 1.25, unsaved: str = "") -> Made:
    provenance = Provenance("revision", "cpu", "float32", 1, False, step, 4, seconds)
    return Made(recipe(), provenance, "digest", path, None if path else SMALL, unsaved)


UNSAVED = made(path=None, unsaved="The picture could not be saved in somebody's folder.")


def plan_of(x: int, y: int = 1, z: int = 1) -> Plan:
    """A grid whose seed grows with its places."""
    places = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
    labels = [tuple(map(str, range(count))) for count in (x, y, z)]
    cells = tuple(Cell(index, recipe(seed=index), place) for index, place in enumerate(places))
    return Plan(cells, labels=(labels[0], labels[1], labels[2]), titles=("Seed", "Steps", "CFG scale"))


def after(plan: Plan, events: Iterable[Event] = ()) -> tuple[Job, Standing, JobView]:
    job = Job(plan)
    for event in events:
        job.publish(event)
    standing = job.standing()
    return job, standing, standing_view(job, standing)


def cell(state: str = "finished", **facts: object) -> CellView:
    return CellView(**{"index": 0, "recipe": recipe(), "state": state, "step": 4, "total": 4, **facts})


# How a cell stands.


@pytest.mark.parametrize(
    ("one", "far", "disk", "unsaved"),
    [
        (cell(made=made()), "", "", ""),
        (cell(made=made(), reused=True), "", "from disk", ""),
        (cell(made=UNSAVED), "", "", "not saved"),
        (cell("stopped", step=2, made=made(2)), "2/4", "", ""),
        (cell("stopped", step=2, made=UNSAVED), "2/4", "", "not saved"),
        (cell("stopped", step=0, total=0), "not begun", "", ""),
        (cell("developing", step=2), "", "", ""),
        (cell("failed", message="There is no room."), "", "", ""),
    ],
)
def test_marks_are_told_apart(one, far, disk, unsaved):
    assert (answers.how_far(one), answers.from_disk(one), answers.not_saved(one)) == (far, disk, unsaved)


def test_a_state_has_the_mark_it_is_given_and_no_picture():
    told = answers.state(cell("developing", step=2, message="wait", made=made()), "a mark")
    assert told == {"index": 0, "state": "developing", "step": 2, "total": 4, "message": "wait", "mark": "a mark"}


# Frames.


def test_a_sheet_has_ended_with_its_last_cell():
    plan = plan_of(2)
    ends = [Failed(0, "There is no room."), Cancelled(1, 0, 4)]
    assert [answers.so_far(after(plan, ends[:count])[1]) for count in range(3)] == [
        {"count": 2, "done": False}, {"count": 2, "done": False}, {"count": 2, "done": True},
    ]  # fmt: skip


def test_a_frame_tells_how_much_is_done_and_what_it_is_given():
    _, standing, view = after(plan_of(2), [Finished(0, made()), Preview(1, 1, 4, SMALL, "", 0.5)])
    states, shown = [answers.state(view.cells[1], "")], answers.developing(view.cells)
    told = answers.frame(standing, view, states, shown)
    assert (told["count"], told["done"], told["percent"], told["unknown"]) == (2, False, 62.5, False)
    assert (told["version"], told["cells"], told["sprite"]) == (standing.version, states, shown)
    assert told["status"].startswith("1 of 2 pictures, step 5 of 8 · ")


@pytest.mark.parametrize(("progress", "unknown"), [(-1, True), (0.25, False)])
def test_a_load_of_which_nobody_knows_how_long_it_takes_is_told_as_such(progress, unknown):
    _, standing, view = after(plan_of(1), [Notice("Loading ...", progress=progress)])
    told = answers.frame(standing, view, [], None)
    assert (told["unknown"], told["percent"], told["status"]) == (unknown, 100 * max(progress, 0), "Loading ...")


@pytest.mark.parametrize(("count", "told"), [(0, ""), (1, "Cut 0."), (2, "Cut 0. Cut 1."), (5, "Cut 0. Cut 1. And 3 more like these.")])
def test_more_notices_than_there_is_room_for_are_counted(count, told):
    _, standing, view = after(plan_of(1), [Notice(f"Cut {number}.") for number in range(count)])
    assert answers.frame(standing, view, [], None)["notices"] == told


def test_of_a_sheet_that_has_grown_only_the_new_cells_are_the_run():
    small, large = plan_of(1), plan_of(3)
    job, standing, view = after(small, [Finished(0, made())])
    assert answers.this_run(standing, view) is view
    job.grow(large)
    standing = job.standing()
    run = answers.this_run(standing, standing_view(job, standing))
    assert ([one.index for one in run.cells], run.noun) == ([1, 2], "new pictures")


def test_a_page_has_its_own_cells():
    _, standing, view = after(plan_of(2, 1, 2), [Preview(index, 1, 4, SMALL) for index in (0, 2, 3)])
    pages = [answers.on_page(standing, view, page) for page in (0, 1, 2)]
    assert [[one.index for one in cells] for cells in pages] == [[0, 1], [2, 3], []]
    sprites = [answers.developing(cells) for cells in pages]
    assert [sprite and sprite["cells"] for sprite in sprites] == [[0], [2, 3], None]
    assert picture_of(sprites[1]["src"]).size == (32, 8)


# Looking back.


@pytest.mark.parametrize(("at", "steps"), [(1, (1, 1)), (3, (2, 3)), (8, (4, 8)), (0, (1, 1)), (-5, (1, 1)), (99, (4, 8))])
def test_cells_are_shown_at_the_same_part_of_their_ways(at, steps):
    cells = [cell(index=0, total=4, step=4), cell(index=1, total=8, step=8)]
    assert answers.steps_at(cells, at, 8) == ({0: steps[0], 1: steps[1]}, True)


def test_what_has_not_come_that_far_is_shown_where_it_is():
    cells = [cell("developing", index=0, step=1), cell("developing", index=1, step=3), cell("waiting", index=2, step=0, total=0)]
    assert answers.steps_at(cells[:2], 3, 4) == ({0: 1, 1: 3}, False)
    assert answers.steps_at(cells[1:2], 3, 4) == ({1: 3}, True)
    assert answers.steps_at(cells[2:], 3, 4) == ({}, False)
    assert answers.steps_at([cell("stopped", step=1)], 3, 4) == ({0: 1}, True), "it will come no further"


# Looking closer.


@pytest.mark.parametrize(
    ("one", "how", "saved", "status"),
    [
        (made(), "Made in 1.2 s", "saved as owl.png", "Made in 1.2 s, saved as owl.png"),
        (made(2), "Unfinished: step 2 of 4", "saved as owl.png", "Unfinished: step 2 of 4, saved as owl.png"),
        (UNSAVED, "Made in 1.2 s", "", "Made in 1.2 s, not here"),
    ],
)
def test_a_look_tells_how_a_picture_was_made_and_how_it_was_saved(one, how, saved, status):
    assert (answers.how_made(one), answers.saved_as(one)) == (how, saved)
    told = answers.look(plan_of(1), cell(made=one), "not here")
    assert told["status"] == status
    assert told["file"] == ("owl.png" if one.path else "picture.png")
    assert told["settings"] == infotext(recipe(), one.provenance)
    assert "src" not in told


def test_a_look_at_what_has_no_picture_tells_why_and_the_settings():
    told = answers.look(plan_of(1), cell("failed", message="There is no room."), "not here")
    assert told == {"file": "", "status": "", "message": "There is no room.", "settings": infotext(recipe()), "neighbours": []}


def test_neighbours_are_one_step_along_one_axis():
    plan = plan_of(3, 2, 2)
    told = answers.neighbours(plan, plan.at((1, 1, 0)))
    assert [(one["where"], plan.cell(one["cell"]).place) for one in told] == [
        ("left", (0, 1, 0)), ("right", (2, 1, 0)), ("above", (1, 0, 0)), ("next page", (1, 1, 1)),
    ]  # fmt: skip
    assert told[0]["changes"] == [("Seed", "4", "3")]


def test_all_of_a_sheet_can_be_sent_as_it_is():
    _, standing, view = after(plan_of(2), [Finished(0, made()), Preview(1, 1, 4, SMALL)])
    states = [answers.state(one, "") for one in view.cells]
    told = [
        answers.sheet(standing.plan), answers.frame(standing, view, states, answers.developing(view.cells)),
        *(answers.look(standing.plan, one, "") for one in view.cells),
    ]  # fmt: skip
    assert json.loads(json.dumps(told, allow_nan=False))[0]["cells"][1] == {
        "index": 1, "place": [1, 0, 0], "size": [64, 32], "name": "Seed 1, Steps 0, CFG scale 0",
    }  # fmt: skip

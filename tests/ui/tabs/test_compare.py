"""The Compare tab's handlers, reached as the page has wired them, over a device without a model."""

from __future__ import annotations

import re
import time
from typing import Any

import gradio as gr
import httpx
import pytest

from engine.recipes.axes import Offer
from engine.recipes.plan import AxisLine, Grid, plan_grid, plan_images
from engine.recipes.recipe import make_recipe
from engine.running.events import Finished
from engine.running.job import Job
from engine.running.speed import Estimate
from tests.fake_device import SAFETY
from tests.jobs import at_step, ends, kinds, wait_for
from tests.ui.conftest import ANN, BOB, Visit, merged
from ui.tabs.axes import NONE
from ui.tabs.compare import CompareTab, cost_line, sheet_title
from ui.tabs.controls import KEEP, RANDOM

CFG_BY_SEED = {"x": ("cfg", "2, 5"), "y": ("seed", "7, 8")}
NOTHING = (NONE, "")


@pytest.fixture
def job(ann: Visit) -> Job:
    """Two CFG scales by two seeds, finished, on Ann's page."""
    ann.compare(**CFG_BY_SEED)
    job = newest(ann)
    assert kinds(job) == ["Finished"] * 4
    return job


def newest(visit: Visit) -> Job:
    return visit.bench.engine.jobs(visit.held[visit.bench.visitor])[-1]


def sheets(visit: Visit) -> list[Job]:
    return visit.bench.engine.jobs(visit.held[visit.bench.visitor])


def cells(job: Job) -> list[tuple[float, int]]:
    return [(cell.recipe.guidance_scale, cell.recipe.seed) for cell in job.plan.cells]


def seeds(job: Job) -> list[int]:
    return sorted({cell.recipe.seed for cell in job.plan.cells})


def shown(visit: Visit) -> str:
    """The id of the job whose sheet is shown; the sheet must have been given that job's key."""
    held, grids = visit.held, visit.bench.compare
    job = visit.bench.engine.job(held[grids.shown])
    assert held[grids.sheet]["key"] == job.key
    return job.id


def frame(visit: Visit) -> dict[str, Any]:
    """All that the contact sheet's script is told of the sheet that is shown."""
    grids = visit.bench.compare
    return grids.live.ask({"question": "frame", "key": visit.held[grids.sheet]["key"], "seen": -1, "page": 0})


def admitted(device) -> list[Any]:
    return [key for key, _ in device.calls("admit")]


# Starting.


def test_one_press_is_one_job_with_a_cell_for_each_place(ann, grids, engine):
    ann.compare(**CFG_BY_SEED)
    [job] = engine.jobs(ANN)
    assert cells(job) == [(2, 7), (5, 7), (2, 8), (5, 8)]
    assert [cell.place for cell in job.plan.cells] == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
    assert {(cell.recipe.prompt, cell.recipe.steps) for cell in job.plan.cells} == {("an owl", 4)}
    assert job.plan.titles == ("CFG scale", "Seed", "")
    assert kinds(job) == ["Finished"] * 4
    assert shown(ann) == job.id
    assert ann.held[grids.earlier] == job.id


def test_a_second_sheet_says_that_the_first_goes_on(ann, grids, device):
    device.hold()
    ann.compare(**CFG_BY_SEED)
    assert "goes on" not in ann.held[grids.cost]["text"]
    ann.compare(x=("cfg", "2, 6"))
    assert "your other sheet goes on, under “Sheets of this session”" in ann.held[grids.cost]["text"]
    device.let_go()


@pytest.mark.parametrize(("together", "anew"), [(True, False), (False, True)])
def test_a_job_runs_as_it_is_wished(ann, grids, together, anew):
    ann.held |= {grids.together: together, grids.anew: anew}
    ann.compare(**CFG_BY_SEED, exact=anew, preview_method="vae", preview_every=2)
    job = newest(ann)
    assert (job.together, job.reuse, job.plan.exact) == (together, not anew, anew)
    assert (job.previews.method, job.previews.every) == ("vae", 2)
    assert kinds(job) == ["Finished"] * 4


def test_the_page_opens_with_a_grid_that_can_be_pressed_at_once(ann):
    ann.compare()
    job = newest(ann)
    assert job.plan.shape == (3, 3, 1)
    assert len(seeds(job)) == 3
    assert kinds(job) == ["Finished"] * 9


def test_three_axes_and_none(ann):
    ann.compare(x=("cfg", "2, 5"), y=("seed", "7"), z=("steps", "3, 4"))
    assert newest(ann).plan.shape == (2, 1, 2)
    ann.compare(x=NOTHING, y=NOTHING, z=NOTHING)
    assert [(cell.recipe.seed, cell.recipe.steps) for cell in newest(ann).plan.cells] == [(100, 4)]


@pytest.mark.parametrize("mode", [RANDOM, KEEP])
def test_the_seed_of_the_grid_is_filled_in(ann, bench, mode):
    ann.compare(x=("cfg", "2, 5"), y=NOTHING, seed_mode=mode)
    job = newest(ann)
    assert ann.held[bench.controls.fields["seed"]] == job.plan.grid.recipe.seed
    assert seeds(job) == [job.plan.grid.recipe.seed]
    assert (job.plan.grid.recipe.seed == 100) == (mode == KEEP)


def test_a_new_visitor_gets_a_name(ann, bench, engine):
    ann.held[bench.visitor] = ""
    ann.compare(**CFG_BY_SEED)
    name = ann.held[bench.visitor]
    assert re.fullmatch(r"[0-9a-f]{32}", name)
    assert len(engine.jobs(name)) == 1
    assert shown(ann) == newest(ann).id


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": ("cfg", "high")}, "CFG scale cannot read “high”: write numbers like 3, 5-9 (+2), 1-10 [4]."),
        ({"x": ("cfg", "")}, "CFG scale needs at least one value"),
        ({"x": NOTHING, "y": ("", "5")}, "Y has values but varies nothing: choose what it varies, or empty its values."),
        ({"y": ("cfg", "7")}, "CFG scale is on two axes: keep one of them."),
        ({"x": ("seed", "0-99"), "y": ("cfg", "2, 3")}, "100 x 2 = 200 cells are more than the 100 allowed here"),
        ({"x": ("scheduler", "Eulre")}, "there is no “Eulre” here; did you mean"),
        ({"x": ("replace", "cat, dog")}, "“cat” stands neither in the prompt “an owl”"),
        ({"x": ("prompt", "x" * 20_001)}, "The values of X have 20,001 characters; at most 20,000 are read"),
        ({"x": ("moon", "1")}, "There is no axis “moon”"),
        ({"width": 500}, "Width must be a multiple of 8: try 496 or 504"),
        ({"steps": 151}, "Steps must be at most 150 here; it was 151."),
    ],
)
def test_what_is_wrong_is_said_in_the_line_below_and_nothing_starts(ann, grids, engine, device, changed, sentence):
    ann.set(**CFG_BY_SEED)
    answer = ann.compare(**changed)
    assert sentence in ann.cost[0]
    assert ann.cost[1] == "warning"
    assert answer.keys() == {grids.cost, grids.visitor}
    ann.fill(grids.anew, False)
    assert sentence in ann.cost[0], "the estimate says the same"
    assert engine.jobs(ANN) == []
    assert device.history == []


def test_a_strangers_words_in_a_sentence_are_no_template(ann):
    ann.compare(x=("cfg", "${alert(1)}"))
    assert "\\${alert(1)}" in ann.cost[0]


def test_an_engine_that_closes_refuses_in_words(ann, engine):
    ann.set(**CFG_BY_SEED)
    engine.close()
    ann.compare()
    assert ann.cost == ("Darkroom is closing and takes no more requests.", "warning")


# Growing.


@pytest.mark.parametrize(("axis", "longer", "new"), [("x", "2, 5, 9", 2), ("y", "7, 8, 9, 10", 4), ("x", "9, 5, 2", 2)])
def test_one_more_value_in_a_line_grows_the_same_job_by_its_cells_only(ann, engine, device, job, axis, longer, new):
    before = dict(job.made())
    ann.compare(**{axis: (CFG_BY_SEED[axis][0], longer)})
    assert f" · {new} new · " in ann.cost[0]
    assert engine.jobs(ANN) == [job]
    assert len(job.plan.cells) == 4 + new
    assert kinds(job) == ["Finished"] * (4 + new)
    assert len(set(admitted(device))) == len(admitted(device)) == 4 + new
    assert {index: job.made()[index] for index in before} == before
    assert shown(ann) == job.id


def test_a_new_axis_with_the_value_there_was_grows_too(ann, engine, device, job):
    ann.compare(z=("steps", "4, 6"))
    assert engine.jobs(ANN) == [job]
    assert kinds(job) == ["Finished"] * 8
    assert len(admitted(device)) == 8


def test_a_grid_grows_while_it_runs(ann, engine, device):
    device.hold()
    ann.compare(**CFG_BY_SEED)
    job = newest(ann)
    device.let(2)
    wait_for(job, at_step(2))
    ann.compare(x=("cfg", "2, 5, 9"))
    device.let_go()
    assert engine.jobs(ANN) == [job]
    assert kinds(job) == ["Finished"] * 6
    assert len(admitted(device)) == 6


def test_what_was_left_to_chance_stays_as_it_fell_while_the_rest_grows(ann, engine, device):
    ann.compare(x=("cfg", "2, 5"), y=("seed", "3 random seeds"), seed_mode=RANDOM)
    job = newest(ann)
    ends(job)
    drawn = seeds(job)
    ann.compare(x=("cfg", "2, 5, 9"))
    ann.compare(x=("cfg", "2, 5, 9, 12"))
    assert engine.jobs(ANN) == [job]
    assert seeds(job) == drawn
    assert kinds(job) == ["Finished"] * 12
    assert len(admitted(device)) == 12


def test_a_random_base_seed_stays_while_the_grid_grows(ann, engine, device, bench):
    ann.compare(x=("cfg", "2, 5"), y=NOTHING, seed_mode=RANDOM)
    job = newest(ann)
    ends(job)
    [seed] = seeds(job)
    ann.compare(x=("cfg", "2, 5, 9"))
    assert engine.jobs(ANN) == [job]
    assert seeds(job) == [seed] == [ann.held[bench.controls.fields["seed"]]]
    assert kinds(job) == ["Finished"] * 3


@pytest.mark.parametrize(("lines", "count"), [({"y": ("seed", "3 random seeds")}, 3), ({"y": NOTHING, "seed_mode": RANDOM}, 1)])
def test_chance_is_asked_again_when_nothing_has_changed(ann, engine, device, lines, count):
    for _ in range(2):
        ann.compare(x=("cfg", "2, 5"), **lines)
        ends(newest(ann))
    first, second = engine.jobs(ANN)
    assert not set(seeds(first)) & set(seeds(second))
    assert len(admitted(device)) == 2 * 2 * count
    assert shown(ann) == second.id


def test_another_line_of_chance_draws_anew(ann, engine):
    ann.compare(x=("cfg", "2, 5"), y=("seed", "2 random seeds"))
    ann.compare(y=("seed", "3 random seeds"))
    first, second = engine.jobs(ANN)
    assert not set(seeds(first)) & set(seeds(second))


def test_a_fixed_grid_pressed_again_comes_from_the_disk_and_is_marked(ann, engine, device, job):
    ann.compare()
    again = newest(ann)
    assert again is not job
    assert [end.reused for end in ends(again).values()] == [True] * 4
    assert len(admitted(device)) == 4
    assert [cell["mark"] for cell in frame(ann)["cells"]] == ["from disk"] * 4
    assert {made.path for made in again.made().values()} == {made.path for made in job.made().values()}


def test_fewer_values_are_a_new_sheet_from_the_disk(ann, engine, device, job):
    ann.compare(x=("cfg", "5"))
    again = newest(ann)
    assert again is not job
    assert kinds(again) == ["Finished"] * 2
    assert len(admitted(device)) == 4


@pytest.mark.parametrize("longer", ["2, 5", "2, 5, 9"])
def test_make_every_cell_anew_makes_every_cell(ann, grids, engine, device, job, longer):
    ann.held[grids.anew] = True
    ann.compare(x=("cfg", longer))
    again = newest(ann)
    assert again is not job
    assert not any(end.reused for end in ends(again).values())
    assert len(admitted(device)) == 4 + len(again.plan.cells)


def test_an_exact_grid_is_none_that_a_fast_one_grows_to(ann, engine, job):
    ann.compare(x=("cfg", "2, 5, 9"), exact=True)
    again = newest(ann)
    assert again is not job
    assert not any(end.reused for end in ends(again).values())


def test_somebody_elses_sheet_does_not_grow(ann, bob, grids, engine, job):
    bob.held[grids.shown], bob.held[grids.asked] = job.id, ann.held[grids.asked]
    bob.compare(**CFG_BY_SEED | {"x": ("cfg", "2, 5, 9")})
    assert len(job.plan.cells) == 4
    assert len(newest(bob).plan.cells) == 6


def test_a_forgotten_sheet_is_made_anew_from_the_disk(ann, engine, device, job, monkeypatch):
    forget(engine, monkeypatch)
    ann.compare(x=("cfg", "2, 5, 9"))
    again = newest(ann)
    assert again is not job
    assert [end.reused for _, end in sorted(ends(again).items())] == [True, True, False, True, True, False]


def forget(engine, monkeypatch) -> None:
    """Has the engine forget all jobs that have ended."""
    with monkeypatch.context() as patch:
        patch.setattr("engine.running.kept.ALL_BYTES", 0)
        recipe = engine.catalog.default.recipe(steps=1)
        ends(engine.submit(plan_images(recipe, engine.catalog, engine.limits), owner="somebody"))
        ends(engine.submit(plan_images(recipe, engine.catalog, engine.limits), owner="somebody"))


# From the sheet.


@pytest.mark.parametrize(
    ("axis", "more", "line"), [("x", "9", "2, 5, 9"), ("y", "9, 10", "7, 8, 9, 10"), ("y", "9-10", "7, 8, 9, 10"), ("x", " 9 ", "2, 5, 9")]
)
def test_values_added_at_the_edge_grow_the_sheet_and_stand_in_the_line(ann, grids, engine, device, job, told, axis, more, line):
    ann.act(what="add", axis=axis, values=more)
    assert told == []
    assert engine.jobs(ANN) == [job]
    assert kinds(job) == ["Finished"] * len(job.plan.cells)
    assert len(set(admitted(device))) == len(admitted(device)) == len(job.plan.cells) > 4
    assert ann.line(axis) == (CFG_BY_SEED[axis][0], line)
    assert shown(ann) == job.id


def test_a_line_with_bars_is_added_to_with_bars(ann, told):
    ann.compare(x=("prompt", "a cat, sitting || a dog"), y=NOTHING)
    ann.act(what="add", axis="x", values="an owl, flying")
    assert told == []
    assert [cell.recipe.prompt for cell in newest(ann).plan.cells] == ["a cat, sitting", "a dog", "an owl, flying"]


@pytest.mark.parametrize(
    ("axis", "more", "sentence"),
    [
        ("x", "high", "CFG scale cannot read “high”"),
        ("x", "5", "CFG scale: “5” is named twice."),
        ("y", "100 random seeds", "more than the 100 allowed here"),
        ("x", "9" * 30_000, "characters; at most 20,000 are read"),
        ("z", "9", "This axis is not used: choose what it varies above, and press Compare."),
        ("recipe", "9", "This axis is not used"),
        ("None", "", "This axis is not used"),
    ],
)
def test_values_that_cannot_be_added_are_refused_in_words(ann, grids, job, told, axis, more, sentence):
    before = (job.plan, ann.line("x"), ann.line("y"))
    assert set(ann.act(what="add", axis=axis, values=more)) == {grids.cost}
    [(kind, message)] = told
    assert kind == "warning"
    assert sentence in message
    assert (job.plan, ann.line("x"), ann.line("y")) == before


def test_prompt_variants_are_added_to_above(ann, told):
    ann.compare(x=("variants", "a {red|green} apple"), y=NOTHING)
    job = newest(ann)
    ann.act(what="add", axis="x", values="a {red|green} pear")
    assert told == [("warning", "Values cannot be added to Prompt variants here: change them above, and press Compare.")]
    assert len(job.plan.cells) == 2


def test_after_values_were_added_chance_still_stays_as_it_fell(ann, engine):
    ann.compare(x=("cfg", "2, 5"), y=("seed", "2 random seeds"), seed_mode=RANDOM)
    job = newest(ann)
    ann.act(what="add", axis="x", values="9")
    assert ann.line("y") == ("seed", "2 random seeds")
    ann.compare(x=("cfg", ann.line("x")[1] + ", 12"))
    assert engine.jobs(ANN) == [job]
    assert job.plan.shape == (4, 2, 1)
    ann.compare()
    assert len(engine.jobs(ANN)) == 2, "and pressed again as it is, it draws anew"


def test_use_fills_the_controls_and_goes_to_generate(ann, bench, engine, job):
    index = next(cell.index for cell in job.plan.cells if (cell.recipe.guidance_scale, cell.recipe.seed) == (5, 8))
    ann.act(what="use", cell=index)
    held = {name: ann.held[component] for name, component in bench.controls.fields.items()}
    assert (held["guidance_scale"], held["seed"], held["seed_mode"], held["prompt"]) == (5, 8, KEEP, "an owl")
    assert ann.properties[bench.tabs]["selected"] == "generate"
    assert engine.jobs(ANN) == [job]


def test_zoom_proposes_a_finer_grid_and_starts_nothing(ann, bench, engine, device, job):
    index = job.plan.at((1, 1, 0)).index
    before = len(device.history)
    ann.act(what="zoom", cell=index)
    assert ann.line("x") == ("cfg", "3.5, 5, 6.5")
    assert ann.line("y") == NOTHING
    assert ann.held[bench.controls.fields["seed"]] == 8
    assert ann.properties[bench.tabs]["selected"] == "compare"
    assert engine.jobs(ANN) == [job]
    assert len(device.history) == before
    ann.compare()
    assert cells(newest(ann)) == [(3.5, 8), (5, 8), (6.5, 8)]


def test_a_ready_made_grid_is_one_click_on_an_empty_sheet(ann, grids):
    preset = next(iter(grids.presets.values()))
    ann.act(what="preset", title=preset.title)
    assert ann.line("x") == (preset.x.axis, preset.x.values)
    assert ann.held[grids.shown] == ""
    ann.act(what="preset", title="nothing of the kind")
    assert ann.line("x") == (preset.x.axis, preset.x.values)


def test_cells_that_will_fail_are_told_beforehand(ann, grids):
    ann.compare(x=("scheduler", "Euler, LCM"), y=("steps", "20, 60"))
    assert "1 cell will fail: LCM takes at most 50 steps" in ann.held[grids.cost]["text"]


def test_an_exact_grid_stays_exact_when_it_is_put_back(ann, bench, told):
    ann.compare(**CFG_BY_SEED, exact=True)
    ann.set(exact=False)
    ann.act(what="zoom", cell=0)
    assert [kind for kind, _ in told] == ["info"]
    assert ann.held[bench.controls.fields["exact"]] is True


def test_what_lies_between_no_values_cannot_be_made_finer(ann, engine, told):
    ann.compare(x=("seed", "7, 8"), y=NOTHING)
    ann.act(what="zoom", cell=0)
    [(_, message)] = told
    assert message.startswith("Nothing here can be made finer: that takes an axis of CFG scale, Steps")
    assert len(engine.jobs(ANN)) == 1


ACTS = [{"what": "use", "cell": 0}, {"what": "zoom", "cell": 0}, {"what": "add", "axis": "x", "values": "9"}]


@pytest.mark.parametrize("cell", [4, -1, 10**9, "0", None, [0], 0.5, float("nan")])
@pytest.mark.parametrize("what", ["use", "zoom"])
def test_a_cell_that_is_not_there_is_refused_in_words(ann, grids, job, told, what, cell):
    assert set(ann.act(what=what, cell=cell)) == {grids.cost}
    assert told == [("warning", "This cell is not part of the sheet any more.")]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act["what"])
def test_somebody_elses_sheet_can_neither_be_used_nor_grown(bob, grids, job, told, act):
    bob.held[grids.shown] = job.id
    assert set(bob.act(**act)) == {grids.cost}
    assert told == [("warning", "This sheet is not kept any more: press Compare again.")]
    assert len(job.plan.cells) == 4


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act["what"])
def test_a_forgotten_sheet_is_refused_in_words(ann, grids, engine, job, told, monkeypatch, act):
    forget(engine, monkeypatch)
    assert set(ann.act(**act)) == {grids.cost}
    assert told == [("warning", "This sheet is not kept any more: press Compare again.")]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act["what"])
def test_a_page_whose_session_was_forgotten_works_on(ann, grids, job, told, act):
    """gradio remembers a number of opened pages; what is shown on another is known by its visitor."""
    ann.held[grids.shown], ann.held[grids.asked] = "", None
    assert set(ann.act(**act)) != {grids.cost}
    assert [kind for kind, _ in told if kind == "warning"] == []


def test_a_page_whose_session_was_forgotten_can_stop_its_sheet(ann, grids, device):
    device.hold()
    ann.compare()
    ann.held[grids.shown] = ""
    ann.fire(grids.stop, "click")
    device.let_go()
    assert set(kinds(newest(ann))) == {"Cancelled"}


def test_a_picture_of_the_other_tab_is_no_sheet(ann, grids, tab, press, told):
    list(press())
    ann.held[grids.shown] = newest(ann).id
    ann.act(what="use", cell=0)
    assert told == [("warning", "This sheet is not kept any more: press Compare again.")]


def test_a_sentence_that_pops_up_is_no_markup(ann, job, told):
    ann.act(what="add", axis="x", values="<img src=x>")
    assert "&lt;img src=x&gt;" in told[0][1]


@pytest.mark.parametrize("running", [True, False])
def test_stop_can_be_pressed_while_the_sheet_says_it_runs(ann, grids, running):
    ann.act(what="state", running=running)
    assert ann.properties[grids.stop]["interactive"] is running


# The other buttons.


def test_swap_exchanges_x_and_y(ann, grids):
    ann.set(**CFG_BY_SEED, z=("steps", "3, 4"))
    ann.fire(grids.swap, "click")
    assert (ann.line("x"), ann.line("y"), ann.line("z")) == (("seed", "7, 8"), ("cfg", "2, 5"), ("steps", "3, 4"))


def test_a_swapped_grid_is_the_same_cells_from_the_disk(ann, grids, device, job):
    ann.fire(grids.swap, "click")
    ann.compare()
    assert sorted(cells(newest(ann))) == sorted(cells(job))
    ends(newest(ann))
    assert len(admitted(device)) == 4


def test_a_ready_made_grid_fills_the_axes_in_and_leaves_the_prompt(ann, bench, grids):
    ann.held[grids.preset] = "Schedulers x steps"
    ann.fire(grids.preset, "select")
    preset = grids.presets["Schedulers x steps"]
    assert (ann.line("x"), ann.line("y"), ann.line("z")) == (("steps", preset.x.values), ("scheduler", preset.y.values), NOTHING)
    assert ann.held[bench.controls.fields["prompt"]] == "an owl"


def test_a_ready_made_grid_may_bring_its_prompt(ann, bench, grids):
    preset = next(preset for preset in grids.presets.values() if preset.prompt)
    ann.held[grids.preset] = preset.title
    ann.fire(grids.preset, "select")
    assert ann.held[bench.controls.fields["prompt"]] == preset.prompt
    ann.fill(grids.anew, False)
    assert ann.cost[1] == "", "it can be pressed as it is"


@pytest.mark.parametrize("nothing", ["", None, "gone"])
def test_no_ready_made_grid_changes_nothing(ann, grids, nothing):
    before = [ann.line(name) for name in "xyz"]
    ann.held[grids.preset] = nothing
    ann.fire(grids.preset, "select")
    assert [ann.line(name) for name in "xyz"] == before


@pytest.mark.parametrize(("axis", "names"), [("scheduler", True), ("cfg", False), (NONE, False)])
def test_choosing_an_axis_shows_its_notation_and_its_names(ann, grids, axis, names):
    ann.fill(grids.pickers.axes["y"], axis)
    assert ann.properties[grids.pickers.names["y"]]["visible"] is names
    assert ann.properties[grids.pickers.values["y"]]["placeholder"]


def test_choosing_a_name_writes_it_into_the_line(ann, grids):
    ann.set(y=("scheduler", "Euler"))
    ann.held[grids.pickers.names["y"]] = "Heun"
    ann.fire(grids.pickers.names["y"], "input")
    assert ann.line("y") == ("scheduler", "Euler, Heun")


# Earlier sheets, and coming back.


def test_earlier_sheets_are_listed_newest_first_and_only_ones_own(ann, bob, grids, tab, press):
    list(press())
    bob.compare(**CFG_BY_SEED)
    ann.compare(**CFG_BY_SEED)
    ann.compare(x=("cfg", "3"))
    first, second = [job for job in sheets(ann) if job.plan.grid]
    choices = ann.properties[grids.earlier]["choices"]
    assert [value for _, value in choices] == ["", second.id, first.id]
    assert [title.partition(",")[0] for title, _ in choices[1:]] == ["CFG scale (1) x Seed (2)", "CFG scale (2) x Seed (2)"]
    assert ann.held[grids.earlier] == second.id


def test_an_earlier_sheet_is_shown_again_and_can_grow(ann, grids, engine, job):
    ann.compare(x=("cfg", "3"))
    ann.held[grids.earlier] = job.id
    ann.fire(grids.earlier, "select")
    assert shown(ann) == job.id
    assert Grid.model_validate(ann.held[grids.asked]) == job.plan.grid
    ann.compare(x=("cfg", "2, 5, 9"))
    assert len(job.plan.cells) == 6
    assert len(engine.jobs(ANN)) == 2


@pytest.mark.parametrize("pick", ["", None, "gone"])
def test_no_earlier_sheet_changes_nothing(ann, grids, job, pick):
    ann.held[grids.earlier] = pick
    ann.fire(grids.earlier, "select")
    assert shown(ann) == job.id


def test_somebody_elses_sheet_is_not_shown(bob, grids, job):
    bob.held[grids.earlier] = job.id
    bob.fire(grids.earlier, "select")
    assert bob.held[grids.shown] == ""
    assert bob.held[grids.sheet]["key"] == ""


def test_a_reload_finds_the_last_sheet(ann, built, bench, engine, job):
    ann.compare(x=("cfg", "3"))
    last = newest(ann)
    back = Visit(built, bench, ANN)
    back.open_page()
    assert shown(back) == last.id
    assert back.held[bench.compare.earlier] == last.id
    assert [value for _, value in back.properties[bench.compare.earlier]["choices"]] == ["", last.id, job.id]


def test_a_reload_finds_a_sheet_that_runs(ann, built, bench, device):
    device.hold()
    ann.compare(**CFG_BY_SEED)
    back = Visit(built, bench, ANN)
    back.open_page()
    assert shown(back) == newest(ann).id
    assert frame(back)["done"] is False
    device.let_go()
    ends(newest(ann))
    assert frame(back)["done"] is True


def test_after_a_reload_what_is_written_counts_and_not_what_was(built, bench, engine, job):
    back = Visit(built, bench, ANN)
    back.open_page()
    back.compare(x=("cfg", "2, 5"), y=("seed", "7, 8, 9"))
    assert engine.jobs(ANN) == [job]
    assert seeds(job) == [7, 8, 9]


def test_a_first_visit_finds_no_sheet(built, bench):
    back = Visit(built, bench, "")
    back.open_page()
    assert back.held[bench.compare.sheet]["key"] == ""
    assert [preset["title"] for preset in back.held[bench.compare.sheet]["presets"]] == list(bench.compare.presets)
    assert back.held[bench.compare.shown] == ""


@pytest.mark.parametrize("token", [None, 7, ["a" * 32], {"a": 1}])
def test_a_token_that_is_none_of_ours_finds_no_sheet(built, bench, job, token):
    back = Visit(built, bench, token)
    back.open_page()
    assert back.held[bench.compare.shown] == ""


# Stopping, and the tab beside.


def test_each_stop_stops_its_own_tab_and_its_own_visitor(ann, bob, grids, tab, press, device):
    device.hold()
    ann.compare(**CFG_BY_SEED)
    bob.compare(**CFG_BY_SEED)
    picture = press()
    next(picture)
    single = newest(ann)
    grid = sheets(ann)[0]
    ann.fire(grids.stop, "click")
    device.let()
    assert kinds(grid) == ["Cancelled"] * 4
    assert not single.done
    ann.fire(tab.stop, "click")
    device.let_go()
    assert kinds(single) == ["Cancelled"]
    assert kinds(newest(bob)) == ["Finished"] * 4
    picture.close()


def test_generates_stop_leaves_a_grid_alone(ann, tab, device):
    device.hold()
    ann.compare(**CFG_BY_SEED)
    ann.fire(tab.stop, "click")
    ann.fire(tab.finish_one, "click")
    device.let_go()
    assert kinds(newest(ann)) == ["Finished"] * 4


def test_the_strip_shows_no_cells_and_no_run_of_a_grid(ann, tab, press, device, job):
    page = merged(list(press()))
    assert len(page[tab.strip]) == 1
    update = tab._restore(ANN)
    assert [thumb["pick"] for thumb in update[tab.strip]] == [f"{newest(ann).id}:0"]
    device.hold()
    ann.compare(x=("cfg", "3"))
    assert tab.stage not in tab._restore(ANN), "nothing of this tab is under way"
    assert tab._made(BOB, f"{newest(ann).id}:0") is None, "a cell is only its own visitor's"
    assert tab._last_seed(ANN) == (100, KEEP)


# What it will cost.


def estimate(visit: Visit, grids: CompareTab, **changed: Any) -> str:
    visit.set(**changed)
    visit.fill(grids.together, visit.held[grids.together])
    text, kind = visit.cost
    assert kind == ""
    return text


def test_the_time_is_unknown_until_this_model_has_drawn(ann, grids, device):
    # 28 rows and not 32: cells of one seed share the two rows of their first step.
    line = "2 x 2 = 4 cells · 4 network calls, 28 rows · time unknown until this model has drawn here"
    assert estimate(ann, grids, **CFG_BY_SEED) == line
    assert device.history == [], "an estimate starts nothing"


def test_the_estimate_follows_every_setting_that_costs(ann, grids):
    assert estimate(ann, grids, x=("cfg", "2, 5"), y=NOTHING).startswith("2 cells · 4 network calls, 14 rows")
    assert estimate(ann, grids, x=("cfg", "1"), y=NOTHING, steps=1).startswith("1 cell · 1 network call, 1 row")
    assert estimate(ann, grids, x=("cfg", "1, 5"), y=("seed", "1-5")).startswith("2 x 5 = 10 cells · ")


def test_the_cost_in_seconds_once_the_speed_is_known(ann, grids, job):
    line = estimate(ann, grids, x=("cfg", "3, 6"))
    assert re.fullmatch(r"2 x 2 = 4 cells · 4 network calls, 28 rows · about \d\.\d s", line)


def test_what_is_on_the_disk_costs_nothing(ann, grids, job):
    assert estimate(ann, grids) == "2 x 2 = 4 cells · 4 on the disk already"
    line = estimate(ann, grids, x=("cfg", "3, 5"))
    assert line.startswith("2 x 2 = 4 cells · 2 on the disk already · 4 network calls, 16 rows · about ")
    ann.held[grids.anew] = True
    assert estimate(ann, grids).startswith("2 x 2 = 4 cells · 4 network calls")


def test_a_sheet_that_would_grow_says_by_how_much(ann, grids, engine, job):
    line = estimate(ann, grids, x=("cfg", "2, 5, 9"))
    assert line.startswith("3 x 2 = 6 cells · 2 new · 4 network calls, 16 rows · about ")
    assert len(job.plan.cells) == 4
    ann.compare()
    assert ann.cost[0] == line


def test_compare_starts_first_and_estimates_then(ann, engine, monkeypatch):
    estimate, begun = engine.estimate, []
    monkeypatch.setattr(engine, "estimate", lambda *given, **way: begun.append(len(engine.jobs(ANN))) or estimate(*given, **way))
    ann.compare(**CFG_BY_SEED)
    ann.compare(x=("cfg", "2, 5, 9"))
    ann.compare(x=("cfg", "3"))
    assert begun == [1, 1, 2], "the second press lets the first one's sheet grow"


def test_an_estimate_that_is_overtaken_says_nothing(ann, grids, engine, monkeypatch):
    """Each press of a key asks anew, and what was asked first may be answered last."""
    ann.set(**CFG_BY_SEED)
    estimate, meanwhile = engine.estimate, [lambda: ann.fill(grids.pickers.values["x"], "2, 5, 9"), lambda: ann.compare()]
    lines = []

    def overtaken(*given: Any, **way: Any) -> Estimate:
        cost = estimate(*given, **way)
        if meanwhile:
            meanwhile.pop(0)()
            lines.append(ann.cost[0])
        return cost

    monkeypatch.setattr(engine, "estimate", overtaken)
    answer = ann.fill(grids.anew, True)
    assert answer[grids.cost] == gr.skip()
    assert ann.cost[0] == lines[-1]
    assert ann.cost[0].startswith("3 x 2 = 6 cells · ")
    assert meanwhile == []


@pytest.mark.parametrize(
    ("shape", "cost", "growing", "line"),
    [
        ((2, 3), Estimate(6, 0, 40, 1280, 2.41), False, "2 x 3 = 6 cells · 40 network calls, 1,280 rows · about 2.4 s"),
        ((5,), Estimate(5, 0, 20, 40, 200.0), False, "5 cells · 20 network calls, 40 rows · about 3 min 20 s"),
        ((1,), Estimate(1, 0, 1, 1, None), False, "1 cell · 1 network call, 1 row · time unknown until this model has drawn here"),
        ((1, 1), Estimate(0, 1, 0, 0, 0.0), False, "1 x 1 = 1 cell · 1 on the disk already"),
        ((2, 2), Estimate(1, 1, 4, 8, 30), True, "2 x 2 = 4 cells · 2 new · 1 on the disk already · 4 network calls, 8 rows · about 30 s"),
    ],
)
def test_the_line_of_a_cost(grids, shape, cost, growing, line):
    assert cost_line(plan_of_shape(grids, *shape), cost, growing=growing) == (line, "")


def plan_of_shape(grids: CompareTab, *shape: int):
    axes = {name: AxisLine(axis=axis, values=f"1-{length}") for name, axis, length in zip("xy", ("cfg", "seed"), shape, strict=False)}
    return plan_grid(Grid(recipe=make_recipe(steps=4, width=64, height=64), **axes), grids.offer)


@pytest.mark.parametrize(
    ("shape", "title"),
    [((3, 2), "CFG scale (3) x Seed (2), "), ((4,), "CFG scale (4), "), ((), "1 picture, ")],
)
def test_the_title_of_a_sheet(grids, shape, title):
    job = Job(plan_of_shape(grids, *shape))
    assert sheet_title(job) == title + time.strftime("%H:%M:%S", time.localtime(job.begun))


def test_every_widget_that_changes_the_grid_changes_the_estimate(ann, bench, grids):
    for component in [*bench.controls.components, *grids.pickers.components, grids.anew, grids.together]:
        answer = ann.fill(component, ann.held[component])
        assert grids.cost in answer, component.elem_id


def test_two_visitors_estimates_do_not_meet(ann, bob, grids, job):
    assert estimate(bob, grids, x=("cfg", "3"), y=("seed", "7")).startswith("1 x 1 = 1 cell · ")
    assert bob.held[grids.shown] == ""
    assert isinstance(next(iter(ends(job).values())), Finished)
    assert [len(sheets(visit)) for visit in (ann, bob)] == [1, 0]
    assert bob.held[bob.bench.visitor] == BOB


# Over HTTP.


def test_a_sheet_is_asked_over_http_by_its_key_only(served):
    address, page, engine = served
    sheet = next(block for block in page.blocks.values() if block.elem_id == "sheet")
    recipe = engine.catalog.default.recipe(prompt="a secret", seed=7, steps=2)
    job = engine.submit(plan_grid(Grid(recipe=recipe, x=AxisLine(axis="cfg", values="2, 5")), Offer(engine.catalog, engine.limits)), ANN)
    ends(job)

    def ask(asked: Any, function: str = "ask_sheet") -> httpx.Response:
        body = {"component_id": sheet._id, "fn_name": function, "session_hash": "anybody", "data": asked}
        return httpx.post(f"{address}gradio_api/component_server", json=body, timeout=SAFETY)

    assert ask({"question": "sheet", "key": job.key}).json()["heading"] == "a secret"
    for asked in ({"question": "sheet", "key": job.id}, {"question": "sheet", "key": ""}, {"key": job.key}, None, [1], "sheet"):
        assert ask(asked).status_code == 200
        assert set(ask(asked).json()) == {"error"}
    assert ask({}, "_start").status_code == 404

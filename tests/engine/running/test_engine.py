"""Engine: who may ask for what, what is kept to look back at, and the embedded model through all of it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy
import pytest
import torch

from engine.diffusion.device import TorchDevice
from engine.errors import EngineError, InvalidRequest, ModelUnavailable, OutOfMemory, SpoiltPicture
from engine.pictures.metadata import read_picture
from engine.pictures.outputs import open_picture
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.families import classifier_free
from engine.recipes.plan import Cell, Plan, plan_images
from engine.running.engine import Engine
from engine.running.events import Failed, Finished, Notice, Preview
from engine.running.job import Job
from engine.running.packing import Packer
from engine.running.preview_options import PreviewOptions
from tests.fake_device import FakeDevice
from tests.jobs import at_step, ends, files, kinds, notices, plan_of, plan_of_models, running, wait_for
from tests.plain_packing import calls_one_by_one


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture
def engine(tmp_path, device):
    with running(tmp_path, device) as engine:
        yield engine


# Limits.


def test_an_empty_plan_is_refused(engine):
    with pytest.raises(InvalidRequest, match="the plan has no images"):
        engine.submit(Plan(()))


def test_too_many_images_are_refused(tmp_path, device):
    with running(tmp_path, device, limits=Limits(max_images=2)) as engine:
        assert kinds(engine.submit(plan_of(engine, 2))) == ["Finished"] * 2
        cell = plan_of(engine).cells[0]
        with pytest.raises(InvalidRequest, match="At most 2 images can be made at once"):
            engine.submit(Plan(tuple(Cell(i, cell.recipe) for i in range(3))))


@pytest.mark.parametrize(("changes", "sentence"), [({"steps": 20}, "Steps must be at most 10 here"), ({"width": 1024}, "too large here")])
def test_recipes_beyond_the_limits_are_refused_whoever_planned_them(tmp_path, device, changes, sentence):
    with running(tmp_path, device, limits=Limits(max_steps=10, max_pixels=128 * 128)) as engine:
        recipe = engine.catalog.default.recipe(**{"steps": 4, **changes})
        with pytest.raises(InvalidRequest, match=sentence):
            engine.submit(Plan((Cell(0, recipe),)))
    assert device.history == []


def test_an_unknown_model_is_refused(engine):
    recipe = engine.catalog.default.recipe(model="nothing like it")
    with pytest.raises(InvalidRequest, match="There is no model “nothing like it” here"):
        engine.submit(Plan((Cell(0, recipe),)))


def test_an_owner_may_not_have_too_much_waiting(tmp_path, device):
    with running(tmp_path, device, limits=Limits(max_waiting=2)) as engine:
        device.hold()
        mine = [engine.submit(plan_of(engine), owner="A") for _ in range(2)]
        with pytest.raises(InvalidRequest, match="2 requests of yours are under way"):
            engine.submit(plan_of(engine), owner="A")
        other = engine.submit(plan_of(engine), owner="B")
        device.let_go()
        assert [kinds(job) for job in (*mine, other)] == [["Finished"]] * 3
        assert kinds(engine.submit(plan_of(engine), owner="A")) == ["Finished"]


def test_the_device_is_told_who_owns_an_image(engine, device):
    named, nameless = engine.submit(plan_of(engine), owner="A"), engine.submit(plan_of(engine))
    ends(named), ends(nameless)
    assert device.calls("admit") == [((named.id, 0), "A"), ((nameless.id, 0), nameless.id)]


def test_a_job_is_found_by_its_key_and_by_nothing_else(engine):
    jobs = [engine.submit(plan_of(engine)) for _ in range(2)]
    assert [engine.job_of_key(job.key) for job in jobs] == jobs
    for key in ("", jobs[0].id, jobs[0].key[:-1], jobs[0].key + " ", "Schlüssel", "\ud800", "\0" * 10_000):
        assert engine.job_of_key(key) is None


# Reuse.


def reused(job: Job) -> list[bool]:
    return [end.reused for _, end in sorted(ends(job).items())]


def admitted(device: FakeDevice, job: Job) -> list[int]:
    """The cells of a job that were computed, in this order."""
    return [cell for (job_id, cell), _ in device.calls("admit") if job_id == job.id]


def test_what_was_made_before_is_taken_from_the_disk(engine, device):
    first = engine.submit(plan_of(engine, 3), owner="A")
    made = ends(first)
    second = engine.submit(plan_of(engine, 3), owner="B", reuse=True)
    assert (reused(first), reused(second)) == ([False] * 3, [True] * 3)
    assert admitted(device, second) == []
    assert [end.made for _, end in sorted(ends(second).items())] == [made[cell].made for cell in range(3)]
    assert all(Preview not in map(type, events) for events in [list(second.events())])
    assert len(files(engine)) == 3


def test_only_what_is_missing_is_computed(engine, device):
    ends(engine.submit(plan_of(engine, 2)))
    job = engine.submit(plan_of(engine, 4, seed=99), reuse=True)
    assert reused(job) == [False, True, True, False]
    assert admitted(device, job) == [0, 3]


def test_pictures_are_found_again_after_a_restart(tmp_path, device):
    with running(tmp_path, device) as engine:
        ends(engine.submit(plan_of(engine, 2)))
    later = FakeDevice()
    with running(tmp_path, later) as engine:
        assert reused(engine.submit(plan_of(engine, 2), reuse=True)) == [True] * 2
    assert later.calls("admit") == []


def test_without_reuse_everything_is_made_anew(engine, device):
    ends(engine.submit(plan_of(engine, 2)))
    job = engine.submit(plan_of(engine, 2))
    assert (reused(job), admitted(device, job)) == ([False] * 2, [0, 1])
    assert len(files(engine)) == 4


def test_an_exact_picture_is_not_a_fast_one(engine):
    ends(engine.submit(plan_of(engine)))
    exact = Plan(plan_of(engine).cells, exact=True)
    assert [reused(engine.submit(exact, reuse=True)) for _ in range(2)] == [[False], [True]]


def test_noise_that_is_given_is_neither_found_nor_remembered(engine, device):
    noise = {0: numpy.ones((4, 8, 8), numpy.float32)}
    given = [engine.submit(plan_of(engine), latents=noise, reuse=True) for _ in range(2)]
    drawn = engine.submit(plan_of(engine), reuse=True)
    again = engine.submit(plan_of(engine), latents=noise, reuse=True)
    assert [reused(job) for job in (*given, drawn, again)] == [[False]] * 4
    assert ends(drawn)[0].made.sha256 != ends(again)[0].made.sha256 == ends(given[0])[0].made.sha256


def test_a_file_that_was_changed_is_made_anew(engine, device):
    ends(engine.submit(plan_of(engine, 2)))
    files(engine)[0].write_bytes(b"mine now")
    job = engine.submit(plan_of(engine, 2), reuse=True)
    assert sorted(reused(job)) == [False, True]
    assert reused(engine.submit(plan_of(engine, 2), reuse=True)) == [True] * 2


def test_stopped_and_failed_pictures_are_made_anew(engine, device):
    device.black = {101}
    device.hold()
    job = engine.submit(plan_of(engine, 2, steps=3))
    device.let()
    wait_for(job, at_step(1, cell=1))
    engine.stop(job, {0})
    device.let_go()
    assert kinds(job) == ["Cancelled", "Failed"]
    device.black = set()
    assert reused(engine.submit(plan_of(engine, 2, steps=3), reuse=True)) == [False] * 2


# Extending.


def test_an_extension_computes_the_new_cells_only(engine, device):
    job = engine.submit(plan_of(engine, 2))
    before = ends(job)
    engine.extend(job, plan_of(engine, 5))
    after = ends(job)
    assert admitted(device, job) == [0, 1, 2, 3, 4]
    assert {cell: after[cell] for cell in before} == before
    assert kinds(job) == ["Finished"] * 5
    assert [after[cell].made.recipe.seed for cell in range(5)] == [100, 101, 102, 103, 104]
    assert len(files(engine)) == 5


def test_a_running_job_is_extended(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 2, steps=4))
    watcher = job.watch()
    device.let(2)
    wait_for(job, at_step(2, cell=1))
    engine.extend(job, plan_of(engine, 3, steps=4))
    device.let_go()
    assert kinds(job) == ["Finished"] * 3
    assert admitted(device, job) == [0, 1, 2]
    assert [event.cell for event in watcher.take() if isinstance(event, Finished)] == [0, 1, 2]
    assert watcher.ended


def test_cells_that_an_extension_adds_can_be_stopped_and_looked_at(engine, device):
    job = engine.submit(plan_of(engine))
    ends(job)
    device.hold()
    engine.extend(job, plan_of(engine, 3))
    device.let()
    wait_for(job, at_step(1, cell=2))
    engine.stop(job, {2})
    device.let_go()
    assert kinds(job) == ["Finished", "Finished", "Cancelled"]
    assert engine.frames(job, {0: 4, 1: 4, 2: 1}).keys() == {0, 1, 2}


def test_an_extension_reuses_when_its_job_does(engine, device):
    ends(engine.submit(plan_of(engine, 3)))
    jobs = [engine.submit(plan_of(engine), reuse=reuse) for reuse in (True, False)]
    for job in jobs:
        ends(job)
        engine.extend(job, plan_of(engine, 3))
    assert [reused(job) for job in jobs] == [[True] * 3, [False] * 3]


def test_an_extension_by_nothing_leaves_a_job_ended(engine, device):
    job = engine.submit(plan_of(engine, 2))
    ends(job)
    engine.extend(job, plan_of(engine, 2))
    assert job.done
    assert admitted(device, job) == [0, 1]


def test_a_forgotten_job_is_not_extended(engine, device, monkeypatch):
    monkeypatch.setattr("engine.running.kept.ALL_BYTES", 0)
    job = engine.submit(plan_of(engine), reuse=True)
    ends(job)
    other = engine.submit(plan_of(engine, seed=7))
    with pytest.raises(InvalidRequest, match="This grid is not kept any more: start it anew; its pictures"):
        engine.extend(job, plan_of(engine, 2))
    ends(other)
    assert job.done
    assert reused(engine.submit(plan_of(engine, 2), reuse=True)) == [True, False]


def test_an_extension_keeps_to_the_limits(tmp_path, device):
    with running(tmp_path, device, limits=Limits(max_images=3, max_steps=10, max_waiting=1)) as engine:
        job = engine.submit(plan_of(engine, 2), owner="A")
        ends(job)
        grown = plan_of(engine, 3)
        with pytest.raises(InvalidRequest, match="At most 3 images can be made at once"):
            engine.extend(job, Plan((*grown.cells, Cell(3, grown.cells[0].recipe))))
        with pytest.raises(InvalidRequest, match="Steps must be at most 10 here"):
            engine.extend(job, Plan((*job.plan.cells, Cell(2, job.plan.cells[0].recipe.replace(steps=11)))))
        with pytest.raises(InvalidRequest, match="The grid has just grown: try again"):
            engine.extend(job, plan_of(engine, 3, seed=1))
        device.hold()
        running_job = engine.submit(plan_of(engine), owner="A")
        with pytest.raises(InvalidRequest, match="1 requests of yours are under way"):
            engine.extend(job, grown)
        engine.extend(running_job, plan_of(engine, 2))  # it counts already
        assert (job.done, len(job.plan.cells)) == (True, 2)
        device.let_go()
        assert kinds(running_job) == ["Finished"] * 2
        engine.extend(job, grown)
        assert kinds(job) == ["Finished"] * 3


# Estimates.


def test_an_estimate_counts_what_is_on_disk_already(engine, device):
    ends(engine.submit(plan_of(engine, 2)))
    estimate = engine.estimate(plan_of(engine, 3))
    assert (estimate.cells, estimate.reused, estimate.calls, estimate.rows) == (1, 2, 4, 8)
    known = engine.estimate(plan_of(engine, 2))
    assert (known.cells, known.reused, known.calls, known.rows, known.seconds) == (0, 2, 0, 0, 0.0)
    exact = engine.estimate(Plan(plan_of(engine, 2).cells, exact=True))
    assert (exact.cells, exact.reused, exact.calls, exact.rows) == (2, 0, 4, 32)


def test_an_estimate_made_after_the_start_says_what_it_would_have_said_before(engine):
    plan, begun = plan_of(engine, 3), time.time()
    told = engine.estimate(plan)
    ends(engine.submit(plan, reuse=True))
    assert engine.estimate(plan).reused == 3
    after = engine.estimate(plan, before=begun)
    assert (after.cells, after.reused, after.calls, after.rows) == (told.cells, 0, told.calls, told.rows)


def test_what_is_to_be_made_anew_costs_as_if_it_were_not_there(engine):
    ends(engine.submit(plan_of(engine, 2)))
    estimate = engine.estimate(plan_of(engine, 2), reuse=False)
    assert (estimate.cells, estimate.reused, estimate.calls) == (2, 0, 4)


@pytest.mark.parametrize(("together", "calls"), [(False, 18), (True, 15)])
def test_growing_a_job_is_estimated_in_its_own_way_of_developing(engine, monkeypatch, together, calls):
    """Two fit into a call. In turns nobody is left to go alone at the end; one after another the last one is."""
    monkeypatch.setattr(engine, "_packer", lambda spec: Packer(max_rows=4))
    first, *others = (Cell(i, plan_of(engine, seed=i, steps=steps).cells[0].recipe) for i, steps in enumerate((1, 2, 9, 9, 9)))
    job = engine.submit(Plan((first,)), together=together)
    ends(job)
    new = Plan((first, *others)).beyond(job.plan)
    assert new.cells == tuple(others)
    assert engine.estimate(new, together=job.together).calls == calls


def test_growing_a_job_is_estimated_by_its_new_cells_and_its_own_reuse(engine, device):
    ends(engine.submit(plan_of(engine, 3)))
    for reuse, counts in ((True, (1, 1)), (False, (2, 0))):
        job = engine.submit(plan_of(engine, 2), reuse=reuse)
        ends(job)
        estimate = engine.estimate(plan_of(engine, 4).beyond(job.plan), reuse=job.reuse)
        assert (estimate.cells, estimate.reused) == counts


def test_an_estimate_before_anything_was_loaded_counts_without_seconds(engine, device):
    estimate = engine.estimate(plan_of_models(engine, "starter", "sd15", "starter", steps=3))
    assert (estimate.cells, estimate.reused, estimate.calls, estimate.rows, estimate.seconds) == (3, 0, 6, 18, None)
    assert device.history == []


def test_models_are_estimated_one_after_another_however_they_alternate(engine, device):
    plan = plan_of_models(engine, "starter", "sd15", "starter", "sd15", steps=3)
    device.tick_seconds = 0.02
    assert kinds(engine.submit(plan)) == ["Finished"] * 4
    estimate = engine.estimate(Plan(tuple(Cell(cell.index, cell.recipe.replace(seed=50 + cell.index)) for cell in plan.cells)))
    assert (estimate.cells, estimate.calls) == (4, 6)
    assert len(device.calls("tick")) == 6
    assert estimate.seconds >= 0.12


def test_an_unknown_model_is_not_estimated(engine):
    recipe = engine.catalog.default.recipe(model="nothing like it")
    with pytest.raises(InvalidRequest, match="There is no model “nothing like it” here"):
        engine.estimate(Plan((Cell(0, recipe),)))


# Looking back.


def test_every_step_can_be_looked_at_again(engine):
    job = engine.submit(plan_of(engine, 2, steps=4))
    ends(job)
    frames = {engine.frame(job, cell, step, method="vae").tobytes() for cell in (0, 1) for step in (1, 2, 3, 4)}
    assert len(frames) == 8


@pytest.mark.parametrize(("cell", "step"), [(0, 5), (0, 0), (0, -1), (7, 1)])
def test_a_step_that_is_not_there(engine, cell, step):
    job = engine.submit(plan_of(engine, steps=4))
    ends(job)
    with pytest.raises(InvalidRequest, match=f"^Step {step} of this picture is not kept any more.$"):
        engine.frame(job, cell, step)


def test_many_cells_are_looked_at_by_one_call(engine, device):
    job = engine.submit(plan_of(engine, 3, steps=4))
    ends(job)
    asked = []
    ask, engine._asked = engine._asked, lambda question: asked.append(question) or ask(question)
    frames = engine.frames(job, {0: 1, 1: 4, 2: 2})
    assert len(asked) == 1
    assert {cell: frame.tobytes() for cell, frame in frames.items()} == {
        cell: engine.frame(job, cell, step).tobytes() for cell, step in ((0, 1), (1, 4), (2, 2))
    }


@pytest.mark.parametrize(
    ("costs", "method"),
    [
        ({"linear": 0.0, "vae": 0.01}, "vae"), ({"linear": 0.0, "tiny": 0.01, "vae": 0.2}, "tiny"),
        ({"linear": 0.0, "tiny": 0.2, "vae": 9.0}, "linear"), ({"linear": 1.0, "vae": 9.0}, "linear"),
        ({"linear": 0.0, "vae": 0.09}, "vae"), ({"linear": 0.0, "vae": 0.11}, "linear"),
    ],
)  # fmt: skip
def test_cells_are_looked_at_by_the_truest_previewer_that_is_quick_for_all(engine, device, costs, method):
    job = engine.submit(plan_of(engine, 3), previews=PreviewOptions("off"))
    ends(job)
    device.costs = costs
    assert engine.frames(job, {0: 1, 1: 1, 2: 1}).keys() == {0, 1, 2}
    assert [used for _, used, _ in device.calls("preview")] == [method] * 3


def used_to_look(engine: Engine, device: FakeDevice, job: Job, steps: dict[int, int]) -> set[str]:
    """The previewers of one look at cells of a job."""
    before = len(device.calls("preview"))
    assert engine.frames(job, steps).keys() == steps.keys()
    return {used for _, used, _ in device.calls("preview")[before:]}


@pytest.mark.parametrize(("first", "later"), [("vae", {"linear": 0.0, "vae": 9.0}), ("linear", {"linear": 0.0, "vae": 0.0})])
def test_a_step_that_was_shown_stays_the_same_picture_whatever_previewers_are_measured_to_take(engine, device, first, later):
    job = engine.submit(plan_of(engine, 3), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "vae": 0.01 if first == "vae" else 9.0}
    assert used_to_look(engine, device, job, {0: 1, 1: 1, 2: 1}) == {first}
    device.costs = later
    assert used_to_look(engine, device, job, {0: 1, 1: 1, 2: 1}) == {first}
    assert used_to_look(engine, device, job, {0: 2}) == {first}
    again = engine.submit(plan_of(engine, 3), owner="somebody else", reuse=True)
    assert reused(again) == [True] * 3
    assert used_to_look(engine, device, again, {0: 1, 1: 1, 2: 1}) == {first}


def test_the_first_cells_are_looked_at_by_what_is_quick_enough_for_the_page(engine, device):
    job = engine.submit(plan_of(engine, 4), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "tiny": 0.01, "vae": 0.1}
    assert used_to_look(engine, device, job, {0: 1}) == {"tiny"}
    assert used_to_look(engine, device, job, {0: 1, 1: 1, 2: 1, 3: 1}) == {"tiny"}


def test_a_larger_page_is_looked_at_by_what_is_quick_enough_for_it(engine, device):
    job = engine.submit(plan_of(engine, 2), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "vae": 0.1}
    assert used_to_look(engine, device, job, {0: 1}) == {"vae"}
    grown = Plan((*job.plan.cells, *(Cell(i, job.plan.cells[0].recipe.replace(seed=i)) for i in range(2, 6))))
    engine.extend(job, grown)
    ends(job)
    assert used_to_look(engine, device, job, {0: 1}) == {"linear"}
    larger = engine.submit(plan_of(engine, 2, width=128), previews=PreviewOptions("off"))
    ends(larger)
    device.costs = {"linear": 0.0, "vae": 0.2}
    assert used_to_look(engine, device, larger, {0: 1, 1: 1}) == {"linear"}


def test_only_cells_that_can_be_looked_at_count_against_the_time(engine, device):
    job = engine.submit(plan_of(engine), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "vae": 0.2}
    assert engine.frames(job, {0: 1, 7: 1, 8: 1}).keys() == {0}
    assert [used for _, used, _ in device.calls("preview")] == ["vae"]


def test_cells_whose_steps_are_not_there_are_left_out(engine, device):
    device.black = {101}
    job = engine.submit(plan_of(engine, 4, steps=4))
    ends(job)
    assert engine.frames(job, {0: 5, 1: 4, 2: -1, 3: 0, 7: 1}).keys() == {1}
    assert engine.frames(job, {}) == {}


def test_cells_under_way_are_looked_at_too(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 3, steps=150))
    device.let(2)
    wait_for(job, at_step(2, cell=2))
    seen = []
    looking = threading.Thread(target=lambda: seen.append(engine.frames(job, {0: 2, 1: 150, 2: 1})), daemon=True)
    looking.start()
    while looking.is_alive():
        device.let()
        looking.join(0.01)
    assert seen[0].keys() == {0, 2}
    engine.stop(job)


@pytest.mark.parametrize("error", [SpoiltPicture("The decoder gave no numbers (NaN)."), OutOfMemory("There is no room.")])
def test_a_cell_that_cannot_be_shown_is_left_out(engine, device, monkeypatch, error):
    job = engine.submit(plan_of(engine, 2))
    ends(job)
    preview = device.preview

    def spoilt(key, method, step):
        if key[1] == 0:
            raise error
        return preview(key, method, step)

    monkeypatch.setattr(device, "preview", spoilt)
    assert engine.frames(job, {0: 1, 1: 1}).keys() == {1}


def test_cells_of_several_models_are_looked_at_by_one_previewer(engine, device):
    job = engine.submit(plan_of_models(engine, "sd15", "starter"), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "vae": 0.01}
    frames = engine.frames(job, {1: 2, 0: 2})
    assert [frame.size for frame in frames.values()] == [(8, 8)] * 2


def test_each_page_is_looked_at_by_what_its_own_cells_have(engine, device):
    cells = plan_of_models(engine, "sd15", "starter").cells
    job = engine.submit(Plan(tuple(replace(cell, place=(0, 0, cell.index)) for cell in cells)), previews=PreviewOptions("off"))
    ends(job)
    device.costs = {"linear": 0.0, "vae": 0.01}
    assert engine.frames(job, {0: 2})[0].size == (8, 8)
    assert engine.frames(job, {1: 2})[1].size == (64, 64)  # of the resident model


def test_steps_of_a_picture_from_the_disk_are_looked_at_where_it_was_made(engine, device, tmp_path, monkeypatch):
    first = engine.submit(plan_of(engine, 3))
    ends(first)
    job = engine.submit(plan_of(engine, 3, seed=101), reuse=True)
    assert reused(job) == [True, True, False]
    frames = engine.frames(job, {0: 2, 1: 3, 2: 4})
    places = [(first, 1, 2), (first, 2, 3), (job, 2, 4)]
    assert [frame.tobytes() for frame in frames.values()] == [engine.frame(*place).tobytes() for place in places]
    assert engine.frame(job, 0, 2).tobytes() == frames[0].tobytes()
    assert numpy.array_equal(engine.latents(job, 1), engine.latents(first, 2))


def test_steps_are_found_whatever_the_way_to_the_pictures(tmp_path, device, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with running(Path("here"), device) as engine:
        ends(engine.submit(plan_of(engine)))
        job = engine.submit(plan_of(engine), reuse=True)
        assert reused(job) == [True]
        assert engine.frames(job, {0: 1}).keys() == {0}


def test_steps_of_a_picture_from_an_earlier_day_are_not_there(tmp_path, device):
    with running(tmp_path, device) as engine:
        ends(engine.submit(plan_of(engine)))
    with running(tmp_path, FakeDevice()) as engine:
        job = engine.submit(plan_of(engine), reuse=True)
        assert reused(job) == [True]
        assert engine.frames(job, {0: 1}) == {}
        with pytest.raises(InvalidRequest, match="Step 1 of this picture is not kept any more"):
            engine.frame(job, 0, 1)


def test_a_job_can_be_found_again(engine):
    job = engine.submit(plan_of(engine))
    assert engine.job(job.id) is job
    assert engine.job("nothing") is None


def test_old_jobs_are_forgotten(engine, device, monkeypatch):
    monkeypatch.setattr("engine.running.kept.weight", lambda job: 1)
    monkeypatch.setattr("engine.running.kept.OWN_BYTES", 2)
    jobs = []
    for _ in range(5):
        jobs.append(engine.submit(plan_of(engine)))
        ends(jobs[-1])
    assert [engine.job(job.id) is job for job in jobs] == [False, False, True, True, True]
    with pytest.raises(InvalidRequest, match="not kept any more"):
        engine.frame(jobs[0], 0, 1)
    with pytest.raises(InvalidRequest, match="not kept any more"):
        engine.latents(jobs[0], 0)
    assert device.calls("forget") == [((job.id, 0),) for job in jobs[:2]]
    assert len(files(engine)) == 5


def test_jobs_under_way_are_never_forgotten(engine, device, monkeypatch):
    monkeypatch.setattr("engine.running.kept.ALL_BYTES", 0)
    device.hold()
    jobs = [engine.submit(plan_of(engine)) for _ in range(3)]
    assert [engine.job(job.id) for job in jobs] == jobs
    device.let_go()
    assert [kinds(job) for job in jobs] == [["Finished"]] * 3


def test_everybody_together_may_not_have_too_much_waiting(tmp_path, device):
    """Whoever asks under ever new names is held to no owner's limit."""
    with running(tmp_path, device, limits=Limits(max_requests=3, max_open=10)) as engine:
        device.hold()
        first = engine.submit(plan_of(engine, 4), owner="A")
        engine.submit(plan_of(engine, 4), owner="B")
        with pytest.raises(InvalidRequest, match=r"^Darkroom has its hands full: 8 pictures are under way\. Ask for fewer"):
            engine.submit(plan_of(engine, 3), owner="C")
        with pytest.raises(InvalidRequest, match="8 pictures are under way"):
            engine.extend(first, plan_of(engine, 7))
        engine.submit(plan_of(engine), owner="C")
        with pytest.raises(InvalidRequest, match=r"^Darkroom has its hands full: 3 requests are under way\. Try again"):
            engine.submit(plan_of(engine), owner="D")
        engine.extend(first, plan_of(engine, 5))
        device.let_go()
        ends(first)
        assert len(admitted(device, first)) == 5
        for job in (*engine.jobs("B"), *engine.jobs("C")):
            ends(job)
        assert kinds(engine.submit(plan_of(engine), owner="D")) == ["Finished"]


def test_a_request_that_nobody_will_work_on_is_not_under_way(tmp_path, device):
    with running(tmp_path, device) as engine:
        job = engine.submit(plan_of(engine), owner="A")
        ends(job)
    with pytest.raises(EngineError, match="closing"):
        engine.submit(plan_of(engine), owner="A")
    with pytest.raises(EngineError, match="closing"):
        engine.extend(job, plan_of(engine, 2))
    assert engine.jobs("A") == [job]
    assert kinds(job) == ["Finished", "Failed"]


def test_a_late_watcher_is_told_how_things_stand(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 2, prompt=""))
    device.let(2)
    wait_for(job, at_step(2, cell=1))
    events = job.watch().take()
    assert [event.step for event in events if isinstance(event, Preview)] == [2, 2]
    assert len([event for event in events if isinstance(event, Notice)]) == 1
    device.let_go()
    ends(job)
    watcher = job.watch()
    assert [type(event) for event in watcher.take()] == [Notice, Finished, Finished]
    assert watcher.ended


def test_watchers_come_and_go_without_changing_a_job(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine))
    gone = job.watch()
    job.leave(gone)
    gone.take(timeout=0)
    device.let_go()
    assert kinds(job) == ["Finished"]
    assert gone.take(timeout=0) == []


def test_the_same_recipe_twice_is_the_same_picture(engine):
    jobs = [engine.submit(plan_of(engine, 2)) for _ in range(2)]
    first, second = ([end.made.sha256 for _, end in sorted(ends(job).items())] for job in jobs)
    assert first == second
    assert first[0] != first[1]


def test_latents_are_handed_to_their_own_cell(engine):
    noise = numpy.ones((4, 8, 8), numpy.float32)
    job = engine.submit(plan_of(engine, 2), latents={1: noise})
    ends(job)
    assert numpy.array_equal(engine.latents(job, 1), noise)
    assert not numpy.array_equal(engine.latents(job, 0), noise)


def test_looking_back_after_close_is_refused(engine):
    job = engine.submit(plan_of(engine))
    ends(job)
    engine.close()
    with pytest.raises(EngineError, match="is closing"):
        engine.frame(job, 0, 1)


# The embedded model.


@pytest.fixture(scope="module")
def torch_device(tmp_path_factory):
    return TorchDevice("cpu")


@pytest.fixture(scope="module")
def real(catalog, torch_device, tmp_path_factory):
    """An engine with the embedded model resident, four rows a call."""
    narrow = Catalog([catalog.default.model_copy(update={"max_rows": {"cpu": 4}}), *list(catalog)[1:]])
    with Engine(narrow, lambda: torch_device, tmp_path_factory.mktemp("real")) as engine:
        ends(engine.submit(plan_of(engine, steps=1)), seconds=120)
        yield engine


def draw(engine: Engine, **changes) -> Job:
    job = engine.submit(plan_of(engine, **{"steps": 3, **changes}))
    ends(job, seconds=120)
    return job


def test_a_picture_of_the_embedded_model(real):
    [end] = ends(draw(real, seed=7)).values()
    made = end.made
    assert open_picture(made).size == (64, 64)
    assert read_picture(made.path).settings == dict(made.recipe)
    assert (made.provenance.device, made.provenance.dtype, made.provenance.bucket) == ("cpu", "float32", 2)
    assert (made.provenance.step, made.provenance.total) == (3, 3)
    assert made.provenance.versions.keys() == {"darkroom", "torch", "diffusers", "transformers"}


def test_the_embedded_model_gives_the_same_picture_twice(real):
    assert len({ends(draw(real, scheduler="Euler a"))[0].made.sha256 for _ in range(2)}) == 1


def test_exact_pictures_do_not_depend_on_their_neighbours(real):
    recipe = real.catalog.default.recipe(prompt="a cat", steps=2)
    alone = real.submit(plan_images(recipe, real.catalog, real.limits, exact=True))
    among = real.submit(plan_images(recipe, real.catalog, real.limits, count=3, exact=True))
    assert ends(alone)[0].made.sha256 == ends(among)[0].made.sha256
    assert ends(alone)[0].made.provenance.exact


def grid(engine: Engine, *, exact: bool = False, **axes) -> Plan:
    """Every combination of the axes' values."""
    base = engine.catalog.default.recipe(prompt="an owl, noto style", negative_prompt="blurry", seed=5, steps=3)
    recipes = [base.replace(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    return Plan(tuple(Cell(i, recipe) for i, recipe in enumerate(recipes)), exact)


@pytest.mark.parametrize(("exact", "together"), [(False, False), (True, False), (False, True)], ids=["fast", "exact", "together"])
@pytest.mark.parametrize(
    "axes",
    [
        {"guidance_scale": (1, 4, 8), "steps": (2, 3, 5)}, {"guidance_scale": (2, 4, 8), "prompt": ("a cat", "a dog", "")},
        {"scheduler": ("Heun", "PNDM", "Euler a"), "guidance_scale": (1, 5)}, {"seed": tuple(range(17)), "steps": (2,)},
    ],
    ids=["scales and steps", "a shared first call", "schedulers", "more than are admitted at once"],
)  # fmt: skip
def test_an_estimate_is_what_a_run_then_takes(real, torch_device, exact, together, axes):
    plan = grid(real, exact=exact, **axes)
    estimate = real.estimate(plan, reuse=False, together=together)
    before = torch_device.denoiser.calls, torch_device.denoiser.rows_run
    assert set(kinds(real.submit(plan, previews=PreviewOptions("off"), together=together))) == {"Finished"}
    calls, rows = torch_device.denoiser.calls - before[0], torch_device.denoiser.rows_run - before[1]
    assert (estimate.cells, estimate.reused, estimate.calls, estimate.rows) == (len(plan.cells), 0, calls, rows)
    assert estimate.seconds > 0
    assert real.estimate(plan).reused == len(plan.cells)


def test_an_exact_cell_of_a_grid_is_the_picture_that_it_is_alone(real):
    plan = grid(real, exact=True, seed=(31,), steps=(2,), guidance_scale=(1, 3, 9), prompt=("a cat", "an owl", ""))
    first, _ = next(calls_one_by_one([cell.recipe for cell in plan.cells], classifier_free, Packer(), exact=True))
    assert (len(first.images), len(first.rows)) == (9, 4)  # all show the network the same noise
    among = [end.made.sha256 for _, end in sorted(ends(real.submit(plan)).items())]
    alone = [ends(real.submit(Plan((cell,), exact=True)))[cell.index].made.sha256 for cell in plan.cells]
    assert among == alone
    assert len(set(among)) == 9


def test_a_picture_of_the_embedded_model_is_found_again_bit_for_bit(real, torch_device):
    first = draw(real, seed=41)
    before = torch_device.denoiser.calls
    again = real.submit(plan_of(real, seed=41, steps=3), reuse=True)
    assert ends(again)[0] == Finished(0, ends(first)[0].made, reused=True)
    assert torch_device.denoiser.calls == before
    assert real.frame(again, 0, 2).tobytes() == real.frame(first, 0, 2).tobytes()


def test_each_step_of_the_embedded_model_is_kept(real):
    job = draw(real, steps=3)
    assert len({real.frame(job, 0, step).tobytes() for step in (1, 2, 3)}) == 3
    assert real.frame(job, 0, 1, method="vae").size == (64, 64)
    with pytest.raises(InvalidRequest, match="Step 4 of this picture"):
        real.frame(job, 0, 4)


@pytest.mark.parametrize("step", [0, -1])
def test_there_is_no_step_before_the_first(real, step):
    with pytest.raises(InvalidRequest):
        real.frame(draw(real, steps=3), 0, step)


def test_latents_of_the_embedded_model(real):
    noise = torch.randn((4, 16, 16), generator=torch.Generator().manual_seed(7)).numpy()
    drawn = draw(real, seed=7, scheduler="DDIM")
    given = real.submit(plan_of(real, seed=0, steps=3, scheduler="DDIM"), latents={0: noise})
    assert ends(given)[0].made.sha256 == ends(drawn)[0].made.sha256
    latents = real.latents(given, 0)
    assert (latents.shape, latents.dtype) == ((4, 16, 16), numpy.float32)


def test_latents_of_a_wrong_shape_fail_in_words(real):
    job = real.submit(plan_of(real, steps=3), latents={0: numpy.zeros((4, 8, 8), numpy.float32)})
    assert ends(job) == {0: Failed(0, "Latents for 64 x 64 must be (4, 16, 16); they were (4, 8, 8).")}


def test_words_past_the_limit_of_the_embedded_model(real):
    job = draw(real, prompt="cat " * 30 + "zebra crossing", steps=1)
    assert notices(job) == ["The model reads 30 tokens of the prompt; these words were cut: “zebra crossing”."]
    count = real.count_tokens("starter", "cat " * 30 + "zebra crossing")
    assert (count.used > 30, count.limit, count.cut) == (True, 30, "zebra crossing")


def test_a_prompt_at_the_limit_is_not_mentioned(real):
    assert notices(draw(real, prompt="cat " * 30, steps=1)) == []


def test_a_late_owner_does_not_wait_for_the_first(real):
    large = real.submit(plan_of(real, 30, steps=8), owner="A", previews=PreviewOptions("off"))
    wait_for(large, at_step(1))
    small = real.submit(plan_of(real, steps=2), owner="B")
    assert kinds(small) == ["Finished"]
    assert not large.done
    real.stop(large)
    assert set(kinds(large)) <= {"Finished", "Cancelled"}


def test_stopping_the_embedded_model_keeps_its_last_x0(real):
    job = real.submit(plan_of(real, steps=150))
    wait_for(job, at_step(3))
    real.stop(job)
    [end] = ends(job).values()
    assert 3 <= end.step < 150
    assert open_picture(end.made).size == (64, 64)
    assert end.made.path.is_file()


def test_nan_from_the_network_is_never_saved(real, torch_device, monkeypatch):
    before = len(files(real))
    monkeypatch.setattr(torch_device.denoiser.family, "predict", lambda x, *rest: torch.full_like(x, float("nan")))
    [end] = ends(draw(real)).values()
    assert "The network gave no numbers (NaN)" in end.message
    assert len(files(real)) == before


@pytest.mark.parametrize(("pixel", "sentence"), [(float("nan"), "The decoder gave no numbers (NaN)"), (-1.0, "came out all black")])
def test_spoilt_decodes_are_never_saved(real, torch_device, monkeypatch, pixel, sentence):
    before = len(files(real))
    monkeypatch.setattr(torch_device.denoiser.family, "decode_pixels", lambda latents, tiles: torch.full((1, 3, 64, 64), pixel))
    job = real.submit(plan_of(real, steps=2), previews=PreviewOptions("vae"))
    assert sentence in ends(job)[0].message
    assert len(files(real)) == before


def test_a_bug_in_the_network_is_logged_and_the_engine_goes_on(real, torch_device, monkeypatch):
    def predict(*args):
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(torch_device.denoiser.family, "predict", predict)
        [end] = ends(draw(real)).values()
    assert "ZeroDivisionError: a bug" in end.detail
    assert kinds(draw(real)) == ["Finished"]


def test_a_model_that_cannot_be_had_leaves_the_embedded_one(real):
    job = real.submit(plan_of(real, model="sd15", width=64, height=64))
    [end] = ends(job).values()
    assert "the model hub cannot be reached" in end.message
    assert "choose the Starter model, which needs no download" in end.message
    assert kinds(draw(real)) == ["Finished"]


def test_a_device_that_is_not_there_is_told(catalog, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with Engine(catalog, lambda: TorchDevice("cuda"), tmp_path) as engine:
        [end] = ends(engine.submit(plan_of(engine))).values()
    assert "There is no usable device “cuda” here" in end.message
    with pytest.raises(ModelUnavailable):
        TorchDevice("cuda")

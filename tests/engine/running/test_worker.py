"""Worker: what it promises of every cell, whatever is stopped, fails, or is loaded meanwhile."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import EngineError, InvalidRequest, ModelUnavailable, NotSaved, OutOfMemory, SpoiltPicture
from engine.library.library import Library
from engine.pictures.metadata import read_picture
from engine.pictures.outputs import open_picture, write_picture
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.device import TokenCount
from engine.running.engine import Engine
from engine.running.events import Cancelled, Developing, End, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.job import Watcher
from engine.running.messages import Begin, Forget
from engine.running.packing import ADMITTED_A_TICK
from engine.running.preview_options import PreviewOptions
from engine.running.worker import Worker
from tests.child_worker import ChildWorker
from tests.fake_device import SAFETY, FakeDevice, fake_engine
from tests.jobs import at_step, ends, files, kinds, notices, plan_of, plan_of_models, put, running, wait_for


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture(params=[Worker, ChildWorker], ids=["thread", "process"])
def engine(request, tmp_path, device):
    """Its worker is in another thread, or in another process."""
    with running(tmp_path, device, worker=request.param) as engine:
        yield engine


near = pytest.mark.parametrize("engine", [Worker], indirect=True, ids=["thread"])
"""For tests that reach into the worker, or change what it finds in its modules: it is in this process."""


def provenance(file: Path) -> dict:
    with Image.open(file) as image:
        return json.loads(image.text["darkroom"])["provenance"]


# The grammar of events.


class Recorder(Watcher):
    """A mailbox that keeps all that was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Event] = []

    def put(self, event: Event) -> None:
        self.all.append(event)
        super().put(event)


TROUBLE = st.sampled_from(["", "", "", "step", "picture", "black"])
CELLS = st.lists(st.tuples(st.integers(1, 4), TROUBLE), min_size=1, max_size=5)
STOPS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.sets(st.integers(0, 4), max_size=3), st.booleans()), max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells=CELLS, stops=STOPS, images_a_tick=st.integers(1, 4), tick_fails=st.sampled_from([None, None, None, 2]))
def test_every_cell_ends_exactly_once(cells, stops, images_a_tick, tick_fails):
    device = FakeDevice(images_a_tick=images_a_tick)
    for seed, (steps, trouble) in enumerate(cells):
        if trouble == "step":
            device.step_errors[seed] = (steps, RuntimeError("boom"))
        elif trouble == "picture":
            device.picture_errors[seed] = SpoiltPicture("spoilt")
        elif trouble == "black":
            device.black.add(seed)
    device.hold()
    recording = mock.patch("engine.running.job.Watcher", Recorder)
    with tempfile.TemporaryDirectory() as folder, recording, running(Path(folder), device) as engine:
        plan = Plan(tuple(Cell(i, plan_of(engine, seed=i, steps=steps).cells[0].recipe) for i, (steps, _) in enumerate(cells)))
        job = engine.submit(plan)
        watcher = job.watch()
        for tick in range(6):
            for at, which, finish_current in stops:
                if at == tick:
                    engine.stop(job, which, finish_current=finish_current)
            if tick == tick_fails:
                device.tick_error = RuntimeError("the device fell over")
            device.let()
        device.let_go()
        assert ends(job).keys() == set(range(len(cells)))
    check_grammar(watcher.all, len(cells))


def check_grammar(events: list[Event], cells: int) -> None:
    assert isinstance(events[-1], End)
    for cell in range(cells):
        mine = [event for event in events if not isinstance(event, Notice) and event.cell == cell]
        order = [kind for kind, _ in itertools.groupby(type(event) for event in mine[:-1])]
        assert order == [kind for kind in (Queued, Preview, Developing) if kind in order]
        assert isinstance(mine[-1], End)
        previews = [event for event in mine if isinstance(event, Preview)]
        assert all(one.step < next_one.step for one, next_one in pairwise(previews))


@near
def test_an_image_tells_of_each_step(engine, device):
    with mock.patch("engine.running.job.Watcher", Recorder):
        device.may_load.clear()
        watcher = (job := engine.submit(plan_of(engine, steps=3))).watch()
        device.may_load.set()
        ends(job)
    told = [event for event in watcher.all if not isinstance(event, Notice)]
    assert [type(event).__name__ for event in told] == ["Queued", "Preview", "Preview", "Preview", "Developing", "Finished"]
    assert [(event.step, event.total) for event in told[1:5]] == [(1, 3), (2, 3), (3, 3), (3, 3)]
    assert open_picture(told[5].made).size == (64, 64)


def test_a_queue_says_how_many_come_before(engine, device):
    device.may_load.clear()
    jobs = [engine.submit(plan_of(engine, 2)) for _ in range(2)]
    assert wait_for(jobs[1], lambda event: isinstance(event, Queued) and event.cell == 1).ahead == 3


@near
def test_a_queue_that_moves_says_so(engine, device, monkeypatch):
    monkeypatch.setattr("engine.running.worker.PLACES_EVERY", 0.0)
    monkeypatch.setattr("engine.running.admission.UNDER_WAY", 1)
    device.images_a_tick = 1
    device.hold()
    job = engine.submit(plan_of(engine, 4, steps=1), owner="A")
    watcher = job.watch()
    told, done = [], False
    while not done:
        device.let()
        for event in watcher.take(timeout=SAFETY):
            told += [event.ahead] if isinstance(event, Queued) and event.cell == 3 else []
        done = watcher.ended
    assert told[0] == 3
    assert told[-1] == 1
    assert told == sorted(told, reverse=True)


# Who is let in.


def test_a_newcomers_picture_begins_within_two_ticks_whatever_waits(engine, device):
    """32 visitors with three grids of 100 cells each, and one more with a single picture."""
    device.images_a_tick = 4
    device.hold()
    crowd = [engine.submit(plan_of(engine, 100, steps=2), owner=f"owner {i}", together=True) for i in range(32) for _ in range(3)]
    device.let(5)
    wait_until(lambda: len(device.calls("tick")) == 5)
    newcomer = engine.submit(plan_of(engine), owner="a newcomer")
    device.let(1)
    wait_until(lambda: any(owner == "a newcomer" for _, owner in device.calls("admit")))
    assert len(device.calls("tick")) <= 6  # the one under way, and then it was let in
    assert len(device.calls("admit")) <= 7 * ADMITTED_A_TICK
    for job in [newcomer, *crowd]:
        engine.stop(job)
    device.let_go()


def test_images_under_way_keep_within_the_devices_room(engine, device):
    device.room = 3 * device.cost(plan_of(engine).cells[0].recipe)
    job = engine.submit(plan_of(engine, 12), together=True)
    assert kinds(job) == ["Finished"] * 12
    live, most = set(), 0
    for call in device.history:
        live |= {call[1]} if call[0] == "admit" else set()
        live -= {call[1]} if call[0] == "settle" else set()
        most = max(most, len(live))
    assert most == 3


# Files.


@near
def test_nobodys_step_waits_for_a_disk(engine, device, monkeypatch):
    """One picture is being written and another is looked for on disk, for as long as it takes: a third is made meanwhile."""
    free, found = threading.Event(), Library.find

    def write(content: bytes, folder: Path, name: str) -> Path:
        assert "-seed-7" not in name or free.wait(SAFETY)
        return write_picture(content, folder, name)

    def find(*asked):
        assert free.wait(SAFETY)
        return found(*asked)

    monkeypatch.setattr("engine.pictures.developing.write_picture", write)
    monkeypatch.setattr(Library, "find", find)
    monkeypatch.setattr(engine._link._developer, "_writers", ThreadPoolExecutor(2))
    slow = engine.submit(plan_of(engine, seed=7))
    wait_for(slow, lambda event: isinstance(event, Developing))
    looked_for = engine.submit(plan_of(engine, seed=8), reuse=True)
    assert kinds(engine.submit(plan_of(engine, seed=9))) == ["Finished"]
    assert not slow.done
    assert not looked_for.done
    free.set()
    assert [kinds(slow), kinds(looked_for)] == [["Finished"], ["Finished"]]


def test_nobodys_step_waits_for_a_models_files_to_be_hashed(engine, device):
    """A picture made meanwhile is written once they are; another's steps go on, and what is on disk is not known yet."""
    device.identified = Future()
    job = engine.submit(plan_of(engine, steps=2))
    wait_for(job, lambda event: isinstance(event, Developing))
    other = engine.submit(plan_of(engine, steps=3, seed=8), reuse=True)
    device.history.clear()
    third = engine.submit(plan_of(engine, steps=3, seed=9))
    wait_for(third, lambda event: isinstance(event, Developing))
    assert engine.estimate(job.plan).reused == 0
    assert not any(one.done for one in (job, other, third))
    device.identified.set_result(None)
    assert [kinds(one) for one in (job, other, third)] == [["Finished"]] * 3
    wait_until(lambda: engine.estimate(job.plan).reused == 1)


@near
def test_a_picture_that_is_looked_for_can_be_stopped(engine, device, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(Library, "find", lambda *asked: free.wait(SAFETY) and None)
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    job = engine.submit(plan_of(engine, seed=8), reuse=True)
    engine.stop(job)
    assert ends(job) == {0: Cancelled(0, 0, 0)}
    free.set()
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert len(device.calls("admit")) == 2


@near
def test_no_image_is_begun_while_too_many_wait_for_the_disk(engine, device, monkeypatch):
    monkeypatch.setattr("engine.pictures.developing.CROWDED", 2)
    free = threading.Event()

    def write(*asked) -> Path:
        assert free.wait(SAFETY)
        return write_picture(*asked)

    monkeypatch.setattr("engine.pictures.developing.write_picture", write)
    monkeypatch.setattr("engine.running.admission.UNDER_WAY", 1)
    job = engine.submit(plan_of(engine, 5, steps=1), owner="A")
    for cell in (0, 1):
        wait_for(job, lambda event, cell=cell: isinstance(event, Developing) and event.cell == cell)
    put(engine, lambda device: None).result(SAFETY)  # the worker has looked round once more
    assert len(device.calls("admit")) == 2
    free.set()
    assert kinds(job) == ["Finished"] * 5


def test_closing_waits_for_what_is_being_written(tmp_path, device, monkeypatch):
    free, writing = threading.Event(), threading.Event()

    def write(*asked) -> Path:
        writing.set()
        assert free.wait(SAFETY)
        return write_picture(*asked)

    monkeypatch.setattr("engine.pictures.developing.write_picture", write)
    engine = fake_engine(tmp_path, device=device)
    job = engine.submit(plan_of(engine))
    assert writing.wait(SAFETY)
    closing = threading.Thread(target=engine.close)
    closing.start()
    free.set()
    closing.join(SAFETY)
    assert kinds(job) == ["Finished"]
    assert len(files(engine)) == 1


@near
def test_an_unexpected_error_while_writing_fails_that_picture_alone(engine, device, monkeypatch):
    def write(content: bytes, folder: Path, name: str) -> Path:
        if "-seed-101" in name:
            raise RuntimeError("a codec's bug")
        return write_picture(content, folder, name)

    monkeypatch.setattr("engine.pictures.developing.write_picture", write)
    job = engine.submit(plan_of(engine, 3))
    assert kinds(job) == ["Finished", "Failed", "Finished"]
    assert ends(job)[1].message == "This picture could not be developed; the log has the details."


def test_finished_pictures_are_on_disk_whole(engine):
    job = engine.submit(plan_of(engine, 3))
    mades = [end.made for end in ends(job).values()]
    assert sorted(made.path for made in mades) == sorted(files(engine))
    for made in mades:
        assert read_picture(made.path).settings == dict(made.recipe)
        with Image.open(made.path) as image:
            assert image.tobytes() == open_picture(made).tobytes()
        assert not made.provenance.unfinished


@near
def test_a_picture_that_cannot_be_saved_is_not_lost(engine, monkeypatch):
    def write_picture(*args):
        raise NotSaved("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("engine.pictures.developing.write_picture", write_picture)
        job = engine.submit(plan_of(engine))
        [end] = ends(job).values()
    assert isinstance(end, Finished)
    assert (end.made.path, end.made.unsaved, open_picture(end.made).size) == (None, "The disk is full.", (64, 64))
    assert [event for event in job.events() if isinstance(event, Notice)] == [Notice("The disk is full.", cell=0)]
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert len(files(engine)) == 1


# Stopping.


def test_stop_ends_a_run_within_one_tick_and_keeps_what_it_had_become(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 2, steps=9))
    device.let(3)
    wait_for(job, at_step(3, cell=1))
    engine.stop(job)
    device.let()
    for index, end in ends(job).items():
        assert isinstance(end, Cancelled)
        assert end.step in {3, 4}
        assert end.total == 9
        assert end.made.provenance.unfinished
        assert f"-seed-{100 + index}-unfinished-{end.step}-of-9" in end.made.path.name
        assert read_picture(end.made.path).settings == dict(job.plan.cells[index].recipe)
        assert (provenance(end.made.path)["step"], provenance(end.made.path)["total"]) == (end.step, 9)
    assert len(files(engine)) == 2


def test_stop_is_told_at_once_whatever_the_device_does(engine, device):
    """A step of a large model on a CPU takes many seconds, and the picture after it as many."""
    device.hold()
    job = engine.submit(plan_of(engine, 2, steps=9))
    device.let()
    wait_for(job, at_step(1, cell=1))
    engine.stop(job, {1})  # the device is in its second step, and stays there
    assert wait_for(job, lambda event: isinstance(event, Developing)) == Developing(1, 1, 9)
    assert job.standing().developing == {1}
    assert isinstance(job.standing().cells[1], Preview)  # which is still what there is to see of it
    device.let_go()
    assert kinds(job) == ["Finished", "Cancelled"]
    assert job.standing().developing == frozenset()


def test_stop_before_it_began(engine, device):
    device.may_load.clear()
    job = engine.submit(plan_of(engine, 2))
    engine.stop(job)
    assert ends(job) == {0: Cancelled(0, 0, 0), 1: Cancelled(1, 0, 0)}
    device.may_load.set()
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert len(files(engine)) == 1


def test_stop_twice(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine))
    engine.stop(job)
    engine.stop(job)
    device.let()
    assert kinds(job) == ["Cancelled"]


def test_stop_after_the_end_changes_nothing(engine):
    job = engine.submit(plan_of(engine))
    before = ends(job)
    engine.stop(job)
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert ends(job) == before
    assert len(files(engine)) == 2


def test_stop_one_cell(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 3))
    engine.stop(job, {1})
    device.let_go()
    assert kinds(job) == ["Finished", "Cancelled", "Finished"]


def test_stop_one_job_of_two(engine, device):
    device.hold()
    jobs = [engine.submit(plan_of(engine, 2), owner=owner) for owner in "AB"]
    engine.stop(jobs[0])
    device.let_go()
    assert [kinds(job) for job in jobs] == [["Cancelled"] * 2, ["Finished"] * 2]


@pytest.mark.parametrize("images_a_tick", [1, 8])
def test_finish_current_finishes_the_one_that_has_come_furthest(engine, device, images_a_tick):
    device.images_a_tick = images_a_tick
    device.hold()
    job = engine.submit(plan_of(engine, 3, steps=6))
    device.let(2)
    wait_for(job, at_step(2))
    engine.stop(job, finish_current=True)
    device.let_go()
    assert kinds(job) == ["Finished", "Cancelled", "Cancelled"]


def test_a_second_stop_ends_the_current_one_too(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine, 2, steps=6))
    device.let(1)
    wait_for(job, at_step(1))
    engine.stop(job, finish_current=True)
    engine.stop(job)
    device.let_go()
    assert kinds(job) == ["Cancelled"] * 2


def test_a_stopped_image_is_developed_before_it_may_have_to_make_room(engine, device):
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    engine.stop(job)
    device.let()
    assert kinds(job) == ["Cancelled"]
    assert [call[0] for call in device.history][-4:] == ["drop", "picture", "settle", "drop"]


def test_stopping_many_holds_up_nobody_else(engine, device):
    """What they had become is developed one by one, between the ticks of others."""
    device.hold()
    mine = engine.submit(plan_of(engine, 8, steps=50), owner="A")
    device.let()
    wait_for(mine, at_step(1))
    other = engine.submit(plan_of(engine, steps=50), owner="B")
    engine.stop(mine)
    device.let_go()
    assert kinds(mine) == ["Cancelled"] * 8
    ends(other)
    calls = [call[0] for call in device.history if call[0] in {"picture", "tick"}]
    between = calls[calls.index("picture") :][:16]
    assert between == ["picture", "tick"] * 8


@near
def test_a_model_that_cannot_be_installed_keeps_nobody_waiting_for_it(engine, device, monkeypatch):
    def install(loaded):
        raise RuntimeError("a driver's bug")

    monkeypatch.setattr(device, "install", install)
    engine.warm().result(SAFETY)


def test_a_stopped_image_that_cannot_be_shown_is_still_stopped(engine, device):
    device.picture_errors[100] = SpoiltPicture("spoilt")
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    engine.stop(job)
    device.let()
    [end] = ends(job).values()
    assert (type(end), end.made) == (Cancelled, None)
    assert files(engine) == []


# Failing.


def test_a_failing_image_does_not_end_the_others(engine, device):
    device.step_errors[101] = (2, RuntimeError("boom"))
    job = engine.submit(plan_of(engine, 3))
    assert kinds(job) == ["Finished", "Failed", "Finished"]
    failed = ends(job)[1]
    assert failed.message == "This picture failed inside Darkroom; the log has the details. The others go on."
    assert "RuntimeError: boom" in failed.detail
    assert len(files(engine)) == 2


def test_a_failure_with_a_sentence_is_told_in_it(engine, device):
    device.step_errors[100] = (1, InvalidRequest("Try something else."))
    assert ends(engine.submit(plan_of(engine))) == {0: Failed(0, "Try something else.")}


def test_black_pictures_fail_and_leave_no_file(engine, device):
    device.black = {100}
    job = engine.submit(plan_of(engine, 2))
    assert kinds(job) == ["Failed", "Finished"]
    assert "all black" in ends(job)[0].message
    assert len(files(engine)) == 1


@near
def test_an_image_that_cannot_be_begun_does_not_end_the_others(engine, device, monkeypatch):
    original = device.admit

    def admit(key, recipe, **options):
        if recipe.seed == 100:
            raise InvalidRequest("It cannot be.")
        if recipe.seed == 101:
            raise ZeroDivisionError
        return original(key, recipe, **options)

    monkeypatch.setattr(device, "admit", admit)
    job = engine.submit(plan_of(engine, 3))
    assert kinds(job) == ["Failed", "Failed", "Finished"]
    assert ends(job)[0].message == "It cannot be."
    assert "ZeroDivisionError" in ends(job)[1].detail


@near
@pytest.mark.parametrize(("error", "logged"), [(RuntimeError("boom"), 3), (SpoiltPicture("no numbers"), 0), (OutOfMemory("no room"), 0)])
def test_a_failing_preview_is_no_failure(engine, device, monkeypatch, caplog, error, logged):
    monkeypatch.setattr(device, "preview", mock.Mock(side_effect=error))
    job = engine.submit(plan_of(engine))
    assert kinds(job) == ["Finished"]
    assert len(caplog.records) == logged


class Clock:
    """Stands in for `time` in the worker: by it a call of the network takes a second, a preview its cost, and all else no time."""

    def __init__(self, device: FakeDevice):
        self._now = 0.0
        self._device, self._tick, self._preview = device, device.tick, device.preview
        device.tick, device.preview = self.tick, self.preview

    def tick(self):
        self._now += 1.0
        return self._tick()

    def preview(self, key, method: str, step: int | None = None) -> Image.Image:
        self._now += self._device.costs[method]
        return self._preview(key, method, step)

    def perf_counter(self) -> float:
        return self._now

    def __getattr__(self, name: str):
        return getattr(time, name)


@pytest.fixture
def ticking(device, monkeypatch):
    """Costs of the device's previews count against calls of a second each."""
    clock = Clock(device)
    for module in ("worker", "residency", "finishing"):
        monkeypatch.setattr(f"engine.running.{module}.time", clock)


def run_together(engine: Engine, methods: Mapping[str, str], count: int = 1, steps: int = 60) -> dict[str, list[Event]]:
    """What the owners of a job each, with these preview methods, see of their jobs, which run side by side from the first step."""
    all_are_there = threading.Event()
    put(engine, lambda device: all_are_there.wait(SAFETY))
    with mock.patch("engine.running.job.Watcher", Recorder):
        jobs = {
            owner: engine.submit(plan_of(engine, count, steps=steps, seed=10 * place), owner, PreviewOptions(method))
            for place, (owner, method) in enumerate(methods.items())
        }
        watchers = {owner: job.watch() for owner, job in jobs.items()}
        all_are_there.set()
        for job in jobs.values():
            assert kinds(job) == ["Finished"] * count
    return {owner: watcher.all for owner, watcher in watchers.items()}


def looks(events: list[Event]) -> list[str]:
    return [event.method for event in events if isinstance(event, Preview) and event.image is not None]


def told(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice) and event.progress is None]


@near
def test_one_visitors_vae_leaves_another_their_previews(engine, device, ticking):
    device.costs = {"linear": 0.01, "vae": 5.0}
    alone = run_together(engine, {"Ann": "auto"})
    beside = run_together(engine, {"Ben": "vae", "Ann": "auto"})
    assert len(looks(alone["Ann"])) == 59
    assert len(looks(beside["Ann"])) >= 59 / 2
    assert told(beside["Ann"]) == []


@near
def test_beside_others_a_previewer_asked_for_by_name_is_shown_as_often_as_its_owner_can_pay(engine, device, ticking):
    device.costs = {"linear": 0.0, "vae": 0.5}
    seen = run_together(engine, {"Ann": "vae", "Ben": "vae"})
    for events in seen.values():  # half of each second is an owner's, a tenth of that pays for previews
        assert looks(events) == ["vae"] * 5
        assert told(events) == [
            "“vae” previews would hold up others, so for now they are shown less often than you asked:"
            " “auto” shows what there is time for."
        ]


@near
@pytest.mark.parametrize(("cost", "shown"), [(1.0, 59), (2.0, 29), (6.0, 9)])
def test_alone_a_previewer_asked_for_by_name_may_double_the_time(engine, device, ticking, cost, shown):
    device.costs = {"linear": 0.0, "vae": cost}
    events = run_together(engine, {"Ann": "vae"})["Ann"]
    assert looks(events) == ["vae"] * shown
    assert told(events) == ([] if shown == 59 else [
        "“vae” previews take longer than the steps themselves, so they are shown less often than you asked:"
        " “auto” shows what there is time for."
    ])  # fmt: skip


@near
def test_images_take_turns_at_being_shown(engine, device, ticking):
    device.costs = {"linear": 0.0, "vae": 0.5}
    events = run_together(engine, {"Ann": "vae"}, count=4, steps=21)["Ann"]
    shown = [event.cell for event in events if isinstance(event, Preview) and event.image is not None]
    assert [sorted(shown[at : at + 4]) for at in range(0, len(shown), 4)] == [[0, 1, 2, 3]] * 10


@near
def test_a_previewer_that_the_model_lacks_is_not_claimed_to_be_shown(engine):
    events = run_together(engine, {"Ann": "tiny"}, count=2)["Ann"]
    assert set(looks(events)) == {"linear"}
    assert told(events) == ["This model has no “tiny” previews here: “linear” ones are shown."]


def test_a_failing_device_ends_what_is_under_way_and_goes_on(engine, device):
    device.tick_error = RuntimeError("the device fell over")
    job = engine.submit(plan_of(engine, 2))
    assert kinds(job) == ["Failed"] * 2
    assert "the device fell over" in ends(job)[0].detail
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


# Nobody waits for ever, and an error ends only what it belongs to.


def wait_until(reached) -> None:
    end = time.monotonic() + SAFETY
    while not reached():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.002)


def test_cancelling_a_load_that_goes_on_harms_nobody(engine, device):
    device.may_load.clear()
    warm = engine.warm()
    wait_until(lambda: device.calls("load"))
    assert not warm.cancel()
    job = engine.submit(plan_of(engine))
    device.may_load.set()
    assert kinds(job) == ["Finished"]
    assert warm.result(SAFETY) is None


@near
@pytest.mark.parametrize("error", [RuntimeError("a driver's bug"), SystemExit(3), MemoryError()])
@pytest.mark.parametrize("broken", ["tick", "settle", "drop", "picture", "facts", "forget", "cost", "preview_costs", "count_tokens"])
def test_whatever_the_device_raises_every_image_ends_and_the_next_one_works(engine, device, monkeypatch, broken, error):
    """Some are finished all the same: what only looks, or cleans up, ends no image."""
    device.may_load.clear()
    jobs = [engine.submit(plan_of(engine, 2, steps=3)), engine.submit(plan_of(engine, steps=3))]
    device.hold()
    device.may_load.set()
    device.let()
    wait_for(jobs[1], at_step(1))
    with monkeypatch.context() as patch:
        patch.setattr(device, broken, mock.Mock(side_effect=error))
        engine.stop(jobs[1])
        engine._link.send(Forget(jobs[1].id, (0,)))
        device.let_go()
        assert [len(ends(job)) for job in jobs] == [2, 1]
    assert kinds(engine.submit(plan_of(engine, steps=3))) == ["Finished"]


def test_an_error_in_a_tick_ends_only_what_was_in_it(engine, device):
    """Neither the image that was stopped before nor the one that waits for another model is in the tick."""
    device.may_load.clear()
    stopped, failing = engine.submit(plan_of(engine, steps=9)), engine.submit(plan_of(engine, steps=9))
    device.hold()
    device.may_load.set()
    device.let()
    wait_for(failing, at_step(1))
    device.may_load.clear()
    waiting = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    engine.stop(stopped)
    device.let()
    wait_for(failing, at_step(2))
    device.tick_error = RuntimeError("the device fell over")
    device.let_go()
    assert [kinds(stopped), kinds(failing), kinds(waiting)] == [["Cancelled"], ["Failed"], ["Finished"]]
    assert ends(stopped)[0].made is not None


@near
def test_a_request_that_fails_ends_nobody_elses_images(engine, device, monkeypatch):
    device.hold()
    job = engine.submit(plan_of(engine, 2))
    device.let()
    wait_for(job, at_step(1))
    monkeypatch.setattr(device, "forget", mock.Mock(side_effect=RuntimeError("a bug")))
    engine._link.send(Forget(job.id, (0, 1)))
    device.let_go()
    assert kinds(job) == ["Finished"] * 2


@near
@pytest.mark.parametrize("error", [SystemExit, MemoryError, StopIteration])
def test_the_loop_is_begun_again_whatever_broke_it_off(engine, device, monkeypatch, error):
    """Where nothing is expected to raise, too."""
    original, errors = engine._link._develop_stopped, [error]

    def develop_stopped() -> None:
        if errors:
            raise errors.pop()
        original()

    monkeypatch.setattr(engine._link, "_develop_stopped", develop_stopped)
    assert kinds(engine.submit(plan_of(engine))) == ["Failed"]
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


@near
def test_whoever_asks_without_pause_does_not_hold_up_the_ticks(engine, device):
    """Each answer is followed by the next question, as from a page that shows a film."""
    asked: list[int] = []

    def question(device) -> None:
        asked.append(len(device.calls("tick")))
        if len(asked) < 100:
            put(engine, question)

    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    put(engine, question)
    device.let_go()
    assert kinds(job) == ["Finished"]
    assert asked.count(asked[0]) <= 2  # then there was a tick


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError()])
def test_a_device_that_breaks_off_when_it_is_opened_is_tried_again(tmp_path, catalog, device, error):
    with Engine(catalog, open_after([error], device), tmp_path) as engine:
        assert [kinds(engine.submit(plan_of(engine))) for _ in range(2)] == [["Failed"], ["Finished"]]


@near
def test_no_more_threads_and_that_is_said(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("engine.running.residency.threading.Thread", mock.Mock(side_effect=RuntimeError("can't start new thread")))
        assert kinds(engine.submit(plan_of(engine))) == ["Failed"]
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


def test_closing_ends_all_images_even_if_the_worker_hears_of_it_late(tmp_path, device):
    engine = fake_engine(tmp_path, device=device)
    device.may_load.clear()
    warm, job = engine.warm(), engine.submit(plan_of(engine))
    wait_until(lambda: device.calls("load"))
    engine._link._closing = True  # as `close` does first
    engine._link._wake()
    wait_until(engine._link._inbox.empty)
    engine.close()
    assert kinds(job) == ["Cancelled"]
    assert warm.result(SAFETY) is None
    device.let_go()


@near
def test_a_stop_does_not_come_between_a_plans_growing_and_its_cells(engine, device, monkeypatch):
    device.hold()
    job, larger = engine.submit(plan_of(engine, 1)), plan_of(engine, 3)
    send, stopping = engine._link.send, []

    def send_late(order) -> None:
        if not isinstance(order, Begin):
            return send(order)
        stopping.append(threading.Thread(target=engine.stop, args=(job,)))
        stopping[0].start()
        stopping[0].join(0.05)  # long enough for a stop that does not wait
        return send(order)

    monkeypatch.setattr(engine._link, "send", send_late)
    engine.extend(job, larger)
    stopping[0].join(SAFETY)
    device.let_go()
    assert kinds(job) == ["Cancelled"] * 3


def test_what_is_added_after_a_stop_is_made(engine, device):
    """The device is in a long call all the while: it hears of the stop when the new cells wait already."""
    device.hold()
    job = engine.submit(plan_of(engine, 1))
    device.let()
    wait_for(job, at_step(1))
    engine.stop(job)
    engine.extend(job, plan_of(engine, 3))
    device.let_go()
    assert kinds(job) == ["Cancelled", "Finished", "Finished"]


def hold_lookups(monkeypatch) -> tuple[threading.Event, list[Recipe]]:
    """Whatever is looked for on disk is not found, but only once it is set free; and what was looked for so far."""
    free, looked_for = threading.Event(), []

    def find(history, recipe, *asked) -> None:
        looked_for.append(recipe)
        assert free.wait(SAFETY)

    monkeypatch.setattr(Library, "find", find)
    return free, looked_for


@near
def test_what_was_stopped_is_not_looked_for_on_disk(engine, device, monkeypatch):
    free, looked_for = hold_lookups(monkeypatch)
    job = engine.submit(plan_of(engine, 9), reuse=True)
    wait_until(lambda: looked_for)
    engine.stop(job)
    assert kinds(job) == ["Cancelled"] * 9
    free.set()
    assert kinds(engine.submit(plan_of(engine, seed=7), reuse=True)) == ["Finished"]
    assert [recipe.seed for recipe in looked_for] == [100, 7]


def test_stopped_images_hold_their_room_until_they_are_decoded(engine, device):
    device.room = 4 * device.cost(plan_of(engine).cells[0].recipe)
    device.may_load.clear()
    jobs = [engine.submit(plan_of(engine, 8, steps=9), owner="A", together=True) for _ in range(2)]
    device.hold()
    device.may_load.set()
    device.let()
    wait_for(jobs[0], lambda event: isinstance(event, Preview))
    for job in jobs:
        engine.stop(job)
    device.let_go()
    assert [kinds(job) for job in jobs] == [["Cancelled"] * 8] * 2
    live, most = set(), 0
    for call in device.history:
        live |= {call[1]} if call[0] == "admit" else set()
        live -= {call[1]} if call[0] == "settle" else set()
        most = max(most, len(live))
    assert most <= 4


def test_a_model_that_nobody_waits_for_does_not_take_the_place_of_one_in_use(engine, device):
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    device.may_load.clear()
    warm = engine.warm("sd15")
    wait_until(lambda: len(device.calls("load")) == 2)
    device.hold()
    job = engine.submit(plan_of(engine, 2))
    device.let()
    wait_for(job, at_step(1))
    device.may_load.set()
    device.let()
    assert warm.result(SAFETY) is None
    device.let_go()
    assert kinds(job) == ["Finished"] * 2
    assert device.calls("install") == [("starter",)]


def test_the_only_image_that_somebody_stopped_does_not_wait_for_anothers_many(engine, device):
    device.may_load.clear()
    many, one = engine.submit(plan_of(engine, 7, steps=9), owner="A"), engine.submit(plan_of(engine, steps=9), owner="B")
    device.hold()
    device.may_load.set()
    device.let()
    wait_for(one, at_step(1))
    engine.stop(many)
    engine.stop(one)
    device.let_go()
    assert [kinds(many), kinds(one)] == [["Cancelled"] * 7, ["Cancelled"]]
    assert one.id in [job_id for ((job_id, _),) in device.calls("picture")][:2]


@near
def test_whoever_looks_for_many_pictures_lets_others_look_for_theirs(engine, device, monkeypatch):
    free, looked_for = hold_lookups(monkeypatch)
    many = engine.submit(plan_of(engine, 12, prompt="many"), owner="A", reuse=True)
    wait_until(lambda: looked_for)
    one = engine.submit(plan_of(engine, prompt="one"), owner="B", reuse=True)
    wait_until(lambda: "B" in engine._link._lookups.owners)
    free.set()
    assert [len(ends(many)), len(ends(one))] == [12, 1]
    assert "one" in [recipe.prompt for recipe in looked_for[:3]]


@near
def test_nobody_works_and_that_is_said(engine, monkeypatch):
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join()
    with monkeypatch.context() as patch:
        patch.setattr(engine._link, "_thread", dead)
        for asking in (lambda: engine.submit(plan_of(engine)), engine.warm):
            with pytest.raises(EngineError, match="restart Darkroom"):
                asking()
    assert engine.jobs("") == []
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


@near
def test_a_look_at_a_step_does_not_wait_for_ever(engine, device, monkeypatch):
    monkeypatch.setattr("engine.running.engine.ANSWER_SECONDS", 0.01)
    device.hold()
    job = engine.submit(plan_of(engine))
    device.let()
    wait_for(job, at_step(1))
    with pytest.raises(InvalidRequest, match="busy with a long step"):
        engine.frame(job, 0, 1)
    device.let_go()
    assert kinds(job) == ["Finished"]
    assert 1 not in [step for _, _, step in device.calls("preview")]  # nobody waits for that answer any more


def test_a_call_that_does_not_come_back_is_spoken_of_once(tmp_path, device, monkeypatch):
    monkeypatch.setattr("engine.running.patience.HANG_SECONDS", 0.02)
    with running(tmp_path, device) as engine:
        device.hold()
        job = engine.submit(plan_of(engine))
        told = wait_for(job, lambda event: isinstance(event, Notice) and event.progress is None)
        assert "has not answered for" in told.text
        assert "restarted" in told.text
        engine.stop(job)
        engine._link._patience.look(time.monotonic() + 1)
        device.let_go()
        ends(job)
        assert len([event for event in job.events() if event == told]) == 1


# Devices and models.


def open_after(failures: list[Exception], device: FakeDevice):
    def open_device() -> FakeDevice:
        if failures:
            raise failures.pop()
        return device

    return open_device


@pytest.mark.parametrize("error", [ModelUnavailable("There is no usable device."), ImportError("no torch")])
def test_a_device_that_cannot_be_opened_is_tried_again(tmp_path, catalog, device, error):
    with Engine(catalog, open_after([error], device), tmp_path) as engine:
        [failed] = ends(engine.submit(plan_of(engine))).values()
        unexpected = f"{catalog.default.title} could not be loaded; the log has the details."
        assert failed.message == (str(error) if isinstance(error, EngineError) else unexpected)
        assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


def test_warming_an_unknown_model_harms_nobody(engine):
    with pytest.raises(InvalidRequest, match="There is no model “nothing like it” here"):
        engine.warm("nothing like it")
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]


def test_warming_is_over_once_the_model_is_loaded(engine, device):
    device.may_load.clear()
    first, second = engine.warm(), engine.warm()
    assert not first.done()
    device.may_load.set()
    first.result(SAFETY), second.result(SAFETY)
    assert device.model == "starter"
    assert engine.warm().result(SAFETY) is None


def test_warming_is_over_when_the_load_fails(engine, device):
    device.load_errors["starter"] = OSError("no such file")
    assert engine.warm().result(SAFETY) is None


def test_warming_loads_once(engine, device):
    engine.warm()
    engine.warm()
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    engine.warm()
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert device.calls("load") == [("starter",)]


def test_loading_is_reported_to_those_who_wait(engine, device):
    device.may_load.clear()
    job = engine.submit(plan_of(engine))
    notice = wait_for(job, lambda event: isinstance(event, Notice))
    assert notice == Notice(f"Loading {engine.catalog.default.title} ...", progress=-1.0)
    watcher = job.watch()
    device.may_load.set()
    ends(job)
    assert 0.5 in [event.progress for event in watcher.take() if isinstance(event, Notice)]


@near
def test_a_load_that_began_before_a_job_is_told_to_it(engine, device):
    device.may_load.clear()
    engine.warm()
    wait_until(lambda: engine._link._residency.progress_of({"starter"}) is not None)
    job = engine.submit(plan_of(engine))
    assert job.standing().loading == Notice(f"Loading {engine.catalog.default.title} ...", progress=-1.0)
    device.may_load.set()
    assert kinds(job) == ["Finished"]


def test_why_a_model_could_not_be_loaded_is_remembered_until_it_can(engine, device):
    device.load_errors["starter"] = ModelUnavailable("It is not here.")
    engine.warm().result(SAFETY)
    assert engine.trouble("starter") == "It is not here."
    assert engine.trouble("sd15") is None
    device.load_errors.clear()
    engine.warm().result(SAFETY)
    assert engine.trouble("starter") is None


@near
def test_a_visitor_who_waits_for_another_model_does_not_wait_for_all_of_somebodys_grid(engine, device, monkeypatch):
    """Of a grid that is larger than what may be under way, the rest waits until the other model had its turn."""
    monkeypatch.setattr("engine.running.admission.UNDER_WAY", 2)
    device.images_a_tick = 1
    device.hold()
    grid = engine.submit(plan_of(engine, 9, steps=1), owner="A")
    device.let()
    wait_for(grid, lambda event: isinstance(event, Finished))
    other = engine.submit(plan_of(engine, model="sd15", width=64, height=64), owner="B")
    device.let_go()
    assert kinds(other) == ["Finished"]
    assert kinds(grid) == ["Finished"] * 9
    admitted = [job_id for (job_id, _), _ in device.calls("admit")]
    assert admitted.index(other.id) < 8


def test_images_of_the_old_model_finish_before_the_new_one_is_installed(engine, device):
    device.hold()
    old = engine.submit(plan_of(engine, 2, steps=3))
    wait_for(old, lambda event: isinstance(event, Queued))
    device.let()
    wait_for(old, at_step(1))
    new = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    device.let_go()
    assert [kinds(old), kinds(new)] == [["Finished"] * 2, ["Finished"]]
    order = [call[:2] for call in device.history if call[0] in {"install", "picture"}]
    first, second = ((old.id, cell) for cell in (0, 1))
    assert order == [
        ("install", "starter"), ("picture", first), ("picture", second), ("install", "sd15"), ("picture", (new.id, 0)),
    ]  # fmt: skip


def test_the_old_model_stays_while_the_new_one_is_loaded(engine, device):
    old = engine.submit(plan_of(engine))
    assert kinds(old) == ["Finished"]
    device.may_load.clear()
    new = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    wait_for(new, lambda event: isinstance(event, Notice))
    assert engine.count_tokens("starter", "an owl") == TokenCount(2, 75)
    assert engine.count_tokens("sd15", "an owl") is None
    assert engine.frame(old, 0, 2).size == (8, 8)
    device.may_load.set()
    assert kinds(new) == ["Finished"]
    assert engine.count_tokens("starter", "an owl") is None
    assert engine.count_tokens("sd15", "an owl") == TokenCount(2, 75)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelUnavailable("It is not here."), "It is not here."),
        (
            ValueError("bad weights"),
            "Stable Diffusion 1.5 (512 px, downloads about 2.1 GB once) could not be loaded; the log has the details.",
        ),
    ],
)
def test_a_failing_load_is_told_and_the_old_model_still_works(engine, device, error, message):
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    device.load_errors["sd15"] = error
    device.may_load.clear()
    new = engine.submit(plan_of(engine, 2, model="sd15", width=64, height=64))
    behind = engine.submit(plan_of(engine))
    device.may_load.set()
    assert ends(new) == {cell: Failed(cell, message) for cell in (0, 1)}
    assert kinds(behind) == ["Finished"]
    assert device.calls("load") == [("starter",), ("sd15",)]


def test_images_of_the_resident_model_do_not_wait_behind_a_download(engine, device):
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    device.may_load.clear()
    far = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    wait_for(far, lambda event: isinstance(event, Notice))
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    assert not far.done
    device.may_load.set()
    assert kinds(far) == ["Finished"]


def test_a_ready_model_gets_its_turn_whatever_comes_for_the_old_one(engine, device):
    device.images_a_tick = 1
    device.hold()
    old = engine.submit(plan_of(engine, steps=9))
    device.let()
    wait_for(old, at_step(1))
    far = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    device.let()  # the worker reads its inbox between two ticks
    wait_for(far, lambda event: isinstance(event, Notice) and event.progress == 0.5)
    device.let_go()
    later = [engine.submit(plan_of(engine)) for _ in range(3)]
    assert kinds(far) == ["Finished"]
    assert [kinds(job) for job in (old, *later)] == [["Finished"]] * 4


def test_one_plan_may_ask_for_two_models(engine):
    recipes = [plan_of(engine, model=model, width=64, height=64).cells[0].recipe for model in ("starter", "sd15", "starter")]
    assert kinds(engine.submit(Plan(tuple(Cell(i, recipe) for i, recipe in enumerate(recipes))))) == ["Finished"] * 3


@pytest.mark.parametrize("resident", ["starter", "sd15", None])
def test_cells_of_one_model_follow_each_other_in_the_plans_order(engine, device, resident):
    if resident is not None:
        assert kinds(engine.submit(plan_of_models(engine, resident))) == ["Finished"]
    job = engine.submit(plan_of_models(engine, "starter", "sd15", "starter", "sd15", "starter"))
    assert kinds(job) == ["Finished"] * 5
    admitted = [cell for (job_id, cell), _ in device.calls("admit") if job_id == job.id]
    assert admitted == ([1, 3, 0, 2, 4] if resident == "sd15" else [0, 2, 4, 1, 3])
    assert len(device.calls("load")) == len(device.calls("install")) == 2


def test_cells_wait_in_the_order_in_which_they_will_be_made(engine, device):
    device.may_load.clear()
    job = engine.submit(plan_of_models(engine, "starter", "sd15", "starter"))
    wait_for(job, lambda event: isinstance(event, Queued) and event.ahead == 2)
    assert {cell: event.ahead for cell, event in job.standing().cells.items()} == {0: 0, 2: 1, 1: 2}


@pytest.mark.parametrize(("together", "order"), [(False, [0, 0, 0, 1, 1, 1]), (True, [0, 1, 0, 1, 0, 1])])
def test_cells_that_develop_together_take_turns(engine, device, together, order):
    device.images_a_tick = 1
    job = engine.submit(plan_of(engine, 2, steps=3), together=together)
    assert kinds(job) == ["Finished"] * 2
    assert [cell for ((_, cell),) in (keys for (keys,) in device.calls("tick"))] == order


# Rehearsing.


@pytest.fixture
def installed(caplog):
    """A function that waits until a model was installed for the n-th time, and rehearsed where it was to be.

    It asks the worker nothing: a request in the inbox would keep it from rehearsing.
    """
    caplog.set_level("INFO", "engine.running.residency")

    def wait(model: str = "starter", times: int = 1) -> None:
        end = time.monotonic() + SAFETY
        while caplog.messages.count(f"{model} is ready") < times:
            assert time.monotonic() < end, "it never was"
            time.sleep(0.002)

    return wait


def rehearsed(device: FakeDevice) -> list[int]:
    """Images of each call of a rehearsal."""
    return [len(keys) for (keys,) in device.calls("tick") if keys[0][0] == "rehearsal"]


@near
def test_a_warmed_idle_model_is_rehearsed_and_the_first_estimate_is_measured(engine, device, installed, monkeypatch):
    plan = plan_of(engine, 3)
    assert engine.estimate(plan).seconds is None
    monkeypatch.setattr("engine.running.residency.REHEARSED_SECONDS", 60)
    device.tick_seconds = 0.01
    engine.warm()
    installed()
    assert rehearsed(device) == [1, 1, 8, 8]
    assert engine.estimate(plan).seconds >= 0.04
    assert files(engine) == []
    assert engine.jobs("") == []
    assert device.kept == set()


@near
def test_a_slow_model_is_not_rehearsed_in_wide_calls(engine, device, installed, monkeypatch):
    monkeypatch.setattr("engine.running.residency.REHEARSED_SECONDS", 0.001)
    device.tick_seconds = 0.01
    engine.warm()
    installed()
    assert rehearsed(device) == [1, 1]


@near
def test_a_large_model_is_rehearsed_from_small_pictures_up_as_long_as_that_is_quick(engine, device, installed, monkeypatch):
    monkeypatch.setattr("engine.running.residency.REHEARSED_SECONDS", 60)
    engine.warm("sd15")
    installed("sd15")
    assert [size for key, size in device.sizes if key == ("rehearsal", 0)] == [(side, side) for side in (64, 128, 256, 512, 512)]


@near
def test_a_rehearsal_ends_as_soon_as_somebody_comes(engine, device, installed):
    device.hold()
    engine.warm("sd15")
    wait_until(lambda: device.calls("admit"))
    job = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    device.let_go()
    assert kinds(job) == ["Finished"]
    assert rehearsed(device) == [1, 1]


def test_a_model_that_somebody_waits_for_is_not_rehearsed(engine, device):
    device.may_load.clear()
    engine.warm()
    job = engine.submit(plan_of(engine))
    device.may_load.set()
    assert kinds(job) == ["Finished"]
    assert rehearsed(device) == []


def test_a_model_that_was_not_warmed_is_not_rehearsed(engine, device):
    assert kinds(engine.submit(plan_of(engine))) == ["Finished"]
    engine.warm()
    assert rehearsed(device) == []
    assert engine.estimate(plan_of(engine)).seconds is not None  # the picture itself was measured


@near
def test_a_rehearsal_that_had_to_be_left_out_is_not_made_up_for_later(engine, device, installed):
    device.may_load.clear()
    engine.warm()
    first = engine.submit(plan_of(engine))
    device.may_load.set()
    assert kinds(first) == ["Finished"]
    assert kinds(engine.submit(plan_of_models(engine, "sd15"))) == ["Finished"]
    device.may_load.clear()
    back = engine.submit(plan_of(engine, seed=1))
    wait_for(back, lambda event: isinstance(event, Notice))
    engine.stop(back)
    device.may_load.set()
    installed(times=2)
    assert rehearsed(device) == []


@near
@pytest.mark.parametrize("trouble", ["tick", "step", "admit"])
def test_a_failing_rehearsal_does_no_harm_and_measures_nothing(engine, device, installed, monkeypatch, trouble):
    with monkeypatch.context() as patch:
        if trouble == "tick":
            device.tick_error = RuntimeError("the device fell over")
        elif trouble == "step":
            device.step_errors[0] = (1, RuntimeError("boom"))
        else:
            patch.setattr(device, "admit", mock.Mock(side_effect=RuntimeError("it cannot be begun")))
        engine.warm()
        installed()
    assert engine.estimate(plan_of(engine)).seconds is None
    assert device.kept == set()
    assert kinds(engine.submit(plan_of(engine, 2))) == ["Finished"] * 2


def test_calls_in_which_an_image_failed_are_not_measured(engine, device):
    device.step_errors[100] = (1, RuntimeError("boom"))
    assert kinds(engine.submit(plan_of(engine))) == ["Failed"]
    assert engine.estimate(plan_of(engine)).seconds is None


# Words.


def test_an_empty_prompt_is_mentioned_once_a_job(engine):
    job = engine.submit(plan_of(engine, 3, prompt="  "))
    ends(job)
    assert notices(job) == ["The prompt is empty, so the model draws whatever it likes."]


def test_cut_words_are_named_once_a_job(engine, device):
    device.token_limit = 2
    job = engine.submit(plan_of(engine, 3, prompt="an owl in a tree", negative_prompt="not a very good one"))
    ends(job)
    assert notices(job) == [
        "The model reads 2 tokens of the prompt; these words were cut: “in a tree”.",
        "The model reads 2 tokens of the negative prompt; these words were cut: “very good one”.",
    ]


# The end.


def test_close_while_running_ends_all_jobs(tmp_path, device):
    engine = fake_engine(tmp_path, device=device)
    device.hold()
    running_job = engine.submit(plan_of(engine, 2, steps=150))
    device.let()
    wait_for(running_job, at_step(1))
    waiting = engine.submit(plan_of(engine, model="sd15", width=64, height=64))
    closing = threading.Thread(target=engine.close)
    closing.start()
    while closing.is_alive():
        device.let()
        closing.join(0.01)
    assert kinds(running_job) == ["Cancelled"] * 2
    assert kinds(waiting) == ["Cancelled"]
    assert len(files(engine)) == 2


def test_close_twice_and_unused(tmp_path, device):
    engine = fake_engine(tmp_path, device=device)
    engine.close()
    engine.close()
    assert device.history == []


def test_a_closed_engine_takes_no_more_work(tmp_path, device):
    engine = fake_engine(tmp_path, device=device)
    engine.close()
    with pytest.raises(EngineError, match="is closing"):
        engine.submit(plan_of(engine))
    with pytest.raises(EngineError, match="is closing"):
        engine.warm()

"""Engine: who may ask for what, what is kept to look back at, and the embedded model through all of it."""

from __future__ import annotations

import numpy
import pytest
import torch

from engine.catalog import Catalog, Limits
from engine.diffusion.device import TorchDevice
from engine.engine import Engine
from engine.errors import EngineError, InvalidRequest, ModelUnavailable
from engine.events import Failed, Finished, Notice, Preview
from engine.job import Job
from engine.metadata import read_picture
from engine.plan import Cell, Plan, plan_images
from engine.previewing import PreviewOptions
from tests.engine.test_worker import at_step, ends, files, kinds, notices, plan_of, running, wait_for
from tests.fake_device import FakeDevice


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


def test_a_job_can_be_found_again(engine):
    job = engine.submit(plan_of(engine))
    assert engine.job(job.id) is job
    assert engine.job("nothing") is None


def test_old_jobs_are_forgotten(engine, device, monkeypatch):
    monkeypatch.setattr("engine.engine.KEPT_JOBS", 2)
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
    monkeypatch.setattr("engine.engine.KEPT_JOBS", 0)
    device.hold()
    jobs = [engine.submit(plan_of(engine)) for _ in range(3)]
    assert [engine.job(job.id) for job in jobs] == jobs
    device.let_go()
    assert [kinds(job) for job in jobs] == [["Finished"]] * 3


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
    return TorchDevice("cpu", cache=tmp_path_factory.mktemp("cache"))


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
    assert made.image.size == (64, 64)
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
    assert end.made.image.size == (64, 64)
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
    monkeypatch.setattr(torch_device.denoiser.family, "decode_pixels", lambda latents: torch.full((1, 3, 64, 64), pixel))
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

"""Previews: they show what is coming, and change nothing."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from engine.diffusion import previews
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.loading import load
from engine.diffusion.previews import Previewers, fit_linear, linear_factors
from engine.diffusion.stable_diffusion import traits_of
from engine.errors import OutOfMemory, SpoiltPicture
from engine.recipes.plan import plan_images
from engine.running.engine import Engine
from engine.running.events import Preview
from engine.running.preview_options import BEST_FIRST, METHODS, PreviewOptions
from tests.tiny import SIZE


@pytest.fixture(scope="module")
def starter_engine(catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("previews")
    with Engine(catalog, lambda: TorchDevice("cpu"), folder) as engine:
        yield engine


@pytest.fixture(scope="module")
def starter_factors(starter_family):
    return fit_linear(starter_family)


@pytest.fixture(scope="module")
def generated(starter_family, catalog):
    """Latents of a real picture of the embedded model. # (1, 4, 16, 16)"""
    denoiser = Denoiser(starter_family)
    trajectory = denoiser.admit("it", catalog.default.recipe(prompt="a sunflower, noto style", seed=42, steps=8))
    while denoiser.tick():
        pass
    return trajectory.latents


def tiny_decoder() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
    ).eval()  # fmt: skip


@pytest.mark.parametrize("scheduler", ["DPM++ 2M", "Euler a"])
def test_previews_change_nothing(starter_engine, scheduler):
    hashes, pictures = set(), {}
    recipe = starter_engine.catalog.default.recipe(prompt="an owl, noto style", seed=3, steps=4, scheduler=scheduler)
    plan = plan_images(recipe, starter_engine.catalog, starter_engine.limits)
    for options in (*map(PreviewOptions, METHODS), PreviewOptions("linear", every=3)):
        events = list(starter_engine.submit(plan, previews=options).events())
        hashes.add(events[-1].made.sha256)
        pictures[options] = {event.method for event in events if isinstance(event, Preview) and event.image}
    assert len(hashes) == 1
    assert pictures[PreviewOptions("off")] == set()
    assert [pictures[PreviewOptions(method)] for method in BEST_FIRST] == [{method} for method in BEST_FIRST]


def test_every_third_step_is_shown(starter_engine):
    recipe = starter_engine.catalog.default.recipe(prompt="an owl", steps=8)
    job = starter_engine.submit(
        plan_images(recipe, starter_engine.catalog, starter_engine.limits), previews=PreviewOptions("linear", every=3)
    )
    job.wait()
    frames = [starter_engine.frame(job, 0, step) for step in range(1, 9)]
    assert {frame.size for frame in frames} == {(16, 16)}
    assert len({frame.tobytes() for frame in frames}) == 8


def test_the_linear_fit_explains_the_decode(starter_family, starter_factors, generated):
    shown = numpy.asarray(Previewers(starter_family, starter_factors).show("linear", generated), numpy.float32)
    with torch.inference_mode():
        decoded = starter_family.decode_pixels(generated)
    pooled = torch.nn.functional.avg_pool2d(decoded, starter_family.traits.scale)[0].permute(1, 2, 0).numpy()
    assert shown.shape == pooled.shape == (16, 16, 3)
    for channel in range(3):
        assert numpy.corrcoef(shown[..., channel].ravel(), pooled[..., channel].ravel())[0, 1] > 0.8


def test_the_fit_is_the_same_every_time(tiny_family):
    assert torch.allclose(fit_linear(tiny_family), fit_linear(tiny_family), atol=1e-5)


def test_a_decoder_of_its_own_is_fitted(tiny_family):
    assert torch.allclose(linear_factors(tiny_family), fit_linear(tiny_family), atol=1e-5)


def test_stable_diffusions_decoders_have_a_published_map(monkeypatch):
    """Their config.json: block_out_channels 128, 256, 512, 512 and the default scaling_factor; no weight is looked at."""
    monkeypatch.setattr(previews, "fit_linear", lambda family: pytest.fail("fitted"))
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
        )  # fmt: skip
    factors = linear_factors(SimpleNamespace(traits=traits_of(vae)))
    # ComfyUI's latent_formats.SD15.latent_rgb_factors, fitted by others, draw the same colours.
    others = [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]]
    assert numpy.corrcoef(factors[:4].ravel(), numpy.ravel(others))[0, 1] > 0.9


def test_the_catalogs_map_is_used_as_given(tiny_family, monkeypatch):
    monkeypatch.setattr(previews, "fit_linear", lambda family: pytest.fail("fitted"))
    published = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    factors = linear_factors(tiny_family, published)
    shown = Previewers(tiny_family, factors).show("linear", torch.tensor([1.0, 0.0, -1.0, 5.0]).view(1, 4, 1, 1))
    assert shown.getpixel((0, 0)) == (255, 128, 0)


def test_each_previewer_draws(tiny_family):
    shown = Previewers(tiny_family, torch.ones(5, 3), tiny_decoder())
    x0 = torch.randn(1, 4, 16, 16, dtype=torch.float32).half()
    assert {name: shown.show(name, x0).size for name in shown.methods} == {"linear": (16, 16), "vae": (SIZE, SIZE), "tiny": (32, 32)}
    shown.measure(16)
    assert all(0 < seconds < math.inf for seconds in shown.costs(256).values())


# What they take.


class SimulatedTime:
    """Stands in for `time` in the previewers, and for their methods: of one that needs `fixed` seconds and `each` a latent."""

    def __init__(self, monkeypatch, shown: Previewers, **needs: tuple[float, float]):
        self.now, self.made = 0.0, {name: [] for name in needs}
        monkeypatch.setattr(previews, "time", SimpleNamespace(perf_counter=lambda: self.now))
        shown.methods = {name: partial(self.make, name, *needs[name]) for name in needs}
        shown._costs = {name: previews.Cost() for name in needs}

    def make(self, name: str, fixed: float, each: float, x0: torch.Tensor) -> str:
        latents = x0[0, 0].numel()
        self.now += fixed + each * latents
        self.made[name].append(latents)
        return name


@pytest.fixture
def shown(tiny_family):
    return Previewers(tiny_family, torch.ones(5, 3))


def test_a_previewer_is_measured_at_the_models_own_size_where_that_is_quick(shown, monkeypatch):
    """Of a card: 5 ms to begin and little for each latent. In proportion to a small picture's, 512 pixels would cost 320 ms."""
    SimulatedTime(monkeypatch, shown, tiny=(0.005, 1e-7))
    shown.measure(64)
    assert shown.costs(64 * 64)["tiny"] == pytest.approx(0.005 + 64 * 64 * 1e-7)
    assert shown.costs(96 * 96)["tiny"] == pytest.approx(0.005 + 96 * 96 * 1e-7)
    assert shown.costs(40 * 40)["tiny"] == pytest.approx(0.005 + 40 * 40 * 1e-7)


def test_a_slow_previewer_is_only_measured_at_small_sizes(shown, monkeypatch):
    """Of a CPU: 10 s for the full decode of 512 pixels, for which no load may wait."""
    simulated = SimulatedTime(monkeypatch, shown, linear=(0.0, 1e-8), vae=(0.0, 10 / 64**2))
    shown.measure(64)
    assert shown.costs(64 * 64)["vae"] == pytest.approx(10)
    assert simulated.made == {"linear": [64] * 2 + [256] * 2 + [1024] * 2 + [4096] * 2, "vae": [64] * 2}


def test_the_models_own_size_need_be_no_power_of_two(shown, monkeypatch):
    simulated = SimulatedTime(monkeypatch, shown, tiny=(0.001, 0.0))
    shown.measure(24)
    assert simulated.made["tiny"] == [64] * 2 + [256] * 2 + [576] * 2
    shown.measure(4)
    assert simulated.made["tiny"][-2:] == [16] * 2


def test_what_is_shown_is_measured_too(shown, monkeypatch):
    simulated = SimulatedTime(monkeypatch, shown, linear=(1.0, 0.0), vae=(2.0, 0.0))
    shown.measure(8)
    monkeypatch.setitem(shown.methods, "linear", partial(simulated.make, "linear", 11.0, 0.0))
    shown.show("linear", torch.zeros(1, 4, 8, 8))
    assert shown.seconds == 11.0
    assert shown.costs(64) == {"linear": pytest.approx(0.7 * 1.0 + 0.3 * 11.0), "vae": 2.0}


def test_nothing_is_offered_before_it_was_measured_nor_what_always_fails(shown, monkeypatch):
    assert set(shown.costs(64).values()) == {math.inf}
    monkeypatch.setitem(shown.methods, "vae", mock.Mock(side_effect=RuntimeError("no such kernel")))
    shown.measure(8)
    assert shown.costs(64)["vae"] == math.inf
    assert shown.costs(64)["linear"] < math.inf


def test_a_failing_previewer_counts_as_ever_dearer(shown, monkeypatch):
    shown.measure(8)
    before = shown.costs(64)
    monkeypatch.setitem(shown.methods, "vae", mock.Mock(side_effect=OutOfMemory("no room")))
    for _ in range(3):
        with pytest.raises(OutOfMemory):
            shown.show("vae", torch.zeros(1, 4, 8, 8))
    assert shown.costs(64) == {**before, "vae": 8 * before["vae"]}
    assert shown.seconds > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_without_numbers_is_shown_by_no_previewer_and_is_no_fault_of_theirs(tiny_family, bad):
    shown = Previewers(tiny_family, torch.ones(5, 3), tiny_decoder())
    shown.measure(8)
    before, x0 = shown.costs(64), torch.zeros(1, 4, 8, 8)
    x0[0, 1, 2, 3] = bad
    for name in shown.methods:
        with pytest.raises(SpoiltPicture, match="nothing to see of this step"):
            shown.show(name, x0)
    assert shown.costs(64) == before


def test_a_tiny_decoder_that_gives_no_numbers_shows_nothing(tiny_family):
    decoder = tiny_decoder()
    torch.nn.init.constant_(decoder.decoder.layers[0].weight, math.inf)
    with pytest.raises(SpoiltPicture):
        Previewers(tiny_family, torch.ones(5, 3), decoder).show("tiny", torch.ones(1, 4, 8, 8))


class Stream:
    """A CUDA stream, simulated: what was queued is done when somebody waits, and an event tells when its turn came."""

    def __init__(self):
        self.queued, self.now = 0.0, 0.0

    def wait(self) -> None:
        self.now, self.queued = self.now + self.queued, 0.0

    def event(self, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        one = SimpleNamespace(synchronize=self.wait)
        one.record = lambda: setattr(one, "at", self.now + self.queued)
        one.elapsed_time = lambda other: 1000 * (other.at - one.at)
        return one


def test_on_cuda_the_networks_call_that_a_preview_waits_for_does_not_count(shown, monkeypatch):
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)

    def decode(x0):
        stream.queued += 0.02
        stream.wait()

    stream.queued = 5.0  # seconds of network calls that are under way
    shown._device = SimpleNamespace(type="cuda")
    assert shown._timed(decode, torch.zeros(1, 4, 8, 8))[1] == pytest.approx(0.02)


def test_a_model_is_measured_when_it_is_installed(tiny_pipeline, tmp_path, catalog):
    tiny_pipeline.save_pretrained(tmp_path)
    device = TorchDevice("cpu")
    spec = catalog.default.model_copy(update={"source": str(tmp_path), "tiny_decoder": None, "native_size": SIZE})
    loaded = device.load(spec, lambda *told: None)
    assert set(loaded.previewers.costs(64).values()) == {math.inf}
    device.install(loaded)
    assert all(0 < seconds < math.inf for seconds in loaded.previewers.costs(64).values())


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated")  # of diffusers, for a hub id
def test_the_tiny_decoder_of_the_catalog_is_used_when_it_is_here(tiny_pipeline, tmp_path, catalog):
    tiny_pipeline.save_pretrained(tmp_path / "model")
    tiny_decoder().save_pretrained(tmp_path / "tiny")
    spec = catalog.default.model_copy(update={"source": str(tmp_path / "model"), "tiny_decoder": str(tmp_path / "tiny")})
    cpu = torch.device("cpu")
    assert set(load(spec, cpu, torch.float32, lambda *told: None).previewers.methods) == {"linear", "vae", "tiny"}
    missing = spec.model_copy(update={"tiny_decoder": "nobody/nothing"})
    assert set(load(missing, cpu, torch.float32, lambda *told: None).previewers.methods) == {"linear", "vae"}


def test_a_method_that_the_model_lacks_falls_back_to_linear(tiny_pipeline, tmp_path, catalog):
    tiny_pipeline.save_pretrained(tmp_path)
    device = TorchDevice("cpu")
    device.install(device.load(catalog.default.model_copy(update={"source": str(tmp_path), "tiny_decoder": None}), lambda *told: None))
    device.admit("it", catalog.default.recipe(steps=1, width=SIZE, height=SIZE))
    device.tick()
    assert device.preview("it", "tiny").tobytes() == device.preview("it", "linear").tobytes()

"""Previews: they show what is coming, and change nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from engine.diffusion import previews
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.loading import load
from engine.diffusion.previews import Previewers, fit_linear, linear_factors
from engine.engine import Engine
from engine.events import Preview
from engine.plan import plan_images
from engine.previewing import PreviewOptions
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
    for options in (
        PreviewOptions("off"), PreviewOptions("auto"), PreviewOptions("linear"), PreviewOptions("vae"), PreviewOptions("linear", every=3),
    ):  # fmt: skip
        events = list(starter_engine.submit(plan, previews=options).events())
        hashes.add(events[-1].made.sha256)
        pictures[options] = {event.method for event in events if isinstance(event, Preview) and event.image}
    assert len(hashes) == 1
    assert pictures[PreviewOptions("off")] == set()
    assert pictures[PreviewOptions("linear")] == {"linear"}
    assert pictures[PreviewOptions("vae")] == {"vae"}


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
    pooled = torch.nn.functional.avg_pool2d(decoded, starter_family.scale)[0].permute(1, 2, 0).numpy()
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
    factors = linear_factors(SimpleNamespace(vae=vae))
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
    assert all(seconds > 0 for seconds in shown.costs(256).values())


def test_showing_updates_the_costs(tiny_family, monkeypatch):
    shown = Previewers(tiny_family, torch.ones(5, 3))
    before = shown.costs(100)
    clock = iter([0.0, 16.0])
    monkeypatch.setattr(previews, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    shown.show("linear", torch.zeros(1, 4, 4, 4))
    after = shown.costs(100)
    assert after["linear"] == pytest.approx(0.7 * before["linear"] + 0.3 * 100)
    assert after["vae"] == before["vae"]


def test_costs_grow_with_the_picture(tiny_family):
    shown = Previewers(tiny_family, torch.ones(5, 3))
    assert shown.costs(200)["vae"] == pytest.approx(2 * shown.costs(100)["vae"])


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

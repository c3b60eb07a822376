"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.loading import load
from engine.recipe import Recipe
from engine.schedulers import SCHEDULERS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here")]


@pytest.fixture(scope="module")
def cuda(catalog) -> TorchDevice:
    device = TorchDevice("cuda")
    device.install(device.load(catalog.default, lambda text, part: None))
    return device


def draw(device: TorchDevice, *recipes: Recipe, exact: bool = False) -> list[numpy.ndarray]:
    """The latents of recipes drawn together."""
    for place, recipe in enumerate(recipes):
        device.admit(place, recipe, exact=exact)
    while device.tick():
        pass
    found = [device.latents(place) for place in range(len(recipes))]
    for place in range(len(recipes)):
        device.forget(place)
    return found


def test_the_network_runs_in_float16_and_the_latents_in_float32(cuda, catalog):
    cuda.admit("it", catalog.default.recipe(prompt="an owl, noto style", steps=2), exact=False)
    cuda.tick()
    assert cuda.facts("it").result().dtype == "float16"
    assert cuda.latents("it").dtype == numpy.float32
    cuda.forget("it")


def test_a_picture_looks_like_the_cpus(cuda, catalog):
    recipe = catalog.default.recipe(prompt="a rainbow, noto style", seed=3)
    cuda.admit("it", recipe, exact=False)
    while cuda.tick():
        pass
    ours = numpy.asarray(cuda.picture("it"), dtype=float)
    cuda.forget("it")
    cpu = TorchDevice("cpu")
    cpu.install(load(catalog.default, torch.device("cpu"), torch.float32, lambda text, part: None))
    cpu.admit("it", recipe, exact=False)
    while cpu.tick():
        pass
    theirs = numpy.asarray(cpu.picture("it"), dtype=float)
    assert numpy.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95


def test_exact_images_are_the_same_bits_in_any_company(cuda, catalog):
    wanted = catalog.default.recipe(prompt="a cactus, fluent style", seed=11, steps=6)
    others = [
        catalog.default.recipe(prompt="a rocket, fluent style", seed=seed, steps=4 + seed, guidance_scale=1 + seed, scheduler="Euler a")
        for seed in range(7)
    ]
    [alone] = draw(cuda, wanted, exact=True)
    among, *_ = draw(cuda, wanted, *others, exact=True)
    assert numpy.array_equal(alone, among)


@pytest.mark.parametrize("name", [name for name, row in SCHEDULERS.items() if row.noise == "seed"])
def test_the_noise_of_a_brownian_tree_is_the_cpus(cuda, catalog, name):
    """With a network that answers nothing, all that the latents are made of is noise."""
    recipe = catalog.default.recipe(seed=11, steps=6, scheduler=name)
    ended = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        family = SimpleNamespace(**{one: getattr(cuda.denoiser.family, one) for one in ("scheduler_config", "latent_shape")})
        family.device = device
        family.encode = lambda text, clip_skip=1, device=device: {"none": torch.zeros(1, device=device)}
        family.predict = lambda latents, timesteps, conditioning: torch.zeros_like(latents)
        denoiser = Denoiser(family, padded=False)
        trajectory = denoiser.admit("it", recipe)
        while denoiser.tick():
            pass
        ended.append(trajectory.latents.cpu())
    assert torch.allclose(*ended, rtol=1e-4, atol=1e-4)

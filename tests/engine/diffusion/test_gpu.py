"""What only a GPU can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

import copy
import gc

import numpy
import pytest
import torch

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.family import Conditions
from engine.diffusion.loading import load
from engine.errors import OutOfMemory
from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SCHEDULERS
from engine.running.packing import PROBED_AFTER
from tests.tiny import SIZE, make_pipeline

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
        family = copy.copy(cuda.denoiser.family)
        family.device = device
        told = {"none": torch.zeros(1, device=device)}
        family.conditions = lambda recipe, told=told: Conditions(classifier_free(recipe), (told,) * 2, (1.0,))
        family.predict = lambda latents, timesteps, conditioning: torch.zeros_like(latents)
        denoiser = Denoiser(family, padded=False)
        trajectory = denoiser.admit("it", recipe)
        while denoiser.tick():
            pass
        ended.append(trajectory.latents.cpu())
    assert torch.allclose(*ended, rtol=1e-4, atol=1e-4)


# The same as on the CPU.


@pytest.fixture(scope="module")
def both(catalog) -> tuple[TorchDevice, TorchDevice]:
    """In float32, so that they differ by rounding only: (the GPU, the CPU)."""
    devices = TorchDevice("cuda", "float32"), TorchDevice("cpu")
    for device in devices:
        device.install(device.load(catalog.default, lambda text, part: None))
    return devices


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_what_it_draws_on_the_cpu(both, catalog, name):
    """The noise of those that draw some comes from the CPU on both."""
    recipe = catalog.default.recipe(prompt="an owl, noto style", seed=5, steps=6, scheduler=name)
    [ours], [theirs] = (draw(device, recipe) for device in both)
    assert numpy.isfinite(ours).all()
    assert numpy.abs(ours - theirs).mean() < 0.02 * theirs.std()


def test_a_picture_of_512_pixels_is_decoded_in_float16_as_on_the_cpu(cuda, both, catalog):
    recipe = catalog.default.recipe(prompt="a rainbow, noto style", seed=3, steps=2, width=512, height=512)
    [latents] = draw(both[1], recipe)
    pictures = [device.denoiser.family.decode(torch.as_tensor(latents)[None]) for device in (cuda, both[1])]
    ours, theirs = (numpy.asarray(picture, float) for picture in pictures)
    assert ours.shape == (512, 512, 3)
    assert numpy.abs(ours - theirs).mean() < 2
    assert cuda.denoiser.family.vae.dtype == torch.float16


# Memory.


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def finish(device: TorchDevice) -> dict:
    """The error, or None, of each image that ended."""
    ends = {}
    while advances := device.tick():
        ends |= {advance.key: advance.error for advance in advances if advance.done or advance.error}
    return ends


@pytest.fixture
def little_memory():
    """A function that leaves torch so many bytes more than it holds now."""

    def leave(more: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_loses_nothing_and_is_over_when_there_is_memory_again(cuda, catalog, little_memory):
    small = [catalog.default.recipe(prompt="an owl", seed=seed, steps=2) for seed in range(8)]
    large = [recipe.replace(width=1024, height=1024, steps=2) for recipe in small]
    before, packer = draw(cuda, *small), cuda.packer
    usual = packer.most_rows(1024 * 1024)
    little_memory(64 * 2**20)
    for key, recipe in enumerate(large):
        cuda.admit(key, recipe)
    ends = finish(cuda)
    assert ends.keys() == set(range(8))
    assert all(error is None or isinstance(error, OutOfMemory) for error in ends.values())
    assert packer.most_rows(1024 * 1024) < usual or all(ends.values())
    assert packer.most_rows(64 * 64) == catalog.default.rows_on("cuda")
    for key in ends:
        cuda.forget(key)
    assert all(numpy.array_equal(ours, theirs) for ours, theirs in zip(draw(cuda, *small), before, strict=True))
    torch.cuda.set_per_process_memory_fraction(1.0)
    for _ in range(8):
        draw(cuda, *(recipe.replace(steps=PROBED_AFTER) for recipe in large[:2]))
    assert packer.most_rows(1024 * 1024) == usual


def test_a_picture_that_does_not_fit_is_decoded_in_tiles(cuda, catalog, little_memory):
    cuda.admit("it", catalog.default.recipe(prompt="an owl", seed=1, steps=1, width=1024, height=1024))
    assert finish(cuda) == {"it": None}
    whole = numpy.asarray(cuda.picture("it"), float)
    torch.cuda.reset_peak_memory_stats()
    held = allocated()
    cuda.picture("it")
    little_memory((torch.cuda.max_memory_allocated() - held) // 2)
    tiled = numpy.asarray(cuda.picture("it"), float)
    assert cuda.facts("it").result().tiled
    assert numpy.corrcoef(whole.ravel(), tiled.ravel())[0, 1] > 0.9
    cuda.forget("it")


def test_what_has_ended_leaves_the_gpu(cuda, catalog):
    draw(cuda, catalog.default.recipe(prompt="an owl", steps=2))  # its words are encoded, and kept
    before = allocated()
    for key in range(4):
        cuda.admit(key, catalog.default.recipe(prompt="an owl", seed=key, steps=10, width=512, height=512))
    finish(cuda)
    for key in range(4):
        cuda.picture(key)
        cuda.settle(key)
    assert cuda.kept_bytes > 4 * 10 * 4 * 128 * 128 * 2
    assert allocated() - before < 2**20
    assert cuda.preview(0, "linear", 3).size == (128, 128)
    for key in range(4):
        cuda.forget(key)


def test_models_that_come_and_go_leave_nothing_on_the_gpu(catalog, tmp_path):
    make_pipeline().save_pretrained(tmp_path)
    other = catalog.default.model_copy(update={"name": "other", "source": str(tmp_path), "native_size": SIZE})
    device, held = TorchDevice("cuda"), []
    for spec in [catalog.default, other] * 3:
        device.install(device.load(spec, lambda text, part: None))
        draw(device, spec.recipe(prompt="an owl", steps=2))
        held.append(allocated())
    assert max(held[2::2]) <= held[0] * 1.01
    assert max(held[3::2]) <= held[1] * 1.01

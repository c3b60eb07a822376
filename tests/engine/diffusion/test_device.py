"""TorchDevice: what is kept of images that have ended, for how long, and what is left of a model that has made way."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future
from dataclasses import replace

import numpy
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from engine.diffusion import device as device_module
from engine.diffusion import stable_diffusion
from engine.diffusion.device import TorchDevice
from engine.diffusion.identity import Identity
from engine.diffusion.loading import Loaded
from engine.diffusion.previews import Previewers
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.errors import InvalidRequest, ModelUnavailable, OutOfMemory, SpoiltPicture
from engine.pictures.metadata import read_record
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.engine import Engine
from engine.running.events import Cancelled, Failed, Finished, Notice
from engine.running.preview_options import PreviewOptions
from tests.jobs import at_step, ends, kinds, wait_for
from tests.tiny import SIZE, family_of, make_pipeline

STEPS = 3


@pytest.fixture(scope="module")
def tiny_models(catalog, tmp_path_factory):
    """A folder of a tiny model, and a function that makes a catalog's entry of it under a name."""
    folder = tmp_path_factory.mktemp("tiny")
    make_pipeline().save_pretrained(folder)
    return lambda name: catalog.default.model_copy(update={"name": name, "source": str(folder), "native_size": SIZE})


def load(tiny_models, name: str = "one") -> Loaded:
    """A tiny model of its own, made without reading its folder."""
    family = family_of(make_pipeline())
    identity: Future = Future()
    identity.set_result(Identity(f"revision of {name}", f"weights of {name}"))
    return Loaded(tiny_models(name), family, Previewers(family, torch.ones(5, 3)), identity)


@pytest.fixture
def device(tiny_models):
    device = TorchDevice("cpu")
    device.install(load(tiny_models))
    return device


def image(seed: int, **changes) -> Recipe:
    usual = {"prompt": "an owl", "steps": STEPS, "scheduler": "Euler a", "guidance_scale": 5, "width": SIZE, "height": SIZE}
    return Recipe(**{**usual, "seed": seed, **changes})


def admit(device: TorchDevice, *keys: int, **changes) -> None:
    for key in keys:
        device.admit(key, image(key, **changes))


def draw(device: TorchDevice, *keys: int, **changes) -> None:
    """Draws images to their end, and drops them in this order, as the worker does."""
    admit(device, *keys, **changes)
    while any(not device.denoiser[key].done for key in keys):
        device.tick()
    for key in keys:
        device.settle(key)


def kept(device: TorchDevice) -> list[int]:
    """The images, of ten, that can still be looked at."""

    def is_kept(key: int) -> bool:
        try:
            device.latents(key)
        except KeyError:
            return False
        return True

    return [key for key in range(10) if is_kept(key)]


ONE = STEPS * 4 * 16 * 16 * 2 + 4 * 16 * 16 * 4
"""Bytes of a tiny image: float16 predictions of each step, and its float32 latents."""


# How much is kept.


def test_what_an_image_takes(device):
    admit(device, 0)
    begun = device.kept_bytes
    assert begun == 4 * 16 * 16 * 4
    device.forget(0)
    draw(device, 1)
    assert device.kept_bytes == ONE


def test_the_oldest_images_go_when_there_is_no_more_room(device, monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_BYTES", 3 * ONE)
    draw(device, 0, 1, 2)
    assert kept(device) == [0, 1, 2]
    draw(device, 3)
    assert kept(device) == [1, 2, 3]
    draw(device, 4, 5)
    assert kept(device) == [3, 4, 5]
    for look in (device.preview_costs, device.latents, device.facts, lambda key: device.preview(key, "linear", 1)):
        with pytest.raises(KeyError):
            look(0)


def test_images_under_way_never_go(device, monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_BYTES", 0)
    admit(device, 0, 1)
    device.tick()
    draw(device, 2)
    assert kept(device) == [0, 1]
    assert device.preview(0, "linear", 1).size == (16, 16)
    while device.tick():
        pass
    assert device.picture(0).size == (SIZE, SIZE)  # until they are dropped
    device.settle(0)
    assert kept(device) == [1]


def test_images_under_way_count_against_the_room(device, monkeypatch):
    draw(device, 0, 1)
    monkeypatch.setattr(device_module, "KEPT_BYTES", 3 * ONE)
    admit(device, 2, 3)
    while device.tick():
        pass
    device.settle(2)
    assert kept(device) == [1, 2, 3]


def test_what_is_forgotten_makes_room(device, monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_BYTES", 2 * ONE)
    draw(device, 0, 1)
    device.forget(0)
    draw(device, 2)
    assert kept(device) == [1, 2]
    device.forget(7)
    device.settle(7)


def test_larger_images_make_more_room(device, monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_BYTES", 5 * ONE)
    draw(device, 0, 1, 2)
    draw(device, 3, width=2 * SIZE, height=2 * SIZE)  # four times as much
    assert kept(device) == [2, 3]


def test_a_stopped_image_is_developed_even_when_there_is_no_room_to_keep_it(tiny_models, catalog, tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_BYTES", 0)
    spec = tiny_models("tiny")
    with Engine(catalog.with_model(spec), lambda: TorchDevice("cpu"), tmp_path) as engine:
        job = engine.submit(Plan((Cell(0, spec.recipe(steps=150)),)))
        wait_for(job, at_step(2))
        engine.stop(job)
        [end] = ends(job).values()
        assert isinstance(end, Cancelled)
        assert open_picture(end.made).size == (SIZE, SIZE)
        with pytest.raises(InvalidRequest, match="not kept any more"):
            engine.frame(job, 0, 1)


def test_images_under_way_take_the_room_of_those_that_have_ended_as_they_grow(device, monkeypatch):
    draw(device, 0, 1, 2)
    monkeypatch.setattr(device_module, "KEPT_BYTES", 3 * ONE)
    admit(device, 3, steps=9)
    seen = []
    while device.tick():
        seen.append(kept(device))
        assert device.kept_bytes <= 3 * ONE
    # An image is as large as five float16 predictions when it has ended, and as two before it has begun.
    assert seen == [[1, 2, 3]] * 3 + [[2, 3]] * 5 + [[3]]


@pytest.mark.parametrize("changes", [{}, {"scheduler": "Heun", "steps": 5}, {"width": 2 * SIZE}, {"guidance_scale": 1}])
def test_what_an_image_will_take_is_known_beforehand(device, changes):
    """The bytes of the tensors themselves are the oracle."""
    admit(device, 0, **changes)
    wanted, trajectory = device.cost(image(0, **changes)), device.denoiser[0]
    draw(device, 1)
    while device.tick():
        pass
    assert wanted == sum(one.nbytes for one in (trajectory.latents, *trajectory.x0))
    assert device.kept_bytes == wanted + ONE
    device.forget(0)
    assert device.kept_bytes == ONE
    device.forget(1)
    assert device.kept_bytes == 0


# Images that have ended.


def test_what_only_stepping_needs_is_let_go(device, monkeypatch):
    admit(device, 0)
    trajectory = device.denoiser[0]
    held = [weakref.ref(trajectory.scheduler), *(weakref.ref(told["encoder_hidden_states"]) for told in trajectory.conditions.rows)]
    while device.tick():
        pass
    device.settle(0)
    assert (trajectory.scheduler, dict(trajectory.step_options), trajectory.conditions.rows) == (None, {}, ())
    monkeypatch.setattr(stable_diffusion, "CACHED_PROMPTS", 1)  # the encoded prompts are kept for the next image
    device.denoiser.family.encode("another")
    gc.collect()
    assert [one() for one in held] == [None] * 3
    assert (trajectory.done, trajectory.step, trajectory.total) == (True, STEPS, STEPS)


def test_an_image_that_has_ended_is_looked_at_as_before(device):
    admit(device, 0)
    while device.tick():
        pass
    look = {
        "steps": lambda: [device.preview(0, method, step).tobytes() for method in ("linear", "vae") for step in range(1, STEPS + 1)],
        "picture": lambda: device.picture(0).tobytes(), "latents": lambda: device.latents(0).tobytes(),
        "facts": lambda: device.facts(0).result(),
    }  # fmt: skip
    before = {name: see() for name, see in look.items()}
    device.settle(0)
    assert {name: see() for name, see in look.items()} == before
    assert len(set(before["steps"])) == 2 * STEPS


def test_an_image_stopped_on_its_way_is_the_decode_of_its_last_prediction(device):
    admit(device, 0)
    device.tick()
    device.settle(0)
    assert device.picture(0).tobytes() == device.preview(0, "vae", 1).tobytes()
    assert device.tick() == []


@pytest.mark.parametrize("step", [0, -1, STEPS + 1])
def test_a_step_that_is_not_there(device, step):
    draw(device, 0)
    with pytest.raises(IndexError):
        device.preview(0, "linear", step)


# A model that makes way.


def test_images_of_a_model_that_made_way_are_looked_at_through_the_linear_map(device, tiny_models):
    draw(device, 0)
    before = [device.preview(0, "linear", step).tobytes() for step in range(1, STEPS + 1)]
    latents, facts = device.latents(0), device.facts(0).result()
    device.install(load(tiny_models, "two"))
    assert [device.preview(0, "linear", step).tobytes() for step in range(1, STEPS + 1)] == before
    assert device.preview(0, "vae", 2).tobytes() == device.preview(0, "linear", 2).tobytes() == before[1]
    assert list(device.preview_costs(0)) == ["linear"]
    assert (device.latents(0) == latents).all()
    assert device.facts(0).result() == facts
    assert facts.model_revision == "revision of one"
    with pytest.raises(KeyError):
        device.picture(0)
    draw(device, 1)
    assert set(device.preview_costs(1)) == {"linear", "vae"}
    device.install(load(tiny_models, "three"))
    assert [device.preview(key, "vae", 1).size for key in (0, 1)] == [(16, 16)] * 2


def test_nothing_holds_the_weights_of_a_model_that_made_way(tiny_models):
    device, loaded = TorchDevice("cpu"), load(tiny_models)
    device.install(loaded)
    old = loaded.family
    held = [weakref.ref(one) for one in (old, old.unet, old.vae, old.text_encoder, loaded, device.denoiser)]
    del old, loaded
    draw(device, 0)
    admit(device, 1)
    device.tick()
    device.settle(1)  # stopped
    device.install(load(tiny_models, "two"))
    assert [one() for one in held] == [None] * len(held)
    assert device.preview(0, "linear", 1).size == device.preview(1, "linear", 1).size == (16, 16)


def test_the_engine_holds_no_weights_of_a_model_that_made_way(tiny_models, catalog, tmp_path):
    device = TorchDevice("cpu")
    specs = [tiny_models(name) for name in ("one", "two")]
    recipes = [spec.recipe(steps=STEPS, seed=seed) for seed, spec in enumerate(specs)]
    with Engine(catalog.with_model(specs[1]).with_model(specs[0]), lambda: device, tmp_path) as engine:
        first = engine.submit(Plan((Cell(0, recipes[0]),)))
        assert kinds(first) == ["Finished"]
        held = weakref.ref(device.denoiser.family.unet)
        both = engine.submit(Plan((Cell(0, recipes[1]), Cell(1, recipes[0].replace(seed=9)))), previews=PreviewOptions("off"))
        assert [isinstance(end, Finished) for end in ends(both).values()] == [True, True]
        gc.collect()
        assert held() is not device.denoiser.family.unet
        assert device.model == "two"
        assert held() is None
        frames = engine.frames(both, {0: 1, 1: 1})
        assert {frame.size for frame in frames.values()} == {(16, 16)}  # one of them has nothing better


# Decoding that does not fit.


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    MemoryError(),
)


def small_decoder(monkeypatch, device: TorchDevice, most: int, error: Exception = OUT_OF_MEMORY[0]) -> list[int]:
    """A decoder that has room for so many latents; how many it was asked for, call by call."""
    decoder, asked = device.denoiser.family.vae.decoder, []
    forward = decoder.forward

    def decode(z, *arguments, **options):
        asked.append(z.shape[-2] * z.shape[-1])
        if asked[-1] > most:
            raise error
        return forward(z, *arguments, **options)

    monkeypatch.setattr(decoder, "forward", decode)
    return asked


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_picture_that_does_not_fit_is_decoded_in_tiles(device, monkeypatch, error):
    draw(device, 0)
    whole = numpy.asarray(device.picture(0), float)
    assert not device.facts(0).result().tiled
    asked = small_decoder(monkeypatch, device, 64, error)
    tiled = numpy.asarray(device.picture(0), float)
    assert (asked[0], max(asked[1:])) == (256, 64)
    assert device.facts(0).result().tiled
    assert tiled.shape == whole.shape
    # diffusers' own tiled decode, set as its documentation says.
    vae = device.denoiser.family.vae
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = 8, 16
    with torch.inference_mode():
        pixels = vae.decode(torch.as_tensor(device.latents(0))[None] / vae.config.scaling_factor).sample
    vae.disable_tiling()
    assert (VaeImageProcessor().postprocess(pixels, "np")[0] * 255).round() == pytest.approx(tiled, abs=1)
    assert numpy.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(("width", "height"), [(32, 48), (40, 32), (64, 56)])
def test_tiles_make_a_picture_of_any_size(device, monkeypatch, width, height):
    draw(device, 0, width=width, height=height)
    small_decoder(monkeypatch, device, 64)
    assert device.picture(0).size == (width, height)


def test_the_next_picture_is_whole_again(device, monkeypatch):
    draw(device, 0, 1)
    whole = device.picture(1).tobytes()
    with monkeypatch.context() as for_now:
        small_decoder(for_now, device, 64)
        device.picture(0)
    assert device.picture(1).tobytes() == whole
    assert not device.facts(1).result().tiled


def test_smaller_tiles_when_those_do_not_fit(device, monkeypatch):
    draw(device, 0)
    asked = small_decoder(monkeypatch, device, 16)
    assert device.picture(0).size == (SIZE, SIZE)
    assert [asked[0], asked[1], max(asked[2:])] == [256, 64, 16]


def test_what_cannot_be_decoded_at_all_keeps_its_latents(device, monkeypatch):
    draw(device, 0)
    latents = device.latents(0)
    with monkeypatch.context() as for_now:
        small_decoder(for_now, device, 0)
        with pytest.raises(OutOfMemory, match=r"decoding 32 x 32 does not fit .* not even in tiles: choose a smaller size") as caught:
            device.picture(0)
    assert caught.value.__context__ is None  # it would hold the failed call's tensors
    assert (device.latents(0) == latents).all()
    assert device.picture(0).size == (SIZE, SIZE)


def test_a_fault_of_the_decoder_is_no_want_of_memory(device, monkeypatch):
    draw(device, 0)
    asked = small_decoder(monkeypatch, device, 0, RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"))
    with pytest.raises(RuntimeError, match="INTERNAL_ERROR"):
        device.picture(0)
    assert len(asked) == 1


def test_a_failed_decode_pins_no_tensor(device, monkeypatch):
    scratches, pinned = [], []
    draw(device, 0)

    def decode(z, *arguments, **options):
        if z.shape[-1] > 8:
            scratch = torch.zeros(3)
            scratches.append(weakref.ref(scratch))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        pinned.append(scratches[0]())
        return forward(z, *arguments, **options)

    decoder = device.denoiser.family.vae.decoder
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", decode)
    device.picture(0)
    assert set(pinned) == {None}


def test_out_of_memory_in_the_decoder_loses_no_picture(tiny_models, catalog, tmp_path, monkeypatch):
    spec, device = tiny_models("tiny"), TorchDevice("cpu")
    plan = Plan((Cell(0, spec.recipe(steps=STEPS)),))
    with Engine(catalog.with_model(spec), lambda: device, tmp_path) as engine:
        whole = engine.submit(plan)
        [end] = ends(whole).values()
        assert not end.made.provenance.tiled
        with monkeypatch.context() as for_now:
            small_decoder(for_now, device, 64)
            tiled = engine.submit(plan)
            [of_tiles] = ends(tiled).values()
        assert isinstance(of_tiles, Finished)
        assert of_tiles.made.provenance.tiled
        assert read_record(of_tiles.made.path)[0].provenance.tiled
        assert "was decoded in tiles" in " ".join(event.text for event in tiled.events() if isinstance(event, Notice))
        [reused] = ends(engine.submit(plan, reuse=True)).values()
        assert (reused.reused, reused.made.sha256) == (True, end.made.sha256)  # not the one of tiles
        with monkeypatch.context() as for_now:
            small_decoder(for_now, device, 0)
            lost = engine.submit(plan)
            [failed] = ends(lost).values()
        assert isinstance(failed, Failed)
        assert "does not fit into this device's memory" in failed.message
        pixels = device.denoiser.family.decode(torch.as_tensor(engine.latents(lost, 0))[None])
        assert pixels.tobytes() == open_picture(end.made).tobytes()


def test_a_decoder_that_overflows_in_half_precision_is_tried_in_float32(tiny_models, monkeypatch):
    device = TorchDevice("cpu", "bfloat16")
    family = StableDiffusion(make_pipeline().to(torch.bfloat16), torch.device("cpu"))
    device.install(replace(load(tiny_models), family=family))
    draw(device, 0, 1)
    usual = device.picture(1).tobytes()
    plain = make_pipeline().vae.to(torch.bfloat16).float()
    with torch.inference_mode():
        expected = plain.decode(torch.as_tensor(device.latents(0))[None] / plain.config.scaling_factor).sample
    decoder, forward = family.vae.decoder, family.vae.decoder.forward
    dtypes = []

    def decode(z, *arguments, **options):
        dtypes.append(z.dtype)
        return forward(z, *arguments, **options) * (float("nan") if z.dtype != torch.float32 else 1)

    with monkeypatch.context() as for_now:
        for_now.setattr(decoder, "forward", decode)
        picture = device.picture(0)
    assert dtypes == [torch.bfloat16, torch.float32]
    assert numpy.asarray(picture) == pytest.approx((VaeImageProcessor().postprocess(expected, "np")[0] * 255).round(), abs=1)
    assert family.vae.dtype == torch.bfloat16
    assert device.picture(1).tobytes() == usual  # another's trouble is none of its own


def test_numbers_that_are_none_in_float32_either_spoil_the_picture(device, monkeypatch):
    draw(device, 0)
    decoder, forward = device.denoiser.family.vae.decoder, device.denoiser.family.vae.decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda *arguments, **options: forward(*arguments, **options) * float("nan"))
    with pytest.raises(SpoiltPicture, match="NaN"):
        device.picture(0)


def test_a_text_encoder_for_which_there_is_no_memory_is_a_sentence(device, monkeypatch):
    def read(*arguments, **options):
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr(device.denoiser.family.text_encoder, "forward", read)
    with pytest.raises(OutOfMemory, match="memory is full: try again"):
        device.admit("it", image(0))
    assert len(device.denoiser) == 0


# What is known beforehand.


def test_before_a_model_is_there_its_facts_are_refused_in_words():
    device = TorchDevice("cpu")
    assert (device.model, device.count_tokens("an owl"), device.tick()) == (None, None, [])
    for ask in (device.facts, lambda: device.packer, lambda: device.width):
        with pytest.raises(ModelUnavailable, match="No model is loaded yet"):
            ask()


def test_facts_beforehand_are_those_of_an_image_but_for_its_bucket(device):
    beforehand = device.facts().result()
    assert (beforehand.model_revision, beforehand.bucket) == ("revision of one", 0)
    draw(device, 0)
    made = device.facts(0).result()
    assert made.bucket == 2
    assert {**vars(made), "bucket": 0} == vars(beforehand)


def test_another_thread_that_sees_a_model_sees_its_packer(tiny_models, monkeypatch):
    device, seen = TorchDevice("cpu"), []
    build = device_module.Denoiser

    def building(*arguments, **options):
        seen.append(device.model)
        return build(*arguments, **options)

    monkeypatch.setattr(device_module, "Denoiser", building)
    device.install(load(tiny_models))
    assert (seen, device.model, device.packer.max_rows) == ([None], "one", 32)

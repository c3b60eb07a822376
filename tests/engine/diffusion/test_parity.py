"""Parity: an image alone equals diffusers' own pipeline, bit for bit on the CPU."""

from __future__ import annotations

import numpy
import pytest
import torch
from transformers import CLIPTextModel

from engine.diffusion import schedule
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.families import StableDiffusion
from engine.recipe import Recipe
from engine.schedulers import SCHEDULERS
from tests.tiny import SIZE

STEPS = 6


def draw(family: StableDiffusion, recipe: Recipe, **admit):
    """The engine's lone result: latents and picture."""
    denoiser = Denoiser(family)
    trajectory = denoiser.admit("it", recipe, **admit)
    while not trajectory.done:
        [advance] = denoiser.tick()
        assert advance.error is None, advance.error
    with torch.inference_mode():
        return trajectory.latents, family.decode(trajectory.latents)


def diffusers_draw(pipeline, recipe: Recipe, config, *, generator, latents=None):
    """The same by the pipeline's own __call__: latents and picture."""
    pipeline.scheduler = schedule.build(recipe.scheduler, config, recipe.steps, recipe.seed)
    seen = {}

    def keep(pipe, step, timestep, values):
        seen["latents"] = values["latents"]
        return {}

    image = pipeline(
        prompt=recipe.prompt, negative_prompt=recipe.negative_prompt, num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance_scale, width=recipe.width, height=recipe.height,
        clip_skip=recipe.clip_skip - 1 or None, generator=generator, latents=latents, callback_on_step_end=keep,
    ).images[0]  # fmt: skip
    return seen["latents"], image


def assert_same(ours, theirs) -> None:
    assert torch.equal(ours[0], theirs[0])
    assert numpy.array_equal(numpy.asarray(ours[1]), numpy.asarray(theirs[1]))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_equals_diffusers(tiny_pipeline, tiny_family, name):
    recipe = Recipe(
        prompt="a red apple", negative_prompt="blue", seed=7, steps=STEPS, guidance_scale=5.5,
        scheduler=name, width=SIZE, height=SIZE,
    )  # fmt: skip
    theirs = diffusers_draw(tiny_pipeline, recipe, tiny_family.scheduler_config, generator=torch.Generator().manual_seed(7))
    assert_same(draw(tiny_family, recipe), theirs)


def test_without_guidance_equals_diffusers(tiny_pipeline, tiny_family):
    recipe = Recipe(prompt="a cat", seed=3, steps=STEPS, guidance_scale=1, scheduler="Euler a", width=SIZE, height=SIZE + 8)
    theirs = diffusers_draw(tiny_pipeline, recipe, tiny_family.scheduler_config, generator=torch.Generator().manual_seed(3))
    assert_same(draw(tiny_family, recipe), theirs)


@pytest.fixture
def encoder_of_diffusers(monkeypatch):
    """diffusers 0.42 looks for the final norm in `text_encoder.text_model`; transformers 5.23's encoder has it itself."""
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda encoder: encoder), raising=False)


@pytest.mark.usefixtures("encoder_of_diffusers")
@pytest.mark.parametrize("guidance_scale", [1, 5.5])
def test_clip_skip_equals_diffusers(tiny_pipeline, tiny_family, guidance_scale):
    recipe = Recipe(
        prompt="a red apple", negative_prompt="blue", seed=7, steps=STEPS, guidance_scale=guidance_scale,
        scheduler="Euler a", width=SIZE, height=SIZE, clip_skip=2,
    )  # fmt: skip
    theirs = diffusers_draw(tiny_pipeline, recipe, tiny_family.scheduler_config, generator=torch.Generator().manual_seed(7))
    assert_same(draw(tiny_family, recipe), theirs)
    assert not torch.equal(draw(tiny_family, recipe.replace(clip_skip=1))[0], theirs[0])


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "Euler a", "DPM++ 2M Karras", "UniPC"])
def test_embedded_model_equals_diffusers(starter_pipeline, starter_family, catalog, name):
    recipe = catalog.default.recipe(prompt="a sunflower, noto style", negative_prompt="blue", seed=42, steps=8, scheduler=name)
    theirs = diffusers_draw(starter_pipeline, recipe, starter_family.scheduler_config, generator=torch.Generator().manual_seed(42))
    assert_same(draw(starter_family, recipe), theirs)


def test_the_usual_script_gives_the_same_picture(starter_pipeline, starter_family, catalog):
    """Seeded generator, torch.randn latents of the UNet's shape, pipe(..., latents=latents)."""
    recipe = catalog.default.recipe(prompt="an owl, noto style", negative_prompt="text", seed=5, steps=8)
    size = starter_pipeline.unet.config.sample_size
    latents = torch.randn((1, starter_pipeline.unet.config.in_channels, size, size), generator=torch.Generator().manual_seed(5))
    theirs = diffusers_draw(
        starter_pipeline, recipe, starter_family.scheduler_config, generator=torch.Generator().manual_seed(5), latents=latents
    )
    assert_same(draw(starter_family, recipe, latents=latents), theirs)
    assert_same(draw(starter_family, recipe), theirs)  # the seed's own draw is the same noise

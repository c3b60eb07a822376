"""Parity: an image alone equals diffusers' own pipeline, bit for bit on the CPU.

The pipeline's scheduler is made by diffusers alone, from the model's own file (`rules`).
"""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from transformers import CLIPTextModel

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.recipes.catalog import local_model
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SCHEDULERS
from tests.conftest import STARTER
from tests.engine.diffusion import rules
from tests.tiny import CONFIG_OF, SIZE, family_of, make_pipeline, read_pipeline

STEPS = 6

STARTER_CONFIG = json.loads((STARTER / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))


def draw(family: StableDiffusion, recipe: Recipe, **admit):
    """The engine's lone result: latents and picture."""
    denoiser = Denoiser(family)
    trajectory = denoiser.admit("it", recipe, **admit)
    while not trajectory.done:
        [advance] = denoiser.tick()
        assert advance.error is None, advance.error
    with torch.inference_mode():
        return trajectory.latents, family.decode(trajectory.latents)


def diffusers_draw(pipeline, recipe: Recipe, scheduler, *, generator=None, latents=None):
    """The same by the pipeline's own __call__ with that scheduler: latents and picture."""
    pipeline.scheduler = scheduler
    seen = {}

    def keep(pipe, step, timestep, values):
        seen["latents"] = values["latents"]
        return {}

    image = pipeline(
        prompt=recipe.prompt, negative_prompt=recipe.negative_prompt, num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance_scale, width=recipe.width, height=recipe.height,
        clip_skip=recipe.clip_skip - 1 or None, latents=latents,
        generator=generator or torch.Generator().manual_seed(recipe.seed), callback_on_step_end=keep,
    ).images[0]  # fmt: skip
    return seen["latents"], image


def rule_for(pipeline, recipe: Recipe):
    """diffusers' own scheduler of that name for one of the tiny pipelines."""
    return rules.make(recipe.scheduler, rules.read_config(CONFIG_OF[pipeline.scheduler.config.prediction_type]), recipe.seed)


def assert_same(ours, theirs) -> None:
    assert torch.equal(ours[0], theirs[0])
    assert numpy.array_equal(numpy.asarray(ours[1]), numpy.asarray(theirs[1]))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_equals_diffusers(tiny_pipeline, tiny_family, name):
    recipe = Recipe(
        prompt="a red apple", negative_prompt="blue", seed=7, steps=STEPS, guidance_scale=5.5,
        scheduler=name, width=SIZE, height=SIZE,
    )  # fmt: skip
    theirs = diffusers_draw(tiny_pipeline, recipe, rule_for(tiny_pipeline, recipe))
    assert_same(draw(tiny_family, recipe), theirs)


def test_without_guidance_equals_diffusers(tiny_pipeline, tiny_family):
    recipe = Recipe(prompt="a cat", seed=3, steps=STEPS, guidance_scale=1, scheduler="Euler a", width=SIZE, height=SIZE + 8)
    theirs = diffusers_draw(tiny_pipeline, recipe, rule_for(tiny_pipeline, recipe))
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
    theirs = diffusers_draw(tiny_pipeline, recipe, rule_for(tiny_pipeline, recipe))
    assert_same(draw(tiny_family, recipe), theirs)
    assert not torch.equal(draw(tiny_family, recipe.replace(clip_skip=1))[0], theirs[0])


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "Euler", "Euler a", "DPM++ 2M Karras", "UniPC"])
def test_embedded_model_equals_diffusers(starter_pipeline, starter_family, catalog, name):
    recipe = catalog.default.recipe(prompt="a sunflower, noto style", negative_prompt="blue", seed=42, steps=8, scheduler=name)
    assert_same(draw(starter_family, recipe), diffusers_draw(starter_pipeline, recipe, rules.make(name, STARTER_CONFIG, 42)))


def test_the_usual_script_gives_the_same_picture(starter_pipeline, starter_family, catalog):
    """Seeded generator, torch.randn latents of the UNet's shape, pipe(..., latents=latents)."""
    recipe = catalog.default.recipe(prompt="an owl, noto style", negative_prompt="text", seed=5, steps=8)
    size = starter_pipeline.unet.config.sample_size
    latents = torch.randn((1, starter_pipeline.unet.config.in_channels, size, size), generator=torch.Generator().manual_seed(5))
    theirs = diffusers_draw(starter_pipeline, recipe, rules.make(recipe.scheduler, STARTER_CONFIG, 5), latents=latents)
    assert_same(draw(starter_family, recipe, latents=latents), theirs)
    assert_same(draw(starter_family, recipe), theirs)  # the seed's own draw is the same noise


# A folder as models are published: the scheduler's file is one of `rules.CONFIGS`.


@pytest.fixture
def published(tmp_path):
    """A tiny model's folder with a scheduler_config.json of that name."""

    def publish(config: str):
        folder = tmp_path / "published"
        pipeline = make_pipeline()
        pipeline.register_modules(scheduler=rules.loaded(rules.read_config(config)))
        pipeline.save_pretrained(folder)
        (folder / "scheduler" / "scheduler_config.json").write_bytes((rules.CONFIGS / f"{config}.json").read_bytes())
        return folder

    return publish


def test_euler_with_stable_diffusions_own_file_is_the_one_that_its_users_know(published):
    folder = published("sd15")
    recipe = Recipe(prompt="a red apple", seed=42, steps=20, guidance_scale=7.5, scheduler="Euler", width=SIZE, height=SIZE)
    pipe = read_pipeline(folder)
    theirs = diffusers_draw(pipe, recipe, EulerDiscreteScheduler.from_config(pipe.scheduler.config))
    assert_same(draw(family_of(read_pipeline(folder)), recipe), theirs)


@pytest.mark.parametrize(
    ("config", "name"),
    [("sd15", "PNDM"), ("sd21", "DDIM"), ("sdxl", "Euler"), ("deis", "DEIS"), ("dpm-sde", "DPM++ 2M SDE Karras")],
)
def test_a_model_starts_on_its_own_rule(published, config, name):
    """What it draws with nothing chosen is what the pipeline draws as it was loaded; and it draws it again."""
    folder = published(config)
    recipe = local_model(folder).recipe(prompt="a red apple", seed=42, width=SIZE, height=SIZE)
    assert recipe.scheduler == name
    pipe, family = read_pipeline(folder), family_of(read_pipeline(folder))
    ours = draw(family, recipe)
    assert_same(ours, diffusers_draw(pipe, recipe, pipe.scheduler))
    assert_same(draw(family, recipe), ours)
    exact = draw(family, recipe, exact=True)
    assert_same(draw(family, recipe, exact=True), exact)

"""Schedule: fresh schedulers that leak nothing into each other, and x0 as the schedulers themselves see it."""

from __future__ import annotations

import pytest
import torch

from engine.diffusion import schedule
from engine.diffusion.denoiser import Denoiser
from engine.errors import InvalidRequest
from engine.recipe import Recipe
from engine.schedulers import SCHEDULERS
from tests.engine.diffusion.test_oracle import Oracle

CONFIG = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip
"""Stable Diffusion 1.5's own."""

ALPHAS = torch.tensor([0.99, 0.9, 0.5, 0.1])


def sigma(alpha: float) -> float:
    return ((1 - alpha) / alpha) ** 0.5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_builds_the_rows_class_with_its_options(name):
    row, scheduler = SCHEDULERS[name], schedule.build(name, CONFIG, 4, seed=1)
    assert type(scheduler).__name__ == row.class_name
    assert {key: scheduler.config[key] for key in row.options} == dict(row.options)
    assert len(scheduler.timesteps) >= 4


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_the_row_says_how_many_network_calls_a_run_takes(name, steps):
    assert SCHEDULERS[name].calls(steps) == len(schedule.build(name, CONFIG, steps, seed=1).timesteps)


def test_options_do_not_leak_from_one_scheduler_into_the_next():
    config = dict(CONFIG)
    before = {name: dict(schedule.build(name, CONFIG, 4, seed=1).config) for name in SCHEDULERS}
    after = {name: dict(schedule.build(name, config, 4, seed=1).config) for name in reversed(SCHEDULERS)}
    assert after == before
    assert config == CONFIG


def test_a_plain_scheduler_after_a_karras_one_is_plain():
    karras = schedule.build("Euler Karras", CONFIG, 8, seed=1)
    plain = schedule.build("Euler", CONFIG, 8, seed=1)
    assert karras.config.use_karras_sigmas
    assert not plain.config.use_karras_sigmas
    assert not torch.equal(karras.sigmas, plain.sigmas)


def test_two_schedulers_of_one_name_share_no_state():
    one, other = (schedule.build("DPM++ 2M", CONFIG, 4, seed=1) for _ in range(2))
    sample = torch.ones(1, 4, 2, 2)
    one.step(sample, one.timesteps[0], sample)
    assert (one.step_index, other.step_index) == (1, None)
    assert other.model_outputs == [None, None]


def test_the_seed_reaches_schedulers_that_draw_their_own_noise():
    sample = torch.ones(1, 4, 2, 2)
    results = []
    for seed in (1, 1, 2):
        scheduler = schedule.build("DPM++ SDE", CONFIG, 4, seed)
        results.append(scheduler.step(sample, scheduler.timesteps[0], sample).prev_sample)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(("timestep", "alpha"), [(0, 0.99), (2, 0.5), (3, 0.1), (2.0, 0.5), (-5, 0.99), (3.7, 0.1), (1000, 0.1)])
def test_alpha_at_whole_timesteps_and_beyond_the_ends(timestep, alpha):
    assert schedule.alpha_cumprod_at(ALPHAS, timestep) == pytest.approx(alpha)


@pytest.mark.parametrize("timestep", [0.25, 1.5, 2.999])
def test_alpha_between_timesteps_has_the_geometric_mean_of_sigmas(timestep):
    low, part = int(timestep), timestep % 1
    expected = sigma(float(ALPHAS[low])) ** (1 - part) * sigma(float(ALPHAS[low + 1])) ** part
    assert sigma(schedule.alpha_cumprod_at(ALPHAS, timestep)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["Euler", "Euler a", "Heun", "DPM2", "DPM2 a", "DDIM", "DDPM", "LMS", "Euler Karras", "Heun Karras"])
def test_predicted_x0_is_what_the_scheduler_itself_predicts(name, kind):
    scheduler = schedule.build(name, {**CONFIG, "prediction_type": kind}, 6, seed=1)
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 4, 4, generator=draw) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        shown = scheduler.scale_model_input(latents, timestep)
        prediction = torch.randn(1, 4, 4, 4, generator=draw)
        ours = schedule.predict_x0(scheduler, prediction, timestep, shown)
        step = scheduler.step(prediction, timestep, latents)
        assert torch.allclose(ours, step.pred_original_sample, rtol=5e-3, atol=5e-3)
        latents = step.prev_sample


@pytest.mark.parametrize("name", ["DPM++ 2M", "DPM++ 2M SDE", "UniPC"])
def test_predicted_x0_is_what_multistep_schedulers_remember(name):
    scheduler = schedule.build(name, CONFIG, 6, seed=1)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        ours = schedule.predict_x0(scheduler, -latents, timestep, latents)
        after = scheduler.step(-latents, timestep, latents).prev_sample
        assert torch.allclose(ours, scheduler.model_outputs[-1], rtol=1e-4, atol=1e-4)
        latents = after


def test_an_unknown_prediction_type_is_named():
    scheduler = schedule.build("DDIM", {**CONFIG, "prediction_type": "sample"}, 2, seed=1)
    sample = torch.ones(1, 4, 2, 2)
    with pytest.raises(ValueError, match="'sample' is not epsilon or v_prediction"):
        schedule.predict_x0(scheduler, sample, scheduler.timesteps[0], sample)


@pytest.mark.parametrize("name", [name for name, row in SCHEDULERS.items() if row.max_steps < 1000])
def test_more_steps_than_a_row_can_do_are_refused_with_a_sentence(name):
    most = SCHEDULERS[name].max_steps
    denoiser = Denoiser(Oracle("epsilon"))
    with pytest.raises(InvalidRequest, match=f"^{name} takes at most {most} steps; it was {most + 1}.$"):
        denoiser.admit("it", Recipe(scheduler=name, steps=most + 1))
    assert len(denoiser) == 0
    denoiser.admit("it", Recipe(scheduler=name, steps=most))
    assert len(denoiser) == 1


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_every_row_takes_the_fewest_and_the_most_steps_or_refuses_in_words(steps):
    """That few steps also run to their end is test_oracle's."""
    denoiser = Denoiser(Oracle("epsilon"))
    for name, row in SCHEDULERS.items():
        recipe = Recipe(scheduler=name, steps=steps)
        if steps <= row.max_steps:
            assert denoiser.admit(name, recipe).total >= steps
        else:
            with pytest.raises(InvalidRequest, match=f"{name} .* {steps}"):
                denoiser.admit(name, recipe)


def test_what_diffusers_refuses_becomes_a_sentence():
    family = Oracle("epsilon")
    family.scheduler_config["num_train_timesteps"] = 10
    with pytest.raises(InvalidRequest, match="DDIM cannot run 20 steps of this model: "):
        Denoiser(family).admit("it", Recipe(scheduler="DDIM", steps=20))

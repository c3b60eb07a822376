"""Schedule: fresh schedulers that leak nothing into each other, and x0 as the schedulers themselves see it."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

from engine.diffusion import schedule
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.noise import BrownianNoise
from engine.errors import InvalidRequest
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SCHEDULERS
from tests.engine.diffusion import rules
from tests.engine.diffusion.oracle import Oracle

CONFIG = dict(rules.loaded(rules.read_config("sd15")).config)

ZERO_SNR = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}

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
    scheduler = schedule.build(name, {**CONFIG, "prediction_type": kind, "_use_default_values": []}, 6, seed=1)
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
    scheduler = schedule.build("DDIM", {**CONFIG, "prediction_type": "sample", "_use_default_values": []}, 2, seed=1)
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


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("DDIM", {"num_train_timesteps": 10}, "cannot be larger than"),
        ("Euler", {"beta_schedule": "sigmoid"}, "sigmoid is not implemented"),  # NotImplementedError; DDPM has it
        ("DPM++ SDE", {"timestep_spacing": "crooked"}, "crooked is not supported"),
        ("Heun", {"trained_betas": "none"}, "invalid data type"),  # TypeError
        ("DPM2", {"num_train_timesteps": 10**15}, "."),  # no memory for it
        ("UniPC", {"num_train_timesteps": 0}, "."),
    ],
)
def test_what_diffusers_refuses_becomes_a_sentence(name, config, reason):
    family = Oracle("epsilon")
    family.scheduler_config.update(config)
    family.scheduler_config["_use_default_values"] = []
    denoiser = Denoiser(family)
    with pytest.raises(InvalidRequest, match=f"^{name.replace('+', '.')} cannot run 20 steps of this model: .*{reason}") as caught:
        denoiser.admit("it", Recipe(scheduler=name, steps=20))
    assert "\n" not in str(caught.value)
    assert len(denoiser) == 0


@pytest.mark.parametrize("name", ["Euler", "Euler a"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_predicted_x0_under_zero_snr_is_the_schedulers(name, kind):
    scheduler = schedule.build(name, {**CONFIG, **ZERO_SNR, "prediction_type": kind, "_use_default_values": []}, 6, seed=1)
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 4, 4, generator=draw) * scheduler.init_noise_sigma
    shown = scheduler.scale_model_input(latents, scheduler.timesteps[0])
    prediction = torch.randn(1, 4, 4, 4, generator=draw)
    ours = schedule.predict_x0(scheduler, prediction, scheduler.timesteps[0], shown)
    assert torch.allclose(ours, scheduler.step(prediction, scheduler.timesteps[0], latents).pred_original_sample, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("name", ["DDIM", "DDPM", "LCM", "TCD"])
def test_predicted_x0_is_a_number_where_no_signal_is_left(name):
    """These keep alphas_cumprod[-1] at 0: their own x0 of an epsilon is infinite there, and of a v it is -v."""
    sample = torch.linspace(-2, 2, 64).view(1, 4, 4, 4)
    config = {**CONFIG, **ZERO_SNR, "_use_default_values": []}
    scheduler = schedule.build(name, config, 4, seed=1)
    assert scheduler.alphas_cumprod[999] == 0
    assert torch.isfinite(schedule.predict_x0(scheduler, -sample, torch.tensor(999), sample)).all()
    scheduler = schedule.build(name, {**config, "prediction_type": "v_prediction"}, 4, seed=1)
    assert torch.equal(schedule.predict_x0(scheduler, -sample, torch.tensor(999), sample), sample)


SIGMAS = torch.tensor([14.6, 3.0, 0.5, 0.0])


def test_brownian_noise_is_diffusers_own():
    latents = torch.randn(1, 4, 8, 8)
    ours, theirs = BrownianNoise(latents, SIGMAS, 7), BrownianTreeNoiseSampler(latents, SIGMAS[2], SIGMAS[0], 7)
    for pair in ((SIGMAS[0], SIGMAS[1]), (SIGMAS[1], SIGMAS[2]), (SIGMAS[0], SIGMAS[2])):
        assert torch.equal(ours(*pair), theirs(*pair))


def test_brownian_noise_is_drawn_on_the_cpu_wherever_the_latents_are():
    """A meta tensor has no numbers: what is drawn from the CPU's generator still goes where the latents are."""
    drawn = BrownianNoise(torch.empty(1, 4, 8, 8, device="meta"), SIGMAS, 7)
    assert drawn._tree(SIGMAS[0], SIGMAS[1]).device.type == "cpu"
    assert drawn(SIGMAS[0], SIGMAS[1]).device.type == "meta"


@pytest.mark.parametrize("name", [name for name, row in SCHEDULERS.items() if row.noise == "seed"])
def test_an_image_brings_its_own_brownian_noise(name):
    trajectory = Denoiser(Oracle("epsilon")).admit("it", Recipe(scheduler=name, steps=4, seed=7, width=32, height=32))
    given = trajectory.scheduler.noise_sampler
    assert isinstance(given, BrownianNoise)
    trajectory.model_input()
    trajectory.advance(trajectory.latents, trajectory.latents)
    assert trajectory.scheduler.noise_sampler is given

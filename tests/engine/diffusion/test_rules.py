"""Rules: every row, for every kind of model, is the scheduler that diffusers alone makes from the model's own config."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import torch

from engine.diffusion import schedule
from engine.recipes.schedulers import OF_THE_MODEL, SCHEDULERS, own_scheduler
from tests.engine.diffusion import rules
from tests.engine.recipes.published import ANOTHER_CLASS, DIFFUSERS

pytestmark = pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, of float32 rounding

SEED, STEPS = 42, 20

DESCRIPTION = {
    "_class_name", "beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "prediction_type", "set_alpha_to_one",
    "steps_offset", "timestep_spacing", "trained_betas", "rescale_betas_zero_snr", "thresholding", "dynamic_thresholding_ratio",
    "sample_max_value",
}  # fmt: skip
"""What of these files describes the model: the rest of deis.json and dpm-sde.json are the options of their solvers."""

OF_THE_RULE = {
    "algorithm_type", "solver_order", "solver_type", "solver_p", "predictor_order", "corrector_order", "disable_corrector",
    "predict_x0", "tau_func", "lower_order_final", "euler_at_final", "final_sigmas_type", "variance_type", "skip_prk_steps",
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "sigma_min", "sigma_max",
    "interpolation_type", "noise_sampler_seed",
    "clip_sample", "clip_sample_range",  # for pixels
    "use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal", "timestep_type",  # another family
}  # fmt: skip
"""The options of diffusers' classes that a model's config has no say in."""


def described(name: str) -> dict[str, Any]:
    return {key: value for key, value in rules.read_config(name).items() if key in DESCRIPTION}


MODELS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{name: (rules.read_config(name),) * 2 for name in ("sd15", "sd21", "sdxl")},
    "zero-snr": ({**rules.read_config("sd21"), "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},) * 2,
    "thresholding": ({**rules.read_config("sd15"), "thresholding": True, "sample_max_value": 1.5},) * 2,
    **{name: (rules.read_config(name), described(name)) for name in ("deis", "dpm-sde")},
}  # fmt: skip
"""(what the model's file says, what diffusers is given of it): the second differs where the file holds a solver's options."""

OPTIONS = [
    ("EulerDiscreteScheduler", "use_karras_sigmas", True), ("EulerDiscreteScheduler", "use_exponential_sigmas", True),
    ("EulerDiscreteScheduler", "use_beta_sigmas", True), ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
    ("EulerDiscreteScheduler", "final_sigmas_type", "sigma_min"), ("EulerDiscreteScheduler", "sigma_min", 0.1),
    ("EulerDiscreteScheduler", "sigma_max", 10.0), ("DPMSolverMultistepScheduler", "algorithm_type", "sde-dpmsolver++"),
    ("DPMSolverMultistepScheduler", "solver_order", 3),
    ("DPMSolverMultistepScheduler", "solver_order", 1), ("DPMSolverMultistepScheduler", "solver_type", "heun"),
    ("DPMSolverMultistepScheduler", "lower_order_final", False), ("DPMSolverMultistepScheduler", "euler_at_final", True),
    ("DPMSolverMultistepScheduler", "final_sigmas_type", "sigma_min"), ("DPMSolverMultistepScheduler", "use_lu_lambdas", True),
    ("DPMSolverMultistepScheduler", "variance_type", "learned"), ("DEISMultistepScheduler", "algorithm_type", "deis"),
    ("DEISMultistepScheduler", "solver_type", "logrho"), ("UniPCMultistepScheduler", "solver_type", "bh1"),
    ("UniPCMultistepScheduler", "predict_x0", False), ("UniPCMultistepScheduler", "disable_corrector", [0, 1]),
    ("SASolverScheduler", "predictor_order", 3), ("SASolverScheduler", "corrector_order", 1),
    ("SASolverScheduler", "algorithm_type", "noise_prediction"), ("DPMSolverSDEScheduler", "noise_sampler_seed", 5),
    ("PNDMScheduler", "skip_prk_steps", False), ("DDPMScheduler", "variance_type", "fixed_large"),
    ("DDIMScheduler", "clip_sample", True), ("DDIMScheduler", "clip_sample_range", 0.5),
]  # fmt: skip
"""(class that a model was saved with, an option of it, what it said): each in a file of Stable Diffusion 1.5's otherwise."""


def run(scheduler: Any, options: Mapping[str, Any]) -> list[torch.Tensor]:
    """All that shows of a rule: where it asks, and what it makes of answers that never change."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 2, 2, generator=draw) * scheduler.init_noise_sigma
    seen = [scheduler.timesteps.double(), getattr(scheduler, "sigmas", torch.zeros(0)).double()]
    for timestep in scheduler.timesteps:
        seen.append(scheduler.scale_model_input(latents, timestep))
        latents = scheduler.step(torch.randn(1, 4, 2, 2, generator=draw), timestep, latents, return_dict=False, **options)[0]
        seen.append(latents)
    return seen


def check(name: str, file: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Our scheduler of a model with that file is the one that diffusers makes of what it is given."""
    row = SCHEDULERS[name]
    config = dict(rules.loaded(file).config)
    ours, theirs = schedule.build(name, config, STEPS, SEED), rules.make(name, given, SEED)
    theirs.set_timesteps(STEPS)
    generators = [torch.Generator().manual_seed(SEED) for _ in range(2)]
    options = {**row.step_options, **({"generator": generators[0]} if row.noise == "generator" else {})}
    torch.testing.assert_close(
        run(ours, options), run(theirs, rules.step_options(theirs, generators[1])), rtol=0, atol=0, equal_nan=True
    )


def test_the_manual_names_every_row():
    assert list(rules.MANUAL) == list(SCHEDULERS)


def test_the_manual_is_diffusers_own_table():
    published = {name: row for name, row in DIFFUSERS.items() if row[0] and name not in ANOTHER_CLASS}
    assert {name: rules.MANUAL[name] for name in published} == published


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_row_is_diffusers_own_for_every_kind_of_model(name, model):
    check(name, *MODELS[model])


@pytest.mark.parametrize(("kind", "option", "value"), OPTIONS, ids=lambda value: str(value))
def test_no_option_of_the_saved_rule_reaches_a_row(kind, option, value):
    plain = {key: value for key, value in rules.read_config("sd15").items() if key in DESCRIPTION}
    file = {**plain, "_class_name": kind, option: value}
    for name, row in SCHEDULERS.items():
        if option in inspect.signature(getattr(diffusers, row.class_name).__init__).parameters:
            check(name, file, plain)


@pytest.mark.parametrize("class_name", sorted({row.class_name for row in SCHEDULERS.values()}))
def test_of_every_option_it_is_said_whether_it_describes_the_model(class_name):
    """One that a later diffusers brings must be placed before it is taken from a model's config, or not."""
    known = set(inspect.signature(getattr(diffusers, class_name).__init__).parameters) - {"self"}
    assert known <= OF_THE_MODEL | OF_THE_RULE
    assert not OF_THE_MODEL & OF_THE_RULE


def test_no_row_says_what_only_the_model_knows():
    assert [row.name for row in SCHEDULERS.values() if OF_THE_MODEL.intersection(row.options)] == []


WRONG = [
    ("Euler", {"options": {"use_karras_sigmas": True}}), ("Euler Karras", {"options": {}}),
    ("DPM++ 2M SDE", {"options": {}}), ("DPM++ 3M SDE", {"options": {"algorithm_type": "sde-dpmsolver++"}}),
    ("DPM++ 2M Karras", {"options": {"use_exponential_sigmas": True}}), ("DPM++ 2M", {"options": {"final_sigmas_type": "sigma_min"}}),
    ("DDIM", {"options": {}}), ("PNDM", {"options": {}}), ("TCD", {"step_options": {}}),
    ("Heun", {"class_name": "EulerDiscreteScheduler"}), ("Euler a", {"noise": "none"}), ("DEIS", {"options": {"solver_order": 3}}),
    ("UniPC", {"options": {"timestep_spacing": "leading"}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), WRONG, ids=[name for name, _ in WRONG])
def test_a_wrong_row_is_seen(monkeypatch, name, fault):
    """The test of the tests above."""
    wrong = dataclasses.replace(SCHEDULERS[name], **fault)
    monkeypatch.setattr(schedule, "scheduler_row", lambda asked: wrong)
    monkeypatch.setitem(SCHEDULERS, name, wrong)
    torch.manual_seed(0)  # of a row that draws noise and does not say so
    file = {**rules.read_config("sd15"), "clip_sample": True} if name == "DDIM" else rules.read_config("sd15")
    with pytest.raises(AssertionError):
        check(name, file, file)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (rules.read_config("sd15"), "PNDM"), (rules.read_config("sd21"), "DDIM"), (rules.read_config("sdxl"), "Euler"),
        (rules.read_config("deis"), "DEIS"), (rules.read_config("dpm-sde"), "DPM++ 2M SDE Karras"),
    ],
)  # fmt: skip
def test_a_models_own_rule_is_found(config, name):
    assert own_scheduler(config) == name
    assert own_scheduler({"_class_name": rules.MANUAL[name][0], **rules.MANUAL[name][1]}) == name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_row_is_found_by_what_diffusers_saves_of_it(name):
    assert own_scheduler(rules.make(name, rules.read_config("sd15"), SEED).config) == name


@pytest.mark.parametrize(
    "config",
    [
        {}, {"_class_name": "EDMEulerScheduler"}, {"_class_name": ["PNDMScheduler"]}, {"_class_name": None},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1},
        {"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": True},
        {"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver++"},
    ],
)  # fmt: skip
def test_a_rule_without_a_row_is_none(config):
    assert own_scheduler(config) is None


@pytest.mark.parametrize("class_name", sorted({row.class_name for row in SCHEDULERS.values()}))
def test_the_options_that_make_another_rule_have_diffusers_defaults(class_name):
    from engine.recipes.schedulers import _RULE_OPTIONS

    choices = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas", "solver_order"}
    known = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    expected = {option: known[option].default for option in known if option in choices}
    assert {option: value for option, value in _RULE_OPTIONS.get(class_name, {}).items() if option in choices} == expected

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from typing import Any

import pytest

from engine.errors import InvalidRequest
from engine.recipes.schedulers import (
    DEFAULT_SCHEDULER,
    SCHEDULERS,
    SchedulerRow,
    available_schedulers,
    scheduler_from_infotext,
    scheduler_row,
)

each_row = pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)

SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""scheduler/scheduler_config.json of Stable Diffusion 1.5."""


def scheduler_class(row: SchedulerRow) -> Any:
    import diffusers

    return getattr(diffusers, row.class_name)


@cache
def step_parameters(class_name: str) -> frozenset[str]:
    import diffusers

    return frozenset(inspect.signature(getattr(diffusers, class_name).step).parameters)


def last_sample(row: SchedulerRow, *, global_seed: int, own_seed: int = 7) -> Any:
    """What four steps make of a fixed sample when noise is handed over as the row's column says."""
    import torch

    # Building KDPM2 takes most of a second with all 1,000 training steps; SA-Solver draws noise only from step 200 to 800.
    train_steps = 200 if row.class_name.startswith("KDPM2") else 1000
    options = {**SD_NOISE, **row.options, "num_train_timesteps": train_steps}
    options |= {"noise_sampler_seed": own_seed} if row.noise == "seed" else {}
    scheduler = scheduler_class(row)(**options)
    scheduler.set_timesteps(4)
    own = torch.Generator().manual_seed(own_seed)
    torch.manual_seed(global_seed)
    sample = torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4) * scheduler.init_noise_sigma
    keywords = {**row.step_options, **({"generator": own} if row.noise == "generator" else {})}
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(0.5 * torch.tanh(sample), timestep, sample, **keywords).prev_sample
    return sample


def test_the_table_offers_at_least_twenty_rows_under_unique_names() -> None:
    assert len(SCHEDULERS) >= 20
    assert len({name.casefold() for name in SCHEDULERS}) == len(SCHEDULERS)
    assert all(name == row.name == name.strip() for name, row in SCHEDULERS.items())
    assert DEFAULT_SCHEDULER in SCHEDULERS


def test_no_two_rows_are_the_same_rule_or_have_the_same_a1111_names() -> None:
    rules = [(row.class_name, tuple(sorted(row.options.items()))) for row in SCHEDULERS.values()]
    names = [(row.sampler, row.schedule_type) for row in SCHEDULERS.values()]
    assert len(set(rules)) == len(rules)
    assert len(set(names)) == len(names)


@each_row
def test_the_class_exists_and_knows_the_options(row: SchedulerRow) -> None:
    known = inspect.signature(scheduler_class(row).__init__).parameters
    assert [option for option in row.options if option not in known] == []
    assert [option for option in row.step_options if option not in step_parameters(row.class_name)] == []


@each_row
def test_the_noise_column_agrees_with_step(row: SchedulerRow) -> None:
    takes_generator = "generator" in step_parameters(row.class_name)
    if row.noise == "generator":
        assert takes_generator
    elif row.noise == "seed":
        assert not takes_generator
        assert row.class_name == "DPMSolverSDEScheduler"
        assert "noise_sampler_seed" in inspect.signature(scheduler_class(row).__init__).parameters
    else:
        assert not takes_generator or row.options.get("algorithm_type", "dpmsolver++") == "dpmsolver++"


@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde rounds its own interval
@each_row
def test_no_row_draws_from_the_generator_that_all_share(row: SchedulerRow) -> None:
    import torch

    assert torch.equal(last_sample(row, global_seed=0), last_sample(row, global_seed=1))


@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")
@pytest.mark.parametrize("name", ["Euler a", "DPM2 a", "DPM++ 2M SDE", "DPM++ 3M SDE Karras", "DPM++ SDE", "DDPM", "LCM", "SA-Solver"])
def test_the_rows_own_seed_reaches_a_rule_that_draws_noise(name: str) -> None:
    import torch

    row = SCHEDULERS[name]
    assert not torch.equal(last_sample(row, global_seed=0, own_seed=1), last_sample(row, global_seed=0, own_seed=2))


@each_row
def test_the_step_limit_is_the_number_of_distilled_timesteps(row: SchedulerRow) -> None:
    distilled = inspect.signature(scheduler_class(row).__init__).parameters.get("original_inference_steps")
    assert row.max_steps == (distilled.default if distilled else 1000)


@each_row
def test_the_a1111_names_of_a_row_lead_back_to_it(row: SchedulerRow) -> None:
    assert scheduler_from_infotext(row.sampler, row.schedule_type) == row.name
    assert scheduler_from_infotext(row.sampler.upper(), row.schedule_type.lower()) == row.name
    assert scheduler_from_infotext(row.name, None) == row.name


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "name"),
    [
        ("DPM++ 2M Karras", None, "DPM++ 2M Karras"),
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "Exponential", "DPM++ 2M Exponential"),
        ("DPM++ 2M SDE Karras", None, "DPM++ 2M SDE Karras"),
        ("Euler a", None, "Euler a"),
        ("Euler a", "Normal", "Euler a"),
        ("Euler", "Simple", "Euler"),
        ("DDIM", "Uniform", "DDIM"),
        ("PLMS", None, "PNDM"),
    ],
)
def test_a1111_names_of_either_age_are_understood(sampler: str, schedule_type: str | None, name: str) -> None:
    assert scheduler_from_infotext(sampler, schedule_type) == name


@pytest.mark.parametrize(
    ("sampler", "schedule_type"),
    [("Restart", None), ("", None), ("Euler a", "Karras"), ("DDIM", "Polyexponential"), ("DPM++ 2M", "AYS"), ("x" * 5000, None)],
)
def test_names_without_a_row_are_refused_with_both_names(sampler: str, schedule_type: str | None) -> None:
    with pytest.raises(InvalidRequest, match=r"There is no scheduler like A1111's “.*” with schedule “.+” here\.") as caught:
        scheduler_from_infotext(sampler, schedule_type)
    assert sampler[:60] in str(caught.value)
    assert (schedule_type or "Automatic") in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_row_is_found_whatever_its_capitals() -> None:
    assert scheduler_row("  eULER A ").name == "Euler a"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no scheduler “UniPCC”; did you mean UniPC"):
        scheduler_row("UniPCC")


def test_the_nearest_names_are_found_whatever_the_capitals() -> None:
    with pytest.raises(ValueError, match="did you mean Euler"):
        scheduler_row("EULERR")


def test_only_rows_whose_libraries_are_installed_are_available(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_schedulers() == list(SCHEDULERS)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torchsde" else find_spec(name, *rest))
    assert [name for name in SCHEDULERS if name not in available_schedulers()] == ["DPM++ SDE", "DPM++ SDE Karras"]

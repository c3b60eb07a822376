"""The table of schedulers against the tables that others publish (tests/data/schedulers.toml)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import InvalidRequest
from engine.recipes.schedulers import SCHEDULERS, SchedulerRow, scheduler_from_infotext
from tests.engine.recipes.published import ANOTHER_CLASS, DIFFUSERS, PUBLISHED, SDNEXT

A1111 = {row["name"]: row for row in PUBLISHED["a1111"]["samplers"]}
FUNCTIONS = {row["function"]: name for name, row in A1111.items()}

AT_SDNEXT = {
    "DPM++ 2S": "DPM++", "DPM++ SDE": "DPM SDE", "SA-Solver": "SA Solver", "LMS": "LMSD", "DPM2": "KDPM2", "DPM2 a": "KDPM2 a",
    "PLMS": "PNDM",
}  # fmt: skip
"""Our sampler -> what SD.Next calls it, where that differs."""

OF_ITS_OWN: dict[str, dict[str, Any]] = {"PNDM": {"skip_prk_steps": True}}
"""What a row adds to the published options, for a reason that stands beside it in the table."""


def found(sampler: str, schedule_type: str | None) -> str | None:
    try:
        return scheduler_from_infotext(sampler, schedule_type)
    except InvalidRequest:
        return None


def more_than_default(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the class would not have without being told; what it does not know it cannot be told."""
    import diffusers

    defaults = inspect.signature(getattr(diffusers, kind).__init__).parameters
    return {name: value for name, value in options.items() if name in defaults and defaults[name].default != value}


@pytest.mark.parametrize("name", DIFFUSERS)
def test_what_diffusers_manual_calls_by_a_name_is_our_row_of_it(name: str) -> None:
    kind, options = DIFFUSERS[name]
    if not kind:
        assert name not in SCHEDULERS
        assert found(name, None) is None
    elif name in ANOTHER_CLASS:
        assert (SCHEDULERS[name].class_name, SCHEDULERS[name].options) == (SDNEXT["DPM SDE"][0], options)
    else:
        assert (SCHEDULERS[name].class_name, SCHEDULERS[name].options) == (kind, options)


@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
def test_every_row_is_a_published_rule_with_a_published_schedule(row: SchedulerRow) -> None:
    if row.sampler == "DPM++ 3M SDE":  # nobody publishes it for diffusers as one row: three steps back, and noise as 2M SDE has it
        kind, options = SDNEXT["DPM++ 3M"][0], {**SDNEXT["DPM++ 3M"][1], **DIFFUSERS["DPM++ 2M SDE"][1]}
    else:
        kind, options = SDNEXT[AT_SDNEXT.get(row.sampler, row.sampler)]
    schedule = {} if row.schedule_type == "Uniform" else PUBLISHED["diffusers"]["schedule_types"][row.schedule_type]
    wanted = {**options, **schedule, **OF_ITS_OWN.get(row.name, {})}
    if row.class_name == "DPMSolverMultistepScheduler":  # takes its sigmas from all training steps, however these are spaced
        wanted.pop("timestep_spacing", None)
    assert row.class_name == kind
    assert more_than_default(kind, row.options) == more_than_default(kind, wanted)


@pytest.mark.parametrize("schedule", ["Karras", "Exponential"])
def test_the_multistep_class_takes_these_sigmas_from_all_training_steps_however_they_are_spaced(schedule: str) -> None:
    from diffusers import DPMSolverMultistepScheduler

    options = {name: value for name, value in PUBLISHED["diffusers"]["schedule_types"][schedule].items() if name != "timestep_spacing"}
    made = [DPMSolverMultistepScheduler(timestep_spacing=spacing, **options) for spacing in ("linspace", "leading", "trailing")]
    for scheduler in made:
        scheduler.set_timesteps(9)
    assert all((scheduler.sigmas == made[0].sigmas).all() for scheduler in made)


@pytest.mark.parametrize("name", A1111)
def test_a1111s_names_and_aliases_are_one_row_or_none(name: str) -> None:
    assert found(name, None) == (name if name in SCHEDULERS else None)
    for alias in A1111[name]["aliases"]:
        assert found(alias, None) == found(name, None)
    for schedule in PUBLISHED["a1111"]["schedule_types"]:
        for alias in A1111[name]["aliases"]:
            assert found(alias, schedule) == found(name, schedule)


@pytest.mark.parametrize("name", A1111)
def test_automatic_means_the_schedule_that_a1111_gives_the_sampler(name: str) -> None:
    assert found(name, "Automatic") == found(name, A1111[name]["schedule"] or "Uniform")


@pytest.mark.parametrize("row", [row for row in SCHEDULERS.values() if row.sampler in A1111], ids=lambda row: row.name)
def test_network_calls_a_step_are_those_that_a1111_counts(row: SchedulerRow) -> None:
    assert row.order == A1111[row.sampler]["calls"]


@pytest.mark.parametrize(("name", "alias"), PUBLISHED["a1111"]["with_schedule"].items())
def test_names_with_their_schedule_as_before_a1111_1_9(name: str, alias: str) -> None:
    assert found(name, None) == found(alias, None) == (name if name in SCHEDULERS else None)


@pytest.mark.parametrize(("name", "alias"), PUBLISHED["a1111"]["timesteps"].items())
def test_a1111s_samplers_over_timesteps(name: str, alias: str) -> None:
    row = SCHEDULERS[scheduler_from_infotext(name, None)]
    assert row.sampler == name
    assert found(alias, None) == row.name


@pytest.mark.parametrize("name", PUBLISHED["comfyui"]["samplers"])
@pytest.mark.parametrize("schedule", PUBLISHED["comfyui"]["schedule_types"])
def test_comfyuis_names_are_the_functions_that_a1111_calls(name: str, schedule: str) -> None:
    if sampler := FUNCTIONS.get(name.removesuffix("_gpu")):
        assert found(name, schedule) == found(sampler, schedule)

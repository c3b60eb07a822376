"""SCHEDULERS: the names users know from A1111 and Forge -> diffusers' class and options.

A row is all it takes to add one: the oracle, parity, batch and preview tests run over every row.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import InvalidRequest
from engine.recipes.sampler_names import in_a1111s_words

Noise = Literal["none", "generator", "seed"]


@dataclass(frozen=True)
class SchedulerRow:
    """One stepping rule with its options.

    `noise` says how the image's seed reaches the rule: "none" (it draws no noise), "generator" (`step`
    takes the image's own generator) or "seed" (a Brownian tree of the seed, as in diffusers'
    DPMSolverSDEScheduler). `step_options` are handed to every `step`. `sampler` and `schedule_type` are A1111's two names for it.
    `max_steps` is the number of distilled timesteps where there is such a limit.
    """

    name: str
    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    step_options: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise = "none"
    sampler: str = ""
    schedule_type: str = "Uniform"
    needs: tuple[str, ...] = ()
    max_steps: int = 1000
    order: int = 1
    """Network calls a step; rules of the second order make one fewer in all, as their last step is of the first."""
    warm_up: int = 0
    """Network calls more than that, made at the start of a run of two steps or more."""
    hint: str = ""

    def calls(self, steps: int) -> int:
        """Network calls that so many steps take."""
        return self.order * steps - (self.order - 1) + (self.warm_up if steps > 1 else 0)


_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
# DDIM and DDPM clamp x0 to [-1, 1] by default, which is right for pixels and wrong for latents.
_UNCLIPPED = {"clip_sample": False}
_SECOND_ORDER: Mapping[str, Any] = {"order": 2, "hint": "two network calls a step"}
_DISTILLED = "for distilled models (LCM, Turbo) at 4 to 8 steps; washed out with ordinary ones"


_AUTOMATIC = {
    "DPM++ 2M": "Karras", "DPM++ SDE": "Karras", "DPM2": "Karras", "DPM2 a": "Karras",
    "DPM++ 2M SDE": "Exponential", "DPM++ 3M SDE": "Exponential",
}  # fmt: skip
"""What A1111 (from 1.9) means by schedule type "Automatic" for a sampler: the sampler's own default; "Uniform" for the others."""


def _row(name: str, class_name: str, options: Mapping[str, Any] | None = None, **columns: Any) -> SchedulerRow:
    """A row whose A1111 names follow from its own: "DPM++ 2M Karras" -> sampler DPM++ 2M, schedule Karras."""
    sampler, schedule_type = name, "Uniform"
    for suffix in ("Karras", "Exponential"):
        if name.endswith(" " + suffix):
            sampler, schedule_type = name.removesuffix(" " + suffix), suffix
    return SchedulerRow(name, class_name, options or {}, **{"sampler": sampler, "schedule_type": schedule_type, **columns})


_ROWS = (
    _row("DPM++ 2M", "DPMSolverMultistepScheduler", hint="a good default: fine results in 15 to 25 steps"),
    _row("DPM++ 2M Karras", "DPMSolverMultistepScheduler", _KARRAS, hint="a good default: fine results in 15 to 25 steps"),
    _row("DPM++ 2M Exponential", "DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}),
    _row("DPM++ 2M SDE", "DPMSolverMultistepScheduler", _SDE, noise="generator"),
    _row("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", {**_SDE, **_KARRAS}, noise="generator"),
    _row("DPM++ 2M SDE Exponential", "DPMSolverMultistepScheduler", {**_SDE, "use_exponential_sigmas": True}, noise="generator"),
    _row("DPM++ 3M SDE", "DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3}, noise="generator"),
    _row("DPM++ 3M SDE Karras", "DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3, **_KARRAS}, noise="generator"),
    _row(
        "DPM++ 3M SDE Exponential", "DPMSolverMultistepScheduler", {**_SDE, "solver_order": 3, "use_exponential_sigmas": True},
        noise="generator",
    ),
    _row("DPM++ SDE", "DPMSolverSDEScheduler", noise="seed", needs=("scipy", "torchsde"), **_SECOND_ORDER),
    _row(
        "DPM++ SDE Karras", "DPMSolverSDEScheduler", _KARRAS,
        noise="seed", needs=("scipy", "torchsde"), **_SECOND_ORDER,
    ),
    # lower_order_final: what diffusers sets by itself, with a warning each time.
    _row("DPM++ 2S", "DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    _row("DPM++ 2S Karras", "DPMSolverSinglestepScheduler", {"lower_order_final": True, **_KARRAS}),
    _row("Euler", "EulerDiscreteScheduler", noise="generator", hint="simple and dependable"),
    _row("Euler Karras", "EulerDiscreteScheduler", _KARRAS, noise="generator"),
    _row("Euler a", "EulerAncestralDiscreteScheduler", noise="generator", hint="adds noise as it goes: more steps keep changing it"),
    _row("Heun", "HeunDiscreteScheduler", **_SECOND_ORDER),
    _row("Heun Karras", "HeunDiscreteScheduler", _KARRAS, **_SECOND_ORDER),
    _row("LMS", "LMSDiscreteScheduler", needs=("scipy",)),
    _row("LMS Karras", "LMSDiscreteScheduler", _KARRAS, needs=("scipy",)),
    _row("DPM2", "KDPM2DiscreteScheduler", **_SECOND_ORDER),
    _row("DPM2 Karras", "KDPM2DiscreteScheduler", _KARRAS, **_SECOND_ORDER),
    _row("DPM2 a", "KDPM2AncestralDiscreteScheduler", noise="generator", **_SECOND_ORDER),
    _row("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", _KARRAS, noise="generator", **_SECOND_ORDER),
    _row("DDIM", "DDIMScheduler", _UNCLIPPED, noise="generator", hint="the classic; steady with few steps"),
    _row("DDPM", "DDPMScheduler", _UNCLIPPED, noise="generator", hint="wants many steps"),
    # skip_prk_steps, whatever a model's file says: A1111's PLMS is without the Runge-Kutta warm-up too, and so is Stable
    # Diffusion's own config. diffusers alone makes that warm-up (nine calls more) with a file that does not name the option.
    _row(
        "PNDM", "PNDMScheduler", {"skip_prk_steps": True}, sampler="PLMS",
        warm_up=1, hint="the scheduler of Stable Diffusion's first release",
    ),
    _row("UniPC", "UniPCMultistepScheduler", hint="good with very few steps"),
    _row("UniPC Karras", "UniPCMultistepScheduler", _KARRAS),
    _row("DEIS", "DEISMultistepScheduler"),
    _row("SA-Solver", "SASolverScheduler", noise="generator"),
    # 50: original_inference_steps of diffusers' LCMScheduler and TCDScheduler.
    _row("LCM", "LCMScheduler", noise="generator", max_steps=50, hint=_DISTILLED),
    # eta 0: what diffusers' StableDiffusionPipeline hands to every scheduler that takes an eta.
    _row("TCD", "TCDScheduler", step_options={"eta": 0.0}, noise="generator", max_steps=50, hint=_DISTILLED),
)

SCHEDULERS: Mapping[str, SchedulerRow] = {row.name: row for row in _ROWS}
DEFAULT_SCHEDULER = "DPM++ 2M Karras"

OF_THE_MODEL = frozenset({
    # The noise that the network was trained to take away, and what it predicts of it.
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "prediction_type",
    # At which of its training steps it is asked, and the alpha at which a run ends.
    "timestep_spacing", "steps_offset", "set_alpha_to_one",
    # Where the steep beginning of a cosine schedule is cut off, which the multistep rules do not bear.
    "lambda_min_clipped",
    # The range that its x0 was held to in training.
    "thresholding", "dynamic_thresholding_ratio", "sample_max_value",
    # What a distilled network was distilled from, and the boundary condition that it was taught with.
    "original_inference_steps", "timestep_scaling",
})  # fmt: skip
"""The keys of a model's scheduler config that describe the model, whatever rule it is drawn by.

All others (algorithm_type, solver_order, use_karras_sigmas, final_sigmas_type, ...) describe the rule that its makers saved it
with: taken over, "Euler" would be another rule with each model. A row of SCHEDULERS says them, else diffusers' defaults hold.
"""

_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW_TOO = {**_SIGMAS, "use_flow_sigmas": False}
_RULE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "DPMSolverMultistepScheduler": {**_FLOW_TOO, "use_lu_lambdas": False, "algorithm_type": "dpmsolver++", "solver_order": 2},
    "DPMSolverSinglestepScheduler": {**_FLOW_TOO, "algorithm_type": "dpmsolver++", "solver_order": 2},
    "UniPCMultistepScheduler": {**_FLOW_TOO, "solver_order": 2}, "DEISMultistepScheduler": {**_FLOW_TOO, "solver_order": 2},
    "SASolverScheduler": _FLOW_TOO, "DPMSolverSDEScheduler": _SIGMAS, "EulerDiscreteScheduler": _SIGMAS,
    "HeunDiscreteScheduler": _SIGMAS, "LMSDiscreteScheduler": _SIGMAS, "KDPM2DiscreteScheduler": _SIGMAS,
    "KDPM2AncestralDiscreteScheduler": _SIGMAS,
}  # fmt: skip
"""The options that make another rule of one of diffusers' classes, with its defaults; classes not named have none."""


def own_scheduler(config: Mapping[str, Any]) -> str | None:
    """The row of the rule that a scheduler_config.json was saved with; None where the table has no such row.

    That it was saved with a class' finer options (final_sigmas_type, euler_at_final, ...) does not make another rule of it.
    """
    kind = config.get("_class_name")
    for row in _ROWS:
        options = _RULE_OPTIONS.get(row.class_name, {})
        if row.class_name == kind and all(
            config.get(option, default) == row.options.get(option, default) for option, default in options.items()
        ):
            return row.name if row.name in available_schedulers() else None
    return None


def available_schedulers() -> list[str]:
    """The names whose optional libraries are installed here, in the table's order."""
    return [row.name for row in _ROWS if all(importlib.util.find_spec(package) for package in row.needs)]


def scheduler_row(name: str) -> SchedulerRow:
    """The row of a name, whatever its capitals. Raises ValueError with the nearest names."""
    for row in _ROWS:
        if row.name.casefold() == name.strip().casefold():
            return row
    folded = {row.name.casefold(): row.name for row in _ROWS}
    near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.4)] or list(SCHEDULERS)[:3]
    raise ValueError(f"There is no scheduler “{name[:60]}”; did you mean {' or '.join(near)}?")


def scheduler_from_infotext(sampler: str, schedule_type: str | None) -> str:
    """Our name of A1111's sampler and schedule type, old style ("DPM++ 2M Karras", no type) or new (two fields), or another tool's.

    Raises InvalidRequest when there is no such row.
    """
    for name, kind in ((sampler, schedule_type), in_a1111s_words(sampler, schedule_type)):
        if row := _like(name.strip(), (kind or "Uniform").strip()):
            return row.name
    raise InvalidRequest(f"There is no scheduler like A1111's “{sampler[:60]}” with schedule “{schedule_type or 'Automatic'}” here.")


def _like(name: str, kind: str) -> SchedulerRow | None:
    if kind.casefold() == "automatic":
        folded = {key.casefold(): value for key, value in _AUTOMATIC.items()}
        kind = folded.get(name.casefold(), "Uniform")
    if kind.casefold() in {"normal", "simple"}:  # the spacing of the model's own config here, as Uniform is
        kind = "Uniform"
    for row in _ROWS:
        old_style = name.casefold() == row.name.casefold() and kind.casefold() in {"uniform", row.schedule_type.casefold()}
        new_style = name.casefold() == row.sampler.casefold() and kind.casefold() == row.schedule_type.casefold()
        if old_style or new_style:
            return row
    return None

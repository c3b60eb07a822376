"""The schedulers that diffusers alone makes of a name and of a model's scheduler config: the oracle of the parity tests.

Nothing of ours takes part in it: what a name means is written here once more, from diffusers' own manual.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

CONFIGS = Path(__file__).parent / "configs"
"""scheduler_config.json as models are published with. sd15: Stable Diffusion 1.5's own. sd21: Stable Diffusion 2.1's of diffusers
0.8. sdxl: Stable Diffusion XL base's. deis, dpm-sde: as diffusers saves these two rules, with their solvers' options."""

KARRAS, EXPONENTIAL = {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}
SDE, THIRD = {"algorithm_type": "sde-dpmsolver++"}, {"solver_order": 3}
CLEAN = {"clip_sample": False}
MULTISTEP, SINGLESTEP, STOCHASTIC = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"

MANUAL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "DPM++ 2M": (MULTISTEP, {}),
    "DPM++ 2M Karras": (MULTISTEP, KARRAS),
    "DPM++ 2M Exponential": (MULTISTEP, EXPONENTIAL),
    "DPM++ 2M SDE": (MULTISTEP, SDE),
    "DPM++ 2M SDE Karras": (MULTISTEP, {**SDE, **KARRAS}),
    "DPM++ 2M SDE Exponential": (MULTISTEP, {**SDE, **EXPONENTIAL}),
    "DPM++ 3M SDE": (MULTISTEP, {**SDE, **THIRD}),
    "DPM++ 3M SDE Karras": (MULTISTEP, {**SDE, **THIRD, **KARRAS}),
    "DPM++ 3M SDE Exponential": (MULTISTEP, {**SDE, **THIRD, **EXPONENTIAL}),
    # The manual's table names the single-step class for these two; the class' own page says which one k-diffusion's
    # sample_dpmpp_sde became, and that is what A1111 calls.
    "DPM++ SDE": (STOCHASTIC, {}),
    "DPM++ SDE Karras": (STOCHASTIC, KARRAS),
    "DPM++ 2S": (SINGLESTEP, {}),
    "DPM++ 2S Karras": (SINGLESTEP, KARRAS),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler Karras": ("EulerDiscreteScheduler", KARRAS),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "Heun Karras": ("HeunDiscreteScheduler", KARRAS),
    "LMS": ("LMSDiscreteScheduler", {}),
    "LMS Karras": ("LMSDiscreteScheduler", KARRAS),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 Karras": ("KDPM2DiscreteScheduler", KARRAS),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM2 a Karras": ("KDPM2AncestralDiscreteScheduler", KARRAS),
    # Latents are not pixels: Stable Diffusion's own files say clip_sample false, and so do we of files that do not name it.
    "DDIM": ("DDIMScheduler", CLEAN),
    "DDPM": ("DDPMScheduler", CLEAN),
    # The Runge-Kutta warm-up, which A1111's PLMS does not make, is switched off in Stable Diffusion's own file.
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "UniPC Karras": ("UniPCMultistepScheduler", KARRAS),
    "DEIS": ("DEISMultistepScheduler", {}),
    "SA-Solver": ("SASolverScheduler", {}),
    "LCM": ("LCMScheduler", CLEAN),
    "TCD": ("TCDScheduler", CLEAN),
}
"""A1111's name -> diffusers' class and what it is to be made with: huggingface.co/docs/diffusers/api/schedulers/overview, and
for what that page lacks (3M, Exponential, DEIS, SA-Solver, LCM, TCD) the pages of the classes."""


def read_config(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))


def loaded(config: Mapping[str, Any]) -> Any:
    """A model's own scheduler, as a pipeline holds it after reading that scheduler_config.json."""
    return getattr(diffusers, config["_class_name"]).from_config(dict(config))


def make(name: str, config: Mapping[str, Any], seed: int) -> Any:
    """The scheduler of that name, by diffusers alone, for a model with that scheduler_config.json."""
    kind, options = MANUAL[name]
    if kind == STOCHASTIC:
        options = {**options, "noise_sampler_seed": seed}
    return getattr(diffusers, kind).from_config(loaded(config).config, **options)


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """What diffusers' pipeline hands to every `step` of it."""
    return diffusers.StableDiffusionPipeline.prepare_extra_step_kwargs(SimpleNamespace(scheduler=scheduler), generator, 0.0)

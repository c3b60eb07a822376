"""From a scheduler's name to a fresh instance, and from a network's prediction to x0."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from engine.errors import InvalidRequest
from engine.recipes.schedulers import OF_THE_MODEL, scheduler_row

LEAST_SIGNAL = 2**-12
"""sqrt of the alpha that diffusers' Euler, DPM++ and UniPC schedulers put for 0 under rescale_betas_zero_snr."""


def build(name: str, config: Mapping[str, Any], steps: int, seed: int) -> Any:
    """A fresh scheduler of that name, set to `steps`, from the model's own scheduler config.

    It is the one that diffusers' `from_config(pipeline.scheduler.config, **options of the row)` gives, but for the saved
    rule's options: keys that the model's file never named (`_use_default_values`) take the row's class' own defaults.
    Fresh, because all of diffusers' schedulers keep state between steps. Its timesteps and sigmas stay on the CPU,
    where reading one does not wait for a GPU's queue. `seed` reaches those that draw
    their noise from a seed of their own. Raises InvalidRequest where diffusers refuses the combination.
    """
    row = scheduler_row(name)
    kind = getattr(diffusers, row.class_name)
    known = OF_THE_MODEL.intersection(inspect.signature(kind.__init__).parameters).difference(config.get("_use_default_values", ()))
    options = {**{key: config[key] for key in known if key in config}, **row.options}
    if row.noise == "seed":
        options["noise_sampler_seed"] = seed
    try:
        scheduler = kind(**options)
        scheduler.set_timesteps(steps, device="cpu")
    except Exception as error:  # whatever diffusers' own code says to this config and number of steps
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InvalidRequest(f"{row.name} cannot run {steps} steps of this model: {reason}") from error
    return scheduler


def predict_x0(scheduler: Any, prediction: torch.Tensor, timestep: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
    """The clean latents that the network now believes in. # (1, C, h, w)

    `prediction` is the guided output, `model_input` what the network was shown (after `scale_model_input`),
    `timestep` may be fractional. All of diffusers' epsilon and v-prediction schedulers show the network
    x = sqrt(a) x0 + sqrt(1 - a) eps with a = alphas_cumprod[t] (variance preserving; DDPM, arXiv:2006.11239
    eq. 4), so that one formula serves them all; v is arXiv:2202.00512's. Where zero SNR leaves no signal, epsilon tells
    nothing of x0: its signal is held above LEAST_SIGNAL, so that the preview is a rough number and not NaN.
    """
    alpha = alpha_cumprod_at(scheduler.alphas_cumprod, float(timestep))
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (model_input - noise * prediction) / max(signal, LEAST_SIGNAL)
    if kind == "v_prediction":
        return signal * model_input - noise * prediction
    raise ValueError(f"prediction type {kind!r} is not epsilon or v_prediction")


def alpha_cumprod_at(alphas_cumprod: torch.Tensor, timestep: float) -> float:
    """alphas_cumprod at a timestep that need not be whole: log sigma is interpolated between its neighbours,
    as Karras et al. and diffusers' `_sigma_to_t` do."""
    last = len(alphas_cumprod) - 1
    timestep = min(max(timestep, 0.0), float(last))
    low = int(timestep)
    if low == timestep:
        return float(alphas_cumprod[low])
    high = min(low + 1, last)
    pair = alphas_cumprod[[low, high]].double()
    log_sigma = torch.log((1 - pair) / pair) / 2
    sigma = torch.exp(torch.lerp(log_sigma[0], log_sigma[1], timestep - low))
    return float(1 / (1 + sigma**2))

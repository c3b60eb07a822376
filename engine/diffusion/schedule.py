"""From a scheduler's name to a fresh instance, and from a network's prediction to x0."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from engine.schedulers import scheduler_row


def build(name: str, config: Mapping[str, Any], steps: int, seed: int) -> Any:
    """A fresh scheduler of that name, set to `steps`, from the model's own scheduler config.

    Fresh, because all of diffusers' schedulers keep state between steps. Its timesteps and sigmas stay on the CPU,
    where reading one does not wait for a GPU's queue. `seed` reaches those that draw
    their noise from a seed of their own. Raises ValueError where diffusers refuses the combination.
    """
    row = scheduler_row(name)
    options = dict(row.options)
    if row.noise == "seed":
        options["noise_sampler_seed"] = seed
    kind = getattr(diffusers, row.class_name)
    known = inspect.signature(kind.__init__).parameters  # from_config logs a warning for every other key
    scheduler = kind.from_config({key: value for key, value in config.items() if key in known}, **options)
    scheduler.set_timesteps(steps, device="cpu")
    return scheduler


def predict_x0(scheduler: Any, prediction: torch.Tensor, timestep: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
    """The clean latents that the network now believes in. # (1, C, h, w)

    `prediction` is the guided output, `model_input` what the network was shown (after `scale_model_input`),
    `timestep` may be fractional. All of diffusers' epsilon and v-prediction schedulers show the network
    x = sqrt(a) x0 + sqrt(1 - a) eps with a = alphas_cumprod[t] (variance preserving; DDPM, arXiv:2006.11239
    eq. 4), so that one formula serves them all; v is arXiv:2202.00512's.
    """
    alpha = alpha_cumprod_at(scheduler.alphas_cumprod, float(timestep))
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (model_input - noise * prediction) / signal
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

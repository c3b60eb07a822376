"""Where an image's randomness comes from: one CPU generator an image, or one CPU Brownian tree, float32."""

from __future__ import annotations

from typing import Any

import torch


def generator_for(seed: int) -> torch.Generator:
    """The image's own generator. On the CPU, since CUDA's draws differ from one GPU model to another."""
    return torch.Generator("cpu").manual_seed(seed)


def initial_noise(shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Standard normal latents, float32 on the CPU; the same draw as diffusers' `randn_tensor` makes."""
    return torch.randn((1, *shape), generator=generator, dtype=torch.float32)  # (1, C, h, w)


class BrownianNoise:
    """The noise that DPM++ SDE draws between two sigmas: diffusers' own Brownian tree of the image's seed, but on the CPU.

    diffusers' grows where the latents are, and CUDA's draws differ from the CPU's: one seed would be two pictures.
    """

    def __init__(self, latents: torch.Tensor, sigmas: torch.Tensor, seed: int):
        """For `latents` (1, C, h, w) on their way through the scheduler's `sigmas`."""
        from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler  # needs torchsde

        self._device = latents.device
        on_cpu = torch.zeros(latents.shape, dtype=torch.float32)
        least, most = float(sigmas[sigmas > 0].min()), float(sigmas.max())
        self._tree: Any = BrownianTreeNoiseSampler(on_cpu, sigma_min=least, sigma_max=most, seed=seed)

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """Standard normal on the latents' device. # (1, C, h, w)"""
        return self._tree(sigma, sigma_next).to(self._device)

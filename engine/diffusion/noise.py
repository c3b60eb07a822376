"""Where an image's randomness comes from: one CPU generator an image, float32."""

from __future__ import annotations

import torch


def generator_for(seed: int) -> torch.Generator:
    """The image's own generator. On the CPU, since CUDA's draws differ from one GPU model to another."""
    return torch.Generator("cpu").manual_seed(seed)


def initial_noise(shape: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Standard normal latents, float32 on the CPU; the same draw as diffusers' `randn_tensor` makes."""
    return torch.randn((1, *shape), generator=generator, dtype=torch.float32)  # (1, C, h, w)

"""PREVIEWERS: ways to see x0 before it is finished.

Each is a function of x0 (1, C, h, w). `linear` is one small matrix, `tiny` a small decoder trained to imitate
the VAE (AutoencoderTiny), `vae` the full decoder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from PIL import Image

from engine.diffusion.families import StableDiffusion, to_image

MEASURED_SIDE = 8
"""Latents, along a side, of the picture by which a previewer's cost is first measured."""

PUBLISHED = {
    (0.18215, (128, 256, 512, 512)): ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
}
"""(scaling factor, widths) of a decoder -> the linear map of its latents, as ModelSpec.latent_rgb. All of Stable Diffusion
1.x and 2.x share one space, whatever their decoders were taught later. Keturn, "Decoding latents to RGB without upscaling",
discuss.huggingface.co/t/23204: rows L1 to L4 of SD 1.4's VAE."""


class Previewers:
    """The previewers of one loaded model and what each costs here."""

    def __init__(self, family: StableDiffusion, factors: torch.Tensor, tiny: Any | None = None):
        self._factors = factors.to(family.device, torch.float32)  # (C + 1, 3), the last row is the offset
        self.methods: dict[str, Callable[[torch.Tensor], Image.Image]] = {
            "linear": partial(linear, self._factors), "vae": family.decode, **({"tiny": partial(tiny_decode, tiny)} if tiny else {}),
        }  # fmt: skip
        empty = torch.zeros(1, family.latent_channels, MEASURED_SIDE, MEASURED_SIDE, device=family.device)
        self.seconds = 0.0
        """What the last picture took."""
        self._seconds_a_latent = {name: _measure(method, empty) for name, method in self.methods.items()}

    def rough(self) -> Previewers:
        """The linear map alone, on the CPU, without the model."""
        rough = copy(self)
        rough._factors = self._factors.cpu()
        rough.methods = {"linear": partial(linear, rough._factors)}
        rough._seconds_a_latent = {"linear": self._seconds_a_latent["linear"]}
        return rough

    @torch.inference_mode()
    def show(self, name: str, x0: torch.Tensor) -> Image.Image:
        """The picture of x0 (1, C, h, w), and its time remembered. `linear` gives one pixel a latent."""
        start = time.perf_counter()
        try:
            return self.methods[name](x0.float())
        finally:
            self.seconds = time.perf_counter() - start
            self._seconds_a_latent[name] = 0.7 * self._seconds_a_latent[name] + 0.3 * self.seconds / x0[0, 0].numel()

    def costs(self, latents: int) -> dict[str, float]:
        """Seconds a picture of h x w = `latents`, by previewer."""
        return {name: seconds * latents for name, seconds in self._seconds_a_latent.items()}


def linear(factors: torch.Tensor, x0: torch.Tensor) -> Image.Image:
    """x0 (1, C, h, w) as one pixel a latent, by `factors` (C + 1, 3), the last row of which is the offset."""
    pixels = torch.einsum("bchw,cr->brhw", x0, factors[:-1]) + factors[-1].view(1, 3, 1, 1)
    return to_image(pixels)


def tiny_decode(tiny: Any, x0: torch.Tensor) -> Image.Image:
    """x0 through an AutoencoderTiny, which takes latents as the network sees them: its scaling factor is 1."""
    return to_image(tiny.decode(x0.to(tiny.dtype), return_dict=False)[0])


@torch.inference_mode()
def _measure(method: Callable[[torch.Tensor], Image.Image], x0: torch.Tensor) -> float:
    """Seconds a latent of one previewer, from its second of two pictures."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        method(x0)
        seconds = time.perf_counter() - start
    return seconds / x0[0, 0].numel()


@torch.inference_mode()
def fit_linear(family: StableDiffusion) -> torch.Tensor:
    """The least-squares map latent -> mean colour of the pixels it decodes to. # (C + 1, 3), offset last

    Fitted on one decode of 16 x 16 random smooth latents, since neighbouring latents of real pictures are alike: 256
    points for five unknowns a colour. Eight decodes fit no better, and loading waits for them.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.randn(1, family.latent_channels, 4, 4, generator=generator)
    latents = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
    latents = latents / latents.std()  # latents are scaled to unit variance (arXiv:2112.10752, appendix G)
    pixels = family.decode_pixels(latents).float().cpu()  # (1, 3, 16 f, 16 f)
    colours = torch.nn.functional.avg_pool2d(pixels, family.scale)  # (1, 3, 16, 16)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, family.latent_channels)  # (256, C)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    targets = colours.permute(0, 2, 3, 1).reshape(-1, 3)
    return torch.linalg.lstsq(inputs, targets).solution


def linear_factors(family: StableDiffusion, published: Sequence[Sequence[float]] | None = None) -> torch.Tensor:
    """The catalog's map, else the published one of this decoder's latents, else one fitted now. # (C + 1, 3)"""
    config = family.vae.config
    published = published or PUBLISHED.get((config.scaling_factor, tuple(config.block_out_channels)))
    return fit_linear(family) if published is None else torch.tensor([*published, (0.0, 0.0, 0.0)])

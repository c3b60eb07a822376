"""PREVIEWERS: ways to see x0 before it is finished.

Each is a function of x0 (1, C, h, w). `linear` is one small matrix, `tiny` a small decoder trained to imitate
the VAE (AutoencoderTiny), `vae` the full decoder.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from PIL import Image

from engine.diffusion.family import Family
from engine.diffusion.pixels import to_image
from engine.errors import SpoiltPicture

log = logging.getLogger(__name__)

NOTHING = "There is nothing to see of this step: it holds no numbers (NaN)."

MEASURED_SIDE = 8
"""Latents, along a side, of the first picture by which a previewer's cost is measured; each further one is twice as wide."""

MEASURING_SECONDS = 0.25
"""A picture that is expected to take longer is not made only to know what it takes."""


class Previewers:
    """The previewers of one loaded model and what each costs here."""

    def __init__(self, family: Family, factors: torch.Tensor, tiny: Any | None = None):
        self._factors = factors.to(family.device, torch.float32)  # (C + 1, 3), the last row is the offset
        self.methods: dict[str, Callable[[torch.Tensor], Image.Image]] = {
            "linear": partial(linear, self._factors), "vae": family.decode, **({"tiny": partial(tiny_decode, tiny)} if tiny else {}),
        }  # fmt: skip
        self.seconds = 0.0
        """What the last picture took, or the last failure."""
        self._device, self._channels = family.device, family.traits.latent_channels
        self._costs = {name: Cost() for name in self.methods}

    @torch.inference_mode()
    def measure(self, side: int) -> None:
        """Learns what each previewer takes, from pictures of growing size, up to `side` x `side` latents where that is quick.

        A picture of the usual size tells most: a small one takes little less on CUDA, and a 64th on the CPU.
        """
        for name, method in self.methods.items():
            now, expected = min(MEASURED_SIDE, side), 0.0
            while expected <= MEASURING_SECONDS:
                x0 = torch.zeros(1, self._channels, now, now, device=self._device)
                try:
                    seconds = min(self._timed(method, x0)[1] for _ in range(2))  # the first of a size is slower than any other
                except Exception:  # nothing depends on it: larger ones are not tried, nor offered
                    log.exception("previews by %s fail at %d x %d latents", name, now, now)
                    break
                self._costs[name].learn(now * now, seconds, weight=1.0)
                if now == side:
                    break
                now, expected = min(2 * now, side), 4 * seconds

    def rough(self) -> Previewers:
        """The linear map alone, on the CPU, without the model."""
        rough = copy(self)
        rough._factors, rough._device = self._factors.cpu(), torch.device("cpu")
        rough.methods = {"linear": partial(linear, rough._factors)}
        rough._costs = {"linear": self._costs["linear"]}
        return rough

    @torch.inference_mode()
    def show(self, name: str, x0: torch.Tensor) -> Image.Image:
        """The picture of x0 (1, C, h, w), and its time remembered. `linear` gives one pixel a latent.

        Raises SpoiltPicture where there is nothing to see. What a previewer fails at counts as ever dearer.
        """
        self.seconds = 0.0
        latents = x0[0, 0].numel()
        x0 = x0.to(self._device, torch.float32)
        if not bool(torch.isfinite(x0).all()):
            raise SpoiltPicture(NOTHING)
        start = time.perf_counter()
        try:
            image, self.seconds = self._timed(self.methods[name], x0)
        except Exception:
            self.seconds = time.perf_counter() - start
            self._costs[name].double(latents)
            raise
        self._costs[name].learn(latents, self.seconds)
        return image

    def costs(self, latents: int) -> dict[str, float]:
        """Seconds a picture of h x w = `latents`, by previewer; infinite for one that nothing is known of."""
        return {name: cost.of(latents) for name, cost in self._costs.items()}

    def _timed(self, method: Callable[[torch.Tensor], Image.Image], x0: torch.Tensor) -> tuple[Image.Image, float]:
        """A picture, and the seconds that it took. On CUDA between two events in the stream: what is queued there before it,
        a call of the network, does not count."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            return method(x0), time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        image = method(x0)  # has waited for the device: its pixels are here
        end.record()
        end.synchronize()
        return image, start.elapsed_time(end) / 1000


class Cost:
    """What a previewer takes, by a picture's latents: as measured, and on a straight line between and beyond what was measured.

    Beyond, it rather expects too little: what looks too dear is never made, so it would never be known better.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # by latents

    def of(self, latents: int) -> float:
        """Seconds; infinite while nothing was measured."""
        if latents in self._seconds:
            return self._seconds[latents]
        sizes = sorted(self._seconds)
        if len(sizes) < 2:
            return self._seconds[sizes[0]] * latents / sizes[0] if sizes else math.inf
        above = min(max(bisect(sizes, latents), 1), len(sizes) - 1)
        low, high = sizes[above - 1], sizes[above]
        slope = max(self._seconds[high] - self._seconds[low], 0.0) / (high - low)
        return max(self._seconds[low] + slope * (latents - low), 0.0)

    def learn(self, latents: int, seconds: float, weight: float = 0.3) -> None:
        """Once more measured: the last ones count most."""
        known = self.of(latents)
        self._seconds[latents] = seconds if math.isinf(known) else (1 - weight) * known + weight * seconds

    def double(self, latents: int) -> None:
        """A failure: it is tried again ever more rarely."""
        self._seconds[latents] = 2 * self.of(latents)


def linear(factors: torch.Tensor, x0: torch.Tensor) -> Image.Image:
    """x0 (1, C, h, w) as one pixel a latent, by `factors` (C + 1, 3), the last row of which is the offset."""
    pixels = torch.einsum("bchw,cr->brhw", x0, factors[:-1]) + factors[-1].view(1, 3, 1, 1)
    return to_image(pixels)


def tiny_decode(tiny: Any, x0: torch.Tensor) -> Image.Image:
    """x0 through an AutoencoderTiny, which takes latents as the network sees them: its scaling factor is 1."""
    pixels = tiny.decode(x0.to(tiny.dtype), return_dict=False)[0]
    if not bool(torch.isfinite(pixels).all()):
        raise SpoiltPicture(NOTHING)
    return to_image(pixels)


@torch.inference_mode()
def fit_linear(family: Family) -> torch.Tensor:
    """The least-squares map latent -> mean colour of the pixels it decodes to. # (C + 1, 3), offset last

    Fitted on one decode of 16 x 16 random smooth latents, since neighbouring latents of real pictures are alike: 256
    points for five unknowns a colour. Eight decodes fit no better, and loading waits for them.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.randn(1, family.traits.latent_channels, 4, 4, generator=generator)
    latents = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
    latents = latents / latents.std()  # latents are scaled to unit variance (arXiv:2112.10752, appendix G)
    pixels = family.decode_pixels(latents).float().cpu()  # (1, 3, 16 f, 16 f)
    colours = torch.nn.functional.avg_pool2d(pixels, family.traits.scale)  # (1, 3, 16, 16)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, family.traits.latent_channels)  # (256, C)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    targets = colours.permute(0, 2, 3, 1).reshape(-1, 3)
    return torch.linalg.lstsq(inputs, targets).solution


def linear_factors(family: Family, published: Sequence[Sequence[float]] | None = None) -> torch.Tensor:
    """The catalog's map, else the published one of the family's latents, else one fitted now. # (C + 1, 3)"""
    published = published or family.traits.latent_rgb
    return fit_linear(family) if published is None else torch.tensor([*published, (0.0, 0.0, 0.0)])

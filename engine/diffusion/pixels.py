"""Between pictures and the tensors that decoders give and encoders take, as diffusers' VaeImageProcessor goes."""

from __future__ import annotations

import numpy
import torch
from PIL import Image


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(1, 3, H, W) in [-1, 1] as an RGB image, rounded as diffusers rounds."""
    unit = (pixels / 2 + 0.5).clamp(0, 1)
    array = unit[0].detach().cpu().permute(1, 2, 0).float().numpy()  # (H, W, 3)
    return Image.fromarray((array * 255).round().astype(numpy.uint8))


def to_pixels(image: Image.Image) -> torch.Tensor:
    """A picture's colours in [-1, 1]. # (1, 3, H, W) float32"""
    unit = numpy.asarray(image.convert("RGB"), numpy.float32) / 255  # (H, W, 3)
    return 2 * torch.from_numpy(unit[None].transpose(0, 3, 1, 2)) - 1

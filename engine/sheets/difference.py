"""How much two pictures differ, pixel by pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageChops, ImageStat

from engine.errors import InvalidRequest

_STOPS = ((0, (0, 0, 0)), (136, (255, 0, 0)), (232, (255, 255, 0)), (255, (255, 255, 255)))
"""Level -> colour of the heat map, straight lines between: black, red, yellow, white. Their CIE lightnesses are 0, 53, 97 and
100; red is at 53 % of the levels, and white gets more than its 3 %, so that the largest differences are told apart by hue."""


@dataclass(frozen=True)
class Difference:
    """How two pictures of one size differ. Only the figures carry the absolute scale; the heat map has its own."""

    image: Image.Image
    """RGB heat map of each pixel's largest channel difference, black where there is none, up to white at the picture's largest."""
    largest: int
    """The largest difference of a channel, 0 to 255."""
    mean: float
    """Mean absolute difference over all channels and pixels, 0 to 255."""
    same: bool
    """Whether all pixels are equal."""
    psnr: float
    """Peak signal-to-noise ratio in dB over all channels and pixels: 10 log10(255² / mean squared error); infinite when they are equal."""
    part: float
    """Share of the pixels that differ at all, 0 to 1."""


def compare(one: Image.Image, other: Image.Image) -> Difference:
    """The difference of two pictures, exact in 8-bit RGB; other modes are converted to it first.

    Raises InvalidRequest, naming both sizes, when they differ in size.
    """
    if one.size != other.size:
        sizes = " and ".join(f"{image.width} x {image.height}" for image in (one, other))
        raise InvalidRequest(f"Only pictures of the same size can be compared pixel by pixel; these are {sizes}: choose two of one size.")
    channels = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    red, green, blue = channels.split()
    levels = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    counts = levels.histogram()
    largest = max(level for level, count in enumerate(counts) if count)
    figures = ImageStat.Stat(channels)
    pixels = one.width * one.height
    error = sum(figures.sum2) / (3 * pixels)
    return Difference(
        image=_heat_map(levels, largest),
        largest=largest,
        mean=sum(figures.mean) / 3,
        same=largest == 0,
        psnr=10 * math.log10(255**2 / error) if error else math.inf,
        part=(pixels - counts[0]) / pixels,
    )


def _heat_map(levels: Image.Image, largest: int) -> Image.Image:
    """The colours of 8-bit levels; `largest` is the level that becomes white."""
    colours = [_colour(min(round(level * 255 / max(largest, 1)), 255)) for level in range(256)]
    return Image.merge("RGB", [levels.point(table) for table in zip(*colours, strict=True)])


def _colour(level: int) -> tuple[int, ...]:
    for (start, below), (end, above) in pairwise(_STOPS):
        if level <= end:
            return tuple(round(a + (b - a) * (level - start) / (end - start)) for a, b in zip(below, above, strict=True))
    raise ValueError(f"a level is from 0 to 255; it was {level}")

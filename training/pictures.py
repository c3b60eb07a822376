"""Pictures in memory, and what can be measured and done with one: its colour, another colour, a place on a background."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.data import PICTURES, Manifest

CLEAR_MAJORITY = 0.5
"""Share of a subject's pixels that must have a colour for a caption to say it."""

RECOLOURABLE = 0.6
"""Share of its pixels that must be colourful for another hue to change what it is called."""

HUES = {"red": 0, "orange": 28, "yellow": 54, "green": 125, "blue": 215, "purple": 275, "pink": 325}
"""Degrees: in the middle of what is called so."""

HUE_ENDS = ((15, "red"), (42, "orange"), (68, "yellow"), (165, "green"), (255, "blue"), (292, "purple"), (345, "pink"), (361, "red"))
"""Degrees at which a colour's name ends."""

OPAQUE = 128
"""Alpha from which a pixel counts as the subject's."""


def load_pictures(folder: Path, manifest: Manifest, size: int) -> np.ndarray:
    """All pictures of the archive, `size` pixels wide. # (N, size, size, 4) uint8, in the manifest's order"""
    found = np.empty((len(manifest.pictures), size, size, 4), np.uint8)
    with zipfile.ZipFile(folder / PICTURES) as archive:
        for index, picture in enumerate(manifest.pictures):
            image = Image.open(io.BytesIO(archive.read(picture.file))).convert("RGBA")
            found[index] = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    return found


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Whole subjects as pictures. # (n, size, size, 4) -> (n, size, size, 3) uint8"""
    size = pixels.shape[1]
    return np.stack([compose([(rgba, (0.0, 0.0, 1.0))], (255, 255, 255), size) for rgba in pixels])


def colour_names(rgb: np.ndarray) -> np.ndarray:
    """The basic colour word of each pixel. # (N, 3) uint8 -> (N,) str"""
    values = rgb.astype(np.float32) / 255
    high, low = values.max(1), values.min(1)
    spread = high - low
    saturation = np.divide(spread, high, out=np.zeros_like(high), where=high > 0)
    degrees = _hues(rgb)
    names = np.array([name for _, name in HUE_ENDS])[np.searchsorted([end for end, _ in HUE_ENDS], degrees, side="right")]
    names = np.where((degrees < 50) & (high < 0.62) & (saturation > 0.3), "brown", names)
    names = np.where(((degrees < 15) | (degrees > 330)) & (saturation < 0.55) & (high > 0.75), "pink", names)
    grey = (saturation < 0.16) | (spread < 0.07)
    names = np.where(grey, np.where(high > 0.86, "white", np.where(high < 0.27, "black", "grey")), names)
    return np.where(high < 0.14, "black", names)


def main_colour(rgba: np.ndarray) -> str:
    """The colour of most of a subject's pixels, or "" where none has the majority. # (h, w, 4)"""
    names, times = np.unique(colour_names(_subject(rgba)), return_counts=True)
    return str(names[times.argmax()]) if times.size and times.max() >= CLEAR_MAJORITY * times.sum() else ""


def can_be_recoloured(rgba: np.ndarray) -> bool:
    """Whether the subject is mostly of one hue and not skin, wood or metal, whose names do not follow a hue."""
    colour = main_colour(rgba)
    return colour in HUES and float((colour_names(_subject(rgba)) == colour).mean()) >= RECOLOURABLE


def recoloured(rgba: np.ndarray, colour: str) -> np.ndarray:
    """The picture with its hues turned so that its main one becomes `colour`'s. # (h, w, 4)"""
    current = main_colour(rgba)
    turn = round((HUES[colour] - HUES[current]) * 256 / 360)
    hsv = np.array(Image.fromarray(rgba[..., :3]).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 256
    turned = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
    return np.concatenate([turned, rgba[..., 3:]], axis=-1)


def compose(parts: Sequence[tuple[np.ndarray, tuple[float, float, float]]], background: tuple[int, int, int], size: int) -> np.ndarray:
    """RGBA pictures on a plain background, each in its square (left, top, side) as shares of the width. # (size, size, 3)"""
    canvas = Image.new("RGB", (size, size), background)
    for rgba, (left, top, side) in parts:
        pixels = max(1, round(side * size))
        image = Image.fromarray(rgba)
        if image.width != pixels:
            image = image.resize((pixels, pixels), Image.Resampling.LANCZOS)
        canvas.paste(image, (round(left * size), round(top * size)), image)
    return np.asarray(canvas)


def _subject(rgba: np.ndarray) -> np.ndarray:
    """The colours of the opaque pixels. # (n, 3)"""
    return rgba[..., :3][rgba[..., 3] >= OPAQUE]


def _hues(rgb: np.ndarray) -> np.ndarray:
    """Degrees. # (N, 3) -> (N,)"""
    hsv = np.asarray(Image.fromarray(rgb.reshape(1, -1, 3)).convert("HSV"))
    return hsv[0, :, 0].astype(np.float32) * 360 / 256

"""Measures of pictures: whose likeness, on what background, how different. Plain arithmetic, no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from training.pictures import colour_names
from training.scenes import BACKGROUNDS

SIDE = 16
"""Pixels to which a subject is brought before it is compared: shapes and colours count, not edges."""

BORDER = 16
"""A picture's frame, from which its background is read, is one part in so many of its width."""

APART = 60
"""Largest difference of a red, green or blue value at which a pixel still is background: nearly twice what a wobble and a VAE move it."""


def background_rgb(pixels: np.ndarray) -> np.ndarray:
    """The median colour of the frame. # (h, w, 3) -> (3,)"""
    edge = max(1, len(pixels) // BORDER)
    frame = [pixels[:edge].reshape(-1, 3), pixels[-edge:].reshape(-1, 3), pixels[:, :edge].reshape(-1, 3), pixels[:, -edge:].reshape(-1, 3)]
    return np.median(np.concatenate(frame), axis=0)


def background_name(pixels: np.ndarray) -> str:
    """Which of BACKGROUNDS the frame is nearest to."""
    colour = background_rgb(pixels)
    return min(BACKGROUNDS, key=lambda name: float(np.abs(np.array(BACKGROUNDS[name]) - colour).sum()))


def likeness(pixels: np.ndarray) -> np.ndarray:
    """What is compared: the subject alone, cut out, on white, SIDE x SIDE. # (h, w, 3) uint8 -> (SIDE * SIDE * 3,) in [0, 1]

    Neither the background nor the place or size of the subject matters.
    """
    ground = background_rgb(pixels)
    subject = np.abs(pixels.astype(float) - ground).max(-1) > APART
    if not subject.any():
        return np.ones(SIDE * SIDE * 3, np.float32)
    rows, columns = np.where(subject.any(1))[0], np.where(subject.any(0))[0]
    top, left, side = rows[0], columns[0], max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    cut = np.full((side, side, 3), 255, np.uint8)
    box = (slice(top, rows[-1] + 1), slice(left, columns[-1] + 1))
    found = np.where(subject[box][..., None], pixels[box], 255)
    y, x = (side - found.shape[0]) // 2, (side - found.shape[1]) // 2
    cut[y : y + found.shape[0], x : x + found.shape[1]] = found
    small = Image.fromarray(cut).resize((SIDE, SIDE), Image.Resampling.BOX)
    return (np.asarray(small, np.float32) / 255).ravel()


def likenesses(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """# (n, SIDE * SIDE * 3)"""
    return np.stack([likeness(one) for one in pictures])


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference of each to each, from 0 to 1. # (n, d), (m, d) -> (n, m)"""
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return np.sqrt(np.maximum(squares, 0) / some.shape[1])


def found_among_first(apart: np.ndarray, labels: Sequence[str], wanted: Sequence[str], count: int) -> float:
    """Share of rows whose wanted label is among the `count` nearest different labels. # apart (n, m)"""
    hits = 0
    for row, want in zip(apart, wanted, strict=True):
        first = list(dict.fromkeys(labels[at] for at in np.argsort(row, kind="stable")))[:count]
        hits += want in first
    return hits / max(1, len(wanted))


def diversity(features: np.ndarray) -> float:
    """Mean distance of all pairs; 0 for fewer than two pictures. # (n, d)"""
    count = len(features)
    return float(distances(features, features)[np.triu_indices(count, 1)].mean()) if count > 1 else 0.0


def colour_share(pixels: np.ndarray, colour: str) -> float:
    """Share of the subject's pixels that have a colour; 0 for an empty picture. # (h, w, 3)"""
    subject = np.abs(pixels.astype(float) - background_rgb(pixels)).max(-1) > APART
    return float((colour_names(pixels[subject]) == colour).mean()) if subject.any() else 0.0

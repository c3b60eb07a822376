"""A sheet developing: its pictures at the same part of their ways, as an animation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from PIL import Image

from engine.errors import InvalidRequest
from engine.pictures.encoding import encoded
from engine.pictures.made import Made
from engine.recipes.plan import Plan
from engine.sheets.layout import scaled
from engine.sheets.sheet import TILE, draw_pages, tile_of

Look = Callable[[Mapping[int, int]], Mapping[int, Image.Image]]
"""Gives the pictures of cells after a step of each, as Engine.frames does for a job; leaves out what is not kept."""

FRAMES = 24
"""Of an animation, the finished pictures included: the most that is told apart in a few seconds."""

FRAME_SECONDS = 0.125

ANIMATION_PIXELS = 64_000_000
"""Of all frames together: some ten seconds of one core's encoding, and 20 frames of 1,800 by 1,800."""

ANIMATION_SIDE = 16_383
"""Pixels: WebP's own limit."""


def animation(plan: Plan, made: Mapping[int, Made], look: Look, page: int = 0, messages: Mapping[int, str] = {}) -> bytes:
    """A page of the sheet developing, as an animated WebP: every cell at the same part of its way, up to FRAMES parts evenly
    spaced, and the pictures last. A cell whose steps are not kept shows its picture throughout.

    Raises InvalidRequest when the page has no picture.
    """
    cells = [cell for cell in plan.cells if cell.place[2] == page]
    ways = {cell.index: made[cell.index].provenance for cell in cells if cell.index in made}
    if not ways:
        raise InvalidRequest("There is no picture on this page yet: wait for its first one.")
    count = min(FRAMES, max(way.total for way in ways.values()))
    side = math.isqrt(ANIMATION_PIXELS // (count * len(cells)))
    factor = min(1.0, side / max(max(cell.recipe.width, cell.recipe.height) for cell in cells))
    sizes = {cell.index: scaled((cell.recipe.width, cell.recipe.height), factor) for cell in cells}
    tiles = {cell.index: replace(tile_of(cell, made, messages, factor), size=sizes[cell.index]) for cell in cells}
    frames = []
    for part in range(1, count + 1):
        steps = {index: min(max(1, round(part / count * way.total)), way.step) for index, way in ways.items()}
        seen = look(steps) if part < count else {}
        shown = {cell.place: replace(tiles[cell.index], image=seen.get(cell.index, tiles[cell.index].image)) for cell in cells}
        frames.append(draw_pages(plan, shown, [page], min(TILE, side)))
    return animate(frames, FRAME_SECONDS)


def animate(frames: Sequence[Image.Image], seconds_a_frame: float, hold: float = 1.5) -> bytes:
    """The frames as an endless WebP, the last one shown `hold` seconds longer; made smaller beyond ANIMATION_PIXELS.

    Raises ValueError without frames, for frames of unequal size, and for a time that is not positive.
    """
    if not frames:
        raise ValueError("an animation needs frames")
    if len({frame.size for frame in frames}) > 1:
        raise ValueError("the frames of an animation must be of one size")
    if not (seconds_a_frame > 0 and hold >= 0):
        raise ValueError(f"a frame must be shown for some time, not {seconds_a_frame} and {hold} seconds more")
    width, height = frames[0].size
    scale = min(1.0, ANIMATION_SIDE / max(width, height), math.sqrt(ANIMATION_PIXELS / (width * height * len(frames))))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    first, *others = [frame.convert("RGB").resize(size, Image.Resampling.LANCZOS) for frame in frames]
    times = [round(1000 * seconds_a_frame)] * len(frames)
    times[-1] += round(1000 * hold)
    # allow_mixed: frames of few colours are kept without loss; at 90 the others' flat areas show no blocks.
    more = {"save_all": True, "append_images": others, "duration": times, "loop": 0}
    return encoded(first, "WEBP", quality=90, method=2, allow_mixed=True, **more)

"""A log's loss as a picture: drawn with Pillow, which is here anyway."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, EDGE = 900, 420, 56
PAPER, GRID, INK, LINE = "#f7f6f4", "#dcd8d1", "#272422", "#c0392b"


def draw_curve(log: Path, picture: Path) -> None:
    """Writes the loss by step, logarithmic upwards; nothing for a log of fewer than two lines."""
    if not log.is_file():
        return
    with log.open() as stream:
        points = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream)]
    points = [(step, math.log10(loss)) for step, loss in points if loss > 0]
    if len(points) < 2:
        return
    low, high = min(y for _, y in points), max(y for _, y in points)
    span, last = max(high - low, 1e-6), points[-1][0]
    canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)
        draw.line((EDGE, y, WIDTH - EDGE, y), GRID)
        draw.text((8, y - 8), f"{10 ** (low + share * span):.3g}", INK, font)
        x = EDGE + share * (WIDTH - 2 * EDGE)
        draw.text((x - 14, HEIGHT - EDGE + 8), f"{round(share * last):,}", INK, font)
    draw.text((EDGE, 16), f"{log.stem}: loss by step", INK, font)
    place = [
        (EDGE + step / last * (WIDTH - 2 * EDGE), HEIGHT - EDGE - (value - low) / span * (HEIGHT - 2 * EDGE)) for step, value in points
    ]
    draw.line(place, LINE, 2)
    canvas.save(picture)

"""A contact sheet drawn: labels, pictures and notes where the layout puts them.

It takes plain values, so that whatever has pictures and words can have a sheet.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageOps

from engine.sheets.layout import MIN_TEXT, Box, Layout, Page, Tile, Words, arrange
from engine.sheets.lettering import line_height, wrapped

PAPER, EMPTY, INK, QUIET = "#f7f6f4", "#eae7e2", "#272422", "#6b645e"
"""Paper, a frame without picture, labels, and what is said by the way (4.7 : 1 on an empty frame)."""

NOTE_LINES = 2
"""Of a note over a picture, which is there to be seen."""


def draw_sheet(
    columns: Sequence[str],
    rows: Sequence[str],
    pages: Sequence[Page],
    *,
    heading: str = "",
    details: Sequence[str] = (),
    x_title: str = "",
    y_title: str = "",
    tile: int = 256,
) -> Image.Image:
    """The pages one under the other, each with its columns' labels above and its rows' at the left, as an RGB picture.

    A picture's longer side gets at least `tile` pixels; larger ones keep their size unless the sheet would exceed
    MAX_PIXELS or MAX_SIDE. `details` stand below the heading, smaller. Long labels that are like others are shortened where
    they are, so that they can be told apart; other texts are cut at their end. Sheets of equal words and picture sizes
    (`Tile.size`) have everything at the same place, whatever is there to be seen.
    Raises InvalidRequest when there are too many cells for one picture.
    """
    layout = arrange(Words(columns, rows, heading, details, x_title, y_title), pages, tile)
    sheet = Image.new("RGB", layout.size, PAPER)
    for label in layout.labels():
        label.block.draw(sheet, label.box, QUIET if label.quiet else INK, label.across, label.down)
    for index, page in enumerate(pages):
        for place, box in layout.boxes(index).items():
            _draw_tile(sheet, page.tiles.get(place, Tile()), box, layout)
    return sheet


def _draw_tile(sheet: Image.Image, cell: Tile, box: Box, layout: Layout) -> None:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    size = max(MIN_TEXT, round(0.85 * layout.text))
    edge = size // 2
    if cell.image is None:
        sheet.paste(EMPTY, box)
        note = wrapped(cell.note, size, width - 2 * edge, max(1, (height - 2 * edge) // line_height(size)))
        note.draw(sheet, (left + edge, top, right - edge, bottom), QUIET, 0.5, 0.5)
        return
    picture = _fitted(cell.image, *layout.picture_size(cell, box))
    at = (left + (width - picture.width) // 2, top + (height - picture.height) // 2)
    sheet.paste(picture, at)
    note = wrapped(cell.note, size, width - 2 * edge, NOTE_LINES)
    if note.lines:
        end = at[1] + picture.height
        band = (left, max(top, end - note.height - edge), right, end)
        strip = sheet.crop(band)
        sheet.paste(Image.blend(strip, Image.new("RGB", strip.size, PAPER), 0.88), band)
        note.draw(sheet, (left + edge, band[1], right - edge, end), INK, 0, 0.5)


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as the box lets it be. Enlarging is bicubic: Lanczos draws halos around flat shapes."""
    enlarges = width > image.width or height > image.height
    return ImageOps.contain(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC if enlarges else Image.Resampling.LANCZOS)

"""A comparison grid as one picture: a contact sheet with labels, and an animation of several.

It takes plain values, so that the page and the command line draw the same sheet.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from PIL import Image, ImageOps

from engine.errors import InvalidRequest
from engine.pictures.metadata import text_chunks
from engine.sheets.labels import told_apart
from engine.sheets.lettering import Block, line_height, wrapped

MAX_PIXELS = 64_000_000
"""Of a sheet: 192 MB while it is drawn, and well below the 89 million from which Pillow warns of a bomb on opening."""

MAX_SIDE = 65_500
"""Pixels: JPEG, to which people convert, ends at 65,535, and so do many viewers."""

SMALLEST_TILE = 16
"""Pixels: below this nothing can be recognised, so a sheet that would need it is refused."""

ANIMATION_PIXELS = 64_000_000
"""Of all frames together: some ten seconds of one core's encoding, and 20 frames of 1,800 by 1,800."""

ANIMATION_SIDE = 16_383
"""Pixels: WebP's own limit."""

PAPER, EMPTY, INK, QUIET = "#f7f6f4", "#eae7e2", "#272422", "#6b645e"
"""Paper, a frame without picture, labels, and what is said by the way (4.7 : 1 on an empty frame)."""

MIN_TEXT = 11
"""Pixels: smaller letters cannot be read."""

LABEL_LINES = 4
"""Of a column's label, a page's title and the heading: enough to tell prompts apart, and the pictures stay in view."""

NOTE_LINES = 2
"""Of a note over a picture, which is there to be seen."""


@dataclass(frozen=True)
class Tile:
    """A cell: its picture, and a note over its lower edge or, where there is no picture, in its middle."""

    image: Image.Image | None = None
    note: str = ""
    size: tuple[int, int] | None = None
    """Width and height of the finished picture, for cells whose `image` is missing yet or is a smaller preview."""


@dataclass(frozen=True)
class Page:
    """One Z value: its title, or "" without a Z axis, and its tiles by (column, row); a missing one stays blank."""

    title: str
    tiles: Mapping[tuple[int, int], Tile]


@dataclass(frozen=True)
class _Words:
    """All texts of a sheet but the notes."""

    columns: Sequence[str]
    rows: Sequence[str]
    titles: Sequence[str]
    heading: str
    details: Sequence[str]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in pixels. It follows from the words and the pictures' sizes, never from what is drawn."""

    text: int
    margin: int
    gap: int
    widths: list[int]
    heights: list[int]
    heading: Block
    details: list[Block]
    titles: list[Block]
    x_title: Block
    y_title: Block
    columns: list[Block]
    rows: list[Block]

    @property
    def label_width(self) -> int:
        """Of the row labels, with the gap to the pictures; 0 where no row has one."""
        width = max(self.y_title.width, *(row.width for row in self.rows), 0)
        return width + 2 * self.gap if width else 0

    @property
    def label_height(self) -> int:
        """Of the column labels, with the gap to the pictures; 0 where no column has one."""
        height = max(self.y_title.height, *(column.height for column in self.columns), 0)
        return height + self.gap if height else 0

    @property
    def x_title_height(self) -> int:
        return self.x_title.height + self.gap // 2 if self.x_title.lines else 0

    @property
    def heading_height(self) -> int:
        below = sum(self.gap + detail.height for detail in self.details)
        return self.heading.height + below + self.margin if self.heading.lines or self.details else 0

    @property
    def lefts(self) -> list[int]:
        """Of the columns."""
        return list(accumulate(self.widths[:-1], lambda at, width: at + width + self.gap, initial=self.margin + self.label_width))

    @property
    def tops(self) -> list[int]:
        """Of a page's rows, from the first one's top."""
        return list(accumulate(self.heights[:-1], lambda at, height: at + height + self.gap, initial=0))

    @property
    def grid_width(self) -> int:
        return _spaced(self.widths, self.gap)

    def title_height(self, page: int) -> int:
        height = self.titles[page].height
        return height + self.gap if height else 0

    @property
    def page_tops(self) -> list[int]:
        """Of the pages, and of what would come after the last one."""
        below = self.x_title_height + self.label_height + _spaced(self.heights, self.gap) + self.margin
        each = (self.title_height(page) + below for page in range(len(self.titles)))
        return list(accumulate(each, initial=self.margin + self.heading_height))

    @property
    def size(self) -> tuple[int, int]:
        width = max(self.label_width + self.grid_width, self.heading.width, *(detail.width for detail in self.details))
        return width + 2 * self.margin, max(self.page_tops[-1], 2 * self.margin)


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
    words = _Words(columns, rows, [page.title for page in pages], heading, details, x_title, y_title)
    widths, heights = _cell_sizes(len(columns), len(rows), pages, tile)
    scale = 1.0
    layout = _arranged(words, widths, heights, scale, tile)
    while (excess := _excess(layout.size)) > 1:
        scale /= 1.03 * excess  # labels do not shrink quite as much, so this may take a few rounds
        if scale * max([*widths, *heights], default=tile) < SMALLEST_TILE:
            raise InvalidRequest(
                f"A sheet of {len(columns):,} columns, {len(rows):,} rows and {len(pages):,} pages is too large for one picture: "
                "leave out some values, or make several sheets."
            )
        layout = _arranged(words, widths, heights, scale, tile)
    sheet = Image.new("RGB", layout.size, PAPER)
    _draw_heading(sheet, layout)
    for index, page in enumerate(pages):
        top = _draw_labels(sheet, layout, index)
        _draw_tiles(sheet, layout, page, top, scale, tile)
    return sheet


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
    buffer = io.BytesIO()
    # allow_mixed: frames of few colours are kept without loss; at 90 the others' flat areas show no blocks.
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=times, loop=0, quality=90, method=2, allow_mixed=True)
    return buffer.getvalue()


def sheet_png(image: Image.Image, texts: Mapping[str, str]) -> bytes:
    """The sheet as a PNG file with those text chunks."""
    buffer = io.BytesIO()
    # 3 instead of 6 takes half the time for a few per cent more bytes, which counts at tens of millions of pixels.
    image.save(buffer, "PNG", pnginfo=text_chunks(texts), compress_level=3)
    return buffer.getvalue()


def _cell_sizes(columns: int, rows: int, pages: Sequence[Page], tile: int) -> tuple[list[int], list[int]]:
    """Widths of the columns and heights of the rows: of the largest picture in each, or in the sheet where it has none."""
    widths, heights = [0] * columns, [0] * rows
    for page in pages:
        for (x, y), cell in page.tiles.items():
            width, height = _shown_size(cell, tile) or (0, 0)
            widths[x], heights[y] = max(widths[x], width), max(heights[y], height)
    usual_width, usual_height = max(widths, default=0) or tile, max(heights, default=0) or tile
    return [width or usual_width for width in widths], [height or usual_height for height in heights]


def _shown_size(cell: Tile, tile: int) -> tuple[int, int] | None:
    """Pixels of a picture that nothing forces to be smaller; None where no size is known."""
    size = cell.size or (cell.image.size if cell.image else None)
    if size is None:
        return None
    factor = max(1.0, tile / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _arranged(words: _Words, widths: list[int], heights: list[int], scale: float, tile: int) -> _Layout:
    side = scale * min(max(widths, default=tile), max(heights, default=tile))
    text = max(MIN_TEXT, round(side / 14))
    # A column holds some letters of its label and a row one line of it, however thin its pictures are.
    widths = [max(5 * text, round(scale * width)) for width in widths]
    heights = [max(line_height(text), round(scale * height)) for height in heights]
    gap = math.ceil(text / 3)
    label_limit = round(0.8 * max(widths, default=tile))
    rows = _labels(words.rows, text, [(label_limit, height // line_height(text)) for height in heights])
    y_title = wrapped(words.y_title, text, label_limit, 1)
    label_width = max(y_title.width, *(row.width for row in rows), 0)
    grid = _spaced(widths, gap)
    across = max(label_width + grid, round(scale * tile))
    return _Layout(
        text=text,
        margin=2 * text,
        gap=gap,
        widths=widths,
        heights=heights,
        heading=wrapped(words.heading, round(1.35 * text), across, LABEL_LINES),
        details=[block for detail in words.details if (block := wrapped(detail, text, across, LABEL_LINES)).lines],
        titles=_labels(words.titles, round(1.35 * text), [(across, LABEL_LINES) for _ in words.titles]),
        x_title=wrapped(words.x_title, text, grid, 1),
        y_title=y_title,
        columns=_labels(words.columns, text, [(width, LABEL_LINES) for width in widths]),
        rows=rows,
    )


def _labels(labels: Sequence[str], size: int, rooms: Sequence[tuple[int, int]]) -> list[Block]:
    """The labels of an axis in their rooms, each of pixels across and lines down; those that are alike are told apart."""
    least = tuple(min(sides) for sides in zip(*rooms, strict=True))
    shown = _told_apart(tuple(labels), size, least)
    return [wrapped(label, size, *room) for label, room in zip(shown, rooms, strict=True)]


@lru_cache(maxsize=32)  # the frames of an animation have the same labels
def _told_apart(labels: tuple[str, ...], size: int, room: tuple[int, int]) -> list[str]:
    return told_apart(labels, lambda label: not wrapped(label, size, *room).cut)


def _spaced(lengths: Sequence[int], gap: int) -> int:
    """Pixels that the lengths take with gaps between them."""
    return sum(lengths) + gap * max(0, len(lengths) - 1)


def _excess(size: tuple[int, int]) -> float:
    """By what factor the sides must shrink; 1 or less when they need not."""
    width, height = size
    return max(math.sqrt(width * height / MAX_PIXELS), width / MAX_SIDE, height / MAX_SIDE)


def _draw_heading(sheet: Image.Image, layout: _Layout) -> None:
    left, top, right = layout.margin, layout.margin, sheet.width - layout.margin
    layout.heading.draw(sheet, (left, top, right, top + layout.heading.height), INK)
    top += layout.heading.height
    for detail in layout.details:
        top += layout.gap
        detail.draw(sheet, (left, top, right, top + detail.height), QUIET)
        top += detail.height


def _draw_labels(sheet: Image.Image, layout: _Layout, page: int) -> int:
    """Draws what surrounds a page's pictures; returns the top of its first row."""
    left, top = layout.margin, layout.page_tops[page]
    labels_end = left + layout.label_width - 2 * layout.gap
    layout.titles[page].draw(sheet, (left, top, sheet.width - layout.margin, top + layout.titles[page].height), INK)
    top += layout.title_height(page)
    grid_left = left + layout.label_width
    layout.x_title.draw(sheet, (grid_left, top, grid_left + layout.grid_width, top + layout.x_title.height), QUIET, 0.5)
    top += layout.x_title_height
    below = top + layout.label_height - layout.gap
    layout.y_title.draw(sheet, (left, top, labels_end, below), QUIET, 0, 1)
    for block, at, width in zip(layout.columns, layout.lefts, layout.widths, strict=False):
        block.draw(sheet, (at, top, at + width, below), INK, 0.5, 1)
    top += layout.label_height
    for block, at, height in zip(layout.rows, layout.tops, layout.heights, strict=False):
        block.draw(sheet, (left, top + at, labels_end, top + at + height), INK, 0, 0.5)
    return top


def _draw_tiles(sheet: Image.Image, layout: _Layout, page: Page, top: int, scale: float, tile: int) -> None:
    lefts, tops = layout.lefts, layout.tops
    for y, height in enumerate(layout.heights):
        for x, width in enumerate(layout.widths):
            box = (lefts[x], top + tops[y], lefts[x] + width, top + tops[y] + height)
            _draw_tile(sheet, page.tiles.get((x, y), Tile()), box, layout.text, scale, tile)


def _draw_tile(sheet: Image.Image, cell: Tile, box: tuple[int, int, int, int], text: int, scale: float, tile: int) -> None:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    size = max(MIN_TEXT, round(0.85 * text))
    edge = size // 2
    if cell.image is None:
        sheet.paste(EMPTY, box)
        note = wrapped(cell.note, size, width - 2 * edge, max(1, (height - 2 * edge) // line_height(size)))
        note.draw(sheet, (left + edge, top, right - edge, bottom), QUIET, 0.5, 0.5)
        return
    shown = _shown_size(cell, tile) or cell.image.size
    picture = _fitted(cell.image, min(width, max(1, round(scale * shown[0]))), min(height, max(1, round(scale * shown[1]))))
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

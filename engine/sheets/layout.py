"""Where everything of a contact sheet is, in pixels: its labels and its pictures. Nothing is drawn here.

It follows from the words and the pictures' sizes alone, not from what is finished yet: sheets of a run's steps are frames of one film.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain

from PIL import Image

from engine.errors import InvalidRequest
from engine.sheets.labels import told_apart
from engine.sheets.lettering import Block, line_height, wrapped

MAX_PIXELS = 64_000_000
"""Of a sheet: 192 MB while it is drawn, and well below the 89 million from which Pillow warns of a bomb on opening."""

MAX_SIDE = 65_500
"""Pixels: JPEG, to which people convert, ends at 65,535, and so do many viewers."""

SMALLEST_TILE = 16
"""Pixels: below this nothing can be recognised, so a sheet that would need it is refused."""

MIN_TEXT = 11
"""Pixels: smaller letters cannot be read."""

LABEL_LINES = 4
"""Of a column's label, a page's title and the heading: enough to tell prompts apart, and the pictures stay in view."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are outside."""


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
class Words:
    """All texts of a sheet but its pages' titles and the notes; "" where there is none."""

    columns: Sequence[str]
    rows: Sequence[str]
    heading: str
    details: Sequence[str]
    """Below the heading, smaller."""
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Label:
    """A text in its place. `across` and `down` say where in the box: 0 is left or top, 1 right or bottom."""

    block: Block
    box: Box
    quiet: bool = False
    """Whether it is said by the way."""
    across: float = 0.0
    down: float = 0.0


@dataclass(frozen=True)
class Layout:
    """A sheet's measures, in pixels, and what follows from them: its size, its labels in their places, its pictures' boxes."""

    scale: float
    """Of the pictures, where the sheet would be too large: at most 1."""
    tile: int
    """What the longer side of a picture has at least, before it is scaled."""
    text: int
    """Size of the letters."""
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

    def labels(self) -> Iterator[Label]:
        """All texts but the notes."""
        pages = (self._labels_of(page) for page in range(len(self.titles)))
        return (label for label in chain(self._labels_above(), *pages) if label.block.lines)

    def boxes(self, page: int) -> dict[tuple[int, int], Box]:
        """Of a page's cells, by (column, row)."""
        columns = list(zip(self.lefts, self.widths, strict=False))
        rows = list(zip(self._row_tops(page), self.heights, strict=False))
        return {
            (x, y): (left, top, left + width, top + height)
            for y, (top, height) in enumerate(rows) for x, (left, width) in enumerate(columns)
        }  # fmt: skip

    def picture_size(self, cell: Tile, box: Box) -> tuple[int, int]:
        """The most that a cell's picture may take in its box."""
        room = (box[2] - box[0], box[3] - box[1])
        width, height = scaled(_shown_size(cell, self.tile) or room, self.scale)
        return min(room[0], width), min(room[1], height)

    def _labels_above(self) -> Iterator[Label]:
        left, top, right = self.margin, self.margin, self.size[0] - self.margin
        yield Label(self.heading, (left, top, right, top + self.heading.height))
        top += self.heading.height
        for detail in self.details:
            top += self.gap
            yield Label(detail, (left, top, right, top + detail.height), quiet=True)
            top += detail.height

    def _labels_of(self, page: int) -> Iterator[Label]:
        left, right, top = self.margin, self.size[0] - self.margin, self.page_tops[page]
        yield Label(self.titles[page], (left, top, right, top + self.titles[page].height))
        top += self.title_height(page)
        grid_left, labels_end = left + self.label_width, left + self.label_width - 2 * self.gap
        yield Label(self.x_title, (grid_left, top, grid_left + self.grid_width, top + self.x_title.height), quiet=True, across=0.5)
        top += self.x_title_height
        below = top + self.label_height - self.gap
        yield Label(self.y_title, (left, top, labels_end, below), quiet=True, down=1)
        for block, at, width in zip(self.columns, self.lefts, self.widths, strict=False):
            yield Label(block, (at, top, at + width, below), across=0.5, down=1)
        for block, at, height in zip(self.rows, self._row_tops(page), self.heights, strict=False):
            yield Label(block, (left, at, labels_end, at + height), down=0.5)

    def _row_tops(self, page: int) -> list[int]:
        first = self.page_tops[page] + self.title_height(page) + self.x_title_height + self.label_height
        return list(accumulate(self.heights[:-1], lambda at, height: at + height + self.gap, initial=first))


def arrange(words: Words, pages: Sequence[Page], tile: int) -> Layout:
    """The layout of a sheet whose pictures' longer sides have at least `tile` pixels; they are smaller where it would exceed MAX_PIXELS
    or MAX_SIDE.

    Raises InvalidRequest when there are too many cells for one picture.
    """
    titles = [page.title for page in pages]
    widths, heights = _cell_sizes(len(words.columns), len(words.rows), pages, tile)
    scale = 1.0
    layout = _arranged(words, titles, widths, heights, scale, tile)
    while (excess := _excess(layout.size)) > 1:
        scale /= 1.03 * excess  # labels do not shrink quite as much, so this may take a few rounds
        if scale * max([*widths, *heights], default=tile) < SMALLEST_TILE:
            raise InvalidRequest(
                f"A sheet of {len(words.columns):,} columns, {len(words.rows):,} rows and {len(pages):,} pages is too large for one "
                "picture: leave out some values, or make several sheets."
            )
        layout = _arranged(words, titles, widths, heights, scale, tile)
    return layout


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """A width and a height times a factor, each at least 1."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


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
    return scaled(size, max(1.0, tile / max(size)))


def _arranged(words: Words, titles: Sequence[str], widths: list[int], heights: list[int], scale: float, tile: int) -> Layout:
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
    return Layout(
        scale=scale,
        tile=tile,
        text=text,
        margin=2 * text,
        gap=gap,
        widths=widths,
        heights=heights,
        heading=wrapped(words.heading, round(1.35 * text), across, LABEL_LINES),
        details=[block for detail in words.details if (block := wrapped(detail, text, across, LABEL_LINES)).lines],
        titles=_labels(titles, round(1.35 * text), [(across, LABEL_LINES) for _ in titles]),
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

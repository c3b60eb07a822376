"""Where things are, without a pixel drawn."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from engine.sheets.layout import Box, Page, Tile, Words, arrange
from tests.engine.sheets.contents import any_text, examples, flat

sides = st.tuples(st.integers(1, 700), st.integers(1, 700))


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@examples
@given(texts=st.lists(any_text, min_size=9, max_size=9), sizes=st.lists(sides, min_size=4, max_size=4), tile=st.integers(8, 300))
def test_no_label_and_no_picture_covers_another_or_leaves_the_sheet(texts: list[str], sizes: list[tuple[int, int]], tile: int) -> None:
    first, second, row, title, other_title, heading, detail, x_title, y_title = texts
    tiles = {(at % 2, at // 2): Tile(size=size) for at, size in enumerate(sizes)}
    pages = [Page(title, tiles), Page(other_title, {})]
    layout = arrange(Words([first, second], [row, ""], heading, [detail, "20 steps"], x_title, y_title), pages, tile)
    boxes = [label.box for label in layout.labels()] + [box for index in range(2) for box in layout.boxes(index).values()]
    width, height = layout.size
    assert all(0 < left < right < width and 0 < top < bottom < height for left, top, right, bottom in boxes)
    assert not any(overlap(one, other) for one, other in combinations(boxes, 2))
    for place, box in layout.boxes(0).items():
        room = box[2] - box[0], box[3] - box[1]
        assert all(0 < side <= most for side, most in zip(layout.picture_size(tiles[place], box), room, strict=True))


def test_a_layout_does_not_depend_on_what_is_there_to_be_seen() -> None:
    words = Words(["a", "b"], ["c"], "a fox", [], "Seed", "")
    seen = [Tile(size=(96, 320)), Tile(flat("red", 12, 40), size=(96, 320)), Tile(flat("red", 96, 320), "step 3 of 20")]
    layouts = [arrange(words, [Page("", {(0, 0): tile, (1, 0): Tile(size=(96, 320))})], 256) for tile in seen]
    assert layouts[0] == layouts[1] == layouts[2]


def test_a_sheet_without_words_is_its_pictures_and_a_margin() -> None:
    layout = arrange(Words([""], [""], "", [], "", ""), [Page("", {(0, 0): Tile(size=(64, 32))})], 256)
    assert list(layout.labels()) == []
    assert layout.boxes(0) == {(0, 0): (layout.margin, layout.margin, layout.margin + 256, layout.margin + 128)}
    assert layout.size == (256 + 2 * layout.margin, 128 + 2 * layout.margin)

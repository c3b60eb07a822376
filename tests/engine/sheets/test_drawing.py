from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from engine.errors import InvalidRequest
from engine.sheets.drawing import PAPER, draw_sheet
from engine.sheets.layout import MAX_PIXELS, MAX_SIDE, Page, Tile
from tests.engine.sheets.contents import COLOURS, LABELLED, any_text, examples, flat, labelled, page

PAPER_RGB = (0xF7, 0xF6, 0xF4)


def grid(sheet: Image.Image) -> list[tuple[int, int, int, int]]:
    """The boxes of the nine colours, where a sheet has them."""
    distances = (ImageChops.difference(sheet, Image.new("RGB", sheet.size, colour)).convert("L") for colour in COLOURS)
    boxes = (distance.point(lambda value: 255 * (value < 2)).getbbox() for distance in distances)
    return [box for box in boxes if box]


def has_ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> bool:
    return any(low < paper for (low, _), paper in zip(sheet.crop(box).getextrema(), PAPER_RGB, strict=True))


def test_pictures_stand_in_equal_columns_and_rows() -> None:
    boxes = grid(LABELLED)
    assert len(boxes) == 9
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(256, 256)}
    assert len({left for left, *_ in boxes}) == len({top for _, top, *_ in boxes}) == 3
    assert boxes[0][:2] == (min(left for left, *_ in boxes), min(top for _, top, *_ in boxes))
    assert boxes[1][0] > boxes[0][2], "the second tile is in the next column"
    assert boxes[3][1] > boxes[0][3], "the fourth is in the next row"


def test_labels_are_found_beside_their_pictures_and_nothing_in_the_margins() -> None:
    boxes, (width, height) = grid(LABELLED), LABELLED.size
    left, top = boxes[0][:2]
    for column in boxes[:3]:
        assert has_ink(LABELLED, (column[0], top - 36, column[2], top)), "a column's label is right above it"
    for row in boxes[::3]:
        assert has_ink(LABELLED, (0, row[1], left, row[3])), "a row's label is at its left"
    assert has_ink(LABELLED, (0, top - 36, left, top)), "the rows' title stands over their labels"
    margin = 2 * 18
    for box in [(0, 0, width, margin), (0, 0, margin, height), (width - margin, 0, width, height), (0, height - margin, width, height)]:
        assert not has_ink(LABELLED, box)
    for upper, lower in [(boxes[0], boxes[3]), (boxes[3], boxes[6])]:
        assert not has_ink(LABELLED, (0, upper[3], width, lower[1])), "labels keep to their rows"


def test_a_row_label_keeps_to_its_row_and_a_column_label_to_its_column() -> None:
    long = "a very long prompt, " * 100
    sheet = draw_sheet([long, ""], [long, ""], [page(2, 2)])
    first, second, third, _ = grid(sheet)
    assert has_ink(sheet, (0, first[1], first[0], first[3]))
    assert not has_ink(sheet, (0, third[1], first[0], third[3]))
    assert has_ink(sheet, (first[0], 0, first[2], first[1]))
    assert not has_ink(sheet, (second[0], 0, second[2], second[1]))
    assert first[1] < 256, "four lines at most"
    assert first[0] < 300, "and no wider than most of a picture"


def test_an_axis_without_labels_takes_no_room() -> None:
    sheet = draw_sheet([""], [""], [page(1, 1)])
    assert sheet.size == (256 + 2 * 36, 256 + 2 * 36)
    assert grid(sheet) == [(36, 36, 36 + 256, 36 + 256)]


def test_pages_stand_one_under_the_other_each_with_title_and_labels() -> None:
    one = draw_sheet(["a"], [""], [Page("", {(0, 0): Tile(flat(COLOURS[0]))})])
    sheet = draw_sheet(["a"], [""], [Page(f"Steps {index}", {(0, 0): Tile(flat(COLOURS[index]))}) for index in range(3)])
    assert sheet.width == one.width
    boxes = grid(sheet)
    assert len({left for left, *_ in boxes}) == 1
    for upper, lower in [(boxes[0], boxes[1]), (boxes[1], boxes[2])]:
        between = (0, upper[3], sheet.width, lower[1])
        mask = ImageChops.difference(sheet.crop(between), Image.new("RGB", (sheet.width, lower[1] - upper[3]), PAPER)).convert("L")
        inked = [bool(mask.crop((0, y, mask.width, y + 1)).getbbox()) for y in range(mask.height)]
        # "Steps 1" with its descender, then "a": two stretches of ink with paper between.
        assert sum(now and not before for before, now in zip([False, *inked], inked, strict=False)) == 2


def test_a_large_picture_keeps_its_pixels() -> None:
    picture = Image.effect_noise((300, 420), 80).convert("RGB")
    sheet = draw_sheet([""], [""], [Page("", {(0, 0): Tile(picture)})])
    margin = (sheet.width - 300) // 2
    assert sheet.crop((margin, margin, margin + 300, margin + 420)).tobytes() == picture.tobytes()


def test_a_small_picture_is_enlarged_to_the_tile_keeping_its_aspect() -> None:
    boxes = grid(draw_sheet([""], [""], [page(1, 1, size=(64, 32))], tile=200))
    assert [(right - left, bottom - top) for left, top, right, bottom in boxes] == [(200, 100)]


def test_pictures_of_different_sizes_share_columns_and_rows_and_keep_their_aspect() -> None:
    tiles = {(0, 0): Tile(flat(COLOURS[0], 256, 128)), (1, 0): Tile(flat(COLOURS[1], 128, 256)), (0, 1): Tile(flat(COLOURS[2], 256, 256))}
    sheet = draw_sheet(["", ""], ["", ""], [Page("", tiles)])
    wide, tall, square = grid(sheet)
    assert (wide[2] - wide[0], wide[3] - wide[1]) == (256, 128)
    assert (tall[2] - tall[0], tall[3] - tall[1]) == (128, 256)
    assert wide[1] + wide[3] == tall[1] + tall[3], "both are in the middle of their row"
    assert (wide[0], wide[2]) == (square[0], square[2])


def test_frames_are_equal_but_for_the_cells_whatever_is_there_to_be_seen() -> None:
    size = (96, 320)

    def frame(**cell: object) -> Image.Image:
        return draw_sheet(["a", "b"], ["c"], [Page("", {(0, 0): Tile(size=size, **cell), (1, 0): Tile(flat(COLOURS[0], *size))})])

    empty = frame()
    others = [frame(note="waiting"), frame(image=flat(COLOURS[1], 12, 40)), frame(image=flat(COLOURS[1], *size), note="step 3 of 20")]
    (second,) = grid(empty)
    for other in others:
        assert other.size == empty.size
        changed = ImageChops.difference(other, empty).getbbox()
        assert changed is not None
        assert changed[2] < second[0]
        assert second[1] <= changed[1] < changed[3] <= second[3]
        assert grid(other)[0] == second


def test_a_note_is_over_the_lower_edge_of_its_picture_only() -> None:
    plain, noted = (draw_sheet([""], [""], [Page("", {(0, 0): Tile(flat(COLOURS[0]), note)})]) for note in ("", "unfinished, 7 of 20"))
    changed = ImageChops.difference(plain, noted).getbbox()
    assert changed is not None
    left, top, right, bottom = grid(plain)[0]
    assert (changed[0], changed[2], changed[3]) == (left, right, bottom)
    assert top + (bottom - top) * 3 // 4 < changed[1]


def test_a_note_without_picture_is_in_the_middle_of_its_cell() -> None:
    blank, failed = (draw_sheet([""], [""], [Page("", {(0, 0): Tile(note=note)})]) for note in ("", "The device has no room. " * 3))
    changed = ImageChops.difference(blank, failed).getbbox()
    assert changed is not None
    assert 36 < changed[0] < changed[2] < 36 + 256
    assert abs(changed[1] + changed[3] - blank.height) < 12


def test_a_missing_tile_and_an_empty_one_look_alike() -> None:
    assert draw_sheet([""], [""], [Page("", {})]).tobytes() == draw_sheet([""], [""], [Page("", {(0, 0): Tile()})]).tobytes()


@pytest.mark.parametrize(("columns", "rows", "pages"), [(0, 0, 0), (0, 0, 1), (2, 0, 1), (0, 2, 1), (2, 2, 0)])
def test_an_empty_sheet_is_drawn(columns: int, rows: int, pages: int) -> None:
    sheet = draw_sheet(["a"] * columns, ["b"] * rows, [Page("t", {})] * pages, heading="a fox", x_title="x", y_title="y")
    assert has_ink(sheet, (0, 0, *sheet.size))


def test_the_settings_stay_however_long_the_prompt_is() -> None:
    short, long = (draw_sheet([""], [""], [page(1, 1)], heading=text, details=["20 steps"]) for text in ("a fox", "a fox " * 500))
    ends = [grid(sheet)[0][1] for sheet in (short, long)]
    lines = [sheet.crop((0, end - 36 - 24, sheet.width, end - 36)).tobytes() for sheet, end in zip((short, long), ends, strict=True)]
    assert lines[0] == lines[1]


def test_long_labels_that_differ_at_their_end_do_not_look_alike() -> None:
    labels = [f"a watercolour painting of a cat on a mat by the sea, very detailed, in {light} light" for light in ("soft", "hard")]
    sheet = draw_sheet(labels, labels, [page(2, 2)])
    left, top, *_ = grid(sheet)[0]
    columns = [sheet.crop((box[0], 36, box[2], top)).tobytes() for box in grid(sheet)[:2]]
    rows = [sheet.crop((36, box[1], left, box[3])).tobytes() for box in grid(sheet)[::2]]
    assert len(set(columns)) == len(set(rows)) == 2


def test_neither_do_pages() -> None:
    words = "a watercolour painting of a cat on a mat by the sea, very detailed, " * 9
    soft, hard = (draw_sheet([""], [""], [page(1, 1, f"{words}{light}"), page(1, 1, f"{words}moon")]) for light in ("soft", "hard"))
    assert soft.tobytes() != hard.tobytes()


def test_a_long_negative_prompt_is_cut_and_the_settings_stay() -> None:
    texts = ("blurry", "blurry " * 500)
    short, long = (draw_sheet([""], [""], [page(1, 1)], heading="a fox", details=[text, "20 steps"]) for text in texts)
    ends = [grid(sheet)[0][1] for sheet in (short, long)]
    lines = [sheet.crop((0, end - 36 - 24, sheet.width, end - 36)).tobytes() for sheet, end in zip((short, long), ends, strict=True)]
    assert lines[0] == lines[1]
    assert 0 < ends[1] - ends[0] < 100


def test_the_largest_sheet_stays_below_the_limits() -> None:
    tiles = {(x, y): Tile(size=(1024, 1024)) for x in range(20) for y in range(20)}
    sheet = draw_sheet([str(x) for x in range(20)], [str(y) for y in range(20)], [Page("", tiles)])
    assert 0.8 * MAX_PIXELS < sheet.width * sheet.height <= MAX_PIXELS
    long = draw_sheet([str(x) for x in range(800)], [""], [Page("", {})])
    assert 0.8 * MAX_SIDE < long.width <= MAX_SIDE


def test_a_sheet_of_too_many_cells_is_refused_with_their_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"40,000 columns, 1 rows and 1 pages is too large"):
        draw_sheet([""] * 40_000, [""], [Page("", {})])


def test_the_same_sheet_has_the_same_bytes() -> None:
    again = labelled(page(3, 3))
    assert again.tobytes() == LABELLED.tobytes()


def test_a_sheet_of_a_hundred_pictures_takes_no_second() -> None:
    labels = [f"a prompt of some words, number {index}, and more words to be wrapped" for index in range(10)]
    begun = time.thread_time()
    draw_sheet(labels, labels, [page(10, 10)], heading="word " * 800, x_title="Prompt", y_title="Style")
    assert time.thread_time() - begun < 1


@examples
@given(texts=st.lists(any_text, min_size=9, max_size=9), tile=st.integers(8, 120))
def test_any_text_may_be_anywhere(texts: list[str], tile: int) -> None:
    column, other, row, title, heading, x_title, y_title, note, failure = texts
    tiles = {(0, 0): Tile(flat(COLOURS[0], 8, 8), note), (1, 0): Tile(None, failure)}
    sheet = draw_sheet([column, other], [row], [Page(title, tiles)], heading=heading, x_title=x_title, y_title=y_title, tile=tile)
    margin = 2 * 11
    assert sheet.mode == "RGB"
    for box in [(0, 0, sheet.width, margin), (0, 0, margin, sheet.height), (sheet.width - margin, 0, *sheet.size)]:
        assert not has_ink(sheet, box)

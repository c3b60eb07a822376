from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from engine.sheets import lettering
from engine.sheets.lettering import BUNDLED, MAX_TEXT, line_height, wrapped

HOSTILE = [
    "\ud800", "\0", "\n", "\r\n", "\u2028", "\t", "\u202e", "\ufe0f", "\u200d", "e\u0301", "\U0010ffff",
    "🦊👩‍🚀", "日本語", "שלום, עולם 7", "مرحبا", "\ufdfd", "x" * 90, " " * 9,
]  # fmt: skip
any_text = st.lists(st.text(st.characters(), max_size=20) | st.sampled_from(HOSTILE), max_size=8).map("".join)
examples = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def ink(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box around all that is not white."""
    return ImageChops.invert(picture.convert("L")).getbbox()


def drawn(text: str, box: tuple[int, int, int, int] = (20, 20, 180, 100), size: int = 16, most: int = 4, **place: float) -> Image.Image:
    picture = Image.new("RGB", (200, 120), "white")
    wrapped(text, size, box[2] - box[0], most).draw(picture, box, "black", **place)
    return picture


def test_lines_break_between_words_and_fit() -> None:
    block = wrapped("a red fox sitting in deep snow under a winter moon", 16, 140, 9)
    assert " ".join(block.lines) == "a red fox sitting in deep snow under a winter moon"
    assert len(block.lines) > 1
    assert block.width <= 140
    assert block.height == len(block.lines) * line_height(16)


def test_a_word_wider_than_a_line_is_broken_and_nothing_of_it_is_lost() -> None:
    block = wrapped("in " + "x" * 100, 16, 100, 99)
    assert "".join(block.lines) == "in" + "x" * 100
    assert block.width <= 100


def test_a_piece_of_a_broken_word_shares_its_line_with_the_next_word() -> None:
    assert wrapped("x" * 13 + " y", 16, 100, 9).lines[-1].endswith("x y")


def test_what_does_not_fit_ends_in_an_ellipsis() -> None:
    block = wrapped("word " * 500, 16, 100, 3)
    assert len(block.lines) == 3
    assert block.lines[-1].endswith("…")
    assert not any(line.endswith("…") for line in block.lines[:-1])
    assert block.width <= 100


def test_what_just_fits_has_no_ellipsis() -> None:
    assert wrapped("one\ntwo\nthree", 16, 100, 3).lines == ("one", "two", "three")
    assert wrapped("one\ntwo\nthree\n", 16, 100, 3).lines == ("one", "two", "three")
    assert wrapped("one\ntwo\nthree", 16, 100, 2).lines == ("one", "two…")


def test_a_text_beyond_the_limit_is_cut_there_with_an_ellipsis() -> None:
    assert wrapped("x" * MAX_TEXT, 8, 10**6, 1).lines == ("x" * MAX_TEXT,)
    assert wrapped("x" * (MAX_TEXT + 1), 8, 10**6, 1).lines[0].endswith("x…")


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\0", "\t \r\n"])
def test_a_text_without_ink_has_no_lines(text: str) -> None:
    block = wrapped(text, 16, 100, 4)
    assert (block.lines, block.width, block.height) == ((), 0, 0)
    assert ink(drawn(text)) is None


def test_the_place_in_the_box_is_as_asked() -> None:
    left, top, right, bottom = 20, 20, 180, 100
    first, last = ink(drawn("Exp")), ink(drawn("Exp", across=1, down=1))
    assert first is not None
    assert last is not None
    assert left <= first[0] <= left + 2
    assert top <= first[1] <= top + 8
    assert right - 2 <= last[2] <= right
    assert bottom - 8 <= last[3] <= bottom
    middle = ink(drawn("Exp", across=0.5, down=0.5))
    assert middle is not None
    assert abs(middle[0] + middle[2] - left - right) <= 4
    assert abs(middle[1] + middle[3] - top - bottom) <= 8


@examples
@given(text=any_text, size=st.integers(1, 40), across=st.floats(0, 1), down=st.floats(0, 1))
def test_any_text_is_drawn_inside_its_box(text: str, size: int, across: float, down: float) -> None:
    box = ink(drawn(text, size=size, across=across, down=down))
    assert box is None or (box[0] >= 20 and box[1] >= 20 and box[2] <= 180 and box[3] <= 100)


@examples
@given(text=any_text, width=st.integers(0, 300), most=st.integers(1, 5))
def test_any_text_takes_no_more_lines_than_asked(text: str, width: int, most: int) -> None:
    assert len(wrapped(text, 12, width, most).lines) <= most


def test_a_stack_of_accents_does_not_reach_other_lines() -> None:
    box = ink(drawn("Z" + "\u0301\u0327" * 400))
    assert box is not None
    assert box[1] >= 20
    assert box[3] <= 100


@pytest.mark.parametrize("text", [*HOSTILE, "a b" * 20])
def test_without_system_fonts_every_text_is_drawn_all_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_system_files", tuple)
    assert wrapped(text, 16, 160, 4).fonts == (BUNDLED,)
    assert (ink(drawn(text)) is None) == (not wrapped(text, 16, 160, 4).lines) or text in {"\ufe0f", "\u200d", "\u202e"}


def test_plain_english_uses_the_bundled_font_so_it_is_the_same_everywhere() -> None:
    assert wrapped("CFG scale 7.5, “quoted” – DPM++ 2M Karras…", 16, 500, 1).fonts[0] == BUNDLED


@pytest.mark.skipif(not lettering._system_files(), reason="no font of SYSTEM_FONTS is installed")
def test_letters_that_the_bundled_font_lacks_come_from_a_system_font() -> None:
    assert wrapped("café crème", 16, 500, 1).fonts[0] != BUNDLED
    assert wrapped("64 × 64", 16, 500, 1).fonts[0] == BUNDLED, "a sign alone changes no font"
    assert ink(drawn("é")) != ink(drawn("\U0010fffe"))


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("CFG scale 7.5, “quoted”", []), ("แมวนั่ง, a cat", ["Thai"]), ("猫と犬 고양이", ["Chinese", "Japanese", "Korean"]),
        ("кот 🦊 ∰", ["Cyrillic", "emoji", "signs"]), ("e\u0301 \u200d \ufe0f \n", ["Latin"]), ("\ud800", []),
    ],
)  # fmt: skip
def test_what_no_font_has_is_told_by_the_scripts_name(text: str, missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_installed", lambda name: None)
    monkeypatch.setattr(lettering, "_system_files", tuple)
    assert lettering.missing_scripts(["plain", text]) == missing


def test_a_script_without_a_font_in_the_list_is_looked_for_in_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(lettering, "_system_files", tuple)
    monkeypatch.setattr(lettering, "_installed", lambda name: asked.append(name))
    wrapped("แมว and ខ្មែរ", 16, 500, 1)
    assert asked == ["NotoSansKhmer-Regular.ttf", "NotoSansThai-Regular.ttf"]


@pytest.mark.parametrize("text", ["x" * 10**6, "x " * 10**6, "e" + "\u0301" * 10**6, "🦊" * 10**6, "\n" * 10**6])
def test_a_long_text_takes_no_longer_than_a_short_one(text: str) -> None:
    begun = time.thread_time()
    wrapped(text, 16, 3000, 4)
    assert time.thread_time() - begun < 2

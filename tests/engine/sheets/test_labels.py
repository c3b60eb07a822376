from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sheets.labels import told_apart

SCENE = "a watercolour painting of a cat on a mat, highly detailed, "
words = st.lists(st.sampled_from(["cat", "dog", "on", "a", "red", "mat,", "noch", "日本語", "🦊"]), min_size=1, max_size=40).map(" ".join)
examples = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def room(most: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= most


def test_labels_that_fit_stay_as_they_are() -> None:
    assert told_apart(["a cat", "a cat on a mat"], room(20)) == ["a cat", "a cat on a mat"]


def test_of_labels_that_differ_at_their_end_the_end_stays() -> None:
    assert told_apart([f"{SCENE}soft light", f"{SCENE}hard light"], room(40)) == [
        "a watercolour painting of a … soft light",
        "a watercolour painting of a … hard light",
    ]


def test_labels_that_part_twice_keep_both_places() -> None:
    rest = "x " * 40
    assert told_apart([f"a cat {rest}one", f"a dog {rest}one", f"a cat {rest}two"], room(24)) == [
        "a cat x x x x x x … one",
        f"a dog {rest}one",
        "a cat x x x x x x … two",
    ]


def test_labels_that_differ_where_they_are_seen_are_left_to_be_cut_at_their_end() -> None:
    labels = [SCENE, "a window, " + SCENE, "another"]
    assert told_apart(labels, room(20)) == labels


@pytest.mark.parametrize(("one", "other"), [("猫", "犬"), ("🧑‍🚀", "🧑‍🎨"), ("e\u0301", "e\u0300")])
def test_words_without_blanks_part_between_letters_that_are_drawn_as_one(one: str, other: str) -> None:
    shown = told_apart(["日本語" * 30 + one, "日本語" * 30 + other], room(20))
    assert [text.rpartition(" ")[2] for text in shown] == [one, other]


@examples
@given(head=words, tails=st.lists(words, min_size=2, max_size=6, unique=True))
def test_labels_that_differ_are_never_shown_alike(head: str, tails: list[str]) -> None:
    labels = [f"{head} {tail}" for tail in tails]
    shown = told_apart(labels, room(120))
    seen = [text for text, label in zip(shown, labels, strict=True) if text != label and len(text) <= 120]
    assert len(set(seen)) == len(seen)


def test_a_hundred_long_labels_are_told_apart() -> None:
    labels = [f"{'word ' * 790}{number}" for number in range(100)]
    shown = told_apart(labels, room(48))
    assert [text.rpartition("… ")[2] for text in shown] == [str(number) for number in range(100)]
    assert max(map(len, shown)) <= 48

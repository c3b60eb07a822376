"""Words replaced at once: against a slow statement of the rule that goes through a text character by character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recipes.replacing import replace_words
from tests.engine.recipes.replacing_rule import stated

HOSTILE = (
    "cat", "dog", "category", ".*", "(?i)a", "[x]", "\\", "\\1", "\\g<0>", "$", "^", "a|b", "", "\n", "\0", "é", "e\u0301", "ß", "ẞ",
    "שלום", "\u202e", "\u200d", "👩", "👩‍🚀", "\ud800",
)  # fmt: skip
words = st.sampled_from(HOSTILE) | st.text(st.sampled_from("ab ,"), max_size=4)
texts = st.lists(st.sampled_from(HOSTILE) | st.text(st.sampled_from("ab ,"), max_size=6), max_size=12).map("".join)
examples = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@examples
@given(text=texts, by=st.dictionaries(words, words, max_size=4))
def test_words_are_replaced_as_the_rule_says_letter_by_letter(text: str, by: dict[str, str]) -> None:
    assert replace_words(text, by) == stated(text, by)


@examples
@given(text=texts, word=words.filter(len), by=words)
def test_one_word_is_replaced_as_str_replace_does(text: str, word: str, by: str) -> None:
    assert replace_words(text, {word: by}) == text.replace(word, by)


@examples
@given(text=texts, looked_for=st.lists(words, max_size=4))
def test_words_replaced_by_themselves_change_nothing(text: str, looked_for: list[str]) -> None:
    assert replace_words(text, {word: word for word in looked_for}) == text


@examples
@given(pieces=st.lists(st.tuples(texts, texts), min_size=1, max_size=5), word=words.filter(len), by=words)
def test_what_another_axis_owns_is_left_alone_if_the_word_stands_elsewhere(pieces: list[tuple[str, str]], word: str, by: str) -> None:
    pieces = [*pieces, (f"x{word}", "")]
    text, own = "", []
    for shared, chosen in pieces:
        own.append((len(text) + len(shared), len(text) + len(shared) + len(chosen)))
        text += shared + chosen
    assert replace_words(text, {word: by}, own) == "".join(stated(shared, {word: by}) + chosen for shared, chosen in pieces)


@pytest.mark.parametrize(
    ("text", "by", "own", "result"),
    [
        ("cat cat", {"cat": "dog"}, [(0, 3)], "cat dog"),
        ("cat cat", {"cat": "dog"}, [(0, 7)], "dog dog"),
        ("big cat", {"big cat": "dog"}, [(0, 3)], "dog"),
        ("cat, a dog", {"cat": "x", "dog": "y"}, [(0, 3)], "x, a y"),
        ("red cat, cat", {"cat": "x", "red cat": "y"}, [(0, 7)], "y, x"),
    ],
)
def test_a_word_that_stands_nowhere_else_is_taken_from_what_another_axis_owns(
    text: str, by: dict[str, str], own: list[tuple[int, int]], result: str
) -> None:
    assert replace_words(text, by, own) == result


@pytest.mark.parametrize(
    ("text", "looked_for"),
    [("a" * 10**6, ["a" * 500_000 + "b"]), ("ab" * 200_000, ["a", "b", "ab" * 199_999 + "c"]), ("x" * 10**6, ["y", "z"])],
)
def test_long_texts_are_read_in_linear_time(text: str, looked_for: list[str]) -> None:
    """No clock: what is quadratic here does not end at all."""
    assert replace_words(text, {word: word for word in looked_for}) == text

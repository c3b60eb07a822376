"""Prompt search and replace: the words that all axes look for, found in one text and replaced at once.

Places are those of the text as it was before anything was replaced, so that no axis finds what another has put there.
A1111 replaces axis by axis instead: of `cat, dog` on X and `dog, cat` on Y it makes two cats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

Span = tuple[int, int]
"""Begin and end of a part of a text, in characters."""


def find_words(text: str, words: Iterable[str], own: Sequence[Span] = ()) -> list[Span]:
    """Where the words stand in the text, in order and none over another: of two the one that begins first, else the longer.

    `own` are parts, in order, that belong to another axis: a word is found there only when it stands nowhere else.
    """
    words = [word for word in words if word]
    found = _found(text, words, _gaps(own, len(text)))
    missing = set(words).difference(text[begin:end] for begin, end in found)
    if own and missing:
        found = sorted([*found, *_found(text, missing, _gaps(found, len(text)))])
    return found


def replace_words(text: str, by: Mapping[str, str], own: Sequence[Span] = ()) -> str:
    """The text with each word of `by`, where `find_words` finds it, replaced."""
    spans = find_words(text, by, own)
    kept = [text[begin:end] for begin, end in _gaps(spans, len(text))]
    put = [by[text[begin:end]] for begin, end in spans]
    return "".join(piece for pair in zip(kept, [*put, ""], strict=True) for piece in pair)


def _found(text: str, words: Iterable[str], parts: Iterable[Span]) -> list[Span]:
    """The words in these parts alone. By str.find and not by a pattern: its time is linear in the text, whatever the words are."""
    found: list[Span] = []
    for begin, end in parts:
        ahead = [(at, -len(word), word) for word in words if (at := text.find(word, begin, end)) >= 0]
        heapify(ahead)
        while ahead:
            at, _, word = heappop(ahead)
            if at >= begin:
                begin = at + len(word)
                found.append((at, begin))
            if (at := text.find(word, begin, end)) >= 0:
                heappush(ahead, (at, -len(word), word))
    return found


def _gaps(spans: Sequence[Span], length: int) -> list[Span]:
    """What lies before, between and after the spans, empty parts included."""
    borders = [0, *(border for span in spans for border in span), length]
    return list(zip(borders[0::2], borders[1::2], strict=True))

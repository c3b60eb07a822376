"""The labels of one axis, told apart: of long ones that are alike, what they have in common is left out first."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

ROOM = 400
"""Characters of a piece: more than fit beside any row or over any column."""

WORD = 24
"""Characters: how far back from where two labels part the word is looked for with which they part."""


def told_apart(labels: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """The labels, of which those that do not fit are shortened where they are like others: the ends of "a cat, ... soft light" and
    "a cat, ... hard light" stay. One that is unlike all others where it would be seen is left to be cut at its end."""
    return [label if fits(label) else _shortened(label, labels, fits) for label in labels]


def _shortened(label: str, labels: Sequence[str], fits: Callable[[str], bool]) -> str:
    partings = sorted({_shared(label, other) for other in labels if other != label})
    if not partings or fits(label[: partings[-1] + 1] + "…"):
        return label
    starts, least = [0], [1]  # of each piece: where it begins, and the characters of it that tell the label from another
    for parting in partings:
        start = max(_word_start(label, parting), starts[-1])
        if start > starts[-1]:
            starts.append(start)
            least.append(1)
        least[-1] = parting - start + 1
    pieces = [label[begin:end] for begin, end in pairwise([*starts, len(label)])]
    return _joined(pieces, least, max(1, bisect_left(range(1, ROOM), True, key=lambda room: not fits(_joined(pieces, least, room)))))


def _joined(pieces: Sequence[str], least: Sequence[int], room: int) -> str:
    """The pieces with at most `room` characters of each, but as many as tell them apart."""
    text = ""
    for piece, needed in zip(pieces, least, strict=True):
        kept = _cut(piece, room, needed)
        text += piece if kept == piece else f"{kept} … "
    return text.removesuffix(" … ") + "…" if text.endswith(" … ") else text


def _cut(piece: str, room: int, needed: int) -> str:
    if len(piece) <= max(room, needed):
        return piece
    kept = piece[: max(room, needed)]
    whole = kept if piece[len(kept)].isspace() else kept.rpartition(" ")[0]
    return (whole if len(whole) >= needed else kept).rstrip()


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return bisect_left(range(1, min(len(one), len(other)) + 1), True, key=lambda length: one[:length] != other[:length])


def _word_start(text: str, at: int) -> int:
    """Where the word round a place begins; the place itself where no word begins near it, but never within what is drawn as one."""
    begin = max(text.rfind(" ", max(0, at - WORD), at), text.rfind("\n", max(0, at - WORD), at)) + 1
    if begin or at <= WORD:
        return begin
    while at and (unicodedata.category(text[at : at + 1] or " ")[0] == "M" or "\u200d" in text[at - 1 : at + 1]):
        at -= 1
    return at

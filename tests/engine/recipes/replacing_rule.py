"""How words are replaced, stated letter by letter: slow and plain, to compare results with."""

from __future__ import annotations


def stated(text: str, by: dict[str, str]) -> str:
    """The rule: where the longest of the words that begin here does, its replacement stands, and we go on after the word."""
    if not text:
        return ""
    here = max((word for word in by if word and text[: len(word)] == word), key=len, default=None)
    return text[0] + stated(text[1:], by) if here is None else by[here] + stated(text[len(here) :], by)

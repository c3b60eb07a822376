"""Subjects and their words, from emojibase-data: what is drawn, how it is called, what is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from training.settings import SubjectRules

SHORTCODES = ("github", "emojibase", "iamcal")
"""Files of short names in the package, where people's own words are ("dog", "pizza", "rocket")."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black", "white")
"""The basic colour words (Berlin and Kay's eleven), in captions, backgrounds and what is measured."""

SPELLINGS = {"gray": "grey", "violet": "purple"}
RUDE = {"shit", "hankey", "fu", "poop"}
"""Short names that a first model need not offer as a subject."""

VARIATION = "fe0f"
"""The code point that asks for a coloured picture; sets differ in whether they write it."""

FEMALE, MALE = "2640", "2642"


class Subject(BaseModel):
    """One thing that is drawn, in one or more styles."""

    model_config = ConfigDict(frozen=True)

    code: str
    """Code points in hexadecimal, joined by "-", without variation selectors."""
    name: str
    synonyms: tuple[str, ...]
    keywords: tuple[str, ...]
    group: str
    version: float
    """Of Unicode Emoji, when it came in."""

    @property
    def noun(self) -> str:
        """The name without its colour: "apple" of "red apple"."""
        return without_colour(self.name)


def normal_code(code: str) -> str:
    return "-".join(part for part in code.lower().split("-") if part != VARIATION)


def colour_word(name: str) -> str:
    """The basic colour that a name of two words or more begins with, or ""."""
    first, _, rest = name.partition(" ")
    first = SPELLINGS.get(first, first)
    return first if rest and first in COLOURS else ""


def without_colour(name: str) -> str:
    return name.partition(" ")[2] if colour_word(name) else name


def subjects(emoji: Iterable[Mapping[str, Any]], groups: Mapping[str, Any], short: Mapping[str, Any], rules: SubjectRules) -> list[Subject]:
    """emojibase's records as subjects, in their own order, without those that `rules` leave out.

    Skin tones are no records of their own there. Variants of one person by gender sign are left out as well, since
    they are nearly the same picture.
    """
    kept = []
    for record in sorted((one for one in emoji if "subgroup" in one), key=lambda one: one["order"]):
        subgroup = groups["subgroups"][str(record["subgroup"])]
        name = plain(record["label"])
        parts = record["hexcode"].lower().split("-")
        gendered = len(parts) > 2 and bool({FEMALE, MALE} & set(parts))
        if gendered or subgroup in rules.left_out_subgroups or any(part in name for part in rules.left_out_names):
            continue
        kept.append(
            Subject(
                code=normal_code(record["hexcode"]),
                name=name,
                synonyms=tuple(_synonyms(name, [*_listed(short.get(record["hexcode"], [])), *rules.also_called.get(name, ())])),
                keywords=tuple(word for word in map(plain, record.get("tags", [])) if _is_keyword(word, name)),
                group=groups["groups"][str(record["group"])],
                version=record["version"],
            )
        )
    return kept


def _is_keyword(word: str, name: str) -> bool:
    """Colours are none: they are said of what the picture shows, which may have been turned to another."""
    return word.isalpha() and word not in name.split() and SPELLINGS.get(word, word) not in COLOURS


def plain(text: str) -> str:
    """Lower-case words with straight apostrophes; "man: red hair" becomes "red hair man"."""
    head, colon, rest = text.lower().replace("’", "'").replace("“", "").replace("”", "").partition(": ")
    return f"{rest} {head}" if colon else head


def _listed(short: Iterable[str] | str) -> list[str]:
    return [short] if isinstance(short, str) else list(short)


def _synonyms(name: str, short: Iterable[str]) -> list[str]:
    """Other words for a name: without " face", and the short names, without repetitions."""
    found = [name.removesuffix(" face")]
    for code in short:
        word = code.replace("_", " ").replace("-", " ").strip()
        if re.fullmatch(r"[a-z][a-z ]{2,}", word) and word not in RUDE:
            found.append(word)
    return [word for word in dict.fromkeys(found) if word != name]

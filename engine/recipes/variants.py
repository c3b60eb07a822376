"""Prompt variants: a template such as "{red|green} apple" to the prompts it stands for.

dynamicprompts reads what is inside braces. It would also read comments (#, //), variables (${...}), wildcards (__x__)
and random choices, and lose or replace text on the way; so all text that is no choice reaches it sealed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidRequest

_SEALS = 0xF0000
"""First of 65,534 private characters of Unicode, more than a line has characters; text that holds one is sealed itself."""

_MEANT_AS_TEXT = re.compile(r"(?<!\$)\$(?!\$)|[#/_%~@!\t]|[\U000F0000-\U0010FFFF]")
"""What dynamicprompts would not leave alone inside braces; `2$$a|b|c` (two of them) and `0.5::a` (a weight) are left to it."""


@dataclass(frozen=True)
class Variant:
    """One prompt of a template. `chosen` are its parts that stood in braces, as (begin, end) in characters, in order."""

    text: str
    chosen: tuple[tuple[int, int], ...] = ()


def read_variants(template: str, limit: int) -> list[Variant]:
    """The prompts of a template in its order, none twice. Raises InvalidRequest when there are none or more than `limit`."""
    sealed, pieces = _seal(template)
    if max(sealed.count("{"), sealed.count("|")) > limit:  # each adds a prompt at least; reading them all would take long
        raise InvalidRequest(f"The prompt variants are more than the {limit} allowed here: take out some alternatives.")
    prompts = _combinations(sealed, limit) if "|" in sealed else []
    variants: dict[str, Variant] = {}
    for variant in (_opened(prompt, pieces) for prompt in prompts):
        variants.setdefault(variant.text, variant)
    if len(variants) < 2:
        raise InvalidRequest("The prompt variants have no alternatives: write them in braces, such as {red|green} apple.")
    return list(variants.values())


def _seal(template: str) -> tuple[str, list[tuple[str, bool]]]:
    """The template with each piece of mere text replaced by a private character; and these pieces, each with whether it was in braces."""
    pieces: list[tuple[str, bool]] = []

    def seal(text: str, in_braces: bool = False) -> str:
        pieces.append((text, in_braces))
        return chr(_SEALS + len(pieces) - 1)

    sealed, depth = "", 0
    for part in re.split(r"([{}])", template):
        depth += (part == "{") - (part == "}")
        if depth < 0:
            raise _malformed()
        inside = depth or part == "}"
        sealed += _MEANT_AS_TEXT.sub(lambda found: seal(found[0], True), part) if inside else seal(part) if part else ""
    if depth:
        raise _malformed()
    return sealed, pieces


def _opened(sealed: str, pieces: list[tuple[str, bool]]) -> Variant:
    """A prompt that was made of a sealed template, with its pieces in their places again."""
    text, chosen = "", []
    for mark in sealed:
        piece, in_braces = pieces[ord(mark) - _SEALS] if ord(mark) >= _SEALS else (mark, True)
        if in_braces and chosen and chosen[-1][1] == len(text):
            chosen[-1] = (chosen[-1][0], len(text) + len(piece))
        elif in_braces:
            chosen.append((len(text), len(text) + len(piece)))
        text += piece
    return Variant(text, tuple(chosen))


def _combinations(sealed: str, limit: int) -> list[str]:
    # Imported here: only who asks for variants waits for it.
    from dynamicprompts.generators import CombinatorialPromptGenerator
    from dynamicprompts.parser.parse import parse
    from pyparsing import ParseException

    try:
        count = _count(parse(sealed))
        if count > limit:
            shown = f"{count:,}" if count < 10**9 else "over a billion"
            raise InvalidRequest(f"The prompt variants are {shown} prompts, more than the {limit} allowed here: take out some.")
        return CombinatorialPromptGenerator().generate(sealed, max_prompts=limit + 1)
    except (ParseException, RecursionError):  # braces nested dozens deep end in the second
        raise _malformed() from None


def _count(command: Any) -> int:
    """How many prompts a parsed template has, equal ones included: dynamicprompts drops those, but goes through them all."""
    from dynamicprompts.commands import SequenceCommand, VariantCommand

    if isinstance(command, SequenceCommand):
        return math.prod(_count(token) for token in command.tokens)
    if not isinstance(command, VariantCommand):
        return 1
    chosen = command.adjust_range()
    choices = [1]  # choices[k]: ways to choose k alternatives and a text of each, in any order
    for counted in (_count(value) for value in command.values):
        choices = [1, *(here + counted * fewer for fewer, here in zip(choices, [*choices[1:], 0], strict=True))]
    return sum(math.factorial(k) * choices[k] for k in range(chosen.min_bound, chosen.max_bound + 1))


def _malformed() -> InvalidRequest:
    return InvalidRequest("The prompt variants cannot be read: each { needs its }, as in {red|green} apple, and none may be nested deeply.")

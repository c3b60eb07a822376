"""AXES: what a comparison grid can vary, one row each.

A row reads a line of text into values, says what each value changes in a recipe, and how it is shown. An axis over
one field of Recipe is one line: `_numbers`, `_names` or `_texts`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engine.errors import InvalidRequest
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.recipe import SIZE_MULTIPLE, Recipe, Style, label, random_seed
from engine.recipes.replacing import Span, find_words, replace_words
from engine.recipes.schedulers import available_schedulers, scheduler_from_infotext
from engine.recipes.values import NumberRule, complete_name, read_numbers, read_sizes, read_texts, refuse_repeats, show_number, write_line
from engine.recipes.variants import Variant, read_variants

NO_STYLE = "None"
"""What the style axis calls the prompt as it was typed."""


@dataclass(frozen=True)
class Offer:
    """What an axis may name: the engine's models, the operator's limits, the styles of the page."""

    catalog: Catalog
    limits: Limits
    styles: tuple[Style, ...] = ()


@dataclass(frozen=True)
class Replacement:
    """A value of the Prompt S/R axis: `word` makes way for `by`."""

    word: str
    by: str


@dataclass(frozen=True)
class AxisRow:
    """One thing that an axis can vary.

    `fields` are the recipe fields it changes and `changes` their new content for a value. A row with `rewrite` puts nothing there
    by itself: it is given the recipe that the other axes made, its values of all axes at once, and the parts of the prompt that are
    an axis's `own`. `read` gives the values in a line, and raises InvalidRequest; `show` is a value's label, and the text
    it is read from. `choices` are the names on offer, none where anything may be written. `finer` gives the values round one
    of several, None where there is nothing between two values. The line of a row that is `kept_as_typed` says the same
    whenever it is read; that of one that `is_template` is no list of values. `aliases` are what other tools call it, in lower case.
    """

    name: str
    label: str
    hint: str
    fields: tuple[str, ...]
    read: Callable[[str, Offer, Recipe], list[Any]]
    changes: Callable[[Any], dict[str, Any]]
    show: Callable[[Any], str] = str
    choices: Callable[[Offer], list[str]] = lambda offer: []
    finer: Callable[[Sequence[Any], int, Offer], list[Any]] | None = None
    rewrite: Callable[[Recipe, Sequence[Any], Sequence[Span]], dict[str, Any]] | None = None
    own: Callable[[Any], Sequence[Span]] = lambda value: ()
    kept_as_typed: bool = False
    is_template: bool = False
    aliases: tuple[str, ...] = ()


def _rule(field: str, hint: str, unit: int | None, offer: Offer) -> NumberRule:
    low, high = offer.limits.bounds(field)
    return NumberRule(label(field), hint, Decimal(str(low)), Decimal(str(high)), Decimal(unit) if unit else None)


def _numbers(
    name: str,
    field: str,
    hint: str,
    *,
    unit: int | None = None,
    refines: bool = False,
    draw: Callable[[], int] | None = None,
    aliases: tuple[str, ...] = (),
) -> AxisRow:
    """A row over a numeric field. Whole numbers unless the field's are not; with `unit`, multiples of it."""
    kind = int if Recipe.model_fields[field].annotation is int else float
    unit = unit or (1 if kind is int else None)

    def read(line: str, offer: Offer, recipe: Recipe) -> list[Any]:
        rule = _rule(field, hint, unit, offer)
        values = [kind(value) for value in read_numbers(line, rule, offer.limits.max_images, draw)]
        refuse_repeats(rule.label, [show_number(value) for value in values])
        return values

    def finer(values: Sequence[Any], chosen: int, offer: Offer) -> list[Any]:
        return [kind(value) for value in _rule(field, hint, unit, offer).finer([Decimal(str(value)) for value in values], chosen)]

    return AxisRow(
        name, label(field), hint, (field,), read, _put(field), show_number, finer=finer if refines else None, aliases=aliases
    )  # fmt: skip


def _put(field: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {field: value}


def _read_names(
    line: str, names: Sequence[str], title: str, hint: str, limit: int, known: Callable[[str], str] = str
) -> list[str]:
    found = [complete_name(known(text), names, title) for text in read_texts(line, title, hint, limit)]
    refuse_repeats(title, found)
    return found


def _names(
    name: str,
    field: str,
    hint: str,
    choices: Callable[[Offer], list[str]],
    aliases: tuple[str, ...] = (),
    known: Callable[[str], str] = str,
) -> AxisRow:
    """A row over a field that holds one of the names on offer; `known` gives ours for another tool's, or what was typed."""
    title = label(field)

    def read(line: str, offer: Offer, recipe: Recipe) -> list[str]:
        return _read_names(line, choices(offer), title, hint, offer.limits.max_images, known)

    return AxisRow(name, title, hint, (field,), read, _put(field), choices=choices, aliases=aliases)


def _known_scheduler(typed: str) -> str:
    try:
        return scheduler_from_infotext(typed, None)
    except InvalidRequest:
        return typed


def _texts(name: str, field: str, hint: str, *, keep_empty: bool = False, aliases: tuple[str, ...] = ()) -> AxisRow:
    """A row over a field of free text."""
    title = label(field)

    def read(line: str, offer: Offer, recipe: Recipe) -> list[str]:
        texts = read_texts(line, title, hint, offer.limits.max_images, keep_empty=keep_empty, by_line=True)
        refuse_repeats(title, texts)
        return texts

    return AxisRow(name, title, hint, (field,), read, _put(field), kept_as_typed=True, aliases=aliases)


def _size() -> AxisRow:
    title, hint = "Size", "64, 96x64"

    def read(line: str, offer: Offer, recipe: Recipe) -> list[tuple[int, int]]:
        rule = _rule("width", hint, SIZE_MULTIPLE, offer)  # the height's bounds are the same
        sizes = read_sizes(line, NumberRule(title, hint, rule.low, rule.high, rule.unit), offer.limits.max_images)
        refuse_repeats(title, [f"{width:f}x{height:f}" for width, height in sizes])
        return [(int(width), int(height)) for width, height in sizes]

    return AxisRow(
        "size", title, hint, ("width", "height"), read,
        lambda size: {"width": size[0], "height": size[1]}, lambda size: f"{size[0]}x{size[1]}",
    )  # fmt: skip


def _style() -> AxisRow:
    title, hint = label("style"), "None, Watercolour, ink"

    def choices(offer: Offer) -> list[str]:
        return [NO_STYLE, *(style.name for style in offer.styles)]

    def read(line: str, offer: Offer, recipe: Recipe) -> list[Style | None]:
        styles = {NO_STYLE: None, **{style.name: style for style in offer.styles}}
        return [styles[name] for name in _read_names(line, choices(offer), title, hint, offer.limits.max_images)]

    return AxisRow(
        "style", title, hint, ("style",), read, _put("style"), lambda style: style.name if style else NO_STYLE, choices,
        aliases=("styles",),
    )  # fmt: skip


def _replace() -> AxisRow:
    title, hint = "Prompt S/R", "cat, dog, red fox"

    def read(line: str, offer: Offer, recipe: Recipe) -> list[Replacement]:
        texts = read_texts(line, title, hint, offer.limits.max_images, keep_empty=True, by_line=True)
        refuse_repeats(title, texts)
        if not texts[0]:
            raise InvalidRequest(f"{title} begins with the word to replace, such as {hint}; it was empty.")
        return [Replacement(texts[0], text) for text in texts]

    def rewrite(recipe: Recipe, values: Sequence[Replacement], own: Sequence[Span]) -> dict[str, str]:
        by = {value.word: value.by for value in values}
        if len(by) < len(values):
            raise InvalidRequest(f"{title} begins with the same word on two axes: write all its values on one of them.")
        texts = {"prompt": (recipe.prompt, own), "negative_prompt": (recipe.negative_prompt, ())}
        found = {text[begin:end] for text, taken in texts.values() for begin, end in find_words(text, by, taken)}
        for word in by.keys() - found:
            raise InvalidRequest(f"{title}: {_why_not(word, recipe, found)}")
        return {field: replace_words(text, by, taken) for field, (text, taken) in texts.items()}

    return AxisRow(
        "replace", title, hint, ("prompt", "negative_prompt"), read, lambda value: {}, lambda value: value.by,
        rewrite=rewrite, kept_as_typed=True, aliases=("s/r", "search and replace"),
    )  # fmt: skip


def _why_not(word: str, recipe: Recipe, found: Iterable[str]) -> str:
    """Why a word was not found, as a sentence without its beginning."""
    if word in recipe.prompt or word in recipe.negative_prompt:
        others = " and ".join(f"“{_quoted(other, 80)}”" for other in sorted(found))
        return f"“{_quoted(word, 80)}” stands only where another axis replaces {others}: begin with words that do not share a place."
    if recipe.style and (word in recipe.full_prompt or word in recipe.full_negative_prompt):
        style = f"the style “{recipe.style.name}”, whose words are not searched"
        return f"“{_quoted(word, 80)}” stands only in {style}: vary the Style instead, or write its words into the prompt."
    return (
        f"“{_quoted(word, 80)}” stands neither in the prompt “{_quoted(recipe.prompt)}” nor in the negative prompt"
        f" “{_quoted(recipe.negative_prompt)}”: begin with a word that does, spelt the same."
    )


def _quoted(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _variants() -> AxisRow:
    def read(line: str, offer: Offer, recipe: Recipe) -> list[Variant]:
        return read_variants(line if line.strip() else recipe.prompt, offer.limits.max_images)

    return AxisRow(
        "variants", "Prompt variants", "a {red|green} {apple|pear}; empty: the prompt itself", ("prompt",), read,
        lambda value: {"prompt": value.text}, lambda value: value.text, own=lambda value: value.chosen,
        kept_as_typed=True, is_template=True,
    )  # fmt: skip


_ROWS = (
    _numbers("seed", "seed", "7, 10-13, 4 random seeds", draw=random_seed),
    _numbers("cfg", "guidance_scale", "3, 5-9 (+2), 1-10 [4]", refines=True, aliases=("guidance scale", "guidance")),
    _numbers("steps", "steps", "5, 10-30 (+10), 1-50 [4]", refines=True, aliases=("num inference steps", "sampling steps")),
    _names(
        "scheduler", "scheduler", "Euler, DPM++ 2M Karras, heun k", lambda offer: available_schedulers(),
        ("sampler", "sampler name", "sampling method"), _known_scheduler,
    ),
    _size(),
    _numbers("width", "width", "64, 64-128 (+32)", unit=SIZE_MULTIPLE, refines=True),
    _numbers("height", "height", "64, 64-128 (+32)", unit=SIZE_MULTIPLE, refines=True),
    _names("model", "model", "starter, sd15", lambda offer: [model.name for model in offer.catalog], ("checkpoint name", "checkpoint")),
    _texts("prompt", "prompt", "a cat, sitting || a dog, or one a line"),
    _texts("negative", "negative_prompt", '"", blurry, "text, letters", or one a line', keep_empty=True),
    _style(),
    _numbers("clip_skip", "clip_skip", "1-3"),
    _replace(),
    _variants(),
)  # fmt: skip

AXES: Mapping[str, AxisRow] = {row.name: row for row in _ROWS}


NOT_HERE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "var. seed", "var. strength", "hires steps", "image cfg scale", "prompt order", "hires sampler",
            "negative guidance minimum sigma", "sigma churn", "sigma min", "sigma max", "sigma noise", "schedule min sigma",
            "schedule max sigma", "schedule rho", "beta schedule alpha", "beta schedule beta", "eta", "denoising",
            "initial noise multiplier", "extra noise", "hires upscaler", "cond. image mask weight", "vae", "unipc order",
            "face restore", "token merging ratio", "token merging ratio high res", "always discard next to last sigma",
            "sgm noise multiplier", "refiner checkpoint", "refiner switch at", "rng source", "fp8 mode",
        ),
        "there is {labels}.",
    ),
    "schedule type": "it is part of a scheduler's name, such as “DPM++ 2M Karras”: vary the Scheduler.",
}  # fmt: skip
"""Axes of A1111 (scripts/xyz_grid.py, 1.10) without one of ours, in lower case: what is said instead."""


def _plain(name: str) -> str:
    """A name without its capitals, underscores, hyphens between words and blanks too many."""
    return " ".join(re.sub(r"[_-]", " ", name.casefold()).split())


def find_axis(name: str) -> AxisRow:
    """The row of that name, label or alias, whatever its capitals; as much of it as tells it apart is enough.

    Raises InvalidRequest with the candidates, what to do instead, or the nearest.
    """
    typed = _plain(name)
    known = {_plain(spelling): row for row in _ROWS for spelling in (row.label, row.name, *row.aliases)}
    if row := known.get(typed):
        return row
    labels = ", ".join(row.label for row in _ROWS)
    if typed in NOT_HERE:
        raise InvalidRequest(f"{name.strip()} cannot be varied here; {NOT_HERE[typed].format(labels=labels)}")
    begun = {row.label: row for spelling, row in known.items() if typed and spelling.startswith(typed)}
    if len(begun) == 1:
        return next(iter(begun.values()))
    if begun:
        raise InvalidRequest(f"The axis “{name[:60]}” may be {', '.join(begun)}: write more of its name.")
    near = [known[spelling].label for spelling in difflib.get_close_matches(typed[:100], known, n=3, cutoff=0.6)]
    raise InvalidRequest(f"There is no axis “{name[:60]}”; there is {', '.join(dict.fromkeys(near)) or labels}.")


def write_values(row: AxisRow, values: Sequence[Any]) -> str:
    """The line from which `row` reads exactly these values.

    Raises ValueError for a row whose line is a template: it cannot be told from what it gave.
    """
    if row.is_template:
        raise ValueError("a template cannot be told from what it gave")
    return write_line(row.show(value) for value in values)

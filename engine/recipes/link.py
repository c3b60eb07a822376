"""A recipe as the readable end of a web address, "?prompt=an+owl&seed=7&cfg=6", and back. What comes in is anybody's text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from engine.errors import InvalidRequest
from engine.recipes.recipe import Recipe, Settings, Style, make_recipe, read_number

LONGEST = 32_000
"""Characters of a query: half of what uvicorn accepts of a request's head (h11's 64 KiB); a prompt of 4,000 letters takes an eighth."""

_TEXTS = {"model": "model", "prompt": "prompt", "negative": "negative_prompt", "scheduler": "scheduler"}
_NUMBERS = {"seed": "seed", "steps": "steps", "cfg": "guidance_scale", "clip_skip": "clip_skip"}
_STYLE = {"style": "name", "style_prompt": "prompt", "style_negative": "negative_prompt"}
PARAMETERS = (*_TEXTS, *_NUMBERS, *_STYLE, "size", "exact")
"""The names of all that a link may hold."""

_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


@dataclass(frozen=True)
class Link:
    """What a link asks for; `notes` are sentences about what could not be taken over."""

    settings: Settings
    exact: bool = False
    notes: tuple[str, ...] = ()


def query_of(recipe: Recipe, exact: bool = False) -> str:
    """All of a recipe, as a query without its "?". What is empty or off is left out. Raises InvalidRequest when it is too long."""
    parameters: dict[str, Any] = {
        "prompt": recipe.prompt,
        "negative": recipe.negative_prompt or None,
        "model": recipe.model,
        "seed": recipe.seed,
        "steps": recipe.steps,
        "cfg": repr(recipe.guidance_scale).removesuffix(".0"),
        "scheduler": recipe.scheduler,
        "size": f"{recipe.width}x{recipe.height}",
        "clip_skip": recipe.clip_skip if recipe.clip_skip > 1 else None,
        **({name: getattr(recipe.style, field) for name, field in _STYLE.items()} if recipe.style else {}),
        "exact": 1 if exact else None,
    }
    query = urlencode({name: value for name, value in parameters.items() if value is not None})
    if len(query) > LONGEST:
        raise InvalidRequest("These texts are too long for a link: send the picture's file instead, which carries its settings.")
    return query


def read_query(query: str) -> Link | None:
    """The settings in the query of an address, with or without its "?". None where it has none of ours.

    What `query_of` leaves out is empty or off again; whatever else is not named is not in the settings. Parameters of others, which
    mail programs and sites add to links, are passed over. Numbers may lie outside what is allowed (`Limits.fit`).
    """
    if len(query) > LONGEST:
        return Link(Settings(), notes=("The link is too long: nothing of it was taken over.",))
    query = query.removeprefix("?").encode("utf-8", "replace").decode()  # no browser sends half a letter, and none could be sent one
    given = {name: value for name, value in parse_qsl(query, keep_blank_values=True) if name in PARAMETERS}
    if not given:
        return None
    settings: dict[str, Any] = {"negative_prompt": "", "clip_skip": 1, "style": None}
    notes: list[str] = []
    for name in given.keys() - _STYLE.keys() - {"size", "exact"}:
        field = {**_TEXTS, **_NUMBERS}[name]
        is_number = name in _NUMBERS
        try:
            settings[field] = read_number(field, given[name]) if is_number else getattr(make_recipe(**{field: given[name]}), field)
        except InvalidRequest as error:
            notes.append(str(error) if is_number else f"{error} It was left out.")
    if size := given.get("size"):
        if sides := _SIZE.fullmatch(size):
            settings |= {"width": int(sides[1]), "height": int(sides[2])}
        else:
            notes.append(f"“{size[:40]}” is no size, such as 512x512: it stays as it was.")
    if style := _style(given, notes):
        settings["style"] = style
        settings.setdefault("prompt", "")  # the words of a style stand round a prompt
    return Link(Settings(**settings), given.get("exact") == "1", tuple(sorted(notes)))


def _style(given: Mapping[str, str], notes: list[str]) -> Style | None:
    fields = {field: given[name] for name, field in _STYLE.items() if name in given}
    try:
        return Style.model_validate(fields) if fields else None
    except ValueError:
        notes.append("The link's style is not whole or too long: it was left out.")
        return None

"""A1111's infotext: the settings of a picture as lines of text, which most tools of this field write and read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import engine
from engine.errors import InvalidRequest, UnreadablePicture
from engine.events import Provenance
from engine.recipe import Recipe, make_recipe
from engine.schedulers import scheduler_from_infotext, scheduler_row

MAX_RECORD = 512 * 1024
"""Characters of a text chunk that are looked at. Our own longest is a grid's: three lines of MAX_LINE = 20,000 characters, four
texts of MAX_PROMPT = 4,000 and a thousand of names are 77,000, each at most six ("\\u0001") in JSON: 462,000, and 1,000 of keys."""

_PAIR = re.compile(r'(?<![\w \-/])[ ]?(\w[\w \-/]{1,60}+):[ ]?("(?:\\.|[^\\"])++"|[^,]*+)(?:,|$)')
"""One "Key: value" of an infotext's last line, as A1111's own reader splits it; its keys are bounded and its
repeats possessive, so that no stranger's text takes more than linear time."""


@dataclass(frozen=True)
class Imported:
    """Settings read from a text. `settings` are Recipe fields; `notes` say what could not be taken over."""

    settings: dict[str, Any]
    notes: tuple[str, ...] = ()


def infotext(recipe: Recipe, provenance: Provenance | None = None, more: Mapping[str, str] | None = None) -> str:
    """The recipe as A1111 writes it: prompt, "Negative prompt:" line, and a last line of settings, `more` among them."""
    row = scheduler_row(recipe.scheduler)
    lines = [recipe.full_prompt.strip()]
    if recipe.full_negative_prompt.strip():
        lines.append("Negative prompt: " + recipe.full_negative_prompt.strip())
    pairs = {
        "Steps": recipe.steps,
        "Sampler": row.sampler,
        "Schedule type": row.schedule_type,
        "CFG scale": f"{recipe.guidance_scale:g}",
        "Seed": recipe.seed,
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": provenance.model_revision[:10] if provenance else None,
        "Model": recipe.model,
        "Clip skip": recipe.clip_skip if recipe.clip_skip > 1 else None,
        "RNG": "CPU",
        **(more or {}),
        "Version": f"Darkroom {engine.__version__}",
    }
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def parse_infotext(text: str) -> Imported:
    """The settings in an A1111 infotext. Raises UnreadablePicture when its last line holds none."""
    *lines, last = text[:MAX_RECORD].strip().split("\n")
    pairs = {key: _unquoted(value) for key, value in _PAIR.findall(last)}
    if "Steps" not in pairs:
        raise UnreadablePicture("The text in this picture is no list of settings that A1111 writes.")
    prompt, negative, in_negative = [], [], False
    for line in lines:
        if line.startswith("Negative prompt:"):
            in_negative, line = True, line.removeprefix("Negative prompt:").strip()
        (negative if in_negative else prompt).append(line)
    settings: dict[str, Any] = {"prompt": "\n".join(prompt).strip(), "negative_prompt": "\n".join(negative).strip()}
    notes = _read_pairs(pairs, settings)
    return Imported(settings, tuple(notes))


def _read_pairs(pairs: dict[str, str], settings: dict[str, Any]) -> list[str]:
    """Moves what Recipe knows from `pairs` into `settings`; returns a note for each that it cannot take."""
    notes = []
    raw: dict[str, Any] = {
        "steps": pairs.get("Steps"), "guidance_scale": pairs.get("CFG scale"), "seed": pairs.get("Seed"),
        "clip_skip": pairs.get("Clip skip", "1"),  # it is left out at 1, by A1111 and by us
    }  # fmt: skip
    if size := re.fullmatch(r"(\d{1,6})x(\d{1,6})", pairs.get("Size", "")):
        raw["width"], raw["height"] = size.groups()
    for field, value in raw.items():
        if value is None:
            continue
        try:
            settings[field] = getattr(make_recipe(**{field: value}), field)
        except InvalidRequest as error:
            notes.append(str(error))
    if "Sampler" in pairs:
        try:
            settings["scheduler"] = scheduler_from_infotext(pairs["Sampler"], pairs.get("Schedule type"))
        except InvalidRequest as error:
            notes.append(str(error))
    if "Model" in pairs:
        settings["model"] = pairs["Model"][:500]
    return notes


def _quoted(value: Any) -> str:
    """A1111's rule: JSON quotes when the value holds a comma, a colon or a line end."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        try:
            # A lone surrogate, legal in JSON, cannot be encoded for the page.
            return str(json.loads(value)).encode("utf-8", "replace").decode()
        except ValueError:
            return value
    return value.strip()


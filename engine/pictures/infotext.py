"""A1111's infotext: the settings of a picture as lines of text, which most tools of this field write and read.

The prompt, a line "Negative prompt: ...", and a last one "Steps: 20, Sampler: Euler a, ...". Its grammar is that of A1111's
own reader (parse_generation_parameters in its modules/infotext_utils.py), and wider where other tools write it differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import InvalidRequest, UnreadablePicture
from engine.pictures.leftovers import Pairs, model_of, tool_of, untaken
from engine.pictures.made import Provenance
from engine.recipes.recipe import Recipe, Settings, read_number
from engine.recipes.schedulers import scheduler_from_infotext, scheduler_row
from engine.version import VERSION

MAX_RECORD = 512 * 1024
"""Characters of a text chunk that are looked at. Our own longest is a grid's: three lines of MAX_LINE = 20,000 characters, four
texts of MAX_PROMPT = 4,000 and a thousand of names are 77,000, each at most six ("\\u0001") in JSON: 462,000, and 1,000 of keys."""

MAX_TRIES = 100
"""Values of a text that are tried as JSON, which Python looks through from the beginning for each that fails; Civitai writes three."""

_OTHERS = "sampler|schedule type|scheduler|cfg scale|guidance scale|seed|size|model hash|model|clip skip"
_LINE = re.compile(rf"^[^\S\n]*+(?:(?:{_OTHERS}):[^,\n]*+,[ ]*+)*+steps:\s*+(?:[-+]?\d|inf|nan)", re.IGNORECASE | re.MULTILINE)
"""The beginning of a line of settings: "Steps: 20" first, as A1111 and nearly all others write it, or other keys before it."""

_IN_LINE = re.compile(r"(?<!hires )\bsteps:\s*+\d++[^\S\n]*+(?:,|$)", re.IGNORECASE | re.MULTILINE)
_NEGATIVE = re.compile(r"negative prompt:", re.IGNORECASE)
_TEMPLATE = re.compile(r"^[^\S\n]*+(?:negative )?template:", re.IGNORECASE | re.MULTILINE)
"""What the extension Dynamic Prompts writes after the settings: the prompts before their wildcards were filled in."""

_KEY = re.compile(r"\s*+([^\s,:\"][^,:\"\n]{0,79}+):[^\S\n]*+")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])++"(?=\s*+(?:,|$))')
_END = re.compile(r"\s*+(?:,|$)")
_SIZE = re.compile(r"(\d{1,9})\s*[x×]\s*(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Imported:
    """Settings read from a text.

    `notes` are sentences about all that was not taken over. `tool` is what wrote the text, by its own words.
    """

    settings: Settings
    notes: tuple[str, ...] = ()
    tool: str = "A1111"
    model_hash: str = ""
    """What the text says of the model's file besides `settings["model"]`, its name."""


def infotext(recipe: Recipe, provenance: Provenance | None = None, more: Mapping[str, str] | None = None) -> str:
    """The recipe as A1111 writes it: prompt, "Negative prompt:" line, and a last line of settings, `more` among them.

    "Stopped at", of an unfinished picture, is our own key; readers leave out those they do not know.
    """
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
        "Stopped at": f"{provenance.step} of {provenance.total}" if provenance and provenance.unfinished else None,
        **(more or {}),
        "Version": f"Darkroom {VERSION}",
    }
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def parse_infotext(text: str) -> Imported:
    """The settings in an A1111 infotext. Raises UnreadablePicture when it holds none."""
    text = text[:MAX_RECORD].replace("\r\n", "\n").replace("\r", "\n").strip()
    at = _settings_at(text)
    if at is None:
        raise UnreadablePicture("The text in this picture is no list of settings that A1111 writes.")
    prompt, negative = _prompts(text[:at])
    template = _TEMPLATE.search(text, at)
    imported = read_pairs(prompt, negative, pairs_of(text[at : template.start() if template else len(text)]))
    if template:
        left_out = "The templates after the settings were left out: what they became is the prompt."
        return replace(imported, notes=(*imported.notes, left_out))
    return imported


def read_pairs(prompt: str, negative: str, written: Iterable[tuple[str, str]]) -> Imported:
    """What "Key: value" pairs with A1111's keys say of a picture with such prompts; all that is not taken over is told of."""
    pairs = Pairs(written)
    tool, model, model_hash = tool_of(pairs), model_of(pairs), pairs.take("model hash")[:64]
    settings: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    if model:
        settings["model"] = model[:500]
    notes = [*_missing(pairs, model, model_hash), *_read_numbers(pairs, settings), *_read_scheduler(pairs, settings)]
    notes += untaken(pairs, prompt, negative, clip_skip=settings.get("clip_skip", 1))
    if model:
        settings["model"] = _whole_letters(settings["model"])
    return Imported(Settings(**settings), tuple(map(_whole_letters, notes)), tool, model_hash)


def _whole_letters(text: str) -> str:
    """JSON inside a value may hold half of a surrogate pair, which no answer to a browser can carry."""
    return text.encode("utf-8", "replace").decode()


def _settings_at(text: str) -> int | None:
    """Where the settings begin. A prompt may hold such a line too: the last counts, and rather one with three pairs, as in A1111."""
    starts = [match.start() for match in _LINE.finditer(text)]
    lines = [(start, text[start : end if (end := text.find("\n", start)) >= 0 else len(text)]) for start in starts]
    full = [start for start, line in lines if sum(bool(value) for _, value in pairs_of(line)) >= 3]
    if starts:
        return (full or starts)[-1]
    # All in one line, as some write it and as pasting makes it.
    negative = [match.end() for match in _NEGATIVE.finditer(text)]
    found = _IN_LINE.search(text, negative[-1] if negative else 0)
    return found.start() if found else None


def _prompts(text: str) -> tuple[str, str]:
    """(prompt, negative prompt) of what stands before the settings, without a line end when they stand in the same line."""
    if text and not text.endswith("\n"):
        text = _NEGATIVE.sub("\nNegative prompt:", text, count=1)
    prompt, negative, in_negative = [], [], False
    for line in text.split("\n"):
        if marker := _NEGATIVE.match(line.lstrip()):
            in_negative, line = True, line.lstrip()[marker.end() :].strip()
        (negative if in_negative else prompt).append(line)
    return "\n".join(prompt).strip(), "\n".join(negative).strip()


def pairs_of(text: str) -> Iterator[tuple[str, str]]:
    """The "Key: value" pairs of a text's settings, in order; what is no pair comes as a key without a value.

    A value is a JSON string, a JSON list or object (Civitai writes those bare), or whatever comes before the next comma.
    """
    tries = MAX_TRIES
    for line in text.split("\n"):
        at = 0
        while at < len(line):
            key = _KEY.match(line, at)
            start = key.end() if key else at
            tries -= line[start : start + 1] in {"[", "{"}
            value, end = _value(line, start, tries >= 0)
            if key or value:
                yield (key[1].strip(), value) if key else (value, "")
            comma = line.find(",", end)
            at = comma + 1 if comma >= 0 else len(line)


def _value(line: str, at: int, try_json: bool) -> tuple[str, int]:
    """(the value that begins there, where it ends)."""
    if quoted := _QUOTED.match(line, at):
        return _unquoted(quoted[0]), quoted.end()
    if try_json and line[at : at + 1] in {"[", "{"}:
        try:
            _, end = json.JSONDecoder().raw_decode(line, at)
            if _END.match(line, end):
                return line[at:end], end
        except (ValueError, RecursionError):
            pass
    comma = line.find(",", at)
    end = comma if comma >= 0 else len(line)
    return _unquoted(line[at:end].strip()), end


def _missing(pairs: Pairs, model: str, model_hash: str) -> Iterator[str]:
    """Sentences about what the text does not say."""
    names = (("sampler", "sampler"), ("CFG scale", "cfg scale", "guidance scale"), ("seed", "seed"), ("size", "size"))
    missing = [f"no {name}" for name, *keys in names if not any(map(pairs.get, keys))]
    if not model and not model_hash:
        missing.append("no model")
    if missing:
        yield f"It names {' and '.join(filter(None, [', '.join(missing[:-1]), missing[-1]]))}: that stays as it was."
    if model_hash and not model:
        yield f"It names its model by a hash alone, {model_hash}: the model stays as it was."


def _read_numbers(pairs: Pairs, settings: dict[str, Any]) -> Iterator[str]:
    """Moves the numbers that Recipe knows into `settings`; a sentence for each that is none."""
    size = pairs.take("size")
    sides = _SIZE.fullmatch(size)
    if size and not sides:
        yield f"“{size[:40]}” is no size in pixels: it stays as it was."
    given = {
        "steps": pairs.take("steps"), "guidance_scale": pairs.take("cfg scale", "guidance scale"), "seed": pairs.take("seed"),
        "width": sides[1] if sides else "", "height": sides[2] if sides else "",
        "clip_skip": pairs.take("clip skip") or "1",  # it is left out at 1, by A1111 and by us
    }  # fmt: skip
    for field, text in given.items():
        try:
            if text:
                settings[field] = read_number(field, text)
        except InvalidRequest as error:
            yield str(error)


def _read_scheduler(pairs: Pairs, settings: dict[str, Any]) -> Iterator[str]:
    """Moves the scheduler into `settings`, without its schedule type where only the sampler is here; a sentence for what is not."""
    sampler, kind = pairs.take("sampler"), pairs.take("schedule type", "scheduler")
    if not sampler:
        if kind:
            yield f"Schedule type “{kind[:60]}” was not taken over."
        return
    for likeness in (kind, None):
        try:
            settings["scheduler"] = scheduler_from_infotext(sampler, likeness or None)
        except InvalidRequest:
            continue
        if kind and (likeness is None or kind.casefold() == "simple"):
            yield f"Schedule type “{kind[:60]}” is not here for this sampler: {settings['scheduler']} is taken without it."
        return
    yield f"There is no scheduler like the sampler “{sampler[:60]}” here: it stays as it was."


def _quoted(value: Any) -> str:
    """A1111's rule: JSON quotes when the value holds a comma, a colon or a line end."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        # A lone surrogate, legal in JSON, cannot be encoded for the page.
        return str(json.loads(value)).encode("utf-8", "replace").decode()
    except ValueError:
        return value

"""Recipe: everything that determines one image, and nothing else."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.errors import InvalidRequest
from engine.recipes.schedulers import DEFAULT_SCHEDULER, scheduler_row

MAX_SEED = 2**53 - 1
"""The largest integer that a browser's number (IEEE 754 double) holds exactly."""

RANDOM_SEEDS = 2**32
"""Random seeds are drawn below this, as A1111 and InvokeAI do: short enough to read out."""

SIZE_MULTIPLE = 8
"""Pixels. diffusers' Stable Diffusion pipelines refuse sizes that are not multiples of 8."""

MAX_PROMPT = 4000
"""Characters; about fifty times what CLIP reads (77 tokens)."""

MAX_FULL_PROMPT = 3 * MAX_PROMPT
"""Characters of a prompt with its style. A style may repeat the prompt; a stranger's style may not repeat it hundreds of times."""


Bounds = tuple[float, float]
"""The lowest and the highest value of a number."""


class Style(BaseModel):
    """Words added around a prompt. The text travels with the recipe, so that a picture can be made
    again after the presets file has changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=80)
    prompt: str = Field("{prompt}", max_length=MAX_PROMPT)
    negative_prompt: str = Field("", max_length=MAX_PROMPT)

    def apply(self, prompt: str) -> str:
        """The prompt put where the style says `{prompt}`, or before its words when it does not."""
        if "{prompt}" in self.prompt:
            return self.prompt.replace("{prompt}", prompt).strip(" ,")
        return join_words(prompt, self.prompt)

    def apply_negative(self, negative_prompt: str) -> str:
        return join_words(negative_prompt, self.negative_prompt)


class Recipe(BaseModel):
    """One image, frozen. Sizes are in pixels; `guidance_scale` 1 means no guidance."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field("starter", min_length=1, max_length=500, title="model")
    prompt: str = Field("", max_length=MAX_PROMPT, title="prompt")
    negative_prompt: str = Field("", max_length=MAX_PROMPT, title="negative prompt")
    style: Style | None = Field(None, title="style")
    seed: int = Field(0, ge=0, le=MAX_SEED, title="seed")
    steps: int = Field(20, ge=1, le=1000, title="steps")
    guidance_scale: float = Field(7.0, ge=1, le=30, title="CFG scale")
    scheduler: str = Field(DEFAULT_SCHEDULER, max_length=100, title="scheduler")
    width: int = Field(512, ge=32, le=4096, title="width")
    height: int = Field(512, ge=32, le=4096, title="height")
    clip_skip: int = Field(1, ge=1, le=12, title="CLIP skip")
    """Which layer of the text encoder the prompt is read from, counted from the end as A1111's "Clip skip" counts:
    1 the last, 2 the one before it; 12 are all that Stable Diffusion 1.x has. diffusers' `clip_skip` is one less.
    The negative prompt is always read from the last, as in diffusers' StableDiffusionPipeline.encode_prompt."""

    @field_validator("width", "height")
    @classmethod
    def _multiple(cls, value: int) -> int:
        if value % SIZE_MULTIPLE:
            below = value // SIZE_MULTIPLE * SIZE_MULTIPLE
            raise ValueError(f"must be a multiple of {SIZE_MULTIPLE}: try {below} or {below + SIZE_MULTIPLE}")
        return value

    @field_validator("scheduler")
    @classmethod
    def _known(cls, name: str) -> str:
        return scheduler_row(name).name

    @model_validator(mode="after")
    def _bounded(self) -> Recipe:
        if max(len(self.full_prompt), len(self.full_negative_prompt)) > MAX_FULL_PROMPT:
            raise ValueError(f"is longer than {MAX_FULL_PROMPT:,} characters with its style")
        return self

    @property
    def full_prompt(self) -> str:
        """What the model reads: the prompt with its style applied."""
        return self.style.apply(self.prompt) if self.style else self.prompt

    @property
    def full_negative_prompt(self) -> str:
        return self.style.apply_negative(self.negative_prompt) if self.style else self.negative_prompt

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance runs: it takes a second, unconditional row of the network's batch."""
        return self.guidance_scale > 1

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def replace(self, **changes: Any) -> Recipe:
        """A checked copy with some fields changed. Raises InvalidRequest."""
        return make_recipe(**{**dict(self), **changes})


class Settings(TypedDict, total=False):
    """Fields of a Recipe, as many as somebody else's file or a form names; numbers may lie outside what is allowed (`Limits.fit`)."""

    model: str
    prompt: str
    negative_prompt: str
    style: Style | None
    seed: int
    steps: int
    guidance_scale: float
    scheduler: str
    width: int
    height: int
    clip_skip: int


def random_seed() -> int:
    """A seed that nobody chose, in 0 .. RANDOM_SEEDS - 1."""
    return random.SystemRandom().randrange(RANDOM_SEEDS)


def bounds(field: str) -> Bounds:
    """(lowest, highest) value of a numeric field of Recipe, for sliders and messages. An operator may allow less: Limits.bounds."""
    rules = {type(rule).__name__: rule for rule in Recipe.model_fields[field].metadata}
    return rules["Ge"].ge, rules["Le"].le


def make_recipe(told: Callable[[str], Bounds] = bounds, /, **values: Any) -> Recipe:
    """A Recipe, or InvalidRequest with every wrong field named in the user's words, and its bounds as `told`."""
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise InvalidRequest(" ".join(_sentence(item, told) for item in error.errors())) from None


def read_number(field: str, given: Any) -> float:
    """A finite number for a numeric field of Recipe from somebody else's text, whole where the field is; it may lie outside its bounds.

    Raises InvalidRequest.
    """
    whole = Recipe.model_fields[field].annotation is int
    with suppress(ValueError, OverflowError):
        text = str(given).strip()
        number = int(text) if re.fullmatch("[-+]?[0-9]{1,30}", text) else float(text)  # a float would round a long seed
        if math.isfinite(number) and (not whole or number == int(number)):
            return int(number) if whole else float(number)
    raise InvalidRequest(f"{label(field)} “{_shown(given)}” is no {'whole ' if whole else ''}number and was not taken over.")


def join_words(first: str, second: str) -> str:
    """Two comma-separated lists of words as one, without empty parts."""
    return ", ".join(part for part in (first.strip(" ,"), second.strip(" ,")) if part)


def label(field: str) -> str:
    """A field of Recipe as the page spells it, at the start of a sentence."""
    title = Recipe.model_fields[field].title or field
    return title[0].upper() + title[1:]


def _sentence(item: Any, bounds: Callable[[str], Bounds]) -> str:
    """One of pydantic's errors as a sentence about the field's label."""
    field = str(item["loc"][0]) if item["loc"] else "prompt"
    known = Recipe.model_fields.get(field)
    if known is None:
        return f"“{field}” is not a setting of a picture."
    name, given, kind = label(field), item["input"], item["type"]
    if kind == "string_too_long":
        return f"{name} has {len(given):,} characters; at most {item['ctx']['max_length']:,} are accepted."
    if kind == "value_error":
        message = str(item["ctx"]["error"])
        return message if field == "scheduler" else f"{name} {message}" + ("." if field == "prompt" else f" (it was {_shown(given)}).")
    if kind in {"greater_than_equal", "less_than_equal"} or kind.startswith(("int", "float", "finite")):
        low, high = bounds(field)
        whole = "a whole number" if known.annotation is int else "a number"
        return f"{name} must be {whole} from {low:,} to {high:,}; it was {_shown(given)}."
    return f"{name}: {item['msg']}."


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print very long integers
        return "far too large"
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."

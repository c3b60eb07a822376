"""The widgets of a Recipe, in one order, and the way from their values to a request and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from engine.errors import InvalidRequest
from engine.recipes.catalog import Catalog, Limits, ModelSpec
from engine.recipes.recipe import SIZE_MULTIPLE, Recipe, Style, bounds, join_words, label, make_recipe, random_seed
from engine.recipes.schedulers import SCHEDULERS, available_schedulers
from engine.running.preview_options import METHODS, PreviewOptions
from ui.tabs.slider import Slider
from ui.template import literal

NO_STYLE = "None"
RANDOM, KEEP = "Random", "Keep"
RATIOS = {"1:1": (1, 1), "4:3": (4, 3), "3:4": (3, 4), "3:2": (3, 2), "2:3": (2, 3), "16:9": (16, 9), "9:16": (9, 16)}
SHOWN_IMAGES = 16
"""The most images the slider offers; a plan may have more."""


@dataclass(frozen=True)
class Request:
    """What one press of Generate asks for."""

    recipe: Recipe
    count: int
    exact: bool
    previews: PreviewOptions
    random: bool = False
    """Whether the seed was drawn."""


class Controls:
    """Builds the widgets where it is constructed; `fields` are the ones a request is read from, in order."""

    def __init__(self, catalog: Catalog, limits: Limits, styles: Sequence[Style], negatives: Mapping[str, str]):
        self.catalog, self.limits = catalog, limits
        self.styles = {style.name: style for style in styles}
        self.negatives = negatives
        self.fields: dict[str, Any] = {}
        """The widgets by the names of what they hold. Any: gradio gives a widget's class its events when the program runs."""

    @property
    def names(self) -> list[str]:
        return list(self.fields)

    @property
    def components(self) -> list[gr.components.Component]:
        return list(self.fields.values())

    def build_words(self) -> None:
        """Prompt and negative prompt."""
        self.fields["prompt"] = gr.Textbox(
            label="Prompt", lines=3, max_lines=8, elem_id="prompt", autofocus=True,
            placeholder=f"What should be in the picture? For example: {self.catalog.default.examples[0]}"
            if self.catalog.default.examples else "What should be in the picture?",
        )  # fmt: skip
        self.token_hint = hint("token-hint")
        self.fields["negative_prompt"] = gr.Textbox(
            label="Negative prompt",
            lines=2,
            max_lines=6,
            elem_id="negative",
            placeholder="What should not be in it (needs a CFG scale above 1)",
        )
        self.negative_hint = hint("negative-hint")
        with gr.Row(elem_classes="tight"):
            self.fields["style"] = gr.Dropdown(
                [NO_STYLE, *self.styles], value=NO_STYLE, label="Style", info="Words round your prompt", elem_id="style", min_width=120
            )
            self.ready_negative = gr.Dropdown(
                ["", *self.negatives], value="", label="Add to negative", info="Ready-made words", elem_id="ready-negative", min_width=120
            )

    def build_settings(self) -> None:
        """Everything else of a recipe, the rarely used parts folded."""
        spec = self.catalog.default
        cfg_low, cfg_high = bounds("guidance_scale")
        self.fields["model"] = gr.Dropdown(
            [(model.title, model.name) for model in self.catalog], value=spec.name, label="Model", elem_id="model"
        )
        self.fields["guidance_scale"] = Slider(
            cfg_low, cfg_high, value=spec.guidance_scale, step=0.5, label="CFG scale", elem_id="cfg",
            info="How closely the picture follows the prompt",
        )  # fmt: skip
        self.cfg_hint = hint("cfg-hint", guidance_advice(spec, spec.guidance_scale))
        self.fields["steps"] = Slider(
            1,
            self.limits.max_steps,
            value=spec.steps,
            step=1,
            label="Steps",
            elem_id="steps",
            info="More steps: slower, finer up to a point",
        )
        self.fields["scheduler"] = gr.Dropdown(
            available_schedulers(), value=spec.scheduler, label="Scheduler", elem_id="scheduler", info="The rule that takes the noise away"
        )
        self.scheduler_hint = hint("scheduler-hint", (SCHEDULERS[spec.scheduler].hint, ""))
        with gr.Row(elem_classes="tight seed-row"):
            self.fields["seed_mode"] = gr.Radio([RANDOM, KEEP], value=RANDOM, label="Seed", elem_id="seed-mode", min_width=140)
            self.fields["seed"] = gr.Number(0, label="The same number draws the same picture", precision=0, elem_id="seed", min_width=110)
        self.last_seed = gr.Button("Use the last picture's seed", size="sm", elem_id="last-seed")
        self.ratio = gr.Radio(list(RATIOS), value="1:1", label="Shape", elem_id="ratio")
        with gr.Row(elem_classes="tight"):
            self.fields["width"] = gr.Number(
                spec.native_size, label="Width", precision=0, step=SIZE_MULTIPLE, elem_id="width", min_width=90
            )
            self.fields["height"] = gr.Number(
                spec.native_size, label="Height", precision=0, step=SIZE_MULTIPLE, elem_id="height", min_width=90
            )
        self.size_hint = hint("size-hint")
        self.fields["count"] = Slider(
            1, min(SHOWN_IMAGES, self.limits.max_images), value=1, step=1, label="Number of images", elem_id="count",
            info="Each with its own seed: seed, seed + 1, ...",
        )  # fmt: skip
        skip_low, skip_high = bounds("clip_skip")
        with gr.Accordion(more_label(), open=False, elem_id="more") as self.more:
            self.fields["clip_skip"] = Slider(
                skip_low, skip_high, value=1, step=1, label="CLIP skip", elem_id="clip-skip",
                info="The text encoder's layer that the prompt is taken from: 1 the last, 2 the one before it (some models want that)",
            )  # fmt: skip
            self.fields["preview_method"] = gr.Dropdown(
                list(METHODS), value="auto", label="Previews", elem_id="preview-method",
                info="auto: the truest that costs next to nothing; linear: rough and free; vae: true and slow",
            )  # fmt: skip
            self.fields["preview_every"] = Slider(1, 10, value=1, step=1, label="Preview every n steps", elem_id="preview-every")
            self.fields["exact"] = gr.Checkbox(
                False, label="Exact", elem_id="exact",
                info="The same bits whatever else is being drawn; a picture alone takes about three times as long, a grid a bit longer",
            )  # fmt: skip

    def read(self, values: Sequence[Any]) -> Request:
        """The request in the widgets' values, its seed drawn where that is wanted. Raises InvalidRequest."""
        given = dict(zip(self.names, values, strict=True))
        mode, count, exact = given.pop("seed_mode"), given.pop("count"), bool(given.pop("exact"))
        previews = PreviewOptions(given.pop("preview_method"), _whole(given.pop("preview_every"), "Preview every n steps"))
        if mode == RANDOM:
            given["seed"] = random_seed()
        for name in ("seed", "width", "height", "steps", "guidance_scale", "clip_skip"):
            if given[name] is None:
                raise InvalidRequest(f"{label(name)} is empty: give a number.")
        given["style"] = self._style(given["style"])
        return Request(make_recipe(self.limits.bounds, **given), _whole(count, "Number of images"), exact, previews, mode == RANDOM)

    def show(self, settings: Mapping[str, Any]) -> dict[gr.components.Component, Any]:
        """Updates that put settings (fields of Recipe) into the widgets; what is not given stays as it is."""
        values = {name: value for name, value in settings.items() if name in self.fields}
        style = values.pop("style", None)
        if "prompt" in settings:
            values["style"] = NO_STYLE
            if style is not None and self.styles.get(style.name) == style:
                values["style"] = style.name
            elif style is not None:  # a style that this page does not have: its words go into the prompt
                values["prompt"] = style.apply(settings["prompt"])
                values["negative_prompt"] = style.apply_negative(settings.get("negative_prompt", ""))
        if "model" in values and values["model"] not in {spec.name for spec in self.catalog}:
            del values["model"]
        if "seed" in values:
            values["seed_mode"] = KEEP
        return {self.fields[name]: value for name, value in values.items()}

    def _style(self, name: str | None) -> Style | None:
        if name in (None, "", NO_STYLE):
            return None
        if name not in self.styles:
            raise InvalidRequest(f"There is no style “{name}” here.")
        return self.styles[name]


def more_label(clip_skip: float | None = 1, exact: bool = False) -> str:
    """The head of the folded settings, with those that act: what changes a picture must not be out of sight."""
    acting = [f"CLIP skip {clip_skip:g}"] if clip_skip not in (None, 1) else []
    acting += ["Exact"] if exact else []
    return "More" + (f": {', '.join(acting)}" if acting else "")


Advice = tuple[str, str]
"""(sentence, "" or "warning")."""


def hint(elem_id: str, advice: Advice = ("", "")) -> gr.HTML:
    """A line of small text under a widget; its place is kept while it is empty."""
    template = '<p class="hint {{value.kind}}" role="status">{{value.text}}</p>'
    return gr.HTML(hint_value(advice), html_template=template, elem_id=elem_id, elem_classes="hint-block")


def hint_value(advice: Advice) -> dict[str, str]:
    return literal({"text": advice[0], "kind": advice[1]})


def guidance_advice(spec: ModelSpec, scale: float | None) -> Advice:
    """Where a CFG scale lies for a model, in plain words."""
    low, high = spec.useful_guidance
    least, most = spec.guidance_limits
    band = f"useful from {low:g} to {high:g} with this model"
    if scale is None:
        return band, ""
    if scale <= 1:
        return f"No guidance: the negative prompt has no effect; {band}.", "warning"
    if scale < least:
        return f"Below {least:g} the prompt is mostly ignored; {band}.", "warning"
    if scale > most:
        return f"Above {most:g} colours burn; {band}.", "warning"
    return band.capitalize() + ".", ""


def size_advice(spec: ModelSpec, width: float | None, height: float | None) -> Advice:
    """What a size away from the trained one does."""
    if not width or not height:
        return "", ""
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        return f"Width and height must be multiples of {SIZE_MULTIPLE}.", "warning"
    size = spec.native_size
    if max(width, height) >= 1.5 * size:
        return f"Trained at {size}: at {width:g} x {height:g} expect doubled subjects.", "warning"
    if min(width, height) <= 0.6 * size:
        return f"Trained at {size}: at {width:g} x {height:g} expect cropped or broken subjects.", "warning"
    return f"Trained at {size} x {size}.", ""


def size_of(ratio: str, native: int) -> tuple[int, int]:
    """Width and height in that ratio with about the area that the model was trained at."""
    across, down = RATIOS[ratio]
    scale = native / math.sqrt(across * down)
    width, height = (max(round(part * scale / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE for part in (across, down))
    return width, height


def ratio_of(width: float | None, height: float | None, native: int) -> str | None:
    """The ratio button whose size this is, if any."""
    return next((name for name in RATIOS if size_of(name, native) == (width, height)), None)


def with_ready_words(negative: str, words: str) -> str:
    """A negative prompt with ready-made words added, once."""
    return negative if words in negative else join_words(negative, words)


def _whole(value: Any, label: str) -> int:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or int(value) != value:
        raise InvalidRequest(f"{label} must be a whole number; it was {value}.")
    return int(value)

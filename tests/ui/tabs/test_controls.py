"""The widgets of a Recipe: from their values to a request and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.recipes.catalog import Catalog, Limits, ModelSpec, load_styles
from engine.recipes.recipe import MAX_PROMPT, MAX_SEED, RANDOM_SEEDS, Recipe, Style, bounds
from engine.recipes.schedulers import available_schedulers
from tests.conftest import ROOT
from tests.gradio_loop import in_a_loop
from ui.tabs.controls import (
    KEEP,
    NO_STYLE,
    RANDOM,
    RATIOS,
    Controls,
    guidance_advice,
    hint,
    hint_value,
    more_label,
    ratio_of,
    size_advice,
    size_of,
    with_ready_words,
)

CATALOG = Catalog.load(ROOT / "presets" / "models.toml")
STYLES = load_styles(ROOT / "presets" / "styles.toml")
NATIVE = [64, 512, 768, 1024]


def build(catalog: Catalog = CATALOG, limits: Limits | None = None, styles: Sequence[Style] = tuple(STYLES)) -> Controls:
    def widgets() -> Controls:
        controls = Controls(catalog, limits or Limits(), styles, {"Text": "text, watermark"})
        with gr.Blocks(analytics_enabled=False):
            controls.build_words()
            controls.build_settings()
        return controls

    return in_a_loop(widgets)


CONTROLS = build()


def values(controls: Controls = CONTROLS, **changed: Any) -> list[Any]:
    """What the widgets hold when the page opens, with some of them changed."""
    assert changed.keys() <= controls.fields.keys()
    fresh = {name: "" if component.value is None else component.value for name, component in controls.fields.items()}
    return list({**fresh, **changed}.values())


def after(shown: Mapping[gr.components.Component, Any], controls: Controls = CONTROLS) -> list[Any]:
    """What the widgets hold after updates."""
    return values(controls, **{name: shown[component] for name, component in controls.fields.items() if component in shown})


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"name": "m", "title": "M", "source": "a/b", "native_size": 512, **changes})


# Reading.


@pytest.mark.parametrize("model", list(CATALOG), ids=lambda model: model.name)
def test_a_fresh_page_asks_for_the_models_own_settings(model: ModelSpec) -> None:
    controls = build(CATALOG.with_model(model))
    request = controls.read(values(controls, seed_mode=KEEP, seed=5))
    assert request.recipe == model.recipe(seed=5)
    assert (request.count, request.exact, request.previews.method, request.previews.every) == (1, False, "auto", 1)


def test_every_setting_of_a_recipe_has_a_widget() -> None:
    assert set(Recipe.model_fields) <= set(CONTROLS.names)
    assert len(CONTROLS.names) == len(CONTROLS.components)


def test_random_draws_a_seed_each_time() -> None:
    seeds = {CONTROLS.read(values(seed=5)).recipe.seed for _ in range(20)}
    assert len(seeds) > 15
    assert all(0 <= seed < RANDOM_SEEDS for seed in seeds)


def test_random_needs_no_seed() -> None:
    assert CONTROLS.read(values(seed_mode=RANDOM, seed=None)).recipe.seed < RANDOM_SEEDS


def test_keep_keeps_the_seed() -> None:
    assert CONTROLS.read(values(seed_mode=KEEP, seed=MAX_SEED)).recipe.seed == MAX_SEED


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("seed", "Seed"),
        ("width", "Width"),
        ("height", "Height"),
        ("steps", "Steps"),
        ("guidance_scale", "CFG scale"),
        ("clip_skip", "CLIP skip"),
    ],
)
def test_an_empty_number_is_named_by_its_label(name: str, label: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        CONTROLS.read(values(seed_mode=KEEP, **{name: None}))
    assert str(caught.value).lower() == f"{label} is empty: give a number.".lower()


def test_an_empty_cfg_scale_is_spelled_as_on_the_page() -> None:
    with pytest.raises(InvalidRequest, match=r"^CFG scale is empty"):
        CONTROLS.read(values(guidance_scale=None))


@pytest.mark.parametrize("name", ["count", "preview_every"])
@pytest.mark.parametrize("wrong", [None, math.nan, 1.5, "3", []])
def test_a_count_is_a_whole_number(name: str, wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="must be a whole number"):
        CONTROLS.read(values(**{name: wrong}))


@pytest.mark.parametrize("name", ["count", "preview_every"])
@pytest.mark.parametrize("wrong", [math.inf, -math.inf])
def test_an_infinite_count_is_refused_in_words(name: str, wrong: float) -> None:
    with pytest.raises(InvalidRequest, match="must be a whole number"):
        CONTROLS.read(values(**{name: wrong}))


def test_a_count_that_came_as_a_float_is_whole() -> None:
    request = CONTROLS.read(values(count=3.0, preview_every=2.0))
    assert (request.count, request.previews.every) == (3, 2)
    assert isinstance(request.count, int)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"width": 500}, "Width must be a multiple of 8: try 496 or 504"),
        ({"height": 8}, "Height must be a whole number from 32 to 4,096; it was 8."),
        ({"steps": 0}, "Steps must be a whole number from 1 to 150; it was 0."),
        ({"steps": 2000}, "Steps must be a whole number from 1 to 150; it was 2000."),
        ({"steps": 2.5}, "Steps must be a whole number from 1"),
        ({"steps": math.nan}, "Steps must be a whole number from 1"),
        ({"guidance_scale": 0.5}, "CFG scale must be a number from 1 to 30; it was 0.5."),
        ({"guidance_scale": math.inf}, "CFG scale must be a number from 1 to 30"),
        ({"clip_skip": 0}, "CLIP skip must be a whole number from 1 to 12; it was 0."),
        ({"seed_mode": KEEP, "seed": -1}, "Seed must be a whole number from 0"),
        ({"seed_mode": KEEP, "seed": 2**64}, "Seed must be a whole number from 0"),
        ({"scheduler": "Euler z"}, "There is no scheduler “Euler z”"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "Prompt has 4,001 characters; at most 4,000 are accepted."),
        ({"preview_method": "psychic"}, "There is no preview method “psychic”"),
        ({"preview_every": 0}, "Previews can be shown every 1 to 1,000 steps; it was 0."),
        ({"style": "Vaporwave"}, "There is no style “Vaporwave” here."),
    ],
)
def test_wrong_values_are_refused_in_words(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        CONTROLS.read(values(**changed))
    assert sentence in str(caught.value)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        CONTROLS.read(values(width=500, steps=0))
    assert "Width" in str(caught.value)
    assert "Steps" in str(caught.value)


@pytest.mark.parametrize("nothing", [NO_STYLE, "", None])
def test_no_style_is_no_style(nothing: str | None) -> None:
    assert CONTROLS.read(values(style=nothing)).recipe.style is None


def test_a_style_travels_with_the_recipe() -> None:
    recipe = CONTROLS.read(values(prompt="an owl", style=STYLES[0].name)).recipe
    assert recipe.style == STYLES[0]
    assert recipe.prompt == "an owl"


def test_the_widgets_offer_what_a_recipe_allows() -> None:
    controls = build(limits=Limits(max_steps=12, max_images=3))
    steps, count, cfg = (controls.fields[name] for name in ("steps", "count", "guidance_scale"))
    assert (steps.minimum, steps.maximum) == (1, 12)
    assert (count.minimum, count.maximum) == (1, 3)
    assert (cfg.minimum, cfg.maximum) == bounds("guidance_scale")
    assert (controls.fields["clip_skip"].minimum, controls.fields["clip_skip"].maximum) == bounds("clip_skip")
    assert [name for name, _ in controls.fields["scheduler"].choices] == list(available_schedulers())


# Showing.

PLACES = st.integers(4, 512).map(lambda eighths: eighths * 8)
RECIPES = st.builds(
    Recipe,
    model=st.sampled_from([model.name for model in CATALOG]),
    prompt=st.text(max_size=40),
    negative_prompt=st.text(max_size=40),
    style=st.none() | st.sampled_from(STYLES),
    seed=st.integers(0, MAX_SEED),
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(1, 30),
    scheduler=st.sampled_from(list(available_schedulers())),
    width=PLACES,
    height=PLACES,
    clip_skip=st.integers(1, 12),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(recipe=RECIPES)
def test_a_recipe_put_back_asks_for_itself(recipe: Recipe) -> None:
    assert CONTROLS.read(after(CONTROLS.show(dict(recipe)))).recipe == recipe


@pytest.mark.parametrize(
    "style",
    [
        Style(name="Gone", prompt="{prompt}, gone style", negative_prompt="present"),
        Style(name=STYLES[0].name, prompt="the words it had {prompt} last year"),
        Style(name="Appended", prompt="gone style"),
    ],
    ids=lambda style: style.name,
)
def test_the_words_of_a_style_that_is_not_here_go_into_the_prompt(style: Style) -> None:
    recipe = CATALOG.default.recipe(prompt="an owl", negative_prompt="blurry", style=style)
    again = CONTROLS.read(after(CONTROLS.show(dict(recipe)))).recipe
    assert again.style is None
    assert (again.full_prompt, again.full_negative_prompt) == (recipe.full_prompt, recipe.full_negative_prompt)
    assert again == recipe.replace(prompt=recipe.full_prompt, negative_prompt=recipe.full_negative_prompt, style=None)


def test_a_style_that_is_not_here_needs_no_negative_prompt() -> None:
    style = Style(name="Elsewhere", prompt="{prompt}, ink", negative_prompt="blur")
    shown = CONTROLS.show({"prompt": "a fox", "style": style})
    assert (shown[CONTROLS.fields["prompt"]], shown[CONTROLS.fields["negative_prompt"]]) == ("a fox, ink", "blur")
    assert CONTROLS.fields["style"] not in CONTROLS.show({"seed": 5, "style": style})


def test_a_prompt_without_a_style_takes_off_the_style_that_is_chosen() -> None:
    shown = CONTROLS.show({"prompt": "an owl", "negative_prompt": ""})
    assert shown[CONTROLS.fields["style"]] == NO_STYLE


def test_an_unknown_model_is_left_alone() -> None:
    shown = CONTROLS.show({"model": "somebody/else", "seed": 3})
    assert CONTROLS.fields["model"] not in shown
    assert shown[CONTROLS.fields["seed"]] == 3


def test_a_seed_put_back_is_kept() -> None:
    assert CONTROLS.show({"seed": 3}) == {CONTROLS.fields["seed"]: 3, CONTROLS.fields["seed_mode"]: KEEP}


def test_what_is_not_given_stays_as_it_is() -> None:
    assert CONTROLS.show({"steps": 9}) == {CONTROLS.fields["steps"]: 9}
    assert CONTROLS.show({}) == {}


def test_what_no_widget_shows_is_passed_over() -> None:
    assert CONTROLS.show({"from_later": 2}) == {}


# Advice.


@pytest.mark.parametrize(
    ("scale", "sentence", "kind"),
    [
        (None, "useful from 7 to 9 with this model", ""),
        (1, "No guidance: the negative prompt has no effect; useful from 7 to 9 with this model.", "warning"),
        (1.5, "Below 3 the prompt is mostly ignored; useful from 7 to 9 with this model.", "warning"),
        (3, "Useful from 7 to 9 with this model.", ""),
        (7.5, "Useful from 7 to 9 with this model.", ""),
        (15, "Useful from 7 to 9 with this model.", ""),
        (15.5, "Above 15 colours burn; useful from 7 to 9 with this model.", "warning"),
    ],
)
def test_guidance_advice(scale: float | None, sentence: str, kind: str) -> None:
    assert guidance_advice(spec(), scale) == (sentence, kind)


def test_guidance_advice_names_the_models_own_band() -> None:
    assert guidance_advice(CATALOG.default, 5)[0] == "Useful from 3 to 6 with this model."


@pytest.mark.parametrize(
    ("width", "height", "sentence", "kind"),
    [
        (512, 512, "Trained at 512 x 512.", ""),
        (640, 512, "Trained at 512 x 512.", ""),
        (1024, 1024, "Trained at 512: at 1024 x 1024 expect doubled subjects.", "warning"),
        (1024, 512, "Trained at 512: at 1024 x 512 expect doubled subjects.", "warning"),
        (512, 768, "Trained at 512: at 512 x 768 expect doubled subjects.", "warning"),
        (256, 512, "Trained at 512: at 256 x 512 expect cropped or broken subjects.", "warning"),
        (500, 512, "Width and height must be multiples of 8.", "warning"),
        (512, None, "", ""),
        (None, None, "", ""),
        (0, 512, "", ""),
    ],
)
def test_size_advice(width: float | None, height: float | None, sentence: str, kind: str) -> None:
    assert size_advice(spec(), width, height) == (sentence, kind)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("native", NATIVE)
def test_a_shape_keeps_the_area_the_model_was_trained_at(ratio: str, native: int) -> None:
    width, height = size_of(ratio, native)
    across, down = RATIOS[ratio]
    assert width % 8 == height % 8 == 0
    assert width * height == pytest.approx(native**2, rel=0.2)
    assert width / height == pytest.approx(across / down, rel=0.2)
    assert size_of(f"{down}:{across}", native) == (height, width)
    assert ratio_of(width, height, native) == ratio


@pytest.mark.parametrize("native", NATIVE)
def test_every_shape_can_be_made_and_none_brings_a_warning_at_square(native: int) -> None:
    for ratio in RATIOS:
        width, height = size_of(ratio, native)
        assert spec(native_size=native).recipe(width=width, height=height).width == width
    assert size_of("1:1", native) == (native, native)
    assert size_advice(spec(native_size=native), *size_of("1:1", native))[1] == ""


@pytest.mark.parametrize("size", [(64, 72), (None, 64), (None, None), (1, 1)])
def test_a_size_of_no_shape_presses_no_button(size: tuple[int | None, int | None]) -> None:
    assert ratio_of(*size, 64) is None


@pytest.mark.parametrize(
    ("negative", "words", "result"),
    [
        ("", "text, watermark", "text, watermark"),
        ("blurry", "text, watermark", "blurry, text, watermark"),
        ("blurry, ", "text, watermark", "blurry, text, watermark"),
        ("blurry, text, watermark", "text, watermark", "blurry, text, watermark"),
        ("blurry", "", "blurry"),
    ],
)
def test_ready_words_are_added_once(negative: str, words: str, result: str) -> None:
    assert with_ready_words(negative, words) == result
    assert with_ready_words(result, words) == result


def test_a_hint_keeps_its_place_while_it_is_empty() -> None:
    assert hint("some-hint").value == hint_value(("", "")) == {"text": "", "kind": ""}


@pytest.mark.parametrize(
    ("clip_skip", "exact", "label"),
    [
        (1, False, "More"), (None, False, "More"), (2, False, "More: CLIP skip 2"), (1, True, "More: Exact"),
        (12, True, "More: CLIP skip 12, Exact"),
    ],
)  # fmt: skip
def test_what_acts_while_it_is_folded_away_stands_on_the_fold(clip_skip: float | None, exact: bool, label: str) -> None:
    assert more_label(clip_skip, exact) == label

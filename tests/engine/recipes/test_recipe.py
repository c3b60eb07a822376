from __future__ import annotations

import math
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from engine.errors import InvalidRequest
from engine.recipes.recipe import MAX_SEED, Recipe, Settings, Style, bounds, join_words, make_recipe, read_number

REFUSED = [
    ({"steps": 0}, ("Steps", "from 1 to 1,000", "it was 0")),
    ({"steps": 10_000}, ("Steps", "from 1 to 1,000", "10000")),
    ({"steps": math.nan}, ("Steps", "a whole number from 1 to 1,000", "nan")),
    ({"steps": math.inf}, ("Steps", "a whole number from 1 to 1,000", "inf")),
    ({"steps": 2.5}, ("Steps", "a whole number from 1 to 1,000", "2.5")),
    ({"steps": "twenty"}, ("Steps", "a whole number from 1 to 1,000", "twenty")),
    ({"width": 500}, ("Width", "a multiple of 8", "496 or 504", "500")),
    ({"height": 33}, ("Height", "a multiple of 8", "32 or 40", "33")),
    ({"width": 8}, ("Width", "from 32 to 4,096", "it was 8")),
    ({"width": 100_000}, ("Width", "from 32 to 4,096", "100000")),
    ({"height": None}, ("Height", "from 32 to 4,096", "None")),
    ({"seed": -1}, ("Seed", "from 0 to 9,007,199,254,740,991", "-1")),
    ({"seed": 2**64}, ("Seed", "from 0 to 9,007,199,254,740,991", "18446744073709551616")),
    ({"seed": "9" * 5000}, ("Seed", "from 0 to 9,007,199,254,740,991", "999...")),
    ({"guidance_scale": math.nan}, ("CFG scale", "a number from 1 to 30", "nan")),
    ({"guidance_scale": 0.5}, ("CFG scale", "a number from 1 to 30", "0.5")),
    ({"guidance_scale": math.inf}, ("CFG scale", "a number from 1 to 30", "inf")),
    ({"clip_skip": 0}, ("CLIP skip", "a whole number from 1 to 12", "it was 0")),
    ({"clip_skip": 13}, ("CLIP skip", "a whole number from 1 to 12", "it was 13")),
    ({"clip_skip": 1.5}, ("CLIP skip", "a whole number from 1 to 12", "1.5")),
    ({"scheduler": "DPM++ 2M Karas"}, ("scheduler", "“DPM++ 2M Karas”", "did you mean DPM++ 2M Karras")),
    ({"scheduler": "eulr"}, ("scheduler", "“eulr”", "did you mean Euler")),
    ({"scheduler": ""}, ("scheduler", "did you mean")),
    ({"scheduler": "x" * 500}, ("Scheduler", "500 characters", "at most 100")),
    ({"prompt": "a" * 10_000}, ("Prompt", "10,000 characters", "at most 4,000")),
    ({"negative_prompt": "a" * 10_000}, ("Negative prompt", "10,000 characters", "at most 4,000")),
    ({"prompt": None}, ("Prompt",)),
    ({"prompt": "\ud800"}, ("Prompt",)),
    ({"model": ""}, ("Model", "at least 1 character")),
    ({"style": Style.model_construct(name="s", prompt="a" * 5000, negative_prompt="").model_dump()}, ("Style", "5,000", "at most 4,000")),
    ({"cfg": 7}, ("“cfg”", "not a setting")),
]


@pytest.mark.parametrize(("values", "fragments"), REFUSED, ids=lambda part: " ".join(part) if isinstance(part, dict) else "")
def test_a_bad_value_is_refused_in_a_sentence_with_what_is_allowed(values: dict[str, Any], fragments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_recipe(**values)
    message = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert message[-1] in ".?"
    assert "\n" not in message
    assert "validation error" not in message.lower()
    assert len(message) < 250


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest, match=r"^Steps must be .*\. Width must be .*\. “extra” is not a setting of a picture\.$"):
        make_recipe(steps=0, width=500, extra=1)


def test_an_absurdly_long_number_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidRequest, match="Seed"):
        make_recipe(seed=10**5000)


def test_a_recipe_cannot_be_changed_in_place() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError):
        recipe.steps = 5  # type: ignore[misc]
    assert recipe.steps == Recipe().steps
    assert hash(recipe) == hash(Recipe())


def test_replace_gives_a_checked_copy_and_keeps_the_rest() -> None:
    recipe = make_recipe(prompt="a fox", style=Style(name="ink", prompt="ink of {prompt}"), seed=3)
    other = recipe.replace(seed=4)
    assert (other.seed, recipe.seed) == (4, 3)
    assert other.replace(seed=3) == recipe
    with pytest.raises(InvalidRequest, match="Width"):
        recipe.replace(width=500)


def test_the_extremes_of_every_number_are_accepted() -> None:
    for field in ("steps", "guidance_scale", "seed", "width", "height", "clip_skip"):
        for value in bounds(field):
            assert getattr(make_recipe(**{field: value}), field) == value


def test_bounds_are_those_of_the_fields() -> None:
    assert bounds("steps") == (1, 1000)
    assert bounds("guidance_scale") == (1, 30)
    assert bounds("width") == bounds("height") == (32, 4096)
    assert bounds("seed") == (0, MAX_SEED)
    assert bounds("clip_skip") == (1, 12)
    assert float(MAX_SEED) + 1 == 2**53, "a browser's number must hold every seed exactly"


def test_a_scheduler_is_found_whatever_its_capitals_and_spaces() -> None:
    assert make_recipe(scheduler=" dpm++ 2m karras ").scheduler == "DPM++ 2M Karras"


@pytest.mark.parametrize(
    ("style", "typed", "read"),
    [
        ("oil painting of {prompt}, rich colour", "a fox", "oil painting of a fox, rich colour"),
        ("{prompt}, noto style", "", "noto style"),
        ("{prompt} and {prompt}", "a", "a and a"),
        ("{prompt}", "a {prompt} inside", "a {prompt} inside"),
        ("soft light", "a fox", "a fox, soft light"),
        ("soft light", "a fox, ", "a fox, soft light"),
        ("soft light", "", "soft light"),
        ("", "a fox", "a fox"),
        ("{prompt}, {0} %s \\1", "a {fox}", "a {fox}, {0} %s \\1"),
    ],
)
def test_a_style_puts_the_prompt_in_its_place_or_first(style: str, typed: str, read: str) -> None:
    assert Style(name="s", prompt=style).apply(typed) == read
    assert make_recipe(prompt=typed, style=Style(name="s", prompt=style)).full_prompt == read


def test_a_style_adds_its_negative_words_after_the_typed_ones() -> None:
    style = Style(name="ink", negative_prompt="colour")
    assert make_recipe(negative_prompt="text", style=style).full_negative_prompt == "text, colour"
    assert make_recipe(style=style).full_negative_prompt == "colour"


def test_without_a_style_the_model_reads_exactly_what_was_typed() -> None:
    recipe = make_recipe(prompt=" a,, fox \n", negative_prompt=", x ,")
    assert (recipe.full_prompt, recipe.full_negative_prompt) == (" a,, fox \n", ", x ,")


@pytest.mark.parametrize(("first", "second", "joined"), [("", "", ""), ("a, ", " ,b", "a, b"), (" , ", "b", "b"), ("a, b", "c", "a, b, c")])
def test_words_are_joined_without_empty_parts(first: str, second: str, joined: str) -> None:
    assert join_words(first, second) == joined


def test_guidance_runs_only_above_one() -> None:
    assert not make_recipe(guidance_scale=1).guided
    assert make_recipe(guidance_scale=1.01).guided
    assert make_recipe(guidance_scale=30).guided


@pytest.mark.parametrize(
    ("field", "given", "number"),
    [
        ("steps", "20", 20), ("steps", " 20.0 ", 20), ("steps", -5, -5), ("steps", "2e2", 200),
        ("seed", "9007199254740993", 9007199254740993),  # no float holds it
        ("guidance_scale", "7", 7.0), ("guidance_scale", "6.55", 6.55), ("guidance_scale", "-1e3", -1000.0),
    ],
)  # fmt: skip
def test_numbers_are_read_from_strangers_texts(field, given, number):
    read = read_number(field, given)
    assert (read, type(read)) == (number, type(number))


@pytest.mark.parametrize(
    "given", ["", "x", "nan", "inf", "-Infinity", "1e999", "1.5", "<b>", None, [], {}, True, 10**5000, "9" * 5000, math.nan], ids=range(15)
)
def test_what_is_no_number_is_refused_in_a_sentence(given):
    with pytest.raises(InvalidRequest, match=r"^Steps “.{0,40}” is no whole number and was not taken over\.$"):
        read_number("steps", given)


def test_settings_are_the_fields_of_a_recipe_and_none_is_missed_when_they_are_not_all_there():
    assert get_type_hints(Settings) == {name: field.annotation for name, field in Recipe.model_fields.items()}
    assert Settings.__required_keys__ == set()

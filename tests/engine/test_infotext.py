"""A1111's text of settings, written and read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UnreadablePicture
from engine.events import Provenance
from engine.infotext import infotext, parse_infotext
from engine.recipe import MAX_SEED, Recipe, Style, make_recipe
from engine.schedulers import SCHEDULERS

PROVENANCE = Provenance("0123456789abcdef", "cpu", "float32", 2, False, 20, 20, 1.5, {"torch": "2"})

OLD_A1111 = """masterpiece, (red fur:1.2), a fox in the snow <lora:add_detail:0.8>
second line, "quoted"
Negative prompt: blurry, text: none
watermark
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, \
Model: v1-5-pruned-emaonly, Clip skip: 2, ENSD: 31337, Lora hashes: "a: 1, b: 2", Version: v1.6.0"""
NEW_A1111 = OLD_A1111.replace("Sampler: DPM++ 2M Karras,", "Sampler: DPM++ 2M, Schedule type: Karras,").replace("v1.6.0", "v1.10.1")

TRICKY = ["\n", "\r\n", "🦊👩‍🚀", "שלום مرحبا", '"', "\\", "\nNegative prompt: ", "\nSteps: 3, Seed: 4", "\0", "\u2028", "{prompt}"]
characters = st.characters(exclude_categories=["Cs"])
any_text = st.lists(st.text(characters, max_size=20) | st.sampled_from(TRICKY), max_size=8).map("".join)
styles = st.builds(Style, name=st.text(characters, max_size=9), prompt=any_text, negative_prompt=any_text)
sizes = st.integers(4, 512).map(lambda eighths: eighths * 8)
recipes = st.builds(
    make_recipe,
    model=st.sampled_from(["starter", "owner/name", "C:\\models\\a, b", 'say "hi"']),
    prompt=any_text,
    negative_prompt=any_text,
    style=st.none() | styles,
    seed=st.integers(0, MAX_SEED),
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(1, 30),
    scheduler=st.sampled_from(list(SCHEDULERS)),
    width=sizes,
    height=sizes,
    clip_skip=st.integers(1, 12),
)
examples = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def check_clean(settings: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Plain strings and finite numbers that any page can show."""
    for value in [*settings.values(), *notes]:
        assert type(value) in {str, int, float, Style, type(None)}
        if isinstance(value, str):
            value.encode()
        if isinstance(value, float):
            assert math.isfinite(value)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_settings_come_back_from_the_infotext(scheduler: str) -> None:
    recipe = make_recipe(
        model="a: model, with marks", prompt="a fox\nin the snow", negative_prompt="text", scheduler=scheduler,
        seed=MAX_SEED, steps=31, guidance_scale=7.25, width=512, height=768, clip_skip=2,
    )  # fmt: skip
    found = parse_infotext(infotext(recipe, PROVENANCE))
    assert found.notes == ()
    assert make_recipe(**found.settings) == recipe


@examples
@given(recipe=recipes)
def test_no_prompt_can_spoil_the_settings_of_an_infotext(recipe: Recipe) -> None:
    found = parse_infotext(infotext(recipe, PROVENANCE))
    taken = {name: found.settings[name] for name in ("seed", "steps", "scheduler", "width", "height", "model", "clip_skip")}
    assert taken == {name: getattr(recipe, name) for name in taken}
    assert found.settings["guidance_scale"] == pytest.approx(recipe.guidance_scale, rel=1e-5)


@examples
@given(prompt=any_text, negative_prompt=any_text)
def test_prompts_come_back_from_the_infotext_but_for_the_space_around_lines(prompt: str, negative_prompt: str) -> None:
    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.strip().split("\n")]

    prompt, negative_prompt = prompt.replace("Negative prompt:", ""), negative_prompt.replace("Negative prompt:", "")
    found = parse_infotext(infotext(make_recipe(prompt=prompt, negative_prompt=negative_prompt)))
    assert lines(found.settings["prompt"]) == lines(prompt)
    assert lines(found.settings["negative_prompt"]) == lines(negative_prompt)


def test_the_infotext_holds_the_words_of_the_style() -> None:
    recipe = make_recipe(prompt="a fox", style=Style(name="ink", prompt="ink of {prompt}", negative_prompt="colour"))
    first, second, last = infotext(recipe, PROVENANCE).split("\n")
    assert (first, second) == ("ink of a fox", "Negative prompt: colour")
    assert "Model hash: 0123456789," in last


def test_without_negative_words_the_infotext_has_no_such_line() -> None:
    text = infotext(make_recipe(prompt="a fox", negative_prompt="  "))
    assert "Negative prompt" not in text
    assert "Model hash" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("text", [OLD_A1111, NEW_A1111, "\n" + NEW_A1111 + "\n"], ids=["old", "new", "padded"])
def test_an_infotext_of_a1111_is_read(text: str) -> None:
    found = parse_infotext(text)
    assert found.notes == ()
    assert found.settings == {
        "prompt": 'masterpiece, (red fur:1.2), a fox in the snow <lora:add_detail:0.8>\nsecond line, "quoted"',
        "negative_prompt": "blurry, text: none\nwatermark",
        "steps": 28,
        "scheduler": "DPM++ 2M Karras",
        "guidance_scale": 7.5,
        "seed": 965400086,
        "width": 512,
        "height": 768,
        "model": "v1-5-pruned-emaonly",
        "clip_skip": 2,
    }


def test_clip_skip_stands_where_a1111_writes_it_and_only_when_it_skips() -> None:
    assert "Model: starter, Clip skip: 2, RNG: CPU" in infotext(make_recipe(clip_skip=2), PROVENANCE)
    assert "Clip skip" not in infotext(make_recipe(clip_skip=1), PROVENANCE)


def test_an_infotext_without_clip_skip_says_one() -> None:
    assert parse_infotext(infotext(make_recipe(clip_skip=1))).settings["clip_skip"] == 1


def test_an_infotext_without_prompt_is_read() -> None:
    settings = {"prompt": "", "negative_prompt": "", "steps": 5, "seed": 3, "clip_skip": 1}
    assert parse_infotext("Steps: 5, Seed: 3").settings == settings


@pytest.mark.parametrize(
    ("pair", "note"),
    [
        ("Sampler: Restart", "no scheduler like A1111's “Restart”"),
        ("Sampler: DPM++ 2M, Schedule type: Polyexponential", "with schedule “Polyexponential”"),
        ("Size: 500x512", "Width must be a multiple of 8: try 496 or 504"),
        ("Size: 64x999999", "Height must be a whole number from 32 to 4,096"),
        ("Seed: -1", "Seed must be"),
        ("Seed: 99999999999999999999", "Seed must be"),
        ("CFG scale: NaN", "CFG scale must be a number from 1 to 30"),
        ("CFG scale: Infinity", "CFG scale must be"),
        ("CFG scale: 0", "CFG scale must be"),
        ("CFG scale: <b>7</b>", "CFG scale must be"),
        ("Seed: ", "Seed must be"),
        ("Clip skip: 0", "CLIP skip must be a whole number from 1 to 12"),
        ("Clip skip: 13", "CLIP skip must be"),
    ],
)
def test_what_cannot_be_taken_over_is_noted_and_the_rest_is_taken(pair: str, note: str) -> None:
    found = parse_infotext(f"a fox\nSteps: 20, {pair}")
    assert (found.settings["prompt"], found.settings["steps"]) == ("a fox", 20)
    assert [text for text in found.notes if note in text] == list(found.notes) != []
    check_clean(found.settings, found.notes)


@pytest.mark.parametrize("text", ["", "\n\n", "just a prompt", "Software: GIMP, By: me", '{"steps": 20}', "Steps", "Steps 20", ":::,,,"])
def test_text_that_is_no_infotext_is_refused(text: str) -> None:
    with pytest.raises(UnreadablePicture, match="no list of settings"):
        parse_infotext(text)


@pytest.mark.parametrize("pair", ['Model: "a, \\ud800"', 'Sampler: "a, \\ud800"'])
def test_escaped_surrogates_do_not_get_through(pair: str) -> None:
    found = parse_infotext(f"a fox\nSteps: 20, {pair}")
    check_clean(found.settings, found.notes)


@pytest.mark.parametrize("text", ["a" * 10_000, "Steps: 20, A" + "\t" * 6_000 + "x"], ids=["word", "blanks"])
def test_a_long_line_is_read_in_no_time(text: str) -> None:
    start = time.process_time()
    with suppress(UnreadablePicture):
        parse_infotext(text)
    assert time.process_time() - start < 0.1

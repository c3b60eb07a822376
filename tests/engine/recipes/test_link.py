"""Recipes as links, and what strangers write into one."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.recipes.link import LONGEST, Link, query_of, read_query
from engine.recipes.recipe import MAX_SEED, Recipe, Style, make_recipe
from engine.recipes.schedulers import SCHEDULERS

TEXTS = st.text(max_size=200) | st.text('&=?#%+;"\n\r\t, \x00{}é日🎞', max_size=200)
STYLES = st.builds(Style, name=st.text(max_size=80), prompt=TEXTS, negative_prompt=TEXTS)
SIDES = st.integers(4, 512).map(lambda n: 8 * n)
RECIPES = st.builds(
    Recipe, model=st.text(min_size=1, max_size=60), prompt=TEXTS, negative_prompt=TEXTS, style=st.none() | STYLES,
    seed=st.integers(0, MAX_SEED), steps=st.integers(1, 1000), guidance_scale=st.floats(1, 30), scheduler=st.sampled_from([*SCHEDULERS]),
    width=SIDES, height=SIDES, clip_skip=st.integers(1, 12),
)  # fmt: skip


@given(st.data())
def test_a_recipe_comes_back_from_its_link_as_it_was(data):
    recipe, exact = data.draw(RECIPES.filter(lambda one: len(one.full_prompt) < 1000)), data.draw(st.booleans())
    link = read_query("?" + query_of(recipe, exact))
    assert link is not None
    assert (make_recipe(**link.settings), link.exact, link.notes) == (recipe, exact, ())


def test_a_link_is_readable_and_says_no_more_than_it_must():
    recipe = make_recipe(prompt="an owl, “noto” style", seed=7, guidance_scale=6.5, scheduler="Euler", width=64, height=128)
    query = query_of(recipe)
    assert query.startswith("prompt=an+owl%2C+")
    assert query.endswith("&model=starter&seed=7&steps=20&cfg=6.5&scheduler=Euler&size=64x128")
    # Python's other reader of queries stands for anybody's.
    assert parse_qs(query, strict_parsing=True)["prompt"] == [recipe.prompt]


@pytest.mark.parametrize("query", ["", "?", "?__theme=dark", "?utm_source=mail&fbclid=1", "&&&=", "?Prompt=x"])
def test_an_address_without_settings_of_ours_is_no_link(query):
    assert read_query(query) is None


def test_what_a_link_does_not_name_stays_but_for_what_it_leaves_out_when_empty():
    assert read_query("?prompt=an+owl&utm_source=mail") == Link({"prompt": "an owl", "negative_prompt": "", "clip_skip": 1, "style": None})


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("seed=many", "Seed"),
        ("seed=1.5", "Seed"),
        ("cfg=nan", "CFG scale"),
        ("steps=", "Steps"),
        ("size=big", "“big” is no size"),
        ("scheduler=Nobody", "Nobody"),
        ("model=", "Model"),
        ("prompt=" + "x" * 5000, "Prompt has 5,000 characters"),
        ("style_prompt=red", "style is not whole"),
        ("prompt=" + "x" * LONGEST, "The link is too long"),
    ],
)
def test_what_cannot_be_taken_over_is_named_and_left_out(query, sentence):
    link = read_query("clip_skip=2&" + query)
    assert link is not None
    [note] = link.notes
    assert sentence in note
    assert set(link.settings) <= {"clip_skip", "negative_prompt", "style"}


@given(st.text(max_size=300) | st.dictionaries(st.sampled_from(["seed", "cfg", "size", "style", "steps"]), st.text(max_size=30)).map(str))
def test_no_text_breaks_the_reader(text):
    read_query(text)


@given(st.text(max_size=60))
def test_no_value_breaks_the_reader(text):
    for name in ("seed", "cfg", "size", "style", "steps", "scheduler", "clip_skip"):
        read_query(f"?{name}={text}")


def test_texts_too_long_for_an_address_are_refused_with_what_to_do():
    with pytest.raises(InvalidRequest, match="send the picture's file"):
        query_of(make_recipe(prompt="日" * 4000))

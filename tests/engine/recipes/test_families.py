"""Families: what their images need of a network call, known without torch."""

from __future__ import annotations

import pytest

from engine.recipes.families import FAMILIES, FAMILY_OF_PIPELINE, classifier_free
from engine.recipes.recipe import Recipe, Style


def image(**changes) -> Recipe:
    return Recipe(**{"prompt": "an owl", "guidance_scale": 5, "width": 64, "height": 64, **changes})


def test_guided_images_need_two_rows_and_others_one() -> None:
    style = Style(name="Ink", prompt="{prompt}, ink", negative_prompt="colour")
    assert classifier_free(image(style=style)).rows == (("unconditional", "colour", 1), ("conditional", "an owl, ink", 1))
    assert classifier_free(image(guidance_scale=1)).rows == (("conditional", "an owl", 1),)
    # An empty prompt still takes two rows: alone it is to be diffusers' own batch of two.
    assert len(set(classifier_free(image(prompt="", negative_prompt="")).rows)) == 2


def test_of_clip_skip_only_the_prompt_is_told() -> None:
    assert [row.clip_skip for row in classifier_free(image(clip_skip=3)).rows] == [1, 3]


@pytest.mark.parametrize(
    ("changes", "together"),
    [
        ({"prompt": "a cat", "guidance_scale": 1, "seed": 9, "clip_skip": 2}, True),
        ({"width": 72}, False), ({"height": 72}, False),
    ],
)  # fmt: skip
def test_images_of_one_size_share_a_call(changes, together) -> None:
    assert (classifier_free(image()).group == classifier_free(image(**changes)).group) == together


def test_every_family_is_found_by_its_pipeline() -> None:
    assert {name: FAMILIES[name].pipeline for name in FAMILIES} == {name: pipeline for pipeline, name in FAMILY_OF_PIPELINE.items()}

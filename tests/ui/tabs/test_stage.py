"""What the stage's and the strip's scripts are given: nothing missing, and strangers' text is only ever text."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.pictures.made import Made, Provenance
from engine.recipes.catalog import Catalog, ModelSpec
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.job import Job
from tests.ui.hostile import HOSTILE
from ui.tabs import stage
from ui.tabs.stage import STRIP
from ui.theme import read_asset

IMAGE = Image.new("RGB", (16, 16), (200, 30, 60))
TAG = re.compile(r"\{\{(.*?)\}\}")


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"prompt": "an owl", "seed": 7, "steps": 4, "width": 64, "height": 64, **changes})


def made(step: int = 4, *, path: Path | None = Path("outputs/owl.png"), **changes: object) -> Made:
    provenance = Provenance("revision", "cpu", "float32", 1, False, step, 4, 1.25)
    return Made(recipe(**changes), provenance, hashlib.sha256(IMAGE.tobytes()).hexdigest(), path, None if path else IMAGE)


def job() -> Job:
    return Job(Plan((Cell(0, recipe()),)), id="job")


def starter(catalog: Catalog) -> ModelSpec:
    return catalog.default


def names(template: str, prefix: str) -> set[str]:
    """What a template reads below `prefix`."""
    return {name for tag in TAG.findall(template) for name in re.findall(rf"\b{prefix}\.(\w+)", tag)}


def all_values(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        stage.welcome(starter(catalog)), stage.refused("No."), stage.refused("No.", over=True), stage.followed(job()),
        stage.followed(job(), over=True), stage.single(made(), "job:0"), stage.single(made(2), "job:0", job()),
    ]  # fmt: skip


def test_every_value_has_every_name_and_the_script_reads_each(catalog: Catalog) -> None:
    script = read_asset("stage.js")
    [all_names] = {frozenset(value) for value in all_values(catalog)}
    assert all(re.search(rf"\b{name}\b", script) for name in all_names)
    for part in ("look", "welcome"):
        [of_part] = {frozenset(value[part]) for value in all_values(catalog) if value[part]}
        assert all(re.search(rf"\b{name}\b", script) for name in of_part)


def test_every_thumbnail_has_every_name_of_the_template() -> None:
    [thumb] = stage.strip_value([("job:0", made())])
    assert thumb.keys() == names(STRIP, "this")


def test_every_value_can_be_sent_to_the_page(catalog: Catalog) -> None:
    for value in all_values(catalog):
        assert json.loads(json.dumps(value, allow_nan=False)) == value


# What is said in which state.


def test_an_empty_page_offers_the_examples_of_the_model(catalog: Catalog) -> None:
    value = stage.welcome(starter(catalog))["welcome"]
    assert value["examples"] == list(starter(catalog).examples)
    assert value["status"] == starter(catalog).note


def test_a_run_is_followed_by_its_key_and_its_pictures_are_picked_by_its_id() -> None:
    run = job()
    assert (stage.followed(run)["key"], stage.followed(run)["run"], stage.followed(run)["over"]) == (run.key, "job", False)
    assert stage.followed(run, over=True)["over"]
    assert stage.single(made(), "job:0", run)["key"] == run.key


def test_the_stage_has_the_shape_of_the_picture() -> None:
    assert stage.single(made(width=64, height=128), "job:0")["look"]["ratio"] == 0.5


def test_an_unfinished_picture_is_told_apart() -> None:
    assert stage.single(made(2), "job:0")["look"]["status"] == "Unfinished: step 2 of 4, seed 7"
    assert stage.single(made(), "job:0")["look"]["status"] == "4 steps in 1.2 s on cpu, seed 7"
    assert [thumb["state"] for thumb in stage.strip_value([("job:0", made(2)), ("job:1", made())])] == ["unfinished", ""]


def test_a_thumbnail_of_an_empty_prompt_still_has_a_name() -> None:
    [thumb] = stage.strip_value([("job:0", made(prompt=""))])
    assert thumb["title"] == "empty prompt, seed 7"


# Strangers' text.


def test_the_strips_template_puts_in_nothing_unescaped() -> None:
    assert not re.search(r"\{\{\{|\{\{&|\$\{|<script|javascript:|\son\w+=", STRIP)
    assert not re.search(r"=\{\{", STRIP), "an attribute without quotes ends at the first space of what is put in"


def test_the_scripts_set_no_text_as_markup() -> None:
    for name in ("stage.js", "sheet.js", "loupe.js", "blind.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", read_asset(name)), name


@pytest.mark.parametrize("text", HOSTILE)
def test_a_prompt_gets_into_no_address_and_no_style(text: str) -> None:
    picture = made(prompt=text)
    look, [thumb] = stage.single(picture, "job:0")["look"], stage.strip_value([("job:0", picture)])
    machine_made = [look["src"], *(thumb[name] for name in ("src", "state", "pick"))]
    assert not [part for part in machine_made if set(part) & set("<>\"'`${}\\")]

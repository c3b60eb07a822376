"""The stage's values and templates: nothing missing, and strangers' text is only ever text."""

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
from engine.running.events import Cancelled, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.job import Job
from tests.ui.hostile import HOSTILE
from ui.sheet.view import JobView, standing_view
from ui.tabs import stage
from ui.tabs.stage import FOLLOW, STAGE, STRIP

IMAGE = Image.new("RGB", (16, 16), (200, 30, 60))
TAG = re.compile(r"\{\{(.*?)\}\}")


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"prompt": "an owl", "seed": 7, "steps": 4, "width": 64, "height": 64, **changes})


def made(step: int = 4, *, path: Path | None = Path("outputs/owl.png"), **changes: object) -> Made:
    provenance = Provenance("revision", "cpu", "float32", 1, False, step, 4, 1.25)
    return Made(recipe(**changes), provenance, hashlib.sha256(IMAGE.tobytes()).hexdigest(), path, None if path else IMAGE)


def view(count: int, *events: Event, **changes: object) -> JobView:
    job = Job(Plan(tuple(Cell(i, recipe(**{"seed": 7 + i, **changes})) for i in range(count))), id="job")
    for event in events:
        job.publish(event)
    return standing_view(job, job.standing())


def starter(catalog: Catalog) -> ModelSpec:
    return catalog.default


def names(template: str, prefix: str) -> set[str]:
    """What a template reads below `prefix`."""
    return {name for tag in TAG.findall(template) for name in re.findall(rf"\b{prefix}\.(\w+)", tag)}


EVERY_STATE = {
    "waiting": view(2, Queued(0, 1)),
    "loading": view(2, Notice("Loading ...", progress=-1.0)),
    "developing": view(2, Preview(0, 1, 4, IMAGE), Notice("Words were cut.")),
    "half done": view(2, Finished(0, made()), Preview(1, 1, 4)),
    "finished": view(1, Finished(0, made())),
    "stopped": view(1, Cancelled(0, 2, 4, made(2))),
    "stopped at once": view(1, Cancelled(0, 0, 0)),
    "failed": view(1, Failed(0, "No.")),
}


def all_values(catalog: Catalog) -> list[dict[str, Any]]:
    return [
        stage.welcome(starter(catalog)), stage.refused("No."), stage.refused("No.", stage.single(made(), "job:0")),
        stage.single(made(), "job:0"), stage.single(made(2), "job:0"), *map(stage.working, EVERY_STATE.values()),
    ]  # fmt: skip


def test_every_value_has_every_name_of_the_template(catalog: Catalog) -> None:
    wanted = names(STAGE, "value")
    assert {"state", "examples", "frames", "status", "notices", "error"} <= wanted
    for value in all_values(catalog):
        assert value.keys() >= wanted, value["state"]


def test_every_name_of_a_value_is_read_by_the_template(catalog: Catalog) -> None:
    for value in all_values(catalog):
        assert value.keys() <= names(STAGE, "value") | {"key", "looked"}, value["state"]
    assert all(f"value.{name}" in FOLLOW for name in ("key", "looked"))


@pytest.mark.parametrize("state", EVERY_STATE)
def test_every_frame_under_way_has_every_name_of_the_template(state: str) -> None:
    for frame in stage.working(EVERY_STATE[state])["frames"]:
        assert frame.keys() == names(STAGE, "this")


def test_a_picture_looked_at_again_has_what_its_frame_shows() -> None:
    [frame] = stage.single(made(), "job:0")["frames"]
    assert frame.keys() <= names(STAGE, "this")
    assert {"src", "alt", "state", "pick"} <= frame.keys()


def test_every_thumbnail_has_every_name_of_the_template() -> None:
    [thumb] = stage.strip_value([("job:0", made())])
    assert thumb.keys() == names(STRIP, "this")


def test_every_value_can_be_sent_to_the_page(catalog: Catalog) -> None:
    for value in all_values(catalog):
        assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4)])
def test_pictures_stand_in_a_square(count: int, columns: int) -> None:
    value = stage.working(view(count))
    assert len(value["frames"]) == count
    assert value["columns"] == columns


def test_an_empty_page_still_has_a_column(catalog: Catalog) -> None:
    assert stage.welcome(starter(catalog))["columns"] == 1


# What is said in which state.


def test_an_empty_page_offers_the_examples_of_the_model(catalog: Catalog) -> None:
    value = stage.welcome(starter(catalog))
    assert (value["state"], value["examples"]) == ("idle", list(starter(catalog).examples))
    assert value["status"] == starter(catalog).note


def test_a_refusal_keeps_the_picture_that_was_there() -> None:
    kept = stage.single(made(), "job:0")
    assert stage.refused("Width is wrong.", kept) == {**kept, "error": "Width is wrong."}
    assert stage.refused("Width is wrong.")["frames"] == []


@pytest.mark.parametrize(
    ("state", "shown", "meter", "percent"),
    [
        ("waiting", "running", "known", 0.0),
        ("loading", "running", "unknown", 0.0),
        ("developing", "running", "known", 12.5),
        ("half done", "running", "known", 62.5),
        ("finished", "done", "known", 100.0),
        ("stopped", "done", "known", 100.0),
        ("failed", "done", "known", 100.0),
    ],
)
def test_the_meter_shows_what_is_known(state: str, shown: str, meter: str, percent: float) -> None:
    value = stage.working(EVERY_STATE[state])
    assert (value["state"], value["meter"], value["percent"]) == (shown, meter, percent)


def test_the_meter_follows_a_download() -> None:
    value = stage.working(view(1, Notice("Downloading: 1 of 4 GB", progress=0.25)))
    assert (value["meter"], value["percent"], value["status"]) == ("known", 25.0, "Downloading: 1 of 4 GB")


def test_the_stage_has_the_shape_of_the_picture() -> None:
    assert stage.working(view(1, width=128, height=64))["ratio"] == 2.0
    assert stage.single(made(width=64, height=128), "job:0")["ratio"] == 0.5


def test_a_lone_picture_has_no_caption_and_several_tell_their_seeds() -> None:
    [alone] = stage.working(view(1, Preview(0, 1, 4)))["frames"]
    assert alone["caption"] == ""
    events = [Preview(0, 1, 4), Finished(1, made()), Cancelled(2, 1, 4, made(1))]
    captions = [frame["caption"] for frame in stage.working(view(4, *events))["frames"]]
    assert captions == ["seed 7 · 1/4", "seed 8", "seed 9 · stopped", "seed 10"]


def test_only_a_picture_that_is_made_can_be_picked() -> None:
    events = [Preview(0, 1, 4, IMAGE), Finished(1, made()), Cancelled(2, 0, 0), Failed(3, "No.")]
    assert [frame["pick"] for frame in stage.working(view(4, *events))["frames"]] == ["", "job:1", "", ""]


def test_an_unfinished_picture_is_told_apart() -> None:
    assert stage.single(made(2), "job:0")["status"] == "Unfinished: step 2 of 4, seed 7"
    assert stage.single(made(), "job:0")["status"] == "4 steps in 1.2 s on cpu, seed 7"
    assert [thumb["state"] for thumb in stage.strip_value([("job:0", made(2)), ("job:1", made())])] == ["unfinished", ""]


def test_a_thumbnail_of_an_empty_prompt_still_has_a_name() -> None:
    [thumb] = stage.strip_value([("job:0", made(prompt=""))])
    assert thumb["title"] == "empty prompt, seed 7"


# Strangers' text.


@pytest.mark.parametrize("template", [STAGE, STRIP])
def test_templates_put_in_nothing_unescaped(template: str) -> None:
    assert not re.search(r"\{\{\{|\{\{&|\$\{|<script|javascript:|\son\w+=", template)
    assert not re.search(r"=\{\{", template), "an attribute without quotes ends at the first space of what is put in"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_prompt_gets_into_no_address_and_no_style(text: str) -> None:
    picture = made(prompt=text)
    value = stage.working(view(1, Finished(0, picture), Notice(text), prompt=text))
    [frame], [thumb] = value["frames"], stage.strip_value([("job:0", picture)])
    machine_made = [value["state"], value["meter"], *(part[name] for part in (frame, thumb) for name in ("src", "state", "pick"))]
    assert not [part for part in machine_made if set(part) & set("<>\"'`${}\\")]
    assert all(isinstance(value[name], (int, float)) for name in ("columns", "ratio", "percent"))

"""What a contact sheet's script is answered, whatever it asks."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import NotSaved, OutOfMemory
from engine.pictures.infotext import infotext
from engine.pictures.outputs import open_picture
from engine.recipes.axes import Offer
from engine.recipes.plan import AxisLine, Grid, Plan, plan_grid
from engine.running.engine import Engine
from engine.running.events import Finished, Notice, Queued
from engine.running.job import Job
from tests.fake_device import FakeDevice
from tests.jobs import at_step, ends, kinds, running, wait_for
from tests.ui.data_uri import picture_of
from ui.sheet import answers
from ui.sheet.answers import TILE, sprite
from ui.sheet.live import LiveSheet
from ui.sheet.takeaway import KINDS, Takeaway
from ui.sheet.view import THUMB, standing_view

Answer = dict[str, Any]
Ask = Callable[..., Answer]


def plan_of(engine: Engine, x: str = "cfg: 2, 5", y: str = "seed: 7, 8", z: str = "", **changes: Any) -> Plan:
    """A grid of axes written as "axis: values"."""
    recipe = engine.catalog.default.recipe(**{"prompt": "an owl", "steps": 4, "seed": 7, **changes})
    written = {name: line.split(": ") for name, line in {"x": x, "y": y, "z": z}.items() if line}
    lines = {name: AxisLine(axis=axis, values=values) for name, (axis, values) in written.items()}
    return plan_grid(Grid(recipe=recipe, **lines), Offer(engine.catalog, engine.limits))


@pytest.fixture
def live(engine: Engine) -> LiveSheet:
    return LiveSheet(engine, Takeaway(engine))


@pytest.fixture
def start(engine: Engine, live: LiveSheet) -> Callable[..., tuple[Job, Ask]]:
    """Starts a grid; its job, and what asks about its sheet."""

    def started(*, together: bool = True, reuse: bool = False, **grid: Any) -> tuple[Job, Ask]:
        job = engine.submit(plan_of(engine, **grid), together=together, reuse=reuse)
        return job, asker(live, job)

    return started


@pytest.fixture
def finished(start: Callable[..., tuple[Job, Ask]]) -> tuple[Job, Ask]:
    """Two CFG scales by two seeds, all finished."""
    job, ask = start()
    assert kinds(job) == ["Finished"] * 4
    return job, ask


def asker(live: LiveSheet, job: Job) -> Ask:
    def ask(question: str, **details: Any) -> Answer:
        return json.loads(
            json.dumps(live.ask({"question": question, "key": job.key, **details}), allow_nan=False)
        )  # as it comes to a browser

    return ask


def frame(ask: Ask, seen: int = -1, page: int = 0, **asked: bool) -> Answer:
    return ask("frame", seen=seen, page=page, **asked)


def at_steps(job: Job, step: int) -> None:
    """Waits until every cell has come to that step."""
    for cell in job.plan.cells:
        wait_for(job, at_step(step, cell.index))


def states(answer: Answer) -> dict[int, str]:
    return {cell["index"]: cell["state"] for cell in answer["cells"]}


def marks(answer: Answer) -> list[str]:
    return [cell["mark"] for cell in answer["cells"]]


def file_of(src: str) -> bytes:
    return base64.b64decode(src.partition(",")[2])


# The sheet.


def test_a_sheet_is_told_with_all_that_is_drawn_round_its_cells(start):
    job, ask = start(z="steps: 3, 4", width=128)
    answer = ask("sheet")
    assert answer["labels"] == [["2", "5"], ["7", "8"], ["3", "4"]]
    assert answer["titles"] == ["CFG scale", "Seed", "Steps"]
    assert answer["heading"] == "an owl"
    assert len(answer["cells"]) == 8
    assert answer["cells"][5] == {"index": 5, "place": [1, 0, 1], "size": [128, 64], "name": "CFG scale 5, Seed 7, Steps 4"}
    assert set(answer) == {"labels", "shown", "titles", "cells", "heading", "negative"}, "neither owner nor id"
    assert job.id not in json.dumps(answer)


def test_a_sheet_tells_the_negative_prompt_and_labels_that_can_be_told_apart(start):
    long = "an owl on a branch of an old oak, painted in oil, very detailed, "
    _, ask = start(x=f"prompt: {long}by day || {long}by night", negative_prompt="blurry")
    answer = ask("sheet")
    assert answer["negative"] == "blurry"
    assert answer["labels"][0] == [f"{long}by day", f"{long}by night"]
    assert [label.rpartition("… ")[2] for label in answer["shown"][0]] == ["day", "night"]
    assert answer["shown"][1:] == answer["labels"][1:]


def test_a_cell_without_axes_is_told_by_its_seed(start):
    _, ask = start(x="", y="", prompt="")
    answer = ask("sheet")
    assert [cell["name"] for cell in answer["cells"]] == ["Seed 7"]
    assert answer["heading"] == "no prompt"


# Frames.


def test_the_first_frame_tells_of_every_cell(start, device):
    device.may_load.clear()
    job, ask = start()
    wait_for(job, lambda event: isinstance(event, Queued) and event.cell == 3)
    answer = frame(ask)
    assert states(answer) == dict.fromkeys(range(4), "waiting")
    assert (answer["done"], answer["percent"], answer["sprite"]) == (False, 0.0, None)
    device.may_load.set()
    ends(job)
    last = frame(ask)
    assert states(last) == dict.fromkeys(range(4), "finished")
    assert (last["done"], last["percent"], last["count"], last["status"]) == (True, 100.0, 4, "4 finished of 4 pictures")


def test_nothing_new_is_no_frame(finished):
    _, ask = finished
    answer = frame(ask)
    assert frame(ask, seen=answer["version"]) == {"count": 4, "done": True}


def test_a_later_frame_tells_of_changed_cells_only(start, device):
    device.images_a_tick = 1
    device.hold()
    job, ask = start(together=False)
    device.let()
    wait_for(job, at_step(1))
    first = frame(ask)
    device.let()
    wait_for(job, at_step(2))
    second = frame(ask, seen=first["version"])
    assert second["version"] > first["version"]
    assert [(cell["index"], cell["step"], cell["total"]) for cell in second["cells"]] == [(0, 2, 4)]
    assert second["status"].startswith("0 of 4 pictures, step 2 of 16 · ")
    assert second["percent"] == 12.5


def test_loading_is_told_until_the_first_cell_begins(start, device):
    device.may_load.clear()
    job, ask = start()
    wait_for(job, lambda event: getattr(event, "progress", None) is not None)
    answer = frame(ask)
    assert "Loading" in answer["status"]
    assert answer["unknown"] is True
    device.may_load.set()
    ends(job)
    assert frame(ask)["unknown"] is False


def test_one_picture_holds_all_cells_that_develop(start, device):
    device.hold()
    job, ask = start(x="cfg: 2, 5, 9", y="seed: 7", z="steps: 4, 6")
    device.let(2)
    at_steps(job, 2)
    answer = frame(ask, page=1)
    on_page = [cell.index for cell in job.plan.cells if cell.place[2] == 1]
    assert answer["sprite"]["cells"] == on_page
    assert len(answer["cells"]) == 6, "but the states are those of all pages"
    tiles = tiles_of(answer["sprite"])
    for index, tile in tiles.items():
        assert tile.tobytes() == job.standing().cells[index].image.convert("RGB").tobytes()


def test_pictures_are_as_large_as_they_are_where_that_is_asked_for(start, device):
    """As the stage asks: previews are no tiles of a sheet, and a finished picture is its file, not a thumbnail."""
    device.costs = {"vae": 0.0}
    device.hold()
    job, ask = start(x="", y="", width=512, height=512, steps=2)
    device.let(1)
    at_steps(job, 1)
    [large] = tiles_of(frame(ask, large=True)["sprite"]).values()
    [small] = tiles_of(frame(ask)["sprite"]).values()
    assert (large.size, small.size) == ((512, 512), (160, 160))
    device.let_go()
    ends(job)
    [cell] = frame(ask, large=True)["cells"]
    assert job.made()[0].path.name in cell["src"]


def test_small_pictures_that_are_enlarged_come_without_loss(start, device):
    device.costs = {"vae": 0.0}
    device.hold()
    job, ask = start(x="cfg: 2, 5, 9", y="seed: 1, 2, 3", width=64, height=64, steps=2)
    for _ in range(4):
        device.let(1)
    at_steps(job, 1)
    assert frame(ask, large=True)["sprite"]["src"].startswith("data:image/png")
    assert frame(ask)["sprite"]["src"].startswith("data:image/jpeg")
    device.let_go()


def test_the_stage_is_told_all_notices(start):
    job, _ = start(x="", y="")
    ends(job)
    told = Job(job.plan)
    for text in ("One.", "Two.", "Three."):
        told.publish(Notice(text))
    standing = told.standing()
    view = standing_view(told, standing)
    assert answers.frame(standing, view, [], None, len(view.notices))["notices"] == "One. Two. Three."
    assert answers.frame(standing, view, [], None)["notices"] == "One. Two. And 1 more like these."


def tiles_of(sheet: Answer) -> dict[int, Image.Image]:
    """The tiles of a sprite, by cell; the picture must have just the room for them."""
    image = picture_of(sheet["src"])
    width, height, across = sheet["width"], sheet["height"], sheet["across"]
    assert image.size == (across * width, math.ceil(len(sheet["cells"]) / across) * height)
    corners = [(place % across * width, place // across * height) for place in range(len(sheet["cells"]))]
    return {index: image.crop((x, y, x + width, y + height)) for index, (x, y) in zip(sheet["cells"], corners, strict=True)}


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 10])
def test_tiles_stand_in_rows(count):
    colors = {index: (10 * index, 200 - 10 * index, 77) for index in range(count)}
    sheet = sprite({index: Image.new("RGB", (8, 4), color) for index, color in colors.items()})
    assert (sheet["width"], sheet["height"], sheet["across"]) == (8, 4, math.ceil(math.sqrt(count)))
    assert {index: tile.getpixel((3, 2)) for index, tile in tiles_of(sheet).items()} == colors


def test_tiles_of_several_sizes_take_the_largest_up_to_a_limit():
    small, large = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (1024, 512), (0, 0, 255))
    sheet = sprite({3: small, 1: large})
    assert (sheet["width"], sheet["height"], sheet["cells"]) == (TILE, TILE // 2, [3, 1])
    assert sprite({}) is None


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def test_a_finished_cell_comes_once_as_a_thumbnail(start, monkeypatch):
    job, ask = start(x="size: 64, 512x256", y="")
    ends(job)
    assert [cell["src"] for cell in frame(ask)["cells"]] == [f"gradio_api/file={made.path}" for made in job.made().values()]
    monkeypatch.setattr("engine.pictures.outputs.SMALL_FILE", 0)  # flat colours make small files, which are shown themselves
    answer = frame(ask)
    assert [size_of(Path(cell["src"].removeprefix("gradio_api/file="))) for cell in answer["cells"]] == [(64, 64), (THUMB, THUMB // 2)]
    assert answer["sprite"] is None
    assert frame(ask)["cells"] == answer["cells"]


def test_a_failed_cell_says_why_and_the_others_go_on(start, device):
    device.step_errors[8] = (2, OutOfMemory("There is no room for a picture this large: try 512 x 512."))
    job, ask = start()
    ends(job)
    answer = frame(ask)
    assert [cell["message"] for cell in answer["cells"]] == ["", "", *["There is no room for a picture this large: try 512 x 512."] * 2]
    assert list(states(answer).values()) == ["finished", "finished", "failed", "failed"]
    assert answer["status"] == "2 finished, 2 failed of 4 pictures"
    assert not any("src" in cell for cell in answer["cells"] if cell["state"] == "failed")


def test_stopped_cells_are_marked_with_how_far_they_came(start, device, engine):
    device.images_a_tick = 1
    device.hold()
    job, ask = start(together=False)
    device.let(2)
    wait_for(job, at_step(2))
    engine.stop(job)
    device.let()
    ends(job)
    first, *others = frame(ask)["cells"]
    assert first["mark"] in {"2/4", "3/4"}
    assert "src" in first
    assert {(cell["mark"], cell["state"], "src" in cell) for cell in others} == {("not begun", "stopped", False)}


def test_what_came_from_the_disk_is_marked(finished, start):
    again, ask = start(reuse=True, x="cfg: 5, 9")
    ends(again)
    assert marks(frame(ask)) == ["from disk", "", "from disk", ""]


def test_what_could_not_be_saved_is_marked(start, monkeypatch):
    def refuse(*_: object) -> None:
        raise NotSaved("The disk is full.")

    monkeypatch.setattr("engine.pictures.developing.write_picture", refuse)
    job, ask = start()
    ends(job)
    answer = frame(ask)
    assert marks(answer) == ["not saved"] * 4
    assert answer["notices"] == "The disk is full."
    assert ask("look", cell=0)["src"].startswith("data:image/png;base64,")


def test_a_picture_whose_file_was_deleted_says_so(finished):
    job, ask = finished
    job.made()[1].path.unlink()
    gone = frame(ask)["cells"][1]
    assert "is not there any more" in gone["message"]
    assert "src" not in gone


def test_earlier_cells_are_no_part_of_the_run_that_goes_on(start, engine, device):
    job, ask = start()
    ends(job)
    before = frame(ask)["version"]
    device.hold()
    engine.extend(job, job.plan.grown_to(plan_of(engine, x="cfg: 2, 5, 9")))
    device.let(2)
    for index in (4, 5):
        wait_for(job, at_step(2, index))
    answer = frame(ask, seen=before)
    assert (answer["count"], answer["done"], answer["percent"]) == (6, False, 50.0)
    assert answer["status"].startswith("0 of 2 pictures, step 4 of 8 · ")
    assert set(states(answer)) == {4, 5}
    device.let_go()
    ends(job)
    last = frame(ask, seen=answer["version"])
    assert (last["status"], last["percent"], last["done"]) == ("2 finished of 2 new pictures", 100.0, True)


def test_done_is_told_only_with_the_last_end(finished, monkeypatch):
    """The last cell may end between two looks at the job; after "done" nobody asks again."""
    job, ask = finished
    half = job.standing()
    half = type(half)(**{**vars(half), "cells": {index: event for index, event in half.cells.items() if index != 3}})
    monkeypatch.setattr(job, "standing", lambda: half)
    assert job.done
    assert frame(ask)["done"] is False
    assert frame(ask, seen=half.version)["done"] is False


# Looking back.


def test_a_film_shows_every_cell_at_the_same_part_of_its_way(start, device):
    job, ask = start(x="steps: 4, 8", y="")
    ends(job)
    for at, steps in [(1, (1, 1)), (2, (1, 2)), (3, (2, 3)), (4, (2, 4)), (6, (3, 6)), (8, (4, 8))]:
        answer = ask("film", at=at, longest=8, page=0)
        assert answer["whole"] is True
        assert asked_steps(device, 2) == {(job.id, 0): steps[0], (job.id, 1): steps[1]}
        assert answer["sprite"]["cells"] == [0, 1]


def asked_steps(device: FakeDevice, count: int) -> dict[Any, int]:
    """Which step of which cell was looked at last."""
    return {key: step for key, _, step in device.calls("preview")[-count:]}


def test_a_film_is_of_one_page(start):
    job, ask = start(x="cfg: 2, 5", y="", z="seed: 7, 8")
    ends(job)
    assert ask("film", at=2, longest=4, page=1)["sprite"]["cells"] == [2, 3]
    assert ask("film", at=2, longest=4, page=9) == {"sprite": None, "whole": True}


def test_a_film_of_a_run_is_not_whole_yet(start, device, engine):
    device.hold()
    job, ask = start()
    device.let(2)
    at_steps(job, 2)
    assert between_ticks(engine, device, lambda: ask("film", at=2, longest=4, page=0))["whole"] is True
    assert set(asked_steps(device, 4).values()) == {2}
    early = between_ticks(engine, device, lambda: ask("film", at=4, longest=4, page=0))
    assert early["whole"] is False
    assert early["sprite"]["cells"] == [0, 1, 2, 3]
    assert set(asked_steps(device, 4).values()) == {3}, "what has come furthest is shown meanwhile"
    device.let_go()
    ends(job)
    assert ask("film", at=4, longest=4, page=0)["whole"] is True


def between_ticks(engine: Engine, device: FakeDevice, question: Callable[[], Answer]) -> Answer:
    """The answer to what only a device between two ticks can tell; one tick passes meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(question)
        while engine._link._inbox.empty():
            time.sleep(0.001)
        device.let()
        return answer.result()


def test_a_film_is_not_whole_while_a_cell_has_not_begun(start, device):
    ends(start()[0])  # the first model is there
    device.may_load.clear()
    job, ask = start(x="model: starter, sd15", y="", width=64, height=64)
    wait_for(job, lambda event: isinstance(event, Finished) and event.cell == 0)
    answer = ask("film", at=2, longest=4, page=0)
    assert (answer["sprite"]["cells"], answer["whole"]) == ([0], False)


def test_a_film_before_anything_has_begun_shows_nothing(start, device):
    device.may_load.clear()
    _, ask = start()
    assert ask("film", at=1, longest=1, page=0) == {"sprite": None, "whole": False}


def test_cells_without_kept_steps_are_left_out_of_a_film(finished, start, engine, device, monkeypatch):
    first, _ = finished
    again, ask = start(reuse=True, x="cfg: 5, 9")
    ends(again)
    assert ask("film", at=2, longest=4, page=0)["sprite"]["cells"] == [0, 1, 2, 3]
    with monkeypatch.context() as patch:
        patch.setattr("engine.running.kept.weight", lambda job: 1)
        patch.setattr("engine.running.kept.OWN_BYTES", 1)
        ends(engine.submit(plan_of(engine, x="", y="", steps=1)))
    assert engine.job(first.id) is None
    answer = ask("film", at=2, longest=4, page=0)
    assert answer["sprite"]["cells"] == [1, 3], "those from the disk went with the job that had made them"
    assert answer["whole"] is True


# Looking closer.


def test_a_cell_looked_at_closer(start):
    job, ask = start(z="steps: 3, 4")
    ends(job)
    cell = job.plan.at((0, 1, 0))
    made = job.made()[cell.index]
    answer = ask("look", cell=cell.index)
    assert answer["src"] == f"gradio_api/file={made.path}"
    assert answer["file"] == made.path.name
    assert answer["settings"] == infotext(made.recipe, made.provenance)
    assert answer["status"].startswith("Made in ")
    assert answer["status"].endswith(f"s, saved as {made.path.name}")
    assert answer["message"] == ""
    assert answer["neighbours"] == [
        {"where": "right", "cell": job.plan.at((1, 1, 0)).index, "changes": [["CFG scale", "2", "5"]]},
        {"where": "above", "cell": job.plan.at((0, 0, 0)).index, "changes": [["Seed", "8", "7"]]},
        {"where": "next page", "cell": job.plan.at((0, 1, 1)).index, "changes": [["Steps", "3", "4"]]},
    ]  # fmt: skip
    middle = ask("look", cell=job.plan.at((1, 0, 1)).index)["neighbours"]
    assert [one["where"] for one in middle] == ["left", "below", "page before"]


def test_a_cell_that_has_not_ended_has_settings_and_nothing_to_see(start, device):
    device.hold()
    job, ask = start()
    answer = ask("look", cell=3)
    assert (answer["src"], answer["file"], answer["status"], answer["message"]) == ("", "", "", "")
    assert answer["settings"] == infotext(job.plan.cells[3].recipe)
    assert len(answer["neighbours"]) == 2


def test_a_cell_that_failed_says_why(start, device):
    device.step_errors[7] = (2, OutOfMemory("There is no room."))
    job, ask = start()
    ends(job)
    assert ask("look", cell=0)["message"] == "There is no room."


def test_an_unfinished_cell_says_how_far_it_came(start, device, engine):
    device.hold()
    job, ask = start()
    device.let(2)
    at_steps(job, 2)
    engine.stop(job)
    device.let()
    ends(job)
    assert ask("look", cell=0)["status"].startswith(("Unfinished: step 2 of 4, saved as ", "Unfinished: step 3 of 4, saved as "))


def test_two_pictures_that_differ(finished):
    job, ask = finished
    answer = ask("pair", a=0, b=1)
    assert (answer["a"], answer["b"]) == tuple(f"gradio_api/file={job.made()[index].path}" for index in (0, 1))
    assert answer["changes"] == [["CFG scale", "2", "5"]]
    assert answer["figures"].startswith("Largest difference ")
    assert answer["figures"].endswith(" 75% of the pixels differ."), "the dark quarter is the same"
    assert picture_of(answer["heat"]).size == (64, 64)


def test_two_pictures_that_are_equal(finished):
    _, ask = finished
    answer = ask("pair", a=2, b=2)
    assert (answer["figures"], answer["heat"], answer["changes"]) == ("The two pictures are equal in every pixel.", "", [])


def test_two_pictures_of_two_sizes_are_shown_without_a_difference(start):
    job, ask = start(x="size: 64, 128x64", y="")
    ends(job)
    answer = ask("pair", a=0, b=1)
    assert answer["a"] != answer["b"]
    assert "64 x 64" in answer["figures"]
    assert "128 x 64" in answer["figures"]
    assert answer["heat"] == ""
    assert answer["changes"] == [["Width", "64", "128"]]


def test_two_pictures_of_which_one_file_is_gone(finished):
    job, ask = finished
    job.made()[0].path.unlink()
    answer = ask("pair", a=0, b=1)
    assert "is not there any more" in answer["figures"]
    assert answer["heat"] == ""


def test_a_picture_that_is_not_there_yet_cannot_be_compared(start, device):
    device.hold()
    _, ask = start()
    assert ask("pair", a=0, b=1) == {"error": "Only two cells that have a picture can be compared: wait until both are finished."}


# The blind test.


def test_a_blind_test_tells_nothing_of_what_is_shown(start):
    job, ask = start(prompt="an owl, secret words", seed=4711, y="")
    ends(job)
    answer = ask("blind", votes=[], skipped=[])
    assert set(answer) == {"pair", "pictures", "left"}
    for index, src in zip(answer["pair"], answer["pictures"], strict=True):
        content = file_of(src)
        with Image.open(io.BytesIO(content)) as image:
            assert image.tobytes() == open_picture(job.made()[index]).tobytes()
            assert image.info == {}
        for word in (b"owl", b"secret", b"4711", b"CFG", b"Steps", b"tEXt", b"iTXt", job.made()[index].path.name.encode()):
            assert word not in content


def test_a_blind_test_shows_every_pair_once_and_ends(finished):
    _, ask = finished
    votes: list[list[int]] = []
    skipped: list[list[int]] = []
    for left in range(6, 0, -1):
        answer = ask("blind", votes=votes, skipped=skipped)
        assert answer["left"] == left
        (skipped if left % 2 else votes).append(answer["pair"])
    assert len({frozenset(pair) for pair in votes + skipped}) == 6
    assert ask("blind", votes=votes, skipped=skipped) == {"pair": None}


def test_a_blind_test_needs_two_finished_pictures(start, device, engine):
    sentence = "A blind test needs at least two finished pictures: wait for them."
    device.hold()
    job, ask = start()
    device.let(2)
    at_steps(job, 2)
    assert ask("blind", votes=[], skipped=[]) == {"error": sentence}
    engine.stop(job)
    device.let()
    ends(job)
    assert ask("blind", votes=[], skipped=[]) == {"error": sentence}, "unfinished ones do not count"


def test_the_ranking_has_a_table_for_each_axis_with_several_values_and_one_of_the_cells(start):
    job, ask = start(x="cfg: 2, 5", y="seed: 7", z="steps: 3, 4")
    ends(job)
    votes = [[1, 0], [3, 2], [1, 2], [3, 0], [1, 3]]
    tables = ask("ranking", votes=votes)["tables"]
    assert [table["title"] for table in tables] == ["CFG scale", "Steps", "Cells"]
    cfg, _, by_cell = tables
    assert [(row["name"], row["record"]) for row in cfg["rows"]] == [("5", "4 : 0"), ("2", "0 : 4")]
    assert by_cell["rows"][0]["name"] == "CFG scale 5, Seed 7, Steps 3"
    assert len(by_cell["rows"]) == 4
    for table in tables:
        for row in table["rows"]:
            assert 0 <= row["low"] <= row["at"] <= row["high"] <= 100
            assert row["chance"].endswith("%")
        assert (min(row["low"] for row in table["rows"]), max(row["high"] for row in table["rows"])) == (0, 100)


def test_the_verdict_is_as_sure_as_the_votes(start):
    job, ask = start(y="")
    ends(job)

    def verdict(*votes: list[int]) -> str:
        return ask("ranking", votes=list(votes))["tables"][0]["verdict"]

    assert verdict([1, 0]) == "5 is ahead, but not certainly: pick on to be surer."
    assert verdict([1, 0], [0, 1]) == "None of them is ahead: pick on."
    assert verdict(*[[0, 1]] * 30) == "2 is best, with a certainty of at least 95%."


def test_votes_within_one_value_put_no_value_ahead(finished):
    _, ask = finished
    cfg, seed, cells = ask("ranking", votes=[[0, 2]])["tables"]
    assert cfg["verdict"] == "None of them is ahead: pick on."
    assert seed["verdict"] == "7 is ahead, but not certainly: pick on to be surer."
    assert cells["verdict"].startswith("CFG scale 2, Seed 7 is ahead")


def test_nothing_picked_is_nothing_to_rank(finished):
    _, ask = finished
    assert ask("ranking", votes=[]) == {"error": "Nothing was picked yet, so there is nothing to rank."}


@pytest.mark.parametrize("votes", [[[0, 1]] * 200, [[1, 0], [0, 1]] * 100], ids=["all agree", "none agree"])
def test_many_votes_can_be_ranked(start, votes):
    job, ask = start(y="")
    ends(job)
    assert [row["record"] for row in ask("ranking", votes=votes)["tables"][0]["rows"]] in (["200 : 0", "0 : 200"], ["100 : 100"] * 2)


# Taking away.


def test_a_file_to_take_away_is_fetched_by_its_address(finished):
    _, ask = finished
    answer = ask("take", kind="zip", page=0)
    address, _, file = answer["url"].partition("=")
    assert address == "gradio_api/file"
    assert Path(unquote(file)).name == answer["name"]
    assert Path(unquote(file)).stat().st_size > 0
    assert not set(file) & set(" #?&")


def test_boxes_are_told_with_the_files_whose_words_are_drawn_here(finished, monkeypatch):
    _, ask = finished
    assert ask("take", kind="png", page=0)["notice"] == ""
    monkeypatch.setattr("ui.sheet.live.missing_letters", lambda plan: "They are boxes.")
    assert {kind: ask("take", kind=kind, page=0)["notice"] for kind in KINDS} == {
        "png": "They are boxes.", "zip": "They are boxes.", "webp": "They are boxes.", "html": "", "ipynb": "",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["", "exe", None, 7, ["png"], {"a": 1}, "../png"])
def test_a_file_of_no_kind_is_refused_in_words(finished, kind):
    _, ask = finished
    assert ask("take", kind=kind, page=0)["error"].startswith("There is no file “")


# Stopping.


def test_only_the_cells_that_are_named_are_stopped(start, device):
    device.hold()
    job, ask = start()
    assert ask("stop", cells=[1, 2]) == {}
    device.let_go()
    assert kinds(job) == ["Finished", "Cancelled", "Cancelled", "Finished"]


@pytest.mark.parametrize("cells", [[], [4, -1, 10**30], ["1"], [[1], {"a": 1}, None], "12", None, 1, {"1": 1}])
def test_cells_of_nobody_stop_nothing(start, device, cells):
    device.hold()
    job, ask = start()
    assert ask("stop", cells=cells) == ({} if isinstance(cells, list) else {"error": "“cells” must be a list of cells."})
    device.let_go()
    assert kinds(job) == ["Finished"] * 4


def test_a_key_stops_no_other_sheet(start, device):
    device.hold()
    job, _ = start()
    _, ask = start()
    ask("stop", cells=[0, 1, 2, 3])
    device.let_go()
    assert kinds(job) == ["Finished"] * 4


# Whatever is asked.

FORGOTTEN = {"error": "This sheet is not kept any more: press Compare again; its pictures are taken from the disk."}
OTHER_VERSION = {"error": "This page is of another version of Darkroom: reload it."}


@pytest.mark.parametrize("key", ["", None, "x", "ünï", "\ud800", 7, ["a"], {"a": 1}, "x" * 100_000])
def test_another_key_opens_nothing(finished, live, key):
    assert live.ask({"question": "sheet", "key": key}) == FORGOTTEN


def test_neither_a_jobs_id_nor_another_sheets_key_opens_this_one(finished, start, live):
    job, _ = finished
    other, ask = start(x="cfg: 3")
    ends(other)
    assert live.ask({"question": "sheet", "key": job.id}) == FORGOTTEN
    assert len(ask("sheet")["cells"]) == 2
    assert len({job.key, other.key}) == 2


@pytest.mark.parametrize("asked", [None, [], "frame", 7, {}, *({"question": question} for question in (None, "_frame", "", 7, [], {}))])
def test_what_is_no_question_is_told_so(live, asked):
    assert live.ask(asked) == OTHER_VERSION


def test_an_engine_that_closes_answers_in_words(finished, engine):
    _, ask = finished
    engine.close()
    closing = {"error": "Darkroom is closing and takes no more requests."}
    assert ask("film", at=1, longest=4, page=0) == ask("stop", cells=[0]) == closing
    assert len(ask("sheet")["cells"]) == 4


WRONG_NUMBERS = [None, "1", 1.0, math.nan, math.inf, True, [1], {"a": 1}, 10**7, -(10**7), 10**400]
WRONG_VOTES = [
    None, 7, "01", {"0": 1}, [7], ["01"], [[0]], [[0, 1, 2]], [[0, 0]], [[0, 4]], [[0, -1]], [[0, None]], [[0, "1"]], [[[0], 1]],
    [[0, math.nan]], [[0, 1.5]], [{"0": 1}], [[0, 1]] * 5000,
]  # fmt: skip
WRONG = {"votes": WRONG_VOTES, "skipped": WRONG_VOTES, "cells": [None, "0", 0, {"0": 1}], "kind": [None, 7, "", "exe", ["png"]]}
RIGHT: dict[str, Answer] = {
    "sheet": {}, "frame": {"seen": -1, "page": 0}, "film": {"at": 1, "longest": 4, "page": 0}, "look": {"cell": 0},
    "pair": {"a": 0, "b": 1}, "blind": {"votes": [], "skipped": []}, "ranking": {"votes": [[0, 1]]}, "stop": {"cells": [0]},
    "take": {"kind": "png", "page": 0},
}  # fmt: skip
MALFORMED = [
    (question, {**details, name: wrong})
    for question, details in RIGHT.items()
    for name in details
    for wrong in WRONG.get(name, WRONG_NUMBERS)
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks about a sheet that is finished, and of which nothing can be changed."""
    device = FakeDevice()
    with running(tmp_path_factory.mktemp("whole"), device) as engine:
        live, job = LiveSheet(engine, Takeaway(engine)), engine.submit(plan_of(engine))
        ends(job)
        yield lambda question, **details: live.ask({"question": question, "key": job.key, **details})


def test_the_right_questions_are_answered(whole):
    for question, details in RIGHT.items():
        assert "error" not in whole(question, **details), question


def test_a_malformed_question_is_answered_in_words(whole):
    for question, details in MALFORMED:
        assert_refused(whole(question, **details), question, details)
        for name in RIGHT[question]:
            assert_refused(whole(question, **{key: value for key, value in details.items() if key != name}), question, name)


def assert_refused(answer: Answer, *asked: Any) -> None:
    assert set(answer) == {"error"}, asked
    assert answer["error"].endswith("."), asked
    assert len(answer["error"]) < 200, asked


@pytest.mark.parametrize(("question", "name"), [("look", "cell"), ("pair", "a"), ("pair", "b")])
@pytest.mark.parametrize("cell", [4, -1, 999_999])
def test_a_cell_that_is_not_there_is_told_so(whole, question, name, cell):
    assert whole(question, **{**RIGHT[question], name: cell}) == {"error": "This cell is not part of the sheet any more."}


@pytest.mark.parametrize("details", [{"at": -5}, {"at": 10**6}, {"longest": 0}, {"longest": -7}, {"page": -1}, {"page": 10**6}])
def test_numbers_out_of_range_still_show_what_there_is(whole, details):
    assert set(whole("film", **{**RIGHT["film"], **details})) == {"sprite", "whole"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
QUESTIONS = st.sampled_from([*RIGHT, "", "take it"])
DETAILS = st.dictionaries(st.sampled_from(["seen", "page", "at", "longest", "cell", "a", "b", "votes", "skipped", "cells"]), ANYTHING)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(question=QUESTIONS, details=DETAILS)
def test_no_question_at_all_raises(whole, question, details):
    answer = whole(question, **details)
    assert isinstance(answer, dict)
    json.dumps(answer, allow_nan=False)

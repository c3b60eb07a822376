from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import OutOfMemory
from engine.pictures.made import Made
from engine.pictures.metadata import read_picture
from engine.recipes.plan import Cell, Grid, Plan
from engine.recipes.recipe import MAX_PROMPT, Recipe, make_recipe
from engine.running.engine import Engine
from engine.sheets.film import animation
from engine.sheets.sheet import sheet_image
from engine.sheets.takeaway import LONGEST_NAME, cells_zip, sheet_file, sheet_png
from tests.engine.recipes.offer import OFFER
from tests.engine.sheets.contents import LABELLED, examples, labelled, made_of, page, plan_of
from tests.engine.sheets.frames import frames_of
from tests.fake_device import FakeDevice

HOSTILE = "=cmd|' /C calc'!A0"


def archive_of(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str] = {}) -> zipfile.ZipFile:
    target = io.BytesIO()
    cells_zip(plan, made, target, messages)
    return zipfile.ZipFile(target)


def table_of(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(archive.read("recipes.csv").decode("utf-8-sig"), newline="")))


def records_of(archive: zipfile.ZipFile) -> list[dict]:
    return json.loads(archive.read("recipes.json"))


def pictures_in(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".png") and name != "sheet.png"]


# The sheet.


def test_a_sheet_shows_each_picture_at_its_place_and_carries_its_grid(tmp_path: Path) -> None:
    plan = plan_of("seed: 1, 2", "cfg: 4, 8")
    colours = ["#ff0000", "#00ff00", "#0000ff", "#ffff00"]
    file = tmp_path / "sheet.png"
    file.write_bytes(sheet_file(plan, made_of(plan, lambda cell: colours[cell.index])))
    assert read_picture(file).grid == plan.grid
    with Image.open(file) as sheet:
        pixels = sheet.load()
        places = {colour: next((x, y) for y in range(sheet.height) for x in range(sheet.width) if pixels[x, y] == colour_rgb)
                  for colour, colour_rgb in zip(colours, [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], strict=True)}  # fmt: skip
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = places.values()
    assert (y1, y3, x1, x2) == (y2, y4, x3, x4)
    assert x1 < x2
    assert y1 < y3


def test_the_png_carries_the_texts_and_the_pixels() -> None:
    texts = {"parameters": "a fox, é 🦊\nSteps: 20", "darkroom-grid": "{}", "broken": "a\ud800b"}
    with Image.open(io.BytesIO(sheet_png(LABELLED, texts))) as image:
        assert image.convert("RGB").tobytes() == LABELLED.tobytes()
        assert image.text == texts | {"broken": "a?b"}


def test_the_same_sheet_has_the_same_bytes() -> None:
    assert sheet_png(labelled(page(3, 3)), {"a": "b"}) == sheet_png(labelled(page(3, 3)), {"a": "b"})


# The archive.


def test_an_archive_holds_every_file_as_it_is_on_disk(engine: Engine, tmp_path: Path) -> None:
    plan = plan_of()
    made = {index: end.made for index, end in engine.submit(plan).wait().items()}
    file = tmp_path / "cells.zip"
    cells_zip(plan, made, file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        places = [("x1-y1", 1, 4), ("x2-y1", 2, 4), ("x3-y1", 3, 4), ("x1-y2", 1, 8), ("x2-y2", 2, 8), ("x3-y2", 3, 8)]
        assert pictures_in(archive) == [f"{place} Seed {seed}, CFG scale {scale}.png" for place, seed, scale in places]
        assert [archive.read(name) for name in pictures_in(archive)] == [made[index].path.read_bytes() for index in range(6)]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("sheet.png") == sheet_file(plan, made)
        assert Grid.model_validate(json.loads(archive.read("grid.json"))) == plan.grid


def test_pictures_that_could_not_be_saved_are_there_with_their_settings(tmp_path: Path) -> None:
    plan = plan_of("seed: 1, 2", "")
    archive = archive_of(plan, made_of(plan))
    for name, cell in zip(pictures_in(archive), plan.cells, strict=True):
        (tmp_path / "one.png").write_bytes(archive.read(name))
        assert make_recipe(**read_picture(tmp_path / "one.png").settings) == cell.recipe


def test_the_tables_tell_all_of_every_cell(engine: Engine, device: FakeDevice) -> None:
    device.step_errors[3] = (2, OutOfMemory("There is no room for this picture."))
    plan = plan_of(style=OFFER.styles[0], negative_prompt="text, blur")
    job = engine.submit(plan)
    job.wait()
    archive = archive_of(plan, job.made(), job.failures())
    rows, records = table_of(archive), records_of(archive)
    assert [row["place"] for row in rows] == ["x1-y1", "x2-y1", "x3-y1", "x1-y2", "x2-y2", "x3-y2"]
    for cell, row, record in zip(plan.cells, rows, records, strict=True):
        assert (row["Seed"], row["CFG scale"]) == (str(cell.recipe.seed), f"{cell.recipe.guidance_scale:g}")
        assert (row["seed"], row["style"], row["negative_prompt"]) == (str(cell.recipe.seed), OFFER.styles[0].name, "text, blur")
        assert set(Recipe.model_fields) < row.keys()
        assert (Recipe.model_validate(record["recipe"]), tuple(record["place"])) == (cell.recipe, cell.place)
        assert record["values"] == plan.values_at(cell.place)
        if cell.recipe.seed == 3:
            assert (row["file"], row["seconds"], row["note"]) == ("", "", "There is no room for this picture.")
            assert (record["file"], record["provenance"]) == ("", None)
            continue
        with Image.open(io.BytesIO(archive.read(row["file"]))) as picture:
            assert hashlib.sha256(picture.tobytes()).hexdigest() == row["sha256"] == record["sha256"]
        assert float(row["seconds"]) == record["provenance"]["seconds"]
        assert record["provenance"]["versions"] == {"darkroom": "test"}


def test_a_cell_that_was_not_made_says_so() -> None:
    plan = plan_of()
    assert [row["note"] for row in table_of(archive_of(plan, {}))] == ["not made"] * 6


@pytest.mark.parametrize("text", [HOSTILE, "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", '=HYPERLINK("x";"y")'])
def test_no_text_is_taken_for_a_formula(text: str) -> None:
    plan = plan_of("replace: " + '"{}"'.format(text.replace('"', '""')), "", prompt=text, negative_prompt=text)
    [row] = table_of(archive_of(plan, made_of(plan)))
    assert (row["prompt"], row["negative_prompt"], row["Prompt S/R"]) == ("'" + text, "'" + text, row["Prompt S/R"])
    assert not any(value.startswith(tuple("=+-@\t\r\n＝")) for value in [*row, *row.values()])
    [record] = records_of(archive_of(plan, made_of(plan)))
    assert record["recipe"]["prompt"] == text


def test_every_value_stands_in_quotes_so_that_no_separator_of_another_country_splits_it() -> None:
    plan = plan_of("seed: 1", "", prompt="a;=1+1")
    assert '"a;=1+1"' in archive_of(plan, {}).read("recipes.csv").decode("utf-8-sig")


def test_two_axes_of_one_title_have_a_column_each() -> None:
    [row] = table_of(archive_of(plan_of("replace: red", "replace: cat"), {}))
    assert (row["Prompt S/R (X)"], row["Prompt S/R (Y)"]) == ("red", "cat")


HARD_NAMES = [
    "../../etc/passwd", "C:\\windows", "a/b", "con", "x" * MAX_PROMPT, "🦊" * 900, "\u202egnp.exe", "a\0b", "a\u2028b", "dots...",
    'q"|?*<>:',
]  # fmt: skip
labels = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.sampled_from(HARD_NAMES)


@examples
@given(texts=st.lists(labels, min_size=2, max_size=4, unique=True))
def test_names_in_an_archive_are_safe_short_and_unique(texts: list[str]) -> None:
    cells = tuple(Cell(index, Recipe(width=32, height=32), (index, 0, 0)) for index in range(len(texts)))
    plan = Plan(cells, grid=Grid(recipe=Recipe(width=32, height=32)), labels=(tuple(texts), ("",), ("",)), titles=("Prompt", "", ""))
    names = pictures_in(archive_of(plan, made_of(plan)))
    assert len({name.casefold() for name in names}) == len(texts)
    for name in names:
        assert len(name.encode()) <= LONGEST_NAME
        assert PurePosixPath(name).name == PureWindowsPath(name).name == name
        assert name.isprintable()
        assert not set(name) & set('<>:"|?*')
        assert name.endswith(".png")
        assert not name.removesuffix(".png").endswith((" ", "."))


def test_pictures_deleted_by_hand_cost_only_their_cells(engine: Engine, tmp_path: Path) -> None:
    plan = plan_of()
    made = {index: end.made for index, end in engine.submit(plan).wait().items()}
    whole = sheet_image(plan, made)
    made[0].path.unlink()
    assert sheet_image(plan, made).size == whole.size
    assert len(list(frames_of(animation(plan, made, lambda steps: {})))) >= 1
    archive = archive_of(plan, made)
    assert len(pictures_in(archive)) == 5
    assert [(row["file"] == "", row["note"]) for row in table_of(archive)] == [(True, "its file is gone"), *[(False, "")] * 5]

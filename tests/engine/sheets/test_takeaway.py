from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InvalidRequest, OutOfMemory
from engine.pictures.made import Made, Provenance
from engine.pictures.metadata import read_picture
from engine.pictures.outputs import open_picture
from engine.recipes.plan import AxisLine, Cell, Grid, Plan, plan_grid
from engine.recipes.recipe import MAX_PROMPT, Recipe, make_recipe
from engine.running.engine import Engine
from engine.sheets.sheet import ANIMATION_PIXELS, MAX_PIXELS
from engine.sheets.takeaway import FRAMES, LONGEST_NAME, animation, cells_zip, missing_letters, sheet_file, sheet_image
from tests.engine.recipes.offer import OFFER
from tests.engine.sheets.frames import frames_of
from tests.fake_device import FakeDevice, fake_engine

HOSTILE = "=cmd|' /C calc'!A0"
PROVENANCE = Provenance("rev", "cpu", "float32", 2, False, 4, 4, 1.5)
examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def plan_of(x: str = "seed: 1, 2, 3", y: str = "cfg: 4, 8", z: str = "", **recipe: object) -> Plan:
    parts = {at: text.partition(": ") for at, text in {"x": x, "y": y, "z": z}.items() if text}
    lines = {at: AxisLine(axis=axis, values=values) for at, (axis, _, values) in parts.items()}
    given = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 4, **recipe}
    return plan_grid(Grid(recipe=make_recipe(**given), **lines), OFFER)


def made_of(plan: Plan, colour: Callable[[Cell], str] = lambda cell: "red", facts: Provenance = PROVENANCE) -> dict[int, Made]:
    """Pictures as if none of them could be saved."""
    images = {cell.index: Image.new("RGB", (cell.recipe.width, cell.recipe.height), colour(cell)) for cell in plan.cells}
    return {cell.index: Made(cell.recipe, facts, "0" * 64, None, images[cell.index], "no disk") for cell in plan.cells}


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(tmp_path: Path, device: FakeDevice) -> Iterator[Engine]:
    with fake_engine(tmp_path, device=device) as engine:
        yield engine


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


# ---- the sheet


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


def test_a_sheet_is_the_same_wherever_its_pictures_were_made(engine: Engine) -> None:
    plan = plan_of()
    made = engine.submit(plan).wait()
    pictures = {index: end.made for index, end in made.items()}
    unsaved = {index: replace(one, path=None, pixels=open_picture(one)) for index, one in pictures.items()}
    assert sheet_image(plan, pictures).tobytes() == sheet_image(plan, unsaved).tobytes()


def test_a_z_axis_makes_pages_one_below_the_other() -> None:
    one, two = plan_of("seed: 1, 2", ""), plan_of("seed: 1, 2", "", "cfg: 4, 8")
    first, second = sheet_image(one, made_of(one)), sheet_image(two, made_of(two))
    assert first.width == second.width
    assert second.height > 1.7 * first.height


def said(plan: Plan, made: Mapping[int, Made], messages: Mapping[int, str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """What is handed to be drawn."""
    seen = {}

    def draw(columns, rows, pages, **words):
        seen.update(words, columns=columns, rows=rows, titles=[page.title for page in pages], pages=pages)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("engine.sheets.takeaway.draw_sheet", draw)
    sheet_image(plan, made, messages)
    return seen


@pytest.mark.parametrize(
    ("axes", "recipe", "line"),
    [
        ({"x": "seed: 1", "y": ""}, {"scheduler": "Euler"}, "starter, 4 steps, Euler, CFG scale 7, 64x64"),
        ({"x": "steps: 4, 8", "y": "scheduler: Euler"}, {"seed": 3, "clip_skip": 2}, "starter, seed 3, CFG scale 7, 64x64, CLIP skip 2"),
        ({"x": "width: 64, 96", "y": "cfg: 3"}, {"seed": 3, "scheduler": "Euler"}, "starter, seed 3, 4 steps, Euler, height 64"),
        ({"x": "size: 64, 96", "y": "clip_skip: 2"}, {"scheduler": "Euler"}, "starter, seed 0, 4 steps, Euler, CFG scale 7"),
    ],
)
def test_a_sheet_is_headed_by_what_no_axis_varies(axes, recipe, line, monkeypatch) -> None:
    plan = plan_of(**axes, **recipe)
    seen = said(plan, {}, {}, monkeypatch)
    assert (seen["heading"], seen["details"]) == ("a red cat", [line])


def test_letters_that_are_boxes_in_the_sheet_are_told(monkeypatch) -> None:
    monkeypatch.setattr("engine.sheets.takeaway.missing_scripts", lambda texts: sorted({text for text in texts if "แมว" in text}))
    assert missing_letters(plan_of()) == ""
    told = missing_letters(plan_of(x="prompt: แมว || a cat", negative_prompt="ไม่ใช่แมว"))
    assert told.startswith("The sheet's words need letters (แมว, ไม่ใช่แมว) that no font on this machine has")


def test_a_sheet_says_the_negative_prompt_that_its_cells_share(monkeypatch) -> None:
    seen = said(plan_of(negative_prompt="blurry, text"), {}, {}, monkeypatch)
    assert (seen["heading"], seen["details"][0]) == ("a red cat", "Negative prompt: blurry, text")
    varied = said(plan_of(x="negative: blurry, text", negative_prompt="red"), {}, {}, monkeypatch)
    assert len(varied["details"]) == 1


def test_axes_and_pages_are_named(monkeypatch) -> None:
    seen = said(plan_of(z="scheduler: Euler, Heun"), {}, {}, monkeypatch)
    assert (seen["x_title"], seen["y_title"], seen["titles"]) == ("Seed", "CFG scale", ["Scheduler: Euler", "Scheduler: Heun"])
    assert said(plan_of(), {}, {}, monkeypatch)["titles"] == [""]


def test_what_is_not_as_it_should_be_is_noted_in_its_cell(tmp_path, monkeypatch) -> None:
    plan = plan_of("seed: 1, 2, 3, 4, 5", "")
    made = made_of(plan)
    made[1] = replace(made[1], provenance=replace(PROVENANCE, step=3, total=4))
    made[2] = replace(made[2], path=tmp_path / "gone.png", pixels=None)
    del made[3], made[4]
    tiles = said(plan, made, {3: "There is no room for this picture."}, monkeypatch)["pages"][0].tiles
    assert [(tiles[x, 0].note, tiles[x, 0].image is not None) for x in range(5)] == [
        ("", True), ("unfinished, 3 of 4", True), ("its file is gone", False), ("There is no room for this picture.", False), ("", False),
    ]  # fmt: skip
    assert {tile.size for tile in tiles.values()} == {(64, 64)}


def test_large_pictures_are_held_no_larger_than_the_sheet_shows_them(monkeypatch) -> None:
    plan = plan_of("seed: 1-100", "", width=1024, height=1024)
    one = Image.new("RGB", (1024, 1024))
    made = {cell.index: Made(cell.recipe, PROVENANCE, "", None, one) for cell in plan.cells}
    tiles = said(plan, made, {}, monkeypatch)["pages"][0].tiles.values()
    assert sum(tile.image.width * tile.image.height for tile in tiles) <= 1.01 * MAX_PIXELS
    assert {tile.size for tile in tiles} == {(1024, 1024)}
    assert one.size == (1024, 1024)


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


# ---- the archive


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


# ---- the animation


def recorded(plan: Plan, made: Mapping[int, Made], kept: Callable[[int], bool] = lambda index: True) -> tuple[list[dict[int, int]], bytes]:
    """The steps that were looked at, and the animation."""
    asked: list[dict[int, int]] = []

    def look(steps: Mapping[int, int]) -> dict[int, Image.Image]:
        asked.append(dict(steps))
        return {index: Image.new("RGB", (8, 8), "blue") for index in steps if kept(index)}

    return asked, animation(plan, made, look)


def test_every_step_of_a_short_run_is_shown_and_the_pictures_last() -> None:
    plan = plan_of("seed: 1, 2", "")
    asked, content = recorded(plan, made_of(plan))
    frames = list(frames_of(content))
    assert [steps[0] for steps in asked] == [1, 2, 3]
    assert len(frames) == 2, "three equal frames in blue are one, then the pictures"
    middle = frames[0][0].size[0] // 4, frames[0][0].size[1] * 2 // 3
    assert [max(range(3), key=frame.getpixel(middle).__getitem__) for frame, _ in frames] == [2, 0]
    assert frames[-1][1] > 1000


def test_cells_are_at_the_same_part_of_their_ways() -> None:
    plan = plan_of("steps: 10, 40", "")
    made = {cell.index: replace(one, provenance=replace(PROVENANCE, step=cell.recipe.steps, total=cell.recipe.steps))
            for cell, one in zip(plan.cells, made_of(plan).values(), strict=True)}  # fmt: skip
    made[1] = replace(made[1], provenance=replace(made[1].provenance, step=20))
    asked, _ = recorded(plan, made)
    assert len(asked) == FRAMES - 1
    assert [steps[0] for steps in asked] == [max(1, round(10 * part / FRAMES)) for part in range(1, FRAMES)]
    assert [steps[1] for steps in asked] == [min(20, round(40 * part / FRAMES)) for part in range(1, FRAMES)]


def test_cells_whose_steps_are_not_kept_show_their_picture_throughout() -> None:
    plan = plan_of("seed: 1, 2", "")
    _, content = recorded(plan, made_of(plan), kept=lambda index: index == 0)
    (first, _), (last, _) = frames_of(content)
    width, height = first.size
    left, right = (width // 4, height * 2 // 3), (width * 3 // 4, height * 2 // 3)
    assert [max(range(3), key=frame.getpixel(at).__getitem__) for frame in (first, last) for at in (left, right)] == [2, 0, 0, 0]


def test_the_engine_is_asked_for_the_steps(engine: Engine, device: FakeDevice) -> None:
    plan = plan_of(steps=6)
    job = engine.submit(plan)
    job.wait()
    before = len(device.calls("preview"))
    frames = [frame for frame, _ in frames_of(animation(plan, job.made(), partial(engine.frames, job)))]
    assert len(frames) == 6
    assert {(index, step) for (_, index), _, step in device.calls("preview")[before:]} == {(i, s) for i in range(6) for s in range(1, 6)}


def test_an_animation_is_of_one_page_only() -> None:
    plan = plan_of("seed: 1, 2", "", "cfg: 4, 8")
    asked: list[int] = []
    animation(plan, made_of(plan), lambda steps: asked.extend(steps) or {}, page=1)
    assert set(asked) == {2, 3}


def test_a_page_without_pictures_has_no_animation() -> None:
    plan = plan_of("seed: 1, 2", "", "cfg: 4, 8")
    made = {0: made_of(plan)[0]}
    with pytest.raises(InvalidRequest, match="no picture on this page yet"):
        animation(plan, made, lambda steps: {}, page=1)


def test_a_large_grid_is_drawn_no_larger_than_its_animation(monkeypatch) -> None:
    plan = plan_of("seed: 1-10", "cfg: 1-10", width=512, height=512, steps=30)
    one = Image.new("RGB", (512, 512))
    made = {cell.index: Made(cell.recipe, replace(PROVENANCE, step=30, total=30), "", None, one) for cell in plan.cells}
    sizes = []
    monkeypatch.setattr("engine.sheets.takeaway.animate", lambda frames, seconds: sizes.extend(frame.size for frame in frames) or b"")
    animation(plan, made, lambda steps: {})
    assert len(set(sizes)) == 1
    assert sum(width * height for width, height in sizes) < 1.5 * ANIMATION_PIXELS

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from PIL import Image

from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import Plan
from engine.running.engine import Engine
from engine.sheets.layout import MAX_PIXELS
from engine.sheets.sheet import missing_letters, sheet_image
from tests.engine.sheets.contents import PROVENANCE, made_of, plan_of


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

    monkeypatch.setattr("engine.sheets.sheet.draw_sheet", draw)
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
    monkeypatch.setattr("engine.sheets.sheet.missing_scripts", lambda texts: sorted({text for text in texts if "แมว" in text}))
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

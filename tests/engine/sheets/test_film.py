from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image, ImageChops, ImageStat

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.recipes.plan import Plan
from engine.running.engine import Engine
from engine.sheets import film
from engine.sheets.film import ANIMATION_PIXELS, FRAMES, animate, animation
from engine.sheets.layout import Page
from tests.engine.sheets.contents import COLOURS, LABELLED, PROVENANCE, flat, labelled, made_of, page, plan_of
from tests.engine.sheets.frames import frames_of
from tests.fake_device import FakeDevice

# A sheet that develops.


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
    monkeypatch.setattr("engine.sheets.film.animate", lambda frames, seconds: sizes.extend(frame.size for frame in frames) or b"")
    animation(plan, made, lambda steps: {})
    assert len(set(sizes)) == 1
    assert sum(width * height for width, height in sizes) < 1.5 * ANIMATION_PIXELS


# Frames, whatever they show.


def test_an_animation_shows_each_frame_and_holds_the_last() -> None:
    content = animate([flat(colour, 40, 30) for colour in COLOURS[:3]], 0.25, hold=1)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size, image.n_frames, image.info["loop"]) == ("WEBP", (40, 30), 3, 0)
    frames = list(frames_of(content))
    assert [duration for _, duration in frames] == [250, 250, 1250]
    for (frame, _), colour in zip(frames, COLOURS, strict=False):
        assert max(ImageStat.Stat(ImageChops.difference(frame, flat(colour, 40, 30))).mean) < 4


def test_flat_pictures_and_labels_look_clean_in_an_animation() -> None:
    sheets = [labelled(Page("", {})), LABELLED]
    for (frame, _), sheet in zip(frames_of(animate(sheets, 0.1)), sheets, strict=True):
        assert max(ImageStat.Stat(ImageChops.difference(frame, sheet)).mean) < 2


def test_one_frame_is_enough() -> None:
    with Image.open(io.BytesIO(animate([flat("#ff0000")], 0.1))) as image:
        assert image.size == (64, 64)


def test_an_animation_beyond_the_limits_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "ANIMATION_PIXELS", 10_000)
    with Image.open(io.BytesIO(animate([flat(colour, 200, 100) for colour in COLOURS[:2]], 0.1))) as image:
        assert image.size == (100, 50)
    monkeypatch.setattr(film, "ANIMATION_PIXELS", ANIMATION_PIXELS)
    with Image.open(io.BytesIO(animate([flat(colour, 20_000, 10) for colour in COLOURS[:2]], 0.1))) as image:
        assert image.size == (16_383, 8)


@pytest.mark.parametrize(
    ("frames", "seconds", "hold"),
    [([], 0.1, 1), ([(8, 8), (8, 9)], 0.1, 1), ([(8, 8)], 0, 1), ([(8, 8)], -1, 1), ([(8, 8)], float("nan"), 1), ([(8, 8)], 0.1, -1)],
)
def test_what_is_no_animation_is_refused(frames: list[tuple[int, int]], seconds: float, hold: float) -> None:
    with pytest.raises(ValueError, match=r"frame"):
        animate([flat("#ff0000", *size) for size in frames], seconds, hold)


def test_the_same_sheets_make_the_same_bytes() -> None:
    again = labelled(page(3, 3))
    assert animate([again, LABELLED], 0.1) == animate([LABELLED, again], 0.1)

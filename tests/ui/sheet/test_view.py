"""The fold from a job's events to what the page shows."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from engine.pictures.made import Made, Provenance
from engine.pictures.metadata import read_picture
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.events import Cancelled, Developing, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.job import Job
from tests.ui.data_uri import picture_of
from ui.sheet.view import CellView, JobView, counted, image_uri, picture_src, standing_view

SMALL = Image.new("RGB", (16, 8), (200, 30, 60))


def recipe(**changes: object) -> Recipe:
    return Recipe(**{"prompt": "an owl", "seed": 7, "steps": 4, "width": 64, "height": 64, **changes})


def made(step: int = 4, *, path: Path | None = None, seconds: float = 1.25, **changes: object) -> Made:
    provenance = Provenance("revision", "cpu", "float32", 1, False, step, 4, seconds)
    return Made(recipe(**changes), provenance, hashlib.sha256(SMALL.tobytes()).hexdigest(), path, None if path else SMALL)


def job_after(events: Iterable[Event], count: int = 1) -> Job:
    job = Job(Plan(tuple(Cell(i, recipe(seed=7 + i)) for i in range(count))))
    for event in events:
        job.publish(event)
    return job


def after(events: Iterable[Event], count: int = 1) -> JobView:
    job = job_after(events, count)
    return replace(standing_view(job, job.standing()), seconds=0.0)  # the images' own times count: ours are of this machine


# States.


def src(cell: CellView) -> str:
    """What a page shows of a cell."""
    return picture_src(cell.made) if cell.made else image_uri(cell.preview) if cell.preview else ""


def test_a_job_begins_with_every_image_waiting() -> None:
    view = after([], 3)
    assert [(cell.index, cell.state, cell.recipe.seed, src(cell)) for cell in view.cells] == [
        (0, "waiting", 7, ""), (1, "waiting", 8, ""), (2, "waiting", 9, ""),
    ]  # fmt: skip
    assert (view.status, view.part, view.ended) == ("Starting ...", 0.0, False)


def test_a_preview_makes_an_image_develop() -> None:
    cell = after([Queued(0, 0), Preview(0, 2, 4, SMALL, "linear", 0.5)]).cells[0]
    assert (cell.state, cell.step, cell.total, cell.elapsed, cell.ended) == ("developing", 2, 4, 0.5, False)
    assert picture_of(src(cell)).size == SMALL.size


def test_a_preview_without_a_picture_keeps_the_last_one() -> None:
    events = [Preview(0, 1, 4, SMALL, "linear", 0.1), Preview(0, 2, 4, None, "", 0.2)]
    first, second = after(events[:1]).cells[0], after(events).cells[0]
    assert src(second) == src(first) != ""
    assert second.step == 2


def test_a_finished_image_shows_its_file(tmp_path: Path) -> None:
    picture = made(path=tmp_path / "owl.png")
    view = after([Preview(0, 4, 4, SMALL), Finished(0, picture)])
    assert (view.cells[0].state, view.cells[0].made, view.ended, view.part) == ("finished", picture, True, 1.0)
    assert src(view.cells[0]).startswith("gradio_api/file=")


def test_a_stopped_image_shows_what_it_had_become(tmp_path: Path) -> None:
    picture = made(2, path=tmp_path / "owl.png")
    cell = after([Preview(0, 2, 4, SMALL), Cancelled(0, 2, 4, picture)]).cells[0]
    assert (cell.state, cell.step, cell.total, cell.made) == ("stopped", 2, 4, picture)
    assert src(cell).endswith("owl.png")


def test_an_image_stopped_before_it_began_shows_nothing() -> None:
    cell = after([Queued(0, 3), Cancelled(0, 0, 0)]).cells[0]
    assert (cell.state, src(cell), cell.made) == ("stopped", "", None)


def test_a_failed_image_shows_the_sentence_and_no_picture() -> None:
    cell = after([Preview(0, 2, 4, SMALL), Failed(0, "The device ran out of memory.", "Traceback ...")]).cells[0]
    assert (cell.state, src(cell), cell.message, cell.ended) == ("failed", "", "The device ran out of memory.", True)


def test_an_event_changes_its_own_image_only() -> None:
    view = after([Preview(1, 1, 4, SMALL)], count=3)
    assert [cell.state for cell in view.cells] == ["waiting", "developing", "waiting"]


# The status line.


@pytest.mark.parametrize(
    ("ahead", "line"), [(0, "Starting ..."), (1, "Waiting: 1 picture before yours."), (5, "Waiting: 5 pictures before yours.")]
)
def test_waiting_says_how_many_come_before(ahead: int, line: str) -> None:
    assert after([Queued(0, ahead)]).status == line


def test_the_first_image_tells_how_long_a_job_waits() -> None:
    assert after([Queued(0, 2), Queued(1, 3)], count=2).status == "Waiting: 2 pictures before yours."


@pytest.mark.parametrize(
    ("step", "total", "elapsed", "line"),
    [
        (5, 20, 2.0, "step 5 of 20 · 2.5 steps/s · 6.0 s left"),
        (1, 20, 1.0, "step 1 of 20 · 1.0 steps/s · 19 s left"),
        (1, 150, 1.0, "step 1 of 150 · 1.0 steps/s · 2 min 29 s left"),
        (20, 20, 4.0, "step 20 of 20 · 5.0 steps/s · 0.0 s left"),
    ],
)
def test_progress_in_measured_numbers(step: int, total: int, elapsed: float, line: str) -> None:
    assert after([Preview(0, step, total, elapsed=elapsed)]).status == line


def test_progress_without_a_measurement_yet_does_not_divide_by_zero() -> None:
    assert after([Preview(0, 1, 4, elapsed=0.0)]).status == "step 1 of 4 · 0.0 steps/s · 0.0 s left"


def test_progress_of_several_images_counts_all_their_steps() -> None:
    events = [Preview(0, 4, 4, elapsed=1.0), Finished(0, made()), Preview(1, 2, 4, elapsed=2.0)]
    view = after(events, count=3)
    assert view.status == "1 of 3 pictures, step 6 of 12 · 3.0 steps/s · 2.0 s left"
    assert view.part == pytest.approx(0.5)


def test_the_part_done_never_goes_down() -> None:
    events = [
        Queued(0, 0), Queued(1, 1), Preview(0, 1, 4), Preview(1, 1, 4), Preview(0, 2, 4), Cancelled(0, 2, 4, made(2)),
        Preview(1, 4, 4), Finished(1, made()),
    ]  # fmt: skip
    parts = [after(events[:count], count=2).part for count in range(len(events) + 1)]
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (Finished(0, made(seconds=1.25, seed=99)), "4 steps in 1.2 s on cpu, seed 99"),
        (Cancelled(0, 2, 4, made(2)), "Stopped after step 2 of 4."),
        (Cancelled(0, 0, 0), "Stopped before it began."),
        (Failed(0, "Out of memory."), ""),
    ],
)
def test_one_image_sums_itself_up(end: Event, line: str) -> None:
    view = after([end])
    assert view.ended
    assert view.status == line


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ([Finished(0, made()), Finished(1, made())], "2 finished of 2 pictures"),
        ([Finished(0, made()), Cancelled(1, 1, 4, made(1)), Failed(2, "No.")], "1 finished, 1 stopped, 1 failed of 3 pictures"),
        ([Failed(0, "No."), Failed(1, "No.")], "2 failed of 2 pictures"),
    ],
)
def test_several_images_sum_themselves_up(ends: list[Event], line: str) -> None:
    assert after(ends, count=len(ends)).status == line


@pytest.mark.parametrize("end", [Cancelled(0, 1, 4, made(1)), Cancelled(0, 0, 0), Failed(0, "No.")])
def test_the_time_left_is_that_of_the_images_still_under_way(end: Event) -> None:
    view = after([Preview(0, 1, 4, elapsed=1.0), end, Preview(1, 3, 4, elapsed=1.0)], count=2)
    rate, left = view.status.split(" · ")[1:]
    assert float(left.split()[0]) == pytest.approx(1 / float(rate.split()[0]), abs=0.06)  # shown with one digit


# Notices.


def test_each_notice_is_kept_once_in_order() -> None:
    view = after([Notice("Words were cut."), Notice("Not saved.", cell=0), Notice("Words were cut.", cell=0)])
    assert view.notices == ("Words were cut.", "Not saved.")


def test_notices_survive_the_end() -> None:
    assert after([Notice("Words were cut."), Finished(0, made())]).notices == ("Words were cut.",)


def test_loading_with_known_progress_is_the_status_and_the_part() -> None:
    view = after([Notice("Downloading: 1 of 4 GB", progress=0.25)])
    assert (view.status, view.part, view.notices) == ("Downloading: 1 of 4 GB", 0.25, ())


def test_loading_with_unknown_progress_counts_as_nothing_done() -> None:
    view = after([Notice("Loading ...", progress=-1.0)])
    assert (view.status, view.part, view.loaded_part) == ("Loading ...", 0.0, -1.0)


def test_a_later_loading_notice_takes_the_place_of_the_earlier() -> None:
    view = after([Notice("Downloading: 1 of 4 GB", progress=0.25), Notice("Loading ...", progress=-1.0)])
    assert (view.status, view.loaded_part) == ("Loading ...", -1.0)


@pytest.mark.parametrize("event", [Preview(0, 1, 4, elapsed=1.0), Finished(0, made()), Cancelled(0, 0, 0), Failed(0, "No.")])
def test_loading_ends_with_the_first_word_of_an_image(event: Event) -> None:
    view = after([Notice("Loading ...", progress=-1.0), event])
    assert view.loading == ""
    assert "Loading" not in view.status


@pytest.mark.parametrize("event", [Queued(0, 2), Notice("Words were cut.")])
def test_loading_goes_on_while_images_still_wait(event: Event) -> None:
    assert after([Notice("Loading ...", progress=0.5), event]).status == "Loading ..."


# Where a job stands, all at once.


def test_a_standing_waits_for_as_many_as_its_next_cell() -> None:
    job = job_after([Queued(0, 2), Queued(1, 3)], count=2)
    assert standing_view(job, job.standing()).status == "Waiting: 2 pictures before yours."


@pytest.mark.parametrize(("progress", "part"), [(0.25, 0.25), (-1.0, 0.0)])
def test_a_standing_tells_of_a_load_while_it_lasts(progress: float, part: float) -> None:
    job = job_after([Notice("Loading ...", progress=progress)])
    shown = standing_view(job, job.standing())
    assert (shown.status, shown.loaded_part, shown.part) == ("Loading ...", progress, part)
    job.publish(Preview(0, 1, 4))
    assert standing_view(job, job.standing()).loading == ""


def test_a_pace_is_measured_from_the_first_picture_and_not_by_the_slowest() -> None:
    cells = after([Preview(0, 2, 4, elapsed=1.0), Preview(1, 2, 4, elapsed=1.0)], count=2).cells
    assert JobView(cells, seconds=2.0).status == "0 of 2 pictures, step 4 of 8 · 2.0 steps/s · 2.0 s left"
    assert JobView(cells).status == "0 of 2 pictures, step 4 of 8 · 4.0 steps/s · 1.0 s left"


# Words.


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (1280, "1,280 rows")])
def test_counted_things(count: int, text: str) -> None:
    assert counted(count, "row") == text


# Pictures.



@pytest.mark.parametrize(("size", "kind"), [((64, 64), "PNG"), ((128, 128), "PNG"), ((136, 128), "JPEG"), ((512, 512), "JPEG")])
def test_small_previews_are_lossless_and_large_ones_small(size: tuple[int, int], kind: str) -> None:
    original = Image.effect_noise(size, 60).convert("RGB")
    uri = image_uri(original)
    shown = picture_of(uri)
    assert (shown.format, shown.size) == (kind, size)
    if kind == "PNG":
        assert shown.tobytes() == original.tobytes()
    else:
        assert len(uri) < size[0] * size[1] * 3 / 2


@pytest.mark.parametrize("name", ["owl.png", "a b.png", "50% #1?.png", "ünï.png", '"quoted".png', "a&b='c'.png"])
def test_a_saved_picture_is_found_by_its_file(tmp_path: Path, name: str) -> None:
    src = picture_src(made(path=tmp_path / name))
    prefix, _, address = src.partition("=")
    assert prefix == "gradio_api/file"
    assert unquote(address) == str(tmp_path / name)
    assert not set(address) & set(" #?\"'<>&$\\")
    assert address.isascii()


def test_an_unsaved_picture_comes_inline_with_its_settings(tmp_path: Path) -> None:
    picture = replace(made(prompt="an owl, “ünï”", seed=123), unsaved="The disk is full.")
    src = picture_src(picture)
    shown = picture_of(src)
    assert (shown.format, shown.tobytes()) == ("PNG", SMALL.tobytes())
    file = tmp_path / "saved-by-hand.png"
    file.write_bytes(base64.b64decode(src.partition(",")[2]))
    assert read_picture(file).settings == dict(picture.recipe)


def test_three_states_are_ends() -> None:
    states = ["waiting", "developing", "finished", "stopped", "failed"]
    assert [state for state in states if CellView(0, recipe(), state).ended] == ["finished", "stopped", "failed"]


def test_pictures_from_the_disk_took_no_time() -> None:
    """50 steps/s are what the two cells that were made here show, not the 58 that were there already."""
    job = Job(Plan(tuple(Cell(index, recipe(seed=index)) for index in range(60))))
    for cell in range(58):
        job.publish(Finished(cell, made(20), reused=True))
    for cell in (58, 59):
        job.publish(Preview(cell, 5, 20, elapsed=0.2))
    view = replace(standing_view(job, job.standing()), seconds=0.2)
    assert view.status == "58 of 60 pictures, step 10 of 40 · 50.0 steps/s · 0.6 s left"


# The time between the last step and the picture.


@pytest.mark.parametrize(
    ("events", "count", "status"),
    [
        ([Preview(0, 4, 4), Developing(0, 4, 4)], 1, "Developing the picture ..."),
        ([Preview(0, 2, 4), Developing(0, 2, 4)], 1, "Stopped after step 2 of 4. Developing what there is ..."),
        ([Preview(0, 4, 4), Developing(0, 4, 4), Preview(1, 4, 4), Developing(1, 4, 4)], 2, "Developing the last 2 pictures ..."),
        ([Preview(0, 2, 4), Developing(0, 2, 4), Preview(1, 1, 4), Developing(1, 1, 4)], 2, "Stopped. Developing what there is ..."),
        ([Preview(0, 4, 4), Finished(0, made()), Preview(1, 4, 4), Developing(1, 4, 4)], 2, "Developing the picture ..."),
    ],
)
def test_no_time_is_said_to_be_left_once_all_steps_are_taken(events, count, status) -> None:
    """A decoder of real size takes many steps' time on a CPU."""
    assert after(events, count).status == status


def test_a_picture_being_developed_shows_its_last_preview_and_others_steps_go_on() -> None:
    view = after([Preview(0, 4, 4, SMALL, elapsed=1.0), Developing(0, 4, 4), Preview(1, 2, 4, elapsed=1.0)], 2)
    assert (view.cells[0].state, view.cells[0].preview) == ("developing", SMALL)
    assert view.status.startswith("0 of 2 pictures, step 6 of 8")

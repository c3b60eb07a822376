"""The files of a sheet: what is in them, where they are, and who can fetch them."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from PIL import Image

from engine.errors import InvalidRequest, NotSaved, OutOfMemory
from engine.pictures.metadata import read_picture
from engine.recipes.plan import AxisLine, Grid, plan_grid, plan_images
from engine.recipes.recipe import make_recipe
from engine.running.engine import Engine
from engine.running.events import Finished
from engine.running.job import Job
from tests.engine.recipes.offer import OFFER
from tests.fake_device import SAFETY
from tests.gradio_loop import in_a_loop
from tests.jobs import at_step, wait_for
from ui.files import KEPT_SECONDS
from ui.sheet.takeaway import KINDS, Takeaway

HOSTILE = "</script><script>window.hacked=1</script>${window.hacked=1}<!--"


@pytest.fixture(autouse=True)
def gradio_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """gradio's temporary folder, of this test alone."""
    folder = tmp_path / "gradio files"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def write(engine: Engine) -> Callable[[Job, str, int], Path]:
    """Writes a file as the page has it written."""
    return Takeaway(engine).write


def submit(engine: Engine, x: str = "1, 2, 3", y: str = "4, 8", **recipe: Any) -> Job:
    given = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 4, **recipe}
    grid = Grid(recipe=make_recipe(**given), x=AxisLine(axis="seed", values=x), y=AxisLine(axis="cfg", values=y))
    return engine.submit(plan_grid(grid, OFFER))


def done(engine: Engine, **asked: Any) -> Job:
    job = submit(engine, **asked)
    job.wait()
    return job


def empty_page() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        gr.HTML("")
    return page


def held_in(page: Path) -> dict[str, Any]:
    """What a saved page has to show."""
    return json.loads(re.search(r'<script type="application/json" id="held">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def test_the_files_are_what_their_names_say(engine, write):
    job = done(engine)
    files = {kind: write(job, kind, 0) for kind in KINDS}
    assert [file.name for file in files.values()] == [f"darkroom seed x cfg.{kind}" for kind in KINDS]
    assert read_picture(files["png"]).grid == job.plan.grid
    assert len(zipfile.ZipFile(files["zip"]).namelist()) == 6 + 4
    with Image.open(files["webp"]) as film:
        assert film.is_animated
    assert len(held_in(files["html"])["pictures"]) == 6
    assert json.loads(files["ipynb"].read_text())["nbformat"] == 4
    assert {file.parent for file in files.values()} == {files["png"].parent}
    assert {file.name for file in files["png"].parent.iterdir()} == {file.name for file in files.values()}


def test_a_file_is_written_anew_each_time(engine, write):
    job = done(engine)
    first = write(job, "zip", 0)
    before = first.read_bytes()
    job.made()[0].path.unlink()
    assert write(job, "zip", 0) == first
    assert first.read_bytes() != before
    assert list(first.parent.iterdir()) == [first]


def test_the_address_holds_the_jobs_key_and_gradio_serves_it(engine, write, gradio_files):
    job = done(engine)
    file = write(job, "png", 0)
    assert file.is_relative_to(gradio_files)
    assert job.key in file.parts
    assert job.id not in str(file)
    page = in_a_loop(empty_page)
    in_a_loop(lambda: page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, server_name="127.0.0.1"))
    try:
        address = f"{page.local_url}gradio_api/file="
        reply = httpx.get(address + quote(str(file)), timeout=SAFETY)
        assert (reply.status_code, reply.content) == (200, file.read_bytes())
        saved = httpx.get(address + quote(str(write(job, "html", 0))), timeout=SAFETY)
        assert saved.headers["content-disposition"].startswith("attachment"), "its scripts must never run on the page's own address"
        assert httpx.get(address + quote(str(file.parent)), timeout=SAFETY).status_code == 403
    finally:
        page.close(verbose=False)


def test_files_that_are_old_go(engine, write):
    file, fresh = write(done(engine), "png", 0), write(done(engine), "png", 0)
    an_hour_ago = time.time() - KEPT_SECONDS - 60
    os.utime(file.parent, (an_hour_ago, an_hour_ago))
    other = write(done(engine), "png", 0)
    assert not file.parent.exists()
    assert fresh.exists()
    assert other.exists()


def test_files_of_a_sheet_in_use_stay(engine, write):
    job = done(engine)
    file = write(job, "png", 0)
    os.utime(file.parent, (1, 1))
    again = write(job, "zip", 0)
    os.utime(file.parent, (1, 1))
    assert write(job, "png", 0).parent == again.parent == file.parent


def test_a_folder_that_was_cleaned_away_is_made_again(engine, write):
    file = write(done(engine), "png", 0)
    shutil.rmtree(file.parent.parent)
    assert write(done(engine), "png", 0).exists()


@pytest.mark.parametrize("kind", ["", "exe", "../png", "x" * 9000])
def test_another_kind_is_refused(engine, write, kind):
    with pytest.raises(InvalidRequest, match="of a sheet; there is png, zip, html, webp, ipynb") as caught:
        write(done(engine), kind, 0)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_picture_there_is_no_file(engine, write, device, kind):
    device.hold()
    with pytest.raises(InvalidRequest, match="no picture yet"):
        write(submit(engine), kind, 0)


def test_pictures_of_no_grid_have_no_sheet(engine, write):
    job = engine.submit(plan_images(make_recipe(width=64, height=64, steps=1), engine.catalog, engine.limits))
    job.wait()
    with pytest.raises(InvalidRequest, match="no grid"):
        write(job, "png", 0)


@pytest.mark.parametrize("page", [-1, 1, 10**6])
def test_a_page_that_is_not_there_has_no_animation(engine, write, page):
    with pytest.raises(InvalidRequest, match="no picture on this page"):
        write(done(engine), "webp", page)


def test_a_full_disk_is_told_and_leaves_nothing(engine, write, monkeypatch):
    job = done(engine)
    file = write(job, "png", 0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ui.sheet.takeaway.cells_zip", full)
    with pytest.raises(NotSaved, match="could not be written: No space left on device"):
        write(job, "zip", 0)
    assert list(file.parent.iterdir()) == [file]


# ---- the saved page


def test_a_saved_page_holds_all_that_its_scripts_ask_for(engine, write, device):
    device.step_errors[3] = (2, OutOfMemory("There is no room for this picture."))
    job = done(engine)
    held = held_in(write(job, "html", 0))
    assert held["sheet"]["labels"] == [["1", "2", "3"], ["4", "8"], [""]]
    assert (held["sheet"]["heading"], held["status"]) == ("a red cat", "4 finished, 2 failed of 6 pictures")
    assert {state["index"]: state["state"] for state in held["states"]}[2] == "failed"
    assert [state["message"] for state in held["states"] if state["state"] == "failed"] == ["There is no room for this picture."] * 2
    assert [[frame["at"] for frame in film] for film in held["films"]] == [[1, 2, 3]]
    assert held["films"][0][0]["sprite"]["cells"] == [0, 1, 3, 4]
    assert held["looks"]["4"]["neighbours"][0] == {"where": "left", "cell": 3, "changes": [["Seed", "2", "1"]]}
    assert held["looks"]["4"]["settings"].startswith("a red cat\nSteps: 4")
    assert (held["changes"]["0"], held["changes"]["4"]) == ([], [["Seed", "1", "2"], ["CFG scale", "4", "8"]])
    assert set(held["pictures"]) == {"0", "1", "3", "4"}


def test_small_pictures_keep_their_settings_and_large_ones_are_made_smaller(engine, write):
    job = done(engine)
    [uri, *_] = held_in(write(job, "html", 0))["pictures"].values()
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == job.made()[0].path.read_bytes()
    large = done(engine, x="1", y="4", width=1024, height=512)
    [uri] = held_in(write(large, "html", 0))["pictures"].values()
    file = write(large, "png", 0).with_suffix(".jpg")
    file.write_bytes(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))
    with Image.open(file) as image:
        assert image.size == (768, 384)


def test_a_long_run_has_a_bounded_film(engine, write):
    film = held_in(write(done(engine, x="1", y="4", steps=150), "html", 0))["films"][0]
    places = [frame["at"] for frame in film]
    assert len(places) == len(set(places)) == 50
    assert (places[0], places[-1]) == (1, 149)


def test_cells_taken_from_the_disk_are_as_if_made_now(engine, write):
    first = done(engine)
    again = engine.submit(first.plan, reuse=True)
    again.wait()
    one, other = (held_in(write(job, "html", 0)) for job in (first, again))
    assert (one["states"], one["films"], one["pictures"]) == (other["states"], other["films"], other["pictures"])


@pytest.mark.parametrize("steps", [1, 2])
def test_a_short_run_has_what_there_is(engine, write, steps):
    film = held_in(write(done(engine, x="1", y="4", steps=steps), "html", 0))["films"][0]
    assert [frame["at"] for frame in film] == [1][: steps - 1]


def test_a_page_saved_on_the_way_says_so(engine, write, device, monkeypatch):
    tick = device.tick  # after its hundredth call the device waits to be stopped
    monkeypatch.setattr(device, "tick", lambda: tick() if len(device.calls("tick")) < 100 else time.sleep(0.01) or [])
    grid = Grid(recipe=make_recipe(width=64, height=64), x=AxisLine(axis="steps", values="1, 150"))
    job = engine.submit(plan_grid(grid, OFFER))
    wait_for(job, at_step(3, cell=1))
    wait_for(job, lambda event: isinstance(event, Finished) and event.cell == 0)
    held = held_in(write(job, "html", 0))
    engine.stop(job)
    assert held["status"] == "1 of 2 pictures when this page was saved"
    assert [state["state"] for state in held["states"]] == ["finished", "developing"]
    assert held["sprites"][0]["cells"] == [1]


def test_a_page_that_travels_names_no_folder_of_this_machine(engine, write, tmp_path, monkeypatch):
    def full(*_: Any) -> Path:
        raise NotSaved(f"The picture could not be saved in {tmp_path}.")

    gone = done(engine)
    gone.made()[0].path.unlink()
    monkeypatch.setattr("engine.pictures.developing.write_picture", full)
    for job in (gone, done(engine, prompt="another")):
        page = write(job, "html", 0)
        assert str(tmp_path) not in page.read_text()
    assert held_in(page)["looks"]["0"]["status"].endswith("not saved")
    states = {state["index"]: state for state in held_in(write(gone, "html", 0))["states"]}
    assert states[0]["message"] == "its file is gone"


def test_no_text_ends_the_script_it_is_in(engine, write):
    text = write(done(engine, prompt=HOSTILE, negative_prompt=HOSTILE), "html", 0).read_text()
    assert text.count("</script>") == text.count("<script") == 2
    assert "<!--" not in text
    assert HOSTILE.replace("<", "\\u003c") in text
    assert "default-src 'none'" in text

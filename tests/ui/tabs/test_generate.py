"""The Generate tab's handlers over a device without a model, and the page over HTTP."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image

from engine.errors import NotSaved, OutOfMemory
from engine.local import PRESETS
from engine.pictures.metadata import read_picture
from engine.pictures.outputs import OWN_FOLDER, open_picture, thumbnail
from engine.running.engine import Engine
from engine.running.job import Job
from tests.fake_device import SAFETY
from tests.jobs import at_step, ends, files, plan_of, put, wait_for
from tests.ui.conftest import ANN, ASKED, BOB, Update, followed, merged, pictures
from ui.tabs import stage
from ui.tabs.controls import KEEP, RANDOM
from ui.tabs.generate import GenerateTab, _passing_file


def is_idle(tab: GenerateTab, page: Update) -> bool:
    return page[tab.generate].interactive and page[tab.generate].value == "Generate" and not page[tab.stop].interactive


def is_busy(tab: GenerateTab, page: Update) -> bool:
    return not page[tab.generate].interactive and page[tab.stop].interactive


def followed_to_the_end(job: Job) -> dict[str, Any]:
    return stage.followed(job, over=True, pick=f"{job.id}:{max(job.made())}" if job.made() else "")


def click(pick: str) -> gr.EventData:
    return gr.EventData(None, {"pick": pick})


def newest(engine: Engine, visitor: str = ANN) -> Job:
    return engine.jobs(visitor)[-1]


def downloaded(tab: GenerateTab, page: Update) -> Path:
    """The file that the download button hands out, gradio's copy of ours."""
    assert page[tab.download].interactive
    return Path(page[tab.download].value["path"])


# A run.


def test_the_buttons_change_before_any_work(tab, device, press):
    device.hold()
    first = next(press())
    assert is_busy(tab, first)
    assert first[tab.controls.fields["seed"]] == 100
    assert first[tab.visitor] == ANN
    assert device.calls("tick") == []


def test_a_run_from_the_first_word_to_the_download(tab, engine, press):
    updates = list(press())
    page = merged(updates)
    assert updates[0][tab.stage]["key"] == newest(engine).key
    states = [update[tab.stage]["state"] for update in updates[1:] if tab.stage in update]
    assert states[-1] == "done"
    assert set(states) <= {"running", "done"}
    assert page[tab.stage]["over"]
    assert is_idle(tab, page)
    [(pick, made)] = pictures(engine, ANN)
    assert page[tab.shown] == pick
    assert page[tab.text].startswith("an owl\nSteps: 4, ")
    assert "Seed: 100" in page[tab.text]
    assert page[tab.reuse].interactive
    assert downloaded(tab, page).name == made.path.name
    assert downloaded(tab, page).read_bytes() == made.path.read_bytes()
    assert read_picture(made.path).settings == dict(made.recipe)
    assert [thumb["pick"] for thumb in page[tab.strip]] == [pick]


def test_the_seed_that_was_drawn_is_shown(tab, engine, press):
    page = merged(list(press(seed_mode=RANDOM)))
    assert page[tab.controls.fields["seed"]] == pictures(engine, ANN)[0][1].recipe.seed


def test_a_new_visitor_gets_a_name(tab, engine, press):
    name = merged(list(press(visitor="")))[tab.visitor]
    assert len(name) == 32
    assert len(pictures(engine, name)) == 1


def test_steps_are_shown_as_they_are_made(tab, engine, device, press):
    device.hold()
    updates, seen = press(), []
    for step in range(1, 5):
        device.let()
        while not (seen and f"step {step} of 4" in seen[-1]["status"]) and not (seen and seen[-1]["state"] == "done"):
            if "state" in (shown := next(updates).get(tab.stage, {})):
                seen.append(shown)
    # Between the last step and the end there may be a look at 100 %, or not.
    assert [stage["percent"] for stage in seen if stage["status"].startswith("step")][:3] == [25.0, 50.0, 75.0]
    pictures = [stage["frames"][0]["src"] for stage in seen if stage["frames"][0]["src"]]
    assert len(set(pictures)) >= 3
    assert pictures[0].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"width": 500}, "Width must be a multiple of 8: try 496 or 504"),
        ({"steps": 151}, "Steps must be at most 150 here; it was 151."),
        ({"width": 4096, "height": 4096}, "4096 x 4096 is too large here"),
        ({"count": 1000}, "Number of images must be from 1 to 100; it was 1,000."),
        ({"count": 1.5}, "Number of images must be a whole number; it was 1.5."),
        ({"model": "nothing"}, "There is no model “nothing” here"),
        ({"style": "Gone"}, "There is no style “Gone” here."),
        ({"prompt": "x" * 10_000}, "Prompt has 10,000 characters"),
    ],
)
def test_bad_input_is_one_refusal_and_the_next_request_works(tab, engine, device, press, changed, sentence):
    [refusal] = press(**changed)
    assert sentence in refusal[tab.stage]["error"]
    assert refusal.keys() == {tab.stage, tab.visitor}, "all else stays as it is"
    assert engine.jobs(ANN) == []
    assert device.history == []
    assert merged(list(press()))[tab.stage]["state"] == "done"


def test_an_engine_that_closes_refuses_in_words(tab, engine, press):
    engine.close()
    [refusal] = press()
    assert refusal[tab.stage]["error"] == "Darkroom is closing and takes no more requests."


def test_several_pictures_come_together(tab, engine, press):
    page = merged(list(press(count=4)))
    assert [made.recipe.seed for _, made in pictures(engine, ANN)] == [103, 102, 101, 100]
    assert len(page[tab.stage]["frames"]) == len(page[tab.strip]) == 4
    assert page[tab.stage]["status"] == "4 finished of 4 pictures"
    assert "Seed: 103" in page[tab.text]


# Stopping.


def test_stop_keeps_what_there_is(tab, engine, device, press):
    device.hold()
    updates = press()
    next(updates)
    device.let(2)
    wait_for(newest(engine), at_step(2))
    tab._stop(ANN, False)
    device.let_go()
    page = merged(list(updates))
    assert re.fullmatch(r"Stopped after step [23] of 4\.", page[tab.stage]["status"])
    assert is_idle(tab, page)
    assert [thumb["state"] for thumb in page[tab.strip]] == ["unfinished"]
    assert read_picture(downloaded(tab, page)).settings["prompt"] == "an owl"


def test_stop_before_anything_was_made(tab, device, press):
    device.may_load.clear()
    updates = press()
    next(updates)
    tab._stop(ANN, False)
    page = merged(list(updates))
    device.let_go()
    assert page[tab.stage]["status"] == "Stopped before it began."
    assert is_idle(tab, page)
    assert not page[tab.download].interactive
    assert page[tab.text] == page[tab.shown] == "", "what stands under the stage is of the picture on it"


def test_finish_one_then_stop(tab, engine, device, press):
    device.images_a_tick = 1
    device.hold()
    updates = press(count=3)
    next(updates)
    device.let()
    wait_for(newest(engine), at_step(1))
    tab._stop(ANN, True)
    device.let_go()
    page = merged(list(updates))
    assert page[tab.stage]["status"] == "1 finished, 2 stopped of 3 pictures"
    assert [made.recipe.seed for _, made in pictures(engine, ANN) if not made.provenance.unfinished] == [100]


def test_nobody_stops_somebody_elses_pictures(tab, engine, device, press):
    device.hold()
    updates = press(visitor=ANN)
    next(updates)
    tab._stop(BOB, False)
    device.let_go()
    assert merged(list(updates))[tab.stage]["frames"][0]["state"] == "finished"


def test_leaving_the_page_leaves_the_job_running(engine, device, press):
    device.hold()
    updates = press()
    next(updates), next(updates)
    updates.close()
    job = newest(engine)
    assert job._watchers == []
    device.let_go()
    assert [type(end).__name__ for end in ends(job).values()] == ["Finished"]
    assert len(pictures(engine, ANN)) == 1


def test_a_page_that_missed_the_end_is_told_when_it_asks(tab, engine, press):
    """Whatever got lost on its way, a page that asks again hears the end, as often as it asks."""
    list(press())
    job = newest(engine)
    for seen in (-1, job.version, job.version + 7):
        assert tab.live.ask({"question": "frame", "key": job.key, "seen": seen, "page": 0})["done"]
    for _ in range(2):
        told = tab._act(ANN, gr.EventData(None, {"key": job.key}))
        assert is_idle(tab, told)
        assert told[tab.stage] == followed_to_the_end(job)


def test_an_answer_about_an_old_run_does_not_take_the_page_off_a_new_one(tab, engine, device, press):
    list(press())
    old = newest(engine)
    device.hold()
    next(press())
    told = tab._act(ANN, gr.EventData(None, {"key": old.key}))
    assert is_busy(tab, told)
    assert told[tab.stage]["key"] == newest(engine).key != old.key
    device.let_go()


def test_finish_one_then_stop_hands_over_the_finished_one(tab, engine, device, press):
    device.images_a_tick = 1
    device.hold()
    updates = press(count=3, steps=4)
    next(updates)
    device.let()
    wait_for(newest(engine), at_step(1))
    tab._stop(ANN, True)
    device.let_go()
    page = merged(list(updates))
    assert page[tab.shown].endswith(":0")
    assert "Stopped at" not in page[tab.text]


@pytest.mark.parametrize(("kind", "suffix", "format_of"), [("PNG", ".png", "PNG"), ("JPEG", ".jpg", "JPEG"), ("WebP", ".webp", "WEBP")])
def test_a_picture_is_downloaded_as_the_kind_of_file_that_is_wanted(tab, press, kind, suffix, format_of):
    pick = merged(list(press()))[tab.shown]
    file = downloaded(tab, {tab.download: tab._offer(ANN, pick, kind)})
    assert file.suffix == suffix
    with Image.open(file) as image:
        assert (image.format, image.size) == (format_of, (64, 64))
    assert read_picture(file).settings["prompt"] == "an owl"
    assert not tab._offer(BOB, pick, kind).interactive, "nobody else's"


def test_equal_pixels_of_other_words_are_downloaded_with_their_own(tab, press, engine, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    list(press())
    [(_, made)] = pictures(engine, ANN)
    one = replace(made, path=None, pixels=open_picture(made))
    other = replace(one, recipe=made.recipe.replace(negative_prompt="other words"))
    assert [read_picture(_passing_file(picture)).settings["negative_prompt"] for picture in (one, other)] == ["", "other words"]


def test_a_run_that_is_not_known_any_more_ends_for_the_page(tab, engine, device, press):
    device.hold()
    updates = press()
    next(updates)
    key = newest(engine).key
    for stranger, asked in ((ANN, "nothing"), (BOB, key), ("", key), (None, key), (ANN, None), (ANN, ["a"])):
        told = tab._act(stranger, gr.EventData(None, {"key": asked}))
        assert is_idle(tab, told)
        assert "is not known here any more" in told[tab.stage]["error"]
        assert tab.strip not in told
    device.let_go()


def test_an_earlier_picture_can_be_looked_at_while_a_run_goes_on(tab, engine, device, press):
    list(press())
    [(pick, _)] = pictures(engine, ANN)
    device.hold()
    updates = press(seed=7)
    next(updates)
    looked = tab._look(ANN, click(pick))[tab.stage]
    assert looked["key"] == newest(engine).key
    assert looked["look"]["alt"] == "an owl"
    device.let_go()
    assert merged(list(updates))[tab.stage]["over"]
    assert tab._look(ANN, click(pick))[tab.stage]["key"] == ""


# What goes wrong on the way.


def test_a_failing_device_says_so_in_the_frame(tab, device, press):
    device.step_errors[100] = (2, OutOfMemory("There is no room for a picture this large: try 512 x 512."))
    page = merged(list(press(count=2)))
    first, second = page[tab.stage]["frames"]
    assert (first["state"], first["message"]) == ("failed", "There is no room for a picture this large: try 512 x 512.")
    assert (second["state"], second["message"]) == ("finished", "")
    assert is_idle(tab, page)
    assert merged(list(press(seed=500)))[tab.stage]["frames"][0]["state"] == "finished"


def test_a_bug_is_told_without_its_traceback(tab, device, press):
    device.step_errors[100] = (2, RuntimeError("index 7 is out of bounds"))
    [frame] = merged(list(press()))[tab.stage]["frames"]
    assert frame["message"] == "This picture failed inside Darkroom; the log has the details. The others go on."


def test_a_model_that_cannot_be_loaded_says_so(tab, device, press):
    device.load_errors["starter"] = OSError("no such file")
    page = merged(list(press()))
    assert "could not be loaded; the log has the details" in page[tab.stage]["frames"][0]["message"]
    assert is_idle(tab, page)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise NotSaved("The picture could not be saved: the disk is full. Download this picture to keep it.")

    monkeypatch.setattr("engine.pictures.developing.write_picture", refuse)


@pytest.mark.usefixtures("full_disk")
def test_a_picture_that_could_not_be_saved_can_still_be_downloaded(tab, engine, press, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    page = merged(list(press()))
    assert page[tab.stage]["notices"] == "The picture could not be saved: the disk is full. Download this picture to keep it."
    assert page[tab.stage]["frames"][0]["src"].startswith("data:image/png;base64,")
    file = downloaded(tab, page)
    assert file.name == "seed-100.png"
    assert read_picture(file).settings == dict(pictures(engine, ANN)[0][1].recipe)
    assert files(engine) == []
    [(pick, _)] = pictures(engine, ANN)
    for _ in range(3):
        assert downloaded(tab, tab._look(ANN, click(pick))) == file
    assert [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()] == [file], "one file however often it is looked at"


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_that_holds_the_temporary_files_too_still_ends_the_run(tab, press, monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("engine.pictures.outputs.tempfile.mkstemp", refuse)
    assert is_idle(tab, merged(list(press())))


def test_a_full_disk_below_gradios_own_files_still_ends_the_run(tab, press, monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gradio.processing_utils.save_file_to_cache", refuse)
    assert is_idle(tab, merged(list(press())))


# Looking again.


def test_a_picture_of_ones_own_can_be_looked_at_and_used_again(tab, engine, press):
    list(press(count=2, prompt="an owl", guidance_scale=6))
    list(press(prompt="a rocket"))
    pick, made = pictures(engine, ANN)[1]
    page = tab._look(ANN, click(pick))
    assert page[tab.shown] == pick
    assert page[tab.stage]["look"]["alt"] == "an owl"
    assert f"Seed: {made.recipe.seed}" in page[tab.text]
    assert downloaded(tab, page).name == made.path.name
    shown = tab._reuse(ANN, pick)
    fields = tab.controls.fields
    assert {name: shown[fields[name]] for name in ("prompt", "seed", "guidance_scale", "seed_mode", "exact")} == {
        "prompt": "an owl", "seed": made.recipe.seed, "guidance_scale": 6, "seed_mode": KEEP, "exact": False,
    }  # fmt: skip


@pytest.mark.parametrize("pick", ["", "nothing", "nothing:0", "example:999", "example:-1", "example:²", "../../etc/passwd", "None"])
def test_a_pick_that_is_nothing_shows_nothing(tab, press, pick):
    list(press())
    assert tab._made(ANN, pick) is None
    assert tab.stage not in tab._look(ANN, click(pick))
    assert tab.stage not in tab._pick(ANN, "starter", 0, click(pick))
    assert set(tab._reuse(ANN, pick)) == {tab.controls.fields["seed"]}


def test_nobody_sees_somebody_elses_picture(tab, engine, press):
    list(press(visitor=ANN))
    [(pick, _)] = pictures(engine, ANN)
    assert tab._made(ANN, pick) is not None
    assert tab._made(BOB, pick) is None
    assert tab.stage not in tab._look(BOB, click(pick))
    assert tab.controls.fields["prompt"] not in tab._reuse(BOB, pick)


def test_a_click_on_one_of_several_shows_it_alone(tab, engine, press):
    list(press(count=2))
    pick, _ = pictures(engine, ANN)[0]
    assert tab._pick(ANN, "starter", 0, click(pick))[tab.stage]["look"]["status"].endswith("seed 101")


def test_a_click_on_an_example_writes_and_runs_it(tab, engine):
    examples = engine.catalog.default.examples
    page = tab._pick(ANN, "starter", 3, click("example:1"))
    assert page == {tab.controls.fields["prompt"]: examples[1], tab.wishes: 4}


def test_the_last_seed(tab, engine, press, told):
    assert tab._last_seed(ANN) == (gr.skip(), gr.skip())
    assert told == [("info", "There is no picture yet whose seed could be used.")]
    list(press(count=3))
    assert tab._last_seed(ANN) == (102, KEEP)


# Coming back.


def test_a_new_visitor_finds_an_empty_page(tab):
    update = tab._restore("")
    assert len(update[tab.visitor]) == 32
    assert update[tab.strip] == []


def test_a_page_that_is_opened_says_why_the_model_could_not_be_loaded(tab, engine, monkeypatch):
    assert tab.stage not in tab._restore(ANN)
    monkeypatch.setattr(engine, "trouble", {"starter": "It is not on this machine: connect and try again."}.get)
    assert tab._restore(ANN)[tab.stage]["error"] == "It is not on this machine: connect and try again."


def test_a_visitor_finds_the_pictures_again(tab, engine, press):
    list(press(count=2))
    update = tab._restore(ANN)
    assert update[tab.visitor] == ANN
    assert [thumb["pick"] for thumb in update[tab.strip]] == [pick for pick, _ in pictures(engine, ANN)]


def test_a_visitor_finds_a_run_under_way_again(tab, engine, device, press):
    device.hold()
    first = press()
    next(first)
    device.let(2)
    wait_for(newest(engine), at_step(2))
    first.close()
    again = tab._restore(ANN)
    assert is_busy(tab, again)
    device.let_go()
    page = merged(list(followed(tab, again)))
    assert page[tab.stage]["frames"][0]["state"] == "finished"
    assert is_idle(tab, page)
    assert "Seed: 100" in page[tab.text]


@pytest.mark.parametrize("token", [None, "", "short", "x" * 65, "x" * 100_000, 7, ["a" * 32], {"a": 1}, True])
def test_a_token_that_is_none_of_ours_is_replaced(tab, token):
    update = tab._restore(token)
    assert re.fullmatch(r"[0-9a-f]{32}", update[tab.visitor])
    assert update[tab.strip] == []


# Over HTTP.


def test_the_page_answers(served):
    address, _, _ = served
    reply = httpx.get(address, timeout=SAFETY)
    assert reply.status_code == 200
    assert "Darkroom" in reply.text


def test_nothing_is_offered_as_an_api(served):
    address, page, _ = served
    assert httpx.get(f"{address}gradio_api/info", timeout=SAFETY).json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert httpx.get(f"{address}gradio_api/info?all_endpoints=true", timeout=SAFETY).json()["named_endpoints"] == {}
    dependencies = page.get_config_file()["dependencies"]
    assert len(dependencies) > 15
    assert {dependency["api_visibility"] for dependency in dependencies} == {"private"}


def ask(served: tuple[str, gr.Blocks, Engine], session: str, **changed: Any) -> dict[str, Any]:
    """Presses Generate over raw HTTP; what the server says at the end."""
    address, page, _ = served
    wired = next(wired for wired in page.fns.values() if getattr(wired.fn, "__name__", "") == "_generate")
    tab = wired.fn.__self__
    names = {component: name for name, component in tab.controls.fields.items()}
    values = {component: {**ASKED, **changed}.get(names.get(component), component.value) for component in wired.inputs}
    data = [ANN if component is tab.visitor else value for component, value in values.items()]
    body = {"data": ["" if value is None else value for value in data], "fn_index": wired._id, "session_hash": session}
    httpx.post(f"{address}gradio_api/queue/join", json=body, timeout=SAFETY).raise_for_status()
    with httpx.stream("GET", f"{address}gradio_api/queue/data", params={"session_hash": session}, timeout=SAFETY) as stream:
        messages = [json.loads(line.removeprefix("data:")) for line in stream.iter_lines() if line.startswith("data:")]
    return next(message for message in messages if message["msg"] == "process_completed")


def test_a_crowd_that_watches_keeps_nobody_waiting_and_hears_the_end(served):
    """More pages than gradio has threads or places for events watch; somebody else's press works meanwhile."""
    address, page, engine = served
    device = put(engine, lambda device: device).result()
    device.hold()
    job = engine.submit(plan_of(engine), "c" * 32)
    shown = next(block for block in page.blocks.values() if block.elem_id == "stage")

    async def watch(client: httpx.AsyncClient, number: int, begun: asyncio.Semaphore) -> int:
        seen = -1
        while True:
            asked = {"data": {"question": "frame", "key": job.key, "seen": seen, "page": 0}, "session_hash": f"crowd{number}"}
            called = {"component_id": shown._id, "fn_name": "ask_stage"}
            reply = await client.post(f"{address}gradio_api/component_server/", json=asked | called)
            answer = reply.raise_for_status().json()
            seen = answer.get("version", seen)
            begun.release()
            await asyncio.sleep(0.1)  # as the script does
            if answer.get("done"):
                return sum(cell["state"] == "finished" for cell in answer["cells"])

    async def crowd() -> tuple[bool, list[int]]:
        begun = asyncio.Semaphore(0)
        async with httpx.AsyncClient(timeout=SAFETY, limits=httpx.Limits(max_connections=None)) as client:
            watching = [asyncio.create_task(watch(client, number, begun)) for number in range(60)]
            for _ in watching:
                await begun.acquire()
            pressed = await asyncio.to_thread(ask, served, "presser")
            running, submitted = not job.done, len(engine.jobs(ANN))
            device.let_go()
            return pressed["success"] and running and submitted > before, await asyncio.gather(*watching)

    before = len(engine.jobs(ANN))
    assert asyncio.run(crowd()) == (True, [1] * 60)


@pytest.mark.parametrize(
    "wrong", [{"steps": 10**6}, {"steps": -1}, {"guidance_scale": "high"}, {"scheduler": "nothing"}, {"count": 10**6}, {"seed": [1]}]
)
def test_values_that_no_widget_can_hold_do_no_harm(served, wrong):
    session = "".join(map(str, wrong)) + str(abs(hash(str(wrong))))
    address, _, engine = served
    before = len(engine.jobs(ANN))
    ask(served, session, **wrong)  # refused in words where a handler may see it, by gradio where not
    assert len(engine.jobs(ANN)) == before
    assert ask(served, session + "again")["success"] is True
    assert len(engine.jobs(ANN)) == before + 1
    assert httpx.get(address, timeout=SAFETY).status_code == 200


def test_a_picture_that_can_be_downloaded_is_not_copied(served, monkeypatch, tmp_path):
    _, page, engine = served
    tab = next(wired.fn.__self__ for wired in page.fns.values() if getattr(wired.fn, "__name__", "") == "_generate")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    job = engine.submit(plan_of(engine), ANN)
    ends(job)
    shown = tab._look(ANN, click(f"{job.id}:0"))
    assert downloaded(tab, shown) == job.made()[0].path
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_served_and_other_files_are_not(served, monkeypatch):
    address, _, engine = served
    assert ask(served, "files")["success"] is True
    ends(newest(engine))
    made = pictures(engine, ANN)[0][1]
    reply = httpx.get(f"{address}gradio_api/file={made.path}", timeout=SAFETY)
    assert reply.status_code == 200
    assert reply.content == made.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("engine.pictures.outputs.SMALL_FILE", 0)
        small = thumbnail(made.path, 32)
    reply = httpx.get(f"{address}gradio_api/file={small}")
    assert (reply.status_code, reply.headers["content-type"], reply.content) == (200, "image/jpeg", small.read_bytes())
    index = engine.outputs.parent / OWN_FOLDER / "pictures.sqlite"  # it names everybody's pictures
    assert index.is_file()
    for other in (PRESETS / "models.toml", made.path.parent.parent.parent / "elsewhere.png", index):
        assert httpx.get(f"{address}gradio_api/file={other}", timeout=SAFETY).status_code in {403, 404}

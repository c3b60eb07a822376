"""The bench's own handlers: settings from a file, and the hints beside the widgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image, PngImagePlugin

from engine.pictures.metadata import grid_texts, png_bytes
from engine.pictures.outputs import open_picture
from engine.recipes.plan import AxisLine, Grid, plan_grid
from engine.running.device import TokenCount
from tests.conftest import ROOT
from tests.ui.conftest import ANN, pictures
from ui.tabs.axes import NONE
from ui.tabs.compare import CompareTab
from ui.tabs.controls import KEEP, NO_STYLE
from ui.tabs.loaded import loaded_value

DATA = ROOT / "tests" / "data"

# Settings from a file.


def png(texts: dict[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return info


def saved(folder: Path, name: str = "picture.png", **texts: str) -> Path:
    Image.effect_noise((64, 64), 50).save(folder / name, "PNG", pnginfo=png(texts))
    return folder / name


def cut(folder: Path) -> Path:
    file = saved(folder)
    file.write_bytes(file.read_bytes()[:900])
    return file


def words(folder: Path) -> Path:
    (folder / "notes.png").write_text("just some words", encoding="utf-8")
    return folder / "notes.png"


def jpeg(folder: Path) -> Path:
    Image.new("RGB", (8, 8)).save(folder / "photo.png", "JPEG")
    return folder / "photo.png"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (words, "This file is no PNG, JPEG, WebP or AVIF picture"),
        (jpeg, "This picture carries no settings"),
        (cut, "This picture is damaged or was cut short"),
        (saved, "This picture carries no settings"),
        (lambda folder: saved(folder, parameters="only words"), "no list of settings"),
        (lambda folder: saved(folder, darkroom="{not json"), "This picture carries no settings"),
    ],
    ids=["words", "jpeg", "cut", "plain", "no settings", "broken record"],
)
def test_a_file_without_settings_changes_nothing_and_says_why(bench, tmp_path, told, make, sentence):
    assert set(bench._load_file(str(make(tmp_path)))) == {bench.controls.fields["seed"]}
    [(kind, message)] = told
    assert kind == "warning"
    assert sentence in message


def test_no_file_is_no_event(bench, told):
    assert bench._load_file(None) == {bench.controls.fields["seed"]: gr.skip()}
    assert told == []


def test_a_picture_of_ours_fills_in_everything(bench, engine, press, told, tmp_path):
    list(press(prompt="an owl", negative_prompt="red", style="Watercolour", steps=7, guidance_scale=6, width=128))
    made = pictures(engine, ANN)[0][1]
    file = tmp_path / "again.png"
    file.write_bytes(png_bytes(open_picture(made), made.recipe, made.provenance))
    shown = {component.elem_id: value for component, value in bench._load_file(str(file)).items()}
    assert told == [("info", "Settings of a picture made by Darkroom are loaded.")]
    assert shown == {
        "model": "starter", "prompt": "an owl", "negative": "red", "style": "Watercolour", "seed": 100, "seed-mode": KEEP,
        "steps": 7, "cfg": 6.0, "scheduler": made.recipe.scheduler, "width": 128, "height": 64, "clip-skip": 1,
        "exact": False, "loaded": loaded_value("Settings of a picture made by Darkroom are loaded"),
    }  # fmt: skip
    assert shown["loaded"]["notes"] == []


@pytest.mark.parametrize("exact", [True, False])
def test_a_picture_is_made_again_as_exactly_as_it_was(bench, engine, press, told, tmp_path, exact):
    list(press(exact=exact))
    made = pictures(engine, ANN)[0][1]
    file = tmp_path / "again.png"
    file.write_bytes(png_bytes(open_picture(made), made.recipe, made.provenance))
    assert bench._load_file(str(file))[bench.controls.fields["exact"]] is exact


def test_a_picture_of_a1111_fills_in_what_is_known_and_says_what_is_not(bench, told, tmp_path):
    text = "a fox\nSteps: 28, Sampler: Euler a, CFG scale: 7.5, Seed: 9, Size: 500x512, Model hash: 45dee52b, Model: dreamy"
    shown = {component.elem_id: value for component, value in bench._load_file(str(saved(tmp_path, parameters=text))).items()}
    assert shown["prompt"] == "a fox"
    assert (shown["steps"], shown["cfg"], shown["seed"], shown["scheduler"]) == (28, 7.5, 9, "Euler a")
    assert (shown["width"], shown["height"]) == (496, 512)
    assert "model" not in shown
    assert told == [("info", "Settings of a picture made by A1111 are loaded. What did not come with it stands above the prompt.")]
    assert shown["loaded"]["title"] == "Settings of a picture made by A1111 are loaded"
    assert shown["loaded"]["notes"][:2] == [
        "It names the model “dreamy” (hash 45dee52b), which is not here.",
        "Size 500 x 512 became 496 x 512, the nearest here.",
    ]


def test_numbers_beyond_the_limits_leave_every_widget_usable(bench, told):
    shown = {component.elem_id: value for component, value in bench._load_file(str(DATA / "metadata" / "steps200.png")).items()}
    assert (shown["steps"], shown["cfg"], shown["clip-skip"], shown["seed"]) == (150, 6.55, 2, 5)
    assert shown["loaded"]["notes"][0] == "Steps 200 became 150, the most here."
    for name in ("steps", "guidance_scale", "clip_skip"):  # what gradio asks of a value before any handler sees it
        assert bench.controls.fields[name].preprocess(shown[bench.controls.fields[name].elem_id])


def test_notes_beyond_a_glance_are_folded_and_none_is_lost():
    notes = [f"{n} " + "x" * 150 for n in range(6)]
    value = loaded_value("Loaded", notes)
    assert value["notes"] + value["folded"] == notes
    assert (len(value["notes"]), value["count"]) == (3, "3")
    assert loaded_value("Loaded", ["x" * 3000])["folded"] == []
    [longest] = loaded_value("Loaded", ["x" * 90_000])["notes"]
    assert (len(longest), longest[-3:]) == (4000, "...")
    assert loaded_value()["notes"] == []


def test_a_note_is_text_whatever_the_file_says(bench, told, tmp_path):
    text = "a fox\nSteps: 20, Sampler: <img src=x>, ${alert(1)}: \\n"
    shown = bench._load_file(str(saved(tmp_path, parameters=text)))[bench.loaded]
    assert "“<img src=x>”" in " ".join(shown["notes"])
    assert r"\${alert(1)} \\n" in shown["notes"][-1]  # `literal`: the template makes it the text that it was


# A contact sheet.


def contact_sheet(grids: CompareTab, folder: Path, **changes: Any) -> Path:
    """A file with a grid's settings, with some parts of the grid changed afterwards."""
    recipe = grids.engine.catalog.default.recipe(prompt="an owl", seed=9, steps=5)
    lines = {"x": AxisLine(axis="cfg", values="2, 5"), "z": AxisLine(axis="prompt", values='"a cat, sitting", a dog')}
    texts = grid_texts(plan_grid(Grid(recipe=recipe, exact=True, **lines), grids.offer))
    record = json.loads(texts["darkroom"])
    record["grid"] |= changes
    return saved(folder, **{**texts, "darkroom": json.dumps(record)})


def test_a_contact_sheet_fills_the_axes_in_and_starts_nothing(bench, grids, engine, told, tmp_path):
    shown = bench._load_file(str(contact_sheet(grids, tmp_path)))
    assert told == [("info", "The grid of a contact sheet is loaded: press Compare to develop it.")]
    held = {component.elem_id: value for component, value in shown.items()}
    assert {name: held[name] for name in ("prompt", "seed", "seed-mode", "steps", "exact")} == {
        "prompt": "an owl", "seed": 9, "seed-mode": KEEP, "steps": 5, "exact": True,
    }  # fmt: skip
    assert [held[f"axis-{name}-{part}"] for name in "xyz" for part in ("kind", "values")] == [
        "cfg", "2, 5", NONE, "", "prompt", '"a cat, sitting", a dog',
    ]  # fmt: skip
    assert held["tabs"].selected == "compare"
    assert engine.jobs(ANN) == []


def test_what_a_file_changes_is_what_its_upload_is_wired_to(bench, grids, built, told, tmp_path):
    outputs = next(wired.outputs for wired in built.fns.values() if wired.fn == bench._load_file)
    for file in (contact_sheet(grids, tmp_path), saved(tmp_path, "a1111.png", parameters="a fox\nSteps: 20"), words(tmp_path)):
        assert set(bench._load_file(str(file))) <= set(outputs)


def test_an_axis_of_a_later_version_changes_nothing_and_is_named(bench, grids, told, tmp_path):
    file = contact_sheet(grids, tmp_path, y={"axis": "moon phase", "values": "1"})
    assert set(bench._load_file(str(file))) == {bench.controls.fields["seed"]}
    [(kind, message)] = told
    assert kind == "warning"
    assert "There is no axis “moon phase”" in message


def test_a_grid_of_a_model_that_is_not_here_says_so(bench, grids, told, tmp_path):
    recipe = grids.engine.catalog.default.recipe(seed=9).model_copy(update={"model": "dreamy"})
    shown = bench._load_file(str(contact_sheet(grids, tmp_path, recipe=recipe.model_dump(mode="json"))))
    assert shown[bench.loaded]["notes"] == ["It names the model “dreamy”, which is not here."]


def test_a_grid_of_another_machines_limits_comes_within_those_here(bench, grids, told, tmp_path):
    recipe = grids.engine.catalog.default.recipe(seed=9, steps=500)
    shown = bench._load_file(str(contact_sheet(grids, tmp_path, recipe=recipe.model_dump(mode="json"))))
    assert shown[bench.controls.fields["steps"]] == 150
    assert shown[bench.loaded]["notes"] == ["Steps 500 became 150, the most here."]


# Keys.


def test_the_prompt_is_not_submitted_twice(bench, built):
    """Shift+Enter and Ctrl+Enter press the button of the tab that is open: the page's script sees to both."""
    assert not any((bench.controls.fields["prompt"]._id, "submit") in wired.targets for wired in built.fns.values())


# Hints.


def test_words_are_counted_once_the_model_is_there(bench, device, press):
    device.token_limit = 3
    assert bench._count("starter", "an owl")["text"] == ""
    list(press())
    assert bench._count("starter", "an owl") == {"text": "2 of 3 tokens", "kind": ""}
    assert bench._count("starter", "") == {"text": "", "kind": ""}
    assert bench._count("sd15", "an owl")["text"] == ""
    long = bench._count("starter", "an owl on a branch")
    assert long["kind"] == "warning"
    assert long["text"].endswith("these words are cut: “a branch”")
    assert device.count_tokens("an owl on a branch") == TokenCount(5, 3, "a branch")


def test_of_a_very_long_text_the_page_says_only_that_there_is_more(bench, engine, monkeypatch):
    monkeypatch.setattr(engine, "count_tokens", lambda model, text: TokenCount(3000, 75, "cat " * 2925, more=True))
    text = bench._count("starter", "cat " * 100_000)["text"]
    assert text.startswith("more than 3,000 of 75 tokens; these words are cut: “cat cat ")
    assert text.endswith("cat ...”")
    assert len(text) < 400


def test_another_model_brings_its_own_settings(bench, engine, device):
    spec = engine.catalog.find("sd15")
    assert bench._suit("sd15") == (spec.steps, spec.guidance_scale, spec.scheduler, 512, 512)
    assert bench._shape("sd15", "1:1") == (512, 512)
    assert bench._advise_size("sd15", 1024, 1024)[0]["kind"] == "warning"
    assert bench._advise_size("sd15", 512, 512)[1] == "1:1"
    assert "from 7 to 9" in bench._advise_guidance("sd15", 8)["text"]


def test_choosing_a_model_to_download_downloads_nothing(bench, engine, device, press):
    bench._suit("sd15")
    list(press())
    assert device.calls("load") == [("starter",)]


def test_ready_made_words_are_added_and_the_list_goes_back(bench):
    name, text = next(iter(bench.controls.negatives.items()))
    assert bench._add_negative("blurry", name) == (f"blurry, {text}", "")
    assert bench._add_negative(None, "nothing of the kind") == ("", "")


# Settings from a link.


def test_a_link_fills_in_what_it_names_and_clears_what_it_leaves_out(bench):
    query = "?prompt=an+owl%0Aat+night&seed=7&steps=9&cfg=6.5&scheduler=Euler&size=128x64&model=starter&exact=1&utm_source=mail"
    shown = {component.elem_id: value for component, value in bench._open_link(query).items()}
    assert shown.pop("tabs").selected == "generate"
    assert shown.pop("loaded")["notes"] == []
    assert shown == {
        "prompt": "an owl\nat night", "negative": "", "style": NO_STYLE, "seed": 7, "seed-mode": KEEP, "steps": 9, "cfg": 6.5,
        "scheduler": "Euler", "width": 128, "height": 64, "model": "starter", "clip-skip": 1, "exact": True,
    }  # fmt: skip


def test_what_a_link_asks_for_and_is_not_here_is_told_above_the_prompt(bench):
    shown = bench._open_link("?model=nobodys&scheduler=Nobody&steps=100000&seed=x")
    notes = shown[bench.loaded]["notes"]
    assert [next(word for word in ("“nobodys”", "Steps", "“x”", "Nobody") if word in note) for note in notes] == [
        "“nobodys”", "Steps", "“x”", "Nobody",
    ]  # fmt: skip
    assert {component.elem_id for component in shown} == {"tabs", "loaded", "steps", "negative", "clip-skip", "exact"}


@pytest.mark.parametrize("query", [None, "", "?__theme=dark"])
def test_a_page_opened_without_a_link_stays_as_it_is(bench, query):
    assert bench._open_link(query) == {bench.loaded: gr.skip()}


# Settings as text.

INFOTEXT = "an owl, <lora:ink:0.8>\nNegative prompt: red\nSteps: 9, Sampler: Euler, CFG scale: 6.5, Seed: 7, Size: 128x64, Model: nobodys"


@pytest.mark.parametrize(("pasted", "prompt"), [(INFOTEXT, "a crab"), ("", INFOTEXT), ("only words", INFOTEXT)])
def test_settings_from_the_clipboard_or_in_the_prompt_fill_the_fields(bench, told, pasted, prompt):
    shown = {component.elem_id: value for component, value in bench._paste(pasted, prompt).items()}
    notes = "\n".join(shown.pop("loaded")["notes"])
    assert "“nobodys”" in notes
    assert "lora" in notes.casefold()
    assert shown.pop("prompt").startswith("an owl")
    assert shown == {
        "negative": "red", "style": NO_STYLE, "seed": 7, "seed-mode": KEEP, "steps": 9, "cfg": 6.5, "scheduler": "Euler", "width": 128,
        "height": 64, "clip-skip": 1,
    }  # fmt: skip
    assert told == [("info", "Settings written by A1111 are pasted. What did not come with them stands above the prompt.")]


@pytest.mark.parametrize(("pasted", "prompt"), [("", ""), (None, None), ("only words", "an owl")])
def test_words_without_settings_change_nothing_and_it_is_said_what_to_do(bench, told, pasted, prompt):
    assert bench._paste(pasted, prompt) == {bench.loaded: gr.skip()}
    [(kind, message)] = told
    assert kind == "warning"
    assert "Copy the whole text" in message

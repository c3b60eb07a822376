"""What a browser says that it has kept: anything may be in it."""

from __future__ import annotations

import gradio as gr
import pytest

from ui.tabs.memory import LONGEST, Memory


@pytest.fixture
def memory(bench) -> Memory:
    return bench.memory


def test_every_field_of_a_recipe_and_of_the_axes_is_remembered(memory, tab, grids):
    assert set(tab.controls.components) | set(grids.pickers.components) | {grids.anew, grids.together} <= set(memory.fields.values())


def test_what_was_kept_comes_back(memory):
    built = dict(memory.built)
    changed = {"prompt": "an owl\n“${x}”", "steps": 7, "guidance_scale": 6.55, "seed_mode": "Keep", "exact": True, "values_x": "1, 2"}
    update = memory.recall({"values": {**built, **changed}, "tab": "compare", "open": {"more": True}})
    assert {name: update[memory.fields[name]] for name in changed} == changed
    assert update[memory.tabs].constructor_args["selected"] == "compare"
    assert update[memory.folded["more"]].constructor_args["open"] is True


@pytest.mark.parametrize(
    "kept",
    [None, 7, [], "x", {}, {"values": 7, "tab": ["compare"], "open": []}, {"values": {"no such field": 1}}, {"open": {"more": "yes"}}],
)
def test_what_is_no_memory_changes_nothing(memory, kept):
    assert memory.recall(kept) == {memory.tabs: gr.skip()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "gone"), ("scheduler", ["Euler"]), ("scheduler", {}), ("style", "Gone"), ("steps", 9999), ("steps", "7"), ("steps", True),
        ("guidance_scale", None), ("seed", None), ("seed", []), ("seed", float("inf")), ("width", "wide"), ("prompt", 7),
        ("prompt", "x" * (LONGEST + 1)), ("exact", "yes"), ("axis_x", "gone"), ("seed_mode", 0),
    ],
)  # fmt: skip
def test_a_value_that_is_not_valid_any_more_stays_as_built_and_takes_no_other_along(memory, name, value):
    other = "negative_prompt" if name != "negative_prompt" else "prompt"
    assert memory.recall({"values": {name: value, other: "red"}}) == {memory.fields[other]: "red"}


def test_starting_over_clears_the_stage_but_no_picture(bench, tab, press):
    list(press())
    update = bench._start_over("a" * 32)
    assert update[tab.stage]["welcome"]
    assert update[tab.text] == update[tab.shown] == ""
    assert update[tab.controls.fields["prompt"]] == bench.memory.built["prompt"]
    assert len(tab._strip_value("a" * 32)) == 1


def test_starting_over_leaves_a_run_on_the_stage(bench, tab, device, press):
    device.hold()
    first = next(press())
    assert bench._start_over("a" * 32)[tab.stage] == first[tab.stage]
    device.let_go()

"""The widgets of a grid's axes: lines into them and back."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from engine.errors import InvalidRequest
from engine.recipes.axes import AXES, Offer
from engine.recipes.catalog import Catalog, Limits, load_styles
from engine.recipes.plan import MAX_LINE, AxisLine, Grid, GridPreset, load_grids, plan_grid
from tests.conftest import ROOT
from tests.gradio_loop import in_a_loop
from ui.tabs.axes import ADD, NONE, AxisPickers, with_value

CATALOG = Catalog.load(ROOT / "presets" / "models.toml")
OFFER = Offer(CATALOG, Limits(), tuple(load_styles(ROOT / "presets" / "styles.toml")))
PRESETS = load_grids(ROOT / "presets" / "grids")
BEGINS = GridPreset(title="", x=AxisLine(axis="cfg", values="2, 5"), z=AxisLine(axis="scheduler", values="Euler"))
NAMED = {"scheduler", "model", "style"}
"""The axes whose values are names from a list."""


def build() -> AxisPickers:
    def widgets() -> AxisPickers:
        pickers = AxisPickers(OFFER)
        with gr.Blocks(analytics_enabled=False):
            pickers.build(BEGINS)
        return pickers

    return in_a_loop(widgets)


PICKERS = build()


def read(*values: Any) -> dict[str, AxisLine | None]:
    """What is read from axis and values of X, Y and Z, where those not given are unused."""
    return PICKERS.read([*values, *[NONE, ""] * 3][:6])


def after(shown: dict[Any, Any]) -> list[Any]:
    return [shown[component] for component in PICKERS.components]


def test_the_page_opens_with_what_it_was_built_with() -> None:
    lines = PICKERS.read([component.value for component in PICKERS.components])
    assert lines == {"x": BEGINS.x, "y": None, "z": BEGINS.z}


def test_every_axis_is_on_offer_by_its_label() -> None:
    choices = PICKERS.axes["y"].choices
    assert choices[0] == ("nothing", NONE)
    assert choices[1:] == [(row.label, row.name) for row in AXES.values()]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_a_preset_comes_back_as_it_is(preset: GridPreset) -> None:
    shown = PICKERS.show(preset)
    assert set(shown) == set(PICKERS.components)
    assert PICKERS.read(after(shown)) == {"x": preset.x, "y": preset.y, "z": preset.z}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_a_grid_as_it_was_resolved_comes_back_and_plans_the_same_cells(preset: GridPreset) -> None:
    plan = plan_grid(preset.grid(CATALOG.default.recipe(prompt="a sunflower, noto style")), OFFER)
    lines = PICKERS.read(after(PICKERS.show(plan.grid)))
    assert plan_grid(plan.grid.model_copy(update=lines), OFFER) == plan


@pytest.mark.parametrize(
    "line",
    [
        AxisLine(axis="prompt", values='"a cat, sitting", a dog'),
        AxisLine(axis="prompt", values="a cat, sitting || a dog\n|| ünï ${x} \\ `"),
        AxisLine(axis="negative", values=", blurry"),
        AxisLine(axis="variants", values=""),
        AxisLine(axis="variants", values="a {red|green} {apple|pear}"),
    ],
    ids=lambda line: line.values,
)
def test_texts_come_back_to_the_letter(line: AxisLine) -> None:
    grid = Grid(recipe=CATALOG.default.recipe(), y=line)
    assert PICKERS.read(after(PICKERS.show(grid))) == {"x": None, "y": line, "z": None}


def test_an_axis_by_its_label_is_shown_as_one_of_the_list() -> None:
    shown = PICKERS.show(GridPreset(title="", x=AxisLine(axis="CFG Scale", values="5")))
    assert shown[PICKERS.axes["x"]] == "cfg"
    assert shown[PICKERS.axes["y"]] == NONE
    assert shown[PICKERS.values["y"]] == ""


@pytest.mark.parametrize("nothing", ["", "   ", None])
def test_an_unused_axis_is_none(nothing: str | None) -> None:
    assert read(NONE, nothing) == {"x": None, "y": None, "z": None}


@pytest.mark.parametrize("nothing", ["", None])
def test_an_axis_without_values_is_read_so_that_the_plan_can_say_what_it_needs(nothing: str | None) -> None:
    assert read("cfg", nothing)["x"] == AxisLine(axis="cfg", values="")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_values_without_an_axis_are_refused(place: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(*[NONE, ""] * place, NONE, "1, 2")
    assert str(caught.value) == f"{'XYZ'[place]} has values but varies nothing: choose what it varies, or empty its values."


def test_a_line_that_is_too_long_is_refused_in_words() -> None:
    assert read("prompt", "x" * MAX_LINE)["x"] is not None
    with pytest.raises(InvalidRequest, match=r"^The values of X have 20,001 characters; at most 20,000 are read: shorten them\.$"):
        read("prompt", "x" * (MAX_LINE + 1))


@pytest.mark.parametrize("axis", [*AXES, NONE])
def test_names_are_offered_for_named_axes_only(axis: str) -> None:
    values, names = PICKERS._offer(axis)
    expected = AXES[axis].choices(OFFER) if axis in NAMED else []
    assert [text for text, _ in names.choices] == [ADD[0], *expected]
    assert names.visible == (axis in NAMED)
    assert names.value == ADD[1]
    assert (AXES[axis].hint in values.placeholder) if axis else values.placeholder.startswith("Choose what varies")


def test_no_axis_at_all_is_offered_no_names() -> None:
    assert PICKERS._offer(None)[1].visible is False


@pytest.mark.parametrize(
    ("line", "name", "result"),
    [
        ("", "Euler", "Euler"),
        ("Euler", "Heun", "Euler, Heun"),
        ("Euler, ", "Heun", "Euler, Heun"),
        ("Euler || Heun", "DDIM", "Euler || Heun || DDIM"),
        ("Euler", "a, b", 'Euler, "a, b"'),
    ],
)
def test_a_name_is_added_to_the_end(line: str, name: str, result: str) -> None:
    assert with_value(line, name) == result
    assert PICKERS._add_name(line, name) == (result, ADD[1])


@pytest.mark.parametrize("axis", sorted(NAMED))
def test_every_name_that_is_added_is_read_back(axis: str) -> None:
    line = ""
    for name in AXES[axis].choices(OFFER):
        line = with_value(line, name)
    values = AXES[axis].read(line, OFFER, CATALOG.default.recipe())
    assert [AXES[axis].show(value) for value in values] == AXES[axis].choices(OFFER)


@pytest.mark.parametrize("nothing", ["", None])
def test_no_name_adds_nothing(nothing: str | None) -> None:
    assert PICKERS._add_name("Euler", nothing) == ("Euler", ADD[1])

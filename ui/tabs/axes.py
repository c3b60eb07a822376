"""The widgets of a grid's axes: what X, Y and Z vary, and the values of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from engine.errors import InvalidRequest
from engine.recipes.axes import AXES, Offer, find_axis
from engine.recipes.plan import MAX_LINE, AxisLine, Grid, GridPreset
from engine.recipes.values import longer_line, write_line

NONE = ""
"""The dropdown's value of an axis that is not used."""

NAMES = ("x", "y", "z")

VALUE_LINES = 6
"""Of values that are seen at once: the prompts that are pasted one a line, and the sheet below stays in view."""

ADD = ("Add ...", "")
"""What the list of names shows while none is chosen."""


class AxisPickers:
    """Builds three rows of widgets; `components` are the ones a grid is read from: axis and values of X, Y and Z."""

    def __init__(self, offer: Offer):
        self.offer = offer
        self.axes: dict[str, gr.Dropdown] = {}
        self.values: dict[str, gr.Textbox] = {}
        self.names: dict[str, gr.Dropdown] = {}

    @property
    def components(self) -> list[gr.components.Component]:
        return [part for name in NAMES for part in (self.axes[name], self.values[name])]

    def build(self, begin: GridPreset) -> None:
        """The rows, with the axes that the page opens with."""
        choices = [("nothing", NONE), *((row.label, row.name) for row in AXES.values())]
        for name in NAMES:
            line: AxisLine | None = getattr(begin, name)
            with gr.Row(elem_classes="axis-row", elem_id=f"axis-{name}"):
                self.axes[name] = gr.Dropdown(
                    choices, value=line.axis if line else NONE, label=f"{name.upper()} varies", container=False,
                    elem_id=f"axis-{name}-kind", min_width=110, scale=2,
                )  # fmt: skip
                self.values[name] = gr.Textbox(
                    line.values if line else "", label=f"Values of {name.upper()}", container=False, max_lines=VALUE_LINES,
                    elem_id=f"axis-{name}-values", elem_classes="axis-values", min_width=120, scale=5,
                    placeholder=_placeholder(line.axis if line else NONE),
                )  # fmt: skip
                self.names[name] = gr.Dropdown(
                    [ADD], value=ADD[1], label=f"Add to {name.upper()}", container=False, visible=False, elem_id=f"axis-{name}-add",
                    min_width=110, scale=2,
                )  # fmt: skip

    def wire(self, quiet: Mapping[str, Any]) -> None:
        """What the rows do by themselves: a placeholder that shows the notation, and names to add where there are any."""
        for name in NAMES:
            # select, not change: a grid that is put into the widgets brings its own values. In the browser: by the time an
            # answer came from here, new values might have been typed.
            self.axes[name].select(None, None, self.values[name], js="() => ''", **quiet)
            gr.on([self.axes[name].change], self._offer, self.axes[name], [self.values[name], self.names[name]], **quiet)
            self.names[name].input(self._add_name, [self.values[name], self.names[name]], [self.values[name], self.names[name]], **quiet)

    def read(self, values: Sequence[Any]) -> dict[str, AxisLine | None]:
        """X, Y and Z from the widgets' values. Raises InvalidRequest for values without an axis, and for too many characters."""
        lines: dict[str, AxisLine | None] = {}
        for name, axis, line in zip(NAMES, values[0::2], values[1::2], strict=True):
            if not axis and str(line or "").strip():
                raise InvalidRequest(f"{name.upper()} has values but varies nothing: choose what it varies, or empty its values.")
            lines[name] = axis_line(name, axis, line or "") if axis else None
        return lines

    def show(self, grid: Grid | GridPreset) -> dict[gr.components.Component, Any]:
        """Updates that put a grid's axes into the widgets."""
        updates: dict[gr.components.Component, Any] = {}
        for name in NAMES:
            line: AxisLine | None = getattr(grid, name)
            updates[self.axes[name]] = find_axis(line.axis).name if line else NONE
            updates[self.values[name]] = line.values if line else ""
        return updates

    def _offer(self, axis: str) -> tuple[Any, Any]:
        names = AXES[axis].choices(self.offer) if axis in AXES else []
        return gr.Textbox(placeholder=_placeholder(axis)), gr.Dropdown([ADD, *names], value=ADD[1], visible=bool(names))

    def _add_name(self, line: str, name: str | None) -> tuple[str, str]:
        return with_value(line, name) if name else line, ADD[1]


def axis_line(name: str, axis: str, values: str) -> AxisLine:
    """The line of X, Y or Z. Raises InvalidRequest when it has more characters than are read."""
    if len(values) > MAX_LINE:
        told = f"The values of {name.upper()} have {len(values):,} characters"
        raise InvalidRequest(f"{told}; at most {MAX_LINE:,} are read: shorten them.")
    return AxisLine(axis=axis, values=values)


def with_value(line: str, value: str) -> str:
    """A line of values with one more name at its end."""
    line = line.strip().rstrip(",")
    return longer_line(line, write_line([value])) if line else write_line([value])


def _placeholder(axis: str) -> str:
    return f"such as {AXES[axis].hint}" if axis in AXES else "Choose what varies, then write its values here"

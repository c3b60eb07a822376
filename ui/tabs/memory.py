"""What the browser remembers of the page, and how it comes back: `ui/assets/memory.js` keeps it, and nothing of it is believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.events import Dependency

from ui.handlers import QUIET

LONGEST = 100_000
"""Characters of a text that are brought back: what is longer was not typed here."""

RECALL = """
async (...inputs) => {
  while (!window.Darkroom || !Darkroom.memory) await new Promise(resolve => setTimeout(resolve, 20));
  return [...inputs.slice(0, COUNT), Darkroom.memory.recall()];
}
"""
"""Puts what is kept behind the first COUNT inputs: gradio may run this before the scripts in the page's head."""


class Memory:
    """The widgets whose values are remembered, by name; built where a page is open."""

    def __init__(self, fields: Mapping[str, Any], tabs: gr.Tabs, tab_names: Mapping[str, gr.Tab], folded: Mapping[str, gr.Accordion]):
        self.fields, self.tabs, self.tab_names, self.folded = dict(fields), tabs, dict(tab_names), dict(folded)
        self.kept = gr.JSON(visible=False)  # only a place for what the script hands over
        self.built = {name: field.value for name, field in self.fields.items()}

    @property
    def components(self) -> list[Any]:
        return [*self.fields.values(), self.tabs, *self.folded.values()]

    def wire(self) -> None:
        """Every change is kept at once, by the browser alone."""
        quiet = {**QUIET, "trigger_mode": "multiple"}
        fields = list(self.fields.values())
        gr.on([field.change for field in fields], None, fields, None, js=self._telling("keep"), **quiet)
        for name, tab in self.tab_names.items():
            tab.select(None, None, None, js=f"() => {{ Darkroom.memory.note({{tab: {json.dumps(name)}}}); return []; }}", **quiet)
        for name, part in self.folded.items():
            for event, is_open in ((part.expand, "true"), (part.collapse, "false")):
                event(None, None, None, js=f"() => {{ Darkroom.memory.fold({json.dumps(name)}, {is_open}); return []; }}", **quiet)

    def restore(self, blocks: gr.Blocks) -> Dependency:
        """What happens when the page is opened; what comes after it sees the fields as they were left."""
        recalled = blocks.load(self.recall, self.kept, self.components, js=handed_over(), **QUIET)
        return recalled.then(None, list(self.fields.values()), None, js=self._telling("begin"), **QUIET)

    def recall(self, kept: Any) -> dict[Any, Any]:
        """Updates that bring back what was kept. Each value for itself: one that is not valid any more stays as the page was built."""
        kept = kept if isinstance(kept, dict) else {}
        values, folded = _table(kept, "values"), _table(kept, "open")
        updates = {field: values[name] for name, field in self.fields.items() if name in values and takes(field, values[name])}
        updates |= {part: gr.Accordion(open=folded[name]) for name, part in self.folded.items() if isinstance(folded.get(name), bool)}
        if isinstance(tab := kept.get("tab"), str) and tab in self.tab_names:
            updates[self.tabs] = gr.Tabs(selected=tab)
        return updates or {self.tabs: gr.skip()}

    def as_built(self) -> dict[Any, Any]:
        """Updates that put every field back to how the page was built, and fold what was folded; the open tab stays."""
        fields = {field: self.built[name] for name, field in self.fields.items()}
        return {**fields, **{part: gr.Accordion(open=False) for part in self.folded.values()}}

    def _telling(self, what: str) -> str:
        names = json.dumps(list(self.fields))
        return f"(...values) => {{ Darkroom.memory.{what}(Object.fromEntries({names}.map((name, i) => [name, values[i]]))); return []; }}"


def handed_over(before: int = 0) -> str:
    """The script of a handler whose last input is what was kept, behind so many others."""
    return RECALL.replace("COUNT", str(before))


def takes(field: Any, value: Any) -> bool:
    """Whether a widget can hold a value that a browser kept: its own check of what is sent to it says so."""
    if isinstance(field, gr.Textbox):
        return isinstance(value, str) and len(value) <= LONGEST
    if isinstance(field, gr.Checkbox):
        return isinstance(value, bool)
    numeric = isinstance(field, (gr.Slider, gr.Number))
    if isinstance(value, bool) or not isinstance(value, (int, float) if numeric else str):
        return False
    if isinstance(field, gr.Slider):
        return not isinstance(value, str) and field.minimum <= value <= field.maximum
    check: Callable[[Any], Any] = field.preprocess
    try:
        return check(value) is not None
    except (gr.Error, ValueError, TypeError, OverflowError):
        return False


def _table(kept: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = kept.get(name)
    return value if isinstance(value, dict) else {}

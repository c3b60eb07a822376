"""What a dropped file brought and what not: a card above the prompt, which stays until it is closed or another file comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui.tabs.stage import PICK
from ui.template import literal

READ_AT_ONCE = 480
"""Characters of notes that are shown before the rest is folded away: ten lines on a phone."""

LONGEST = 4000
"""Characters of one note: a text may hold thousands of things in one of its places."""

CARD = """
{{#if value.notes}}
<section class="loaded" aria-label="Notes on the file">
  <header><strong>{{value.title}}</strong><button type="button" data-pick="close" aria-label="Close the notes">Close</button></header>
  <ul>{{#each value.notes}}<li>{{this}}</li>{{/each}}</ul>
  {{#if value.folded}}
  <details><summary>{{value.count}} more</summary><ul>{{#each value.folded}}<li>{{this}}</li>{{/each}}</ul></details>
  {{/if}}
</section>
{{/if}}
"""


def loaded_component() -> gr.HTML:
    return gr.HTML(loaded_value(), html_template=CARD, js_on_load=PICK, elem_id="loaded")


def loaded_value(title: str = "", notes: Sequence[str] = ()) -> dict[str, Any]:
    """The card's value; without notes there is no card. The first is never folded, however long."""
    notes = [note if len(note) <= LONGEST else note[: LONGEST - 3] + "..." for note in notes]
    shown = next((count for count in range(1, len(notes)) if len("".join(notes[: count + 1])) > READ_AT_ONCE), len(notes))
    folded = list(notes[shown:])
    return literal({"title": title, "notes": list(notes[:shown]), "folded": folded, "count": str(len(folded))})

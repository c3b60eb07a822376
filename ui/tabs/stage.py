"""The picture, large, and the strip of this session's pictures: what their scripts and templates are given.

Prompts are strangers' text on a shared page: the stage's script sets text as text, and all that a template is filled with goes
through `literal` and its {{ }}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.recipes.catalog import ModelSpec
from engine.running.job import Job
from ui.sheet.view import picture_src, thumbnail_src
from ui.template import literal

Value = dict[str, Any]

PICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('select', {pick: button.dataset.pick});
});
"""
"""A click on anything with data-pick becomes the component's select event."""

STAGE_SCRIPT = """
const begin = () => {
  if (!window.Darkroom || !Darkroom.Stage) { setTimeout(begin, 50); return; }
  const stage = new Darkroom.Stage(
    element.querySelector('.stage-root'),
    (question, details) => server.ask_stage({question, key: stage.key, ...details}),
    (what, details) => what === 'act' ? trigger('act', details) : trigger('select', details),
  );
  watch('value', () => stage.set(props.value || {}));
  stage.set(props.value || {});
};
begin();
"""

STRIP = """
<div class="strip" role="list" aria-label="Pictures of this session">
  {{#each value}}
  <button type="button" role="listitem" class="thumb {{this.state}}" data-pick="{{this.pick}}" title="{{this.title}}">
    {{#if this.src}}<img src="{{this.src}}" alt="{{this.title}}" loading="lazy">{{/if}}
  </button>
  {{/each}}
</div>
"""


STRIP_LENGTH = 200
"""Pictures in the strip: all of them are sent with each new one."""


def stage_component(value: Value, ask_stage: Callable[[Any], Any]) -> gr.HTML:
    """`ask_stage` answers what the script asks of the run that it follows; the component's act event then tells the page that
    pictures were made, or that the run has ended or is gone, and its select event what was picked."""
    return gr.HTML(
        value, html_template='<div class="stage-root"></div>', js_on_load=STAGE_SCRIPT, elem_id="stage",
        server_functions=[ask_stage], apply_default_css=False,
    )  # fmt: skip


def strip_component() -> gr.HTML:
    return gr.HTML([], html_template=STRIP, js_on_load=PICK, elem_id="strip")


def welcome(spec: ModelSpec) -> Value:
    """An empty page: what can be had with one click."""
    return _value(welcome={"title": "Nothing developed yet.", "examples": list(spec.examples), "status": spec.note})


def refused(message: str, over: bool = False) -> Value:
    """A request that was wrong: nothing was begun, and the script leaves what was there. With `over` it waits for no run any more."""
    return _value(error=message, over=over)


def followed(job: Job, over: bool = False, pick: str = "") -> Value:
    """A run, which the script follows from here on; `over` once the page knows that it has ended, and `pick` is the picture whose
    settings stand below."""
    recipe = job.plan.cells[0].recipe
    return _value(key=job.key, run=job.id, over=over, count=len(job.plan.cells), ratio=recipe.width / recipe.height, pick=pick)


def single(made: Made, pick: str, run: Job | None = None) -> Value:
    """One picture of this session, looked at again; `run` goes on meanwhile."""
    seconds = made.provenance.seconds
    status = f"{made.recipe.steps} steps in {seconds:.1f} s on {made.provenance.device}, seed {made.recipe.seed}"
    if made.provenance.unfinished:
        status = f"Unfinished: step {made.provenance.step} of {made.provenance.total}, seed {made.recipe.seed}"
    look = {
        "src": picture_src(made), "alt": made.recipe.full_prompt, "ratio": made.recipe.width / made.recipe.height,
        "status": status, "notices": made.unsaved,
    }  # fmt: skip
    return {**(followed(run) if run else _value()), "look": look, "pick": pick}


def strip_value(pictures: Sequence[tuple[str, Made]]) -> list[Value]:
    """Thumbnails of (pick, picture), newest first; no more of them than one scrolls through."""
    thumbs = [
        {
            "pick": pick,
            "src": _thumbnail(made),
            "title": f"{made.recipe.full_prompt or 'empty prompt'}, seed {made.recipe.seed}",
            "state": "unfinished" if made.provenance.unfinished else "",
        }
        for pick, made in pictures[:STRIP_LENGTH]
    ]
    return literal(thumbs)


def _thumbnail(made: Made) -> str:
    try:
        return thumbnail_src(made)
    except InvalidRequest:  # its file was taken away: its place and its settings stay
        return ""


def _value(**parts: Any) -> Value:
    """A whole value, as stage.js reads it."""
    return {"key": "", "run": "", "over": False, "count": 0, "ratio": 1.0, "look": None, "welcome": None, "error": "", "pick": "", **parts}

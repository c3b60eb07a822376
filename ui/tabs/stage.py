"""The picture, large, and the strip of this session's pictures: templates and the values that fill them.

Every value goes through `literal` and the template's {{ }}: prompts are strangers' text on a shared page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from engine.errors import InvalidRequest
from engine.pictures.made import Made
from engine.recipes.catalog import ModelSpec
from ui.sheet.view import CellView, JobView, picture_src, thumbnail_src
from ui.template import literal

Value = dict[str, Any]

PICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-pick]');
  if (button) trigger('select', {pick: button.dataset.pick});
});
"""
"""A click on anything with data-pick becomes the component's select event."""

FOLLOW = """
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const AGAIN = 2000;  // milliseconds until what was not answered is said again
let round = 0, following = '';
// Follows the run whose key stands in the value, until the page has been told its end: that brings a value without a key.
const follow = async () => {
  const value = props.value || {};
  if (value.key || !value.looked) following = value.key || '';  // a look may have been asked for before the run
  const key = following;
  if (!key) return;
  const mine = ++round;
  let seen = -1, made = 0;
  while (mine === round && following === key) {
    if (document.hidden) { await pause(200); continue; }
    const answer = await server.ask_stage({key, seen}) || {away: true};  // gradio gives nothing where the line is cut
    if (mine !== round || following !== key) return;
    if (answer.away && props.value.state === 'running') {
      props.value = {...props.value, status: 'Darkroom does not answer: see whether it still runs. What is finished is on its disk.'};
    }
    if (answer.stage) {
      seen = answer.version;
      if (props.value.state === 'running') props.value = answer.stage;  // else an earlier picture is being looked at
    }
    if (answer.gone || answer.done || answer.made > made) { made = answer.made; trigger('act', {key}); }
    await pause(answer.away || answer.gone || answer.done ? AGAIN : 50);
  }
};
watch('value', follow);
follow();
"""
"""The script asks for the next view once it has shown the last one."""

STAGE = """
<div class="stage {{value.state}}" style="--columns: {{value.columns}}; --ratio: {{value.ratio}}">
  <div class="tray">
    {{#if value.examples}}
    <div class="welcome">
      <p class="welcome-title">{{value.title}}</p>
      <p>Type a prompt and press Generate, or begin with one of these:</p>
      <div class="chips">
        {{#each value.examples}}<button type="button" class="chip" data-pick="example:{{@index}}">{{this}}</button>{{/each}}
      </div>
    </div>
    {{/if}}
    {{#each value.frames}}
    <figure class="frame {{this.state}}">
      {{#if this.src}}<img src="{{this.src}}" alt="{{this.alt}}" data-pick="{{this.pick}}" draggable="true">{{/if}}
      {{#if this.message}}<p class="frame-message" role="alert">{{this.message}}</p>{{/if}}
      {{#if this.caption}}<figcaption>{{this.caption}}</figcaption>{{/if}}
    </figure>
    {{/each}}
    {{#if value.error}}<p class="refusal" role="alert">{{value.error}}</p>{{/if}}
  </div>
  <div class="meter" aria-hidden="true"><div class="{{value.meter}}" style="width: {{value.percent}}%"></div></div>
  <p class="status" role="status">{{value.status}}</p>
  <p class="notices" role="status" title="{{value.notices}}">{{value.notices}}</p>
</div>
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


def stage_component(value: Value, ask_stage: Callable[[Any], Any] | None = None) -> gr.HTML:
    """`ask_stage` answers what FOLLOW asks; the component's act event then tells the page that pictures were made or the run is over."""
    return gr.HTML(
        value, html_template=STAGE, js_on_load=PICK + (FOLLOW if ask_stage else ""), elem_id="stage",
        server_functions=[ask_stage] if ask_stage else None,
    )  # fmt: skip


def strip_component() -> gr.HTML:
    return gr.HTML([], html_template=STRIP, js_on_load=PICK, elem_id="strip")


def welcome(spec: ModelSpec) -> Value:
    """An empty page: what can be had with one click."""
    return _value("idle", title="Nothing developed yet.", examples=list(spec.examples), ratio=1.0, status=spec.note)


def refused(message: str, kept: Value | None = None, key: str = "") -> Value:
    """A request that was wrong: nothing was begun, and the picture that was there stays; `key` is of a run that goes on."""
    return {**kept, "error": literal(message)} if kept else _value("failed", error=message, key=key)


def working(view: JobView, key: str = "") -> Value:
    """A job under way, or just ended; with its key, the script follows it."""
    several = len(view.cells) > 1
    first = view.cells[0].recipe
    return _value(
        "done" if view.ended else "running",
        frames=[_frame(view.job_id, cell, several) for cell in view.cells],
        ratio=first.width / first.height,
        status=view.status,
        notices=" ".join(view.notices),
        percent=round(100 * view.part, 1),
        meter="unknown" if view.loading and view.loaded_part < 0 else "known",
        key=key,
    )


def single(made: Made, pick: str, key: str = "") -> Value:
    """One picture of this session, looked at again; `key` is of the run that goes on meanwhile."""
    frame = {"src": picture_src(made), "alt": made.recipe.full_prompt, "state": "finished", "pick": pick}
    seconds = made.provenance.seconds
    status = f"{made.recipe.steps} steps in {seconds:.1f} s on {made.provenance.device}, seed {made.recipe.seed}"
    if made.provenance.unfinished:
        status = f"Unfinished: step {made.provenance.step} of {made.provenance.total}, seed {made.recipe.seed}"
    ratio = made.recipe.width / made.recipe.height
    return _value("done", frames=[frame], ratio=ratio, status=status, notices=made.unsaved, key=key, looked=True)


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


def _frame(job_id: str, cell: CellView, several: bool) -> Value:
    caption = ""
    if several:
        caption = f"seed {cell.recipe.seed}" + (f" · {cell.step}/{cell.total}" if cell.state == "developing" else "")
        caption += " · stopped" if cell.state == "stopped" else ""
    return {
        "src": cell.src,
        "alt": f"{cell.state}: {cell.recipe.full_prompt}",
        "state": cell.state,
        "message": cell.message,
        "caption": caption,
        "pick": f"{job_id}:{cell.index}" if cell.made else "",
    }


def _value(state: str, **parts: Any) -> Value:
    """A whole value: the template must find every name, whatever the state."""
    empty: Value = {
        "state": state, "title": "", "examples": [], "frames": [], "ratio": 1.0, "status": "", "notices": "",
        "percent": 0, "meter": "known", "error": "", "key": "", "looked": False,
    }  # fmt: skip
    value = literal({**empty, **parts})
    value["columns"] = math.ceil(math.sqrt(max(len(value["frames"]), 1)))
    return value

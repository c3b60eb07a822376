"""A picture made again: whether it is still the same, how it is made without this page, and where its settings open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from engine.errors import EngineError
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.link import query_of
from engine.replay.scripts import as_command, as_python
from engine.replay.verifying import Original, read_original, replay, verdict_of
from engine.running.engine import Engine
from ui.handlers import QUIET
from ui.sheet.view import png_uri
from ui.template import literal

LOOK_EVERY = 0.5
"""Seconds between two looks at a picture that is being made again: nobody's place is held while it lasts."""

VERDICT = """
{{#if value.sentences}}
<div class="verdict {{value.kind}}" role="status">
  {{#each value.sentences}}<p>{{this}}</p>{{/each}}
  {{#if value.src}}<img src="{{value.src}}" alt="Where the two differ: black where they do not, white where most">{{/if}}
</div>
{{/if}}
"""

TO_CLIPBOARD = """
async text => {
  if (!text) return;
  try { await navigator.clipboard.writeText(text); }
  catch { document.querySelector('#copied textarea')?.select(); document.execCommand('copy'); }
}
"""
"""On a plain http address browsers have no clipboard for scripts: there the text is selected and copied as a person would."""

WITH_ADDRESS = "(visitor, pick) => [visitor, pick, location.origin + location.pathname]"
"""Only the browser knows under which address the page is reached."""

NO_PICTURE = "There is no picture here yet: make one, or choose one from the strip."


class Again:
    """The folded part below a picture's settings. `made` finds the picture of a visitor's pick."""

    def __init__(self, made: Callable[[str, str], Made | None]):
        self._made = made

    def build(self) -> None:
        with gr.Accordion("Make it again", open=False, elem_id="again") as self.part:
            with gr.Row(elem_id="again-buttons"):
                self.verify = gr.Button("Verify", size="sm", min_width=110, elem_id="verify")
                self.python = gr.Button("Copy as Python", size="sm", min_width=110, elem_id="as-python")
                self.command = gr.Button("Copy as command", size="sm", min_width=110, elem_id="as-command")
                self.link = gr.Button("Copy link", size="sm", min_width=110, elem_id="as-link")
            self.verdict = gr.HTML(verdict_value(), html_template=VERDICT, elem_id="verdict")
            self.copied = gr.Textbox(visible=False, lines=3, max_lines=12, interactive=False, buttons=["copy"], elem_id="copied")
        self.address = gr.Textbox(visible=False)  # only a place for what the browser hands over
        self.key = gr.State("")  # of the job that makes the shown picture again
        self.clock = gr.Timer(LOOK_EVERY, active=False)

    def wire(self, engine: Callable[[], Engine], visitor: gr.BrowserState, shown: gr.State, other: Sequence[Any]) -> None:
        """`shown` holds the pick of the picture on the stage; `other` are the events by which that becomes another."""
        self._engine = engine
        outputs = [self.verdict, self.copied, self.key, self.clock]
        self.verify.click(self._begin, [visitor, shown], outputs, **QUIET)
        self.clock.tick(self._look, [visitor, shown, self.key], outputs, **QUIET)
        gr.on(other, self._clear, [visitor, self.key], outputs, **QUIET)
        for button, handler in ((self.python, self._as_python), (self.command, self._as_command)):
            button.click(handler, [visitor, shown], outputs, **QUIET).then(None, self.copied, None, js=TO_CLIPBOARD, **QUIET)
        linked = self.link.click(self._as_link, [visitor, shown, self.address], outputs, js=WITH_ADDRESS, **QUIET)
        linked.then(None, self.copied, None, js=TO_CLIPBOARD, **QUIET)

    # Handlers. Each takes widget values and returns widget updates.

    def _begin(self, visitor: str, pick: str) -> dict[Any, Any]:
        try:
            job = replay(self._engine(), self._original(visitor, pick), visitor)
        except EngineError as error:
            return self._told([str(error)])
        return {**self._told(["Making it again ..."]), self.key: job.key, self.clock: gr.Timer(active=True)}

    def _look(self, visitor: str, pick: str, key: str) -> dict[Any, Any]:
        """Whether the picture has been made again, and what came of it."""
        job = self._engine().job_of_key(key)
        if job is None or job.owner != visitor:
            return self._told(["It is not known any more what came of it: press Verify again."] if key else [])
        if not job.done:
            return {self.key: gr.skip()}
        try:
            verdict = verdict_of(self._original(visitor, pick), job)
        except EngineError as error:
            return self._told([str(error)])
        heat = png_uri(verdict.difference.image) if verdict.difference else ""
        return self._told(verdict.sentences, "same" if verdict.identical else "different", heat)

    def _as_python(self, visitor: str, pick: str) -> dict[Any, Any]:
        return self._copied(visitor, pick, "As Python: copied", self._of_its_model(as_python))

    def _as_command(self, visitor: str, pick: str) -> dict[Any, Any]:
        return self._copied(visitor, pick, "As command: copied", self._of_its_model(as_command))

    def _as_link(self, visitor: str, pick: str, address: str) -> dict[Any, Any]:
        """The page's own address with all settings of the picture behind it."""
        return self._copied(visitor, pick, "Link: copied", lambda made: f"{address}?{query_of(made.recipe, made.provenance.exact)}")

    def _clear(self, visitor: str, key: str) -> dict[Any, Any]:
        """Another picture is shown: nothing of the last one stays, and nobody waits for it any more."""
        job = self._engine().job_of_key(key)
        if job is not None and job.owner == visitor:
            self._engine().stop(job)
        return {**self._told([]), self.copied: gr.Textbox("", visible=False)}

    def _copied(self, visitor: str, pick: str, label: str, write: Callable[[Made], str]) -> dict[Any, Any]:
        try:
            text = write(self._picture(visitor, pick))
        except EngineError as error:
            return {**self._told([str(error)]), self.copied: gr.Textbox("", visible=False)}
        return {self.copied: gr.Textbox(text, label=label, visible=True)}

    def _of_its_model(self, write: Callable[..., str]) -> Callable[[Made], str]:
        return lambda made: write(made.recipe, made.provenance, self._engine().catalog.find(made.recipe.model))

    def _told(self, sentences: Sequence[str], kind: str = "", heat: str = "") -> dict[Any, Any]:
        """Sentences under the buttons; nothing is being made again any more."""
        return {self.verdict: verdict_value(sentences, kind, heat), self.key: "", self.clock: gr.Timer(active=False)}

    def _picture(self, visitor: str, pick: str) -> Made:
        made = self._made(visitor, pick)
        if made is None:
            raise EngineError(NO_PICTURE)
        return made

    def _original(self, visitor: str, pick: str) -> Original:
        """The picture as its file is now, or as it is kept where it has none. Raises EngineError."""
        made = self._picture(visitor, pick)
        if made.path is None:
            return Original(made.recipe, made.provenance, open_picture(made))
        try:
            return read_original(made.path)
        except OSError:
            raise EngineError(f"The file {made.path.name} is not there any more.") from None


def verdict_value(sentences: Sequence[str] = (), kind: str = "", src: str = "") -> dict[str, Any]:
    """`kind` is "same", "different" or "", `src` the picture of a difference."""
    return literal({"sentences": list(sentences), "kind": kind, "src": src})

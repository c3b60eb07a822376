"""The Generate tab: a prompt becomes a picture while you watch."""

from __future__ import annotations

import html
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from engine import metadata
from engine.engine import Engine
from engine.errors import EngineError, UnreadablePicture
from engine.events import Made
from engine.job import Job
from engine.plan import plan_images
from engine.recipe import Style
from engine.schedulers import SCHEDULERS
from ui import stage
from ui.controls import Controls, guidance_advice, hint_value, ratio_of, size_advice, size_of, with_ready_words
from ui.stream import follow
from ui.view import JobView

QUIET = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""For handlers that only adjust the page: at once, beside the queue, without an overlay."""

TOLD = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""For handlers that go on for a while, or pop up a message, which only reaches the page through the queue."""


class GenerateTab:
    """Builds the tab inside the Blocks that is open, and wires it to the engine."""

    def __init__(self, engine: Engine, styles: Sequence[Style], negatives: Mapping[str, str]):
        self.engine = engine
        self.controls = Controls(engine.catalog, engine.limits, styles, negatives)
        self._build()
        self._wire_running()
        self._wire_hints()
        self._wire_pictures()

    def _build(self) -> None:
        spec = self.engine.catalog.default
        self.visitor = gr.BrowserState("", storage_key="darkroom-visitor", secret="darkroom")
        self.shown = gr.State("")  # the pick of the picture on the stage
        self.wishes = gr.State(0)
        with gr.Row(elem_id="bench"):
            with gr.Column(elem_id="words"):
                self.controls.build_words()
            with gr.Column(elem_id="picture"):
                self.stage = stage.stage_component(stage.welcome(spec))
                with gr.Row(elem_id="result"):
                    self.text = gr.Textbox(
                        label="Settings of this picture", lines=3, max_lines=3, interactive=False,
                        buttons=["copy"], elem_id="settings-text",
                        placeholder="Once a picture is made, its settings stand here, to copy or to use again.",
                    )  # fmt: skip
                    with gr.Column(elem_id="result-buttons"):
                        self.download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download", size="md")
                        self.reuse = gr.Button("Use these settings", interactive=False, elem_id="reuse", size="md")
                self.strip = stage.strip_component()
            with gr.Column(elem_id="settings"):
                self.controls.build_settings()
                self.file = gr.UploadButton(
                    "Load the settings of a picture", file_types=[".png"], type="filepath", size="sm", elem_id="settings-file"
                )
                gr.HTML('<p class="hint">Or drop a PNG made by Darkroom or A1111 anywhere on the page.</p>', elem_classes="hint-block")
            with gr.Row(elem_id="actions"):
                self.generate = gr.Button("Generate", variant="primary", elem_id="generate")
                self.finish_one = gr.Button("Finish one, then stop", interactive=False, visible=False, elem_id="finish-one")
                self.stop = gr.Button("Stop", interactive=False, elem_id="stop")

    @property
    def _results(self) -> list[Any]:
        return [self.stage, self.strip, self.text, self.download, self.reuse, self.shown, self.generate, self.stop, self.finish_one]

    def _wire_running(self) -> None:
        inputs = [self.visitor, self.shown, *self.controls.components]
        outputs = [*self._results, self.controls.fields["seed"], self.visitor]
        self.generate.click(self._generate, inputs, outputs, **TOLD)
        self.controls.fields["prompt"].submit(self._generate, inputs, outputs, **TOLD)
        # An example that was clicked writes itself into the prompt and then counts up `wishes`, which runs it.
        self.wishes.change(self._generate, inputs, outputs, **TOLD)
        self.stop.click(lambda visitor: self._stop(visitor, False), self.visitor, None, **QUIET)
        self.finish_one.click(lambda visitor: self._stop(visitor, True), self.visitor, None, **QUIET)
        self.controls.fields["count"].change(
            lambda count: gr.Button(visible=count > 1), self.controls.fields["count"], self.finish_one, **QUIET
        )

    def _wire_hints(self) -> None:
        controls, fields = self.controls, self.controls.fields
        live = {**QUIET, "trigger_mode": "always_last"}
        for box, shown in (("prompt", controls.token_hint), ("negative_prompt", controls.negative_hint)):
            gr.on(
                [fields[box].input, fields[box].change, fields["model"].change], self._count, [fields["model"], fields[box]], shown, **live
            )
        model_and_cfg = [fields["model"], fields["guidance_scale"]]
        gr.on([fields["guidance_scale"].change, fields["model"].change], self._advise_guidance, model_and_cfg, controls.cfg_hint, **live)
        sizes = [fields["model"], fields["width"], fields["height"]]
        gr.on([fields["width"].change, fields["height"].change], self._advise_size, sizes, [controls.size_hint, controls.ratio], **live)
        fields["scheduler"].change(
            lambda name: hint_value((SCHEDULERS[name].hint, "")), fields["scheduler"], controls.scheduler_hint, **live
        )
        controls.ratio.input(self._shape, [fields["model"], controls.ratio], [fields["width"], fields["height"]], **QUIET)
        suited = [fields[name] for name in ("steps", "guidance_scale", "scheduler", "width", "height")]
        fields["model"].input(self._suit, fields["model"], suited, **QUIET)
        controls.ready_negative.input(
            self._add_negative,
            [fields["negative_prompt"], controls.ready_negative],
            [fields["negative_prompt"], controls.ready_negative],
            **QUIET,
        )

    def _wire_pictures(self) -> None:
        shown = [self.stage, self.text, self.download, self.reuse, self.shown]
        self.strip.select(self._look, self.visitor, shown, **QUIET)
        picked = [*shown, self.controls.fields["prompt"], self.wishes]
        self.stage.select(self._pick, [self.visitor, self.controls.fields["model"], self.wishes], picked, **TOLD)
        self.reuse.click(self._reuse, [self.visitor, self.shown], self.controls.components, **QUIET)
        self.controls.last_seed.click(
            self._last_seed, self.visitor, [self.controls.fields["seed"], self.controls.fields["seed_mode"]], **TOLD
        )
        self.file.upload(self._load_file, self.file, self.controls.components, **TOLD)

    def restore(self, blocks: gr.Blocks) -> None:
        """What happens when the page is opened: a visitor's pictures and running job are found again."""
        outputs = [*self._results, self.controls.fields["seed"], self.visitor]
        blocks.load(self._restore, [self.visitor], outputs, **TOLD)
        first = [self.controls.fields[name] for name in ("model", "width", "height")]
        blocks.load(self._advise_size, first, [self.controls.size_hint, self.controls.ratio], **QUIET)

    # Handlers. Each takes widget values and returns widget updates.

    def _generate(self, visitor: str, shown: str, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = known_visitor(visitor)
        try:
            request = self.controls.read(values)
            plan = plan_images(request.recipe, self.engine.catalog, self.engine.limits, count=request.count, exact=request.exact)
            job = self.engine.submit(plan, visitor, request.previews)
        except EngineError as error:
            made = self._made(visitor, shown)
            kept = stage.single(made, shown) if made else None
            yield {**self._idle(), self.stage: stage.refused(str(error), kept), self.visitor: visitor}
            return
        yield {self.controls.fields["seed"]: request.recipe.seed, self.visitor: visitor, **self._busy()}
        yield from self._show(job)

    def _show(self, job: Job) -> Iterator[dict[Any, Any]]:
        """Shows a job until it ends, however it began to be watched."""
        made = 0
        for view in follow(job):
            update = {self.stage: stage.working(view)}
            if (now := sum(cell.made is not None for cell in view.cells)) > made:
                made = now
                update[self.strip] = self._strip_value(job.owner)
            if view.ended:
                update |= {**self._idle(), **self._ended(view)}
            yield update

    def _restore(self, visitor: str) -> Iterator[dict[Any, Any]]:
        visitor = known_visitor(visitor)
        yield {self.visitor: visitor, self.strip: self._strip_value(visitor)}
        running = [job for job in self.engine.jobs(visitor) if not job.done]
        if running:
            yield self._busy()
            yield from self._show(running[-1])

    def _stop(self, visitor: str, finish_current: bool) -> None:
        for job in self.engine.jobs(visitor):
            if not job.done:
                self.engine.stop(job, finish_current=finish_current)

    def _pick(self, visitor: str, model: str, wishes: int, event: gr.EventData) -> dict[Any, Any]:
        """A click on the stage: one of several pictures, or one of the examples of an empty page."""
        kind, _, place = str(event.pick).partition(":")
        examples = self.engine.catalog.find(model).examples
        if kind == "example" and place.isdecimal() and int(place) < len(examples):
            return {self.controls.fields["prompt"]: examples[int(place)], self.wishes: wishes + 1}
        return self._look(visitor, event)

    def _look(self, visitor: str, event: gr.EventData) -> dict[Any, Any]:
        """A picture of this session, large, with its settings."""
        pick = str(event.pick)
        made = self._made(visitor, pick)
        return {self.shown: pick, self.stage: stage.single(made, pick), **self._about(made)} if made else {self.shown: gr.skip()}

    def _reuse(self, visitor: str, pick: str) -> dict[Any, Any]:
        made = self._made(visitor, pick)
        return self.controls.show(dict(made.recipe)) if made else {self.controls.fields["seed"]: gr.skip()}

    def _last_seed(self, visitor: str) -> tuple[Any, Any]:
        pictures = self.engine.pictures(visitor)
        if not pictures:
            gr.Info("There is no picture yet whose seed could be used.")
            return gr.skip(), gr.skip()
        return pictures[0][1].recipe.seed, "Keep"

    def _load_file(self, path: str | None) -> dict[Any, Any]:
        unchanged = {self.controls.fields["seed"]: gr.skip()}
        if not path:
            return unchanged
        try:
            found = metadata.read_picture(Path(path))
        except UnreadablePicture as error:
            gr.Warning(html.escape(str(error)), title="Nothing loaded")
            return unchanged
        notes = list(found.notes)
        if found.settings.get("model") not in {spec.name for spec in self.engine.catalog}:
            notes.append(f"It was made with the model “{found.settings.get('model', 'unknown')}”, which is not here.")
        told = " ".join([f"Settings of a picture made by {found.source} are loaded.", *notes])
        gr.Info(html.escape(told), title="Settings loaded")  # gradio takes the message for HTML
        return self.controls.show(found.settings)

    def _count(self, model: str, text: str) -> dict[str, str]:
        count = self.engine.count_tokens(model, text or "")
        if count is None or not text:
            return hint_value(("", ""))
        line = f"{count.used} of {count.limit} tokens"
        return hint_value((f"{line}; these words are cut: “{count.cut}”", "warning") if count.cut else (line, ""))

    def _advise_guidance(self, model: str, scale: float | None) -> dict[str, str]:
        return hint_value(guidance_advice(self.engine.catalog.find(model), scale))

    def _advise_size(self, model: str, width: float | None, height: float | None) -> tuple[dict[str, str], str | None]:
        spec = self.engine.catalog.find(model)
        return hint_value(size_advice(spec, width, height)), ratio_of(width, height, spec.native_size)

    def _shape(self, model: str, ratio: str) -> tuple[int, int]:
        return size_of(ratio, self.engine.catalog.find(model).native_size)

    def _suit(self, model: str) -> tuple[Any, ...]:
        spec = self.engine.catalog.find(model)
        if spec.is_local:  # choosing from a list must not start a download
            self.engine.warm(model)
        return spec.steps, spec.guidance_scale, spec.scheduler, spec.native_size, spec.native_size

    def _add_negative(self, negative: str, name: str) -> tuple[str, str]:
        return with_ready_words(negative or "", self.controls.negatives.get(name, "")), ""

    # What several handlers show.

    def _busy(self) -> dict[Any, Any]:
        return {
            self.generate: gr.Button("Developing ...", interactive=False), self.stop: gr.Button(interactive=True),
            self.finish_one: gr.Button(interactive=True),
        }  # fmt: skip

    def _idle(self) -> dict[Any, Any]:
        return {
            self.generate: gr.Button("Generate", interactive=True), self.stop: gr.Button(interactive=False),
            self.finish_one: gr.Button(interactive=False),
        }  # fmt: skip

    def _ended(self, view: JobView) -> dict[Any, Any]:
        """The settings and the file of the last picture of a job that has ended."""
        made = [cell for cell in view.cells if cell.made]
        if not made:
            return {}
        return {self.shown: f"{view.job_id}:{made[-1].index}", **self._about(made[-1].made)}

    def _about(self, made: Made) -> dict[Any, Any]:
        return {
            self.text: metadata.infotext(made.recipe, made.provenance), self.reuse: gr.Button(interactive=True),
            self.download: _download_button(made),
        }  # fmt: skip

    def _made(self, visitor: str, pick: str) -> Made | None:
        """The picture of a pick ("job:cell"), if it is this visitor's."""
        return dict(self.engine.pictures(visitor)).get(pick)

    def _strip_value(self, visitor: str) -> list[dict[str, Any]]:
        return stage.strip_value(self.engine.pictures(visitor))


def known_visitor(token: Any) -> str:
    """The visitor's token as the browser kept it; a new one for a first visit, or for what is no token at all."""
    return token if isinstance(token, str) and 16 <= len(token) <= 64 else uuid.uuid4().hex


def _download_button(made: Made) -> gr.DownloadButton:
    """The button for a picture's file; without one where no file can be written, and the stage has all there is."""
    try:
        return gr.DownloadButton(value=str(made.path or _unsaved_file(made)), interactive=True)  # gradio copies the file
    except OSError:
        return gr.DownloadButton(value=None, interactive=False)


def _unsaved_file(made: Made) -> Path:
    """A temporary file of a picture that could not be saved, so that it can still be downloaded."""
    file = Path(tempfile.mkdtemp(prefix="darkroom-")) / f"seed-{made.recipe.seed}.png"
    file.write_bytes(metadata.png_bytes(made.image, made.recipe, made.provenance))
    return file

"""The Generate tab: a prompt becomes a picture while you watch."""

from __future__ import annotations

import hashlib
import html
import os
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from engine.errors import EngineError, InvalidRequest, NotSaved
from engine.pictures import metadata
from engine.pictures.infotext import infotext
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture, write_picture
from engine.recipes.plan import plan_images
from engine.running.engine import Engine
from engine.running.job import Job
from ui.files import passing_folder
from ui.handlers import QUIET, TOLD, known_visitor
from ui.sheet.live import Answer, LiveSheet
from ui.tabs import stage
from ui.tabs.again import Again
from ui.tabs.controls import Controls
from ui.tabs.memory import handed_over

KINDS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
"""What a picture can be downloaded as: PNG without loss and with all of its settings, the others smaller and with A1111's text."""


class GenerateTab:
    """Builds the tab in the places it is given, and wires it to the engine."""

    def __init__(self, engine: Engine, live: LiveSheet, controls: Controls, visitor: gr.BrowserState):
        self.engine = engine
        self.live = live
        self.controls = controls
        self.visitor = visitor
        self.again = Again(self._made)

    def build_view(self) -> None:
        """The picture, its settings, and the strip of this session's pictures."""
        self.shown = gr.State("")  # the pick of the picture on the stage
        self.wishes = gr.State(0)

        def ask_stage(asked: Any) -> Answer:
            return self.live.ask(asked)

        self.stage = stage.stage_component(stage.welcome(self.engine.catalog.default), ask_stage)
        with gr.Row(elem_id="result"):
            self.text = gr.Textbox(
                label="Settings of this picture", lines=3, max_lines=3, interactive=False, buttons=["copy"], elem_id="settings-text",
                placeholder="Once a picture is made, its settings stand here, to copy or to use again.",
            )  # fmt: skip
            with gr.Column(elem_id="result-buttons"):
                with gr.Row(elem_id="download-row"):
                    self.download = gr.DownloadButton("Download", interactive=False, elem_id="download", size="md", min_width=90)
                    self.kind = gr.Dropdown([*KINDS], value="PNG", label="As", container=False, min_width=84, elem_id="download-kind")
                self.reuse = gr.Button("Use these settings", interactive=False, elem_id="reuse", size="md")
        self.again.build()
        self.strip = stage.strip_component()

    def build_actions(self) -> None:
        with gr.Row(elem_id="generate-actions", elem_classes="action-row"):
            self.generate = gr.Button("Generate", variant="primary", elem_id="generate")
            self.finish_one = gr.Button("Finish one, then stop", interactive=False, visible=False, elem_id="finish-one")
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop")

    def wire(self) -> None:
        self._wire_running()
        self._wire_pictures()
        # The last for what is brought back or handed over; a gr.State tells of no change that comes beside the queue.
        other = [self.generate.click, self.strip.select, self.stage.select, self.text.change]
        self.again.wire(lambda: self.engine, self.visitor, self.shown, other)

    @property
    def results(self) -> list[Any]:
        return [self.stage, self.strip, self.text, self.download, self.reuse, self.shown, self.generate, self.stop, self.finish_one]

    def _wire_running(self) -> None:
        inputs = [self.visitor, *self.controls.components]
        outputs = [*self.results, self.controls.fields["seed"], self.visitor]
        self.generate.click(self._generate, inputs, outputs, **QUIET)
        # An example that was clicked writes itself into the prompt and then counts up `wishes`, which runs it.
        self.wishes.change(self._generate, inputs, outputs, **QUIET)
        # multiple: the end must not be dropped while an earlier picture is still being handled.
        self._offered(self.stage.act(self._act, self.visitor, self.results, trigger_mode="multiple", **QUIET))
        self.stop.click(lambda visitor: self._stop(visitor, False), self.visitor, None, **QUIET)
        self.finish_one.click(lambda visitor: self._stop(visitor, True), self.visitor, None, **QUIET)
        self.controls.fields["count"].change(
            lambda count: gr.Button(visible=count > 1), self.controls.fields["count"], self.finish_one, **QUIET
        )

    def _wire_pictures(self) -> None:
        shown = [self.stage, self.text, self.download, self.reuse, self.shown]
        self._offered(self.strip.select(self._look, self.visitor, shown, **QUIET))
        picked = [*shown, self.controls.fields["prompt"], self.wishes]
        self._offered(self.stage.select(self._pick, [self.visitor, self.controls.fields["model"], self.wishes], picked, **TOLD))
        self.kind.input(self._offer, [self.visitor, self.shown, self.kind], self.download, trigger_mode="always_last", **TOLD)
        self.reuse.click(self._reuse, [self.visitor, self.shown], self.controls.components, **QUIET)
        self.controls.last_seed.click(
            self._last_seed, self.visitor, [self.controls.fields["seed"], self.controls.fields["seed_mode"]], **TOLD
        )

    def _offered(self, shows: Dependency) -> None:
        """A picture comes to the stage with its own file: another kind is made of it then, where one is wanted."""
        shows.then(self._offer, [self.visitor, self.shown, self.kind], self.download, **TOLD)

    def restore(self, blocks: gr.Blocks, kept: gr.JSON) -> None:
        """What happens when the page is opened: a visitor's pictures and running job are found again."""
        blocks.load(self._restore, [self.visitor, kept], [*self.results, self.visitor], js=handed_over(1), **QUIET)

    # Handlers. Each takes widget values and returns widget updates.

    def _generate(self, visitor: str, *values: Any) -> dict[Any, Any]:
        visitor = known_visitor(visitor)
        try:
            request = self.controls.read(values)
            plan = plan_images(request.recipe, self.engine.catalog, self.engine.limits, count=request.count, exact=request.exact)
            job = self.engine.submit(plan, visitor, request.previews)
        except EngineError as error:
            return {self.stage: stage.refused(str(error)), self.visitor: visitor}
        return {self.controls.fields["seed"]: request.recipe.seed, self.visitor: visitor, **self._watched(job)}

    def _act(self, visitor: str, event: gr.EventData) -> dict[Any, Any]:
        """The stage's script tells that pictures were made, or that the run it follows has ended or is gone."""
        job = self.engine.job_of_key(str(event.key))
        if job is None or job.owner != visitor:
            gone = "This run is not known here any more: what it made is on the disk. Press Generate again."
            return {**self._idle(), self.stage: stage.refused(gone, over=True)}
        done = job.done  # before its pictures are looked at: the last one is among them then
        update: dict[Any, Any] = {self.strip: self._strip_value(visitor)}
        if newer := [run for run in self._running(visitor) if run.begun > job.begun]:
            return {**update, **self._watched(newer[-1])}  # an answer that comes late must not take the page off a new run
        if done:
            about = self._ended(job)
            update |= {self.stage: stage.followed(job, over=True, pick=about[self.shown]), **self._idle(), **about}
        return update

    def _restore(self, visitor: str, kept: Any = None) -> dict[Any, Any]:
        visitor = known_visitor(visitor)
        running = self._running(visitor)
        pick = str(kept.get("pick")) if isinstance(kept, dict) else ""
        if running:
            shown = self._watched(running[-1])
        elif self._made(visitor, pick):
            shown = self.looked_at(visitor, pick)
        elif trouble := self.engine.trouble(self.engine.catalog.default.name):
            shown = {self.stage: stage.refused(trouble)}  # before anybody has pressed Generate for nothing
        else:
            shown = {}
        return {self.visitor: visitor, self.strip: self._strip_value(visitor), **shown}

    def _stop(self, visitor: str, finish_current: bool) -> None:
        for job in self._running(visitor):
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
        return self.looked_at(visitor, str(event.pick))

    def looked_at(self, visitor: str, pick: str) -> dict[Any, Any]:
        """A visitor's picture on the stage, with its settings; nothing where it is not kept any more."""
        made = self._made(visitor, pick)
        if made is None:
            return {self.shown: gr.skip()}
        running = self._running(visitor)
        return {self.stage: stage.single(made, pick, running[-1] if running else None), **self._about(made, pick)}

    def cleared(self, visitor: str) -> dict[Any, Any]:
        """The stage as the page is opened with; what is under way stays on it."""
        if running := self._running(visitor):
            return self._watched(running[-1])
        return {self.stage: stage.welcome(self.engine.catalog.default), **self._nothing_shown()}

    def _offer(self, visitor: str, pick: str, kind: str) -> gr.DownloadButton:
        """The download of the picture on the stage, as the kind of file that is wanted."""
        made = self._made(visitor, pick)
        return gr.DownloadButton(value=None, interactive=False) if made is None else _download_button(made, kind)

    def _reuse(self, visitor: str, pick: str) -> dict[Any, Any]:
        made = self._made(visitor, pick)
        if made is None:
            return {self.controls.fields["seed"]: gr.skip()}
        return self.controls.show({**dict(made.recipe), "exact": made.provenance.exact})

    def _last_seed(self, visitor: str) -> tuple[Any, Any]:
        pictures = self._pictures(visitor)
        if not pictures:
            gr.Info("There is no picture yet whose seed could be used.")
            return gr.skip(), gr.skip()
        return pictures[0][1].recipe.seed, "Keep"

    # What several handlers show.

    def _watched(self, job: Job) -> dict[Any, Any]:
        """A run under way, which the stage's script follows from here on."""
        return {self.stage: stage.followed(job), **self._nothing_shown(), **self._busy()}

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

    def _ended(self, job: Job) -> dict[Any, Any]:
        """The settings and the file of the last picture of a job that has ended: of one that is finished, where there is one."""
        made = sorted(job.made().items())
        made = [(cell, one) for cell, one in made if not one.provenance.unfinished] or made
        if not made:
            return self._nothing_shown()
        cell, picture = made[-1]
        return self._about(picture, f"{job.id}:{cell}")

    def _about(self, made: Made, pick: str) -> dict[Any, Any]:
        """What stands under the stage of the picture on it."""
        return {
            self.shown: pick, self.text: infotext(made.recipe, made.provenance), self.reuse: gr.Button(interactive=True),
            self.download: _download_button(made),
        }  # fmt: skip

    def _nothing_shown(self) -> dict[Any, Any]:
        """Under a stage without a picture of its own nothing stands of the one before."""
        return {
            self.shown: "", self.text: "", self.reuse: gr.Button(interactive=False),
            self.download: gr.DownloadButton(value=None, interactive=False),
        }  # fmt: skip

    def _made(self, visitor: str, pick: str) -> Made | None:
        """The picture of a pick ("job:cell"), if it is this visitor's: also a grid's cell."""
        job_id, _, cell = pick.partition(":")
        job = self.engine.job(job_id)
        if job is None or job.owner != visitor or not cell.isdecimal():
            return None
        return job.made().get(int(cell))

    def _strip_value(self, visitor: str) -> list[dict[str, Any]]:
        return stage.strip_value(self._pictures(visitor))

    def _running(self, visitor: str) -> list[Job]:
        """The visitor's jobs of this tab: grids are the other one's."""
        return [job for job in self.engine.jobs(visitor) if job.plan.grid is None and not job.replay and not job.done]

    def _pictures(self, visitor: str) -> list[tuple[str, Made]]:
        """The visitor's pictures of this tab as (pick, picture), newest first; a strip of grids' cells would hide them."""
        jobs = [job for job in self.engine.jobs(visitor) if job.plan.grid is None and not job.replay]
        return [(f"{job.id}:{cell}", made) for job in jobs for cell, made in job.made().items()][::-1]


def _download_button(made: Made, kind: str = "PNG") -> gr.DownloadButton:
    """The button for a picture's file; without one where no file can be written, and the stage has all there is."""
    try:
        file = made.path if kind == "PNG" and made.path is not None else _passing_file(made, kind)
        return gr.DownloadButton(value=str(file), interactive=True)
    except InvalidRequest as error:
        gr.Warning(html.escape(str(error)), title="Not this kind of file")
    except (OSError, NotSaved):
        pass
    return gr.DownloadButton(value=None, interactive=False)


def _passing_file(made: Made, kind: str = "PNG") -> Path:
    """A temporary file of a picture that could not be saved, or is wanted as another kind: one however often it is looked at."""
    # Not by its pixels alone: others' words may draw the same ones.
    content = made.sha256 + metadata.record(made.recipe, made.provenance)
    folder = passing_folder("downloads") / hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    suffix = KINDS[kind]
    if (file := folder / f"seed-{made.recipe.seed}{suffix}").exists():
        os.utime(folder)  # fetched again: it stays for another while
        return file
    told = open_picture(made), made.recipe, made.provenance
    content = metadata.png_bytes(*told) if kind == "PNG" else metadata.export_bytes(*told, kind.upper())
    return write_picture(content, folder, file.stem, suffix)

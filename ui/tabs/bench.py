"""The bench: the recipe at the left, and beside it what is done with it: one picture, or a comparison of many."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from engine.errors import EngineError, UnreadablePicture
from engine.pictures import metadata
from engine.pictures.infotext import parse_infotext
from engine.recipes.link import PARAMETERS, read_query
from engine.recipes.plan import GridPreset
from engine.recipes.recipe import Style, make_recipe
from engine.recipes.schedulers import SCHEDULERS
from engine.running.engine import Engine
from ui.handlers import QUIET, TOLD
from ui.sheet.live import LiveSheet
from ui.sheet.takeaway import Takeaway
from ui.tabs.compare import CompareTab
from ui.tabs.controls import Controls, guidance_advice, hint_value, more_label, ratio_of, size_advice, size_of, with_ready_words
from ui.tabs.generate import GenerateTab
from ui.tabs.loaded import loaded_component, loaded_value
from ui.tabs.memory import Memory

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
"""Names of files that may carry settings; what is in them decides, not the name."""

TAKE_LINK = """
() => {
  const query = location.search, rest = new URLSearchParams(query);
  NAMES.forEach(name => rest.delete(name));
  if (String(rest) !== String(new URLSearchParams(query))) {
    history.replaceState(history.state, '', location.pathname + (rest.size ? '?' + rest : '') + location.hash);
  }
  return [query];
}
""".replace("NAMES", json.dumps(PARAMETERS))
"""The settings behind the page's address leave it once they are read: a reload brings back what was made of them since."""

NO_SETTINGS = (
    "Neither the clipboard nor the prompt holds settings such as “Steps: 20, Sampler: Euler, Seed: 1”. Copy the whole text of a picture's "
    "settings, paste it into the prompt, and press this again."
)

PASTE = """
async (pasted, prompt) => {
  const text = Darkroom.pasted || await navigator.clipboard?.readText().catch(() => '') || '';
  Darkroom.pasted = '';
  return [text, prompt];
}
"""
"""What was pasted into the prompt, or else lies on the clipboard, which a browser may not let be read: the prompt's text is left then."""

SHOWN_CUT = 300
"""Characters shown of the words that a model does not read."""


class Bench:
    """Builds everything below the page's head inside the Blocks that is open, and wires it to the engine."""

    def __init__(self, engine: Engine, styles: Sequence[Style], negatives: Mapping[str, str], grids: Sequence[GridPreset]):
        self.engine = engine
        self.controls = Controls(engine.catalog, engine.limits, styles, negatives)
        self.visitor = gr.BrowserState("", storage_key="darkroom-visitor", secret="darkroom")
        live = LiveSheet(engine, Takeaway(engine))
        self.generate = GenerateTab(engine, live, self.controls, self.visitor)
        self.compare = CompareTab(engine, live, self.controls, self.visitor, styles, grids)
        self._build()
        self.memory.wire()
        self._wire_hints()
        self.generate.wire()
        self.compare.wire(self.tabs)
        settings = [*self.controls.components, *self.compare.pickers.components, self.tabs, self.loaded]
        self.file.upload(self._load_file, self.file, settings, **TOLD)
        pasted, prompt = self.pasted, self.controls.fields["prompt"]
        self.paste.click(self._paste, [pasted, prompt], [*self.controls.components, self.loaded], js=PASTE, **TOLD)
        self.loaded.select(loaded_value, None, self.loaded, **QUIET)
        cleared = [*self.memory.components, self.loaded, *self.generate.results]
        self.start_over.click(self._start_over, self.visitor, cleared, **QUIET)

    def _build(self) -> None:
        with gr.Row(elem_id="bench"):
            with gr.Column(elem_id="words"):
                self.loaded = loaded_component()
                self.query = gr.Textbox(visible=False)  # only a place for what the page's address hands over
                self.controls.build_words()
            with gr.Column(elem_id="picture"), gr.Tabs(selected="generate", elem_id="tabs") as self.tabs:
                with gr.Tab("Generate", id="generate", elem_id="generate-tab") as generate_tab:
                    self.generate.build_view()
                with gr.Tab("Compare", id="compare", elem_id="compare-tab") as compare_tab:
                    self.compare.build_view()
            with gr.Column(elem_id="settings"):
                self.controls.build_settings()
                self.file = gr.UploadButton(
                    "Load the settings of a picture", file_types=[*PICTURES], type="filepath", size="sm", elem_id="settings-file"
                )
                told = "Or drop a picture made by Darkroom, A1111 or another tool, or a contact sheet, anywhere on the page."
                gr.HTML(f'<p class="hint">{told}</p>', elem_classes="hint-block")
                self.pasted = gr.Textbox(visible=False)  # only a place for what the clipboard hands over
                self.paste = gr.Button("Paste settings", size="sm", elem_id="paste-settings")
                self.start_over = gr.Button("Start over", size="sm", elem_id="start-over")
            with gr.Row(elem_id="actions"):
                self.generate.build_actions()
                self.compare.build_actions()
            remembered = {**self.controls.fields, **self.compare.remembered}
            folded = {"more": self.controls.more, "again": self.generate.again.part}
            self.memory = Memory(remembered, self.tabs, {"generate": generate_tab, "compare": compare_tab}, folded)

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
        acting = [fields["clip_skip"], fields["exact"]]
        gr.on([field.change for field in acting], lambda *values: gr.Accordion(label=more_label(*values)), acting, controls.more, **live)
        controls.ratio.input(self._shape, [fields["model"], controls.ratio], [fields["width"], fields["height"]], **QUIET)
        suited = [fields[name] for name in ("steps", "guidance_scale", "scheduler", "width", "height")]
        fields["model"].input(self._suit, fields["model"], suited, **QUIET)
        controls.ready_negative.input(
            self._add_negative,
            [fields["negative_prompt"], controls.ready_negative],
            [fields["negative_prompt"], controls.ready_negative],
            **QUIET,
        )

    def restore(self, blocks: gr.Blocks) -> None:
        """What happens when the page is opened: its fields, and a visitor's pictures, sheets and running jobs, are found again."""
        self.generate.restore(blocks, self.memory.kept)
        self.compare.restore(blocks)
        first = [self.controls.fields[name] for name in ("model", "width", "height")]
        hints = [self.controls.size_hint, self.controls.ratio]
        linked = [*self.controls.components, self.tabs, self.loaded]
        remembered = self.memory.restore(blocks)
        opened = remembered.then(self._open_link, self.query, linked, js=TAKE_LINK, **QUIET)  # what is asked for by a link comes last
        opened.then(self._advise_size, first, hints, **QUIET)

    # Handlers. Each takes widget values and returns widget updates.

    def _start_over(self, visitor: str) -> dict[Any, Any]:
        """The page as it is opened for the first time; pictures, sheets and what is under way stay where they are."""
        return {**self.memory.as_built(), self.loaded: loaded_value(), **self.generate.cleared(visitor)}

    def _load_file(self, path: str | None) -> dict[Any, Any]:
        unchanged = {self.controls.fields["seed"]: gr.skip()}
        if not path:
            return unchanged
        try:
            found = metadata.read_picture(Path(path))
            settings, notes = self.engine.limits.fit(found.settings)
            if found.grid is None:
                shown = self.controls.show(settings if found.exact is None else {**settings, "exact": found.exact})
            else:
                shown = self.compare.show_grid(found.grid.model_copy(update={"recipe": make_recipe(self.engine.limits.bounds, **settings)}))
        except EngineError as error:  # also of a grid with an axis that only a later version knows
            gr.Warning(html.escape(str(error)), title="Nothing loaded")
            return unchanged
        notes = [*self._about_model(settings.get("model"), found.model_hash), *notes, *found.notes]
        title = f"Settings of a picture made by {found.source} are loaded"
        if found.grid is not None:
            title = "The grid of a contact sheet is loaded: press Compare to develop it"
        told = f"{title}. What did not come with it stands above the prompt." if notes else f"{title}."
        gr.Info(html.escape(told), title="Settings loaded")  # gradio takes the message for HTML
        return {**shown, self.loaded: loaded_value(title, notes)}

    def _open_link(self, query: str | None) -> dict[Any, Any]:
        """The settings that the page's address asks for."""
        link = read_query(query or "")
        if link is None:
            return {self.loaded: gr.skip()}
        settings, notes = self.engine.limits.fit(link.settings)
        notes = [*self._about_model(settings.get("model")), *notes, *link.notes]
        told = loaded_value("The settings of a link are loaded", notes)
        shown = self.controls.show({**settings, "exact": link.exact})
        return {**shown, self.tabs: gr.Tabs(selected="generate"), self.loaded: told}

    def _paste(self, pasted: str | None, prompt: str | None) -> dict[Any, Any]:
        """A1111's text of settings, from the clipboard or as it stands in the prompt."""
        for text in filter(None, (pasted, prompt)):
            with suppress(UnreadablePicture):
                imported = parse_infotext(text)
                break
        else:
            gr.Warning(html.escape(NO_SETTINGS), title="Nothing pasted")
            return {self.loaded: gr.skip()}
        settings, notes = self.engine.limits.fit(imported.settings)
        notes = [*self._about_model(settings.get("model"), imported.model_hash), *notes, *imported.notes]
        told = f"Settings written by {imported.tool} are pasted"
        more = " What did not come with them stands above the prompt." if notes else ""
        gr.Info(html.escape(f"{told}.{more}"), title="Settings pasted")
        return {**self.controls.show(settings), self.loaded: loaded_value(told, notes)}

    def _about_model(self, name: str | None, model_hash: str = "") -> list[str]:
        """A note when the model that a file, a link or a text names is not among those here."""
        if name is None or name in {spec.name for spec in self.engine.catalog}:
            return []
        hashed = f" (hash {model_hash})" if model_hash else ""
        return [f"It names the model “{name}”{hashed}, which is not here."]

    def _count(self, model: str, text: str) -> dict[str, str]:
        count = self.engine.count_tokens(model, text or "")
        if count is None or not text:
            return hint_value(("", ""))
        line = f"{'more than ' if count.more else ''}{count.used:,} of {count.limit} tokens"
        cut = count.cut if len(count.cut) <= SHOWN_CUT else count.cut[:SHOWN_CUT].rstrip() + " ..."
        return hint_value((f"{line}; these words are cut: “{cut}”", "warning") if cut else (line, ""))

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

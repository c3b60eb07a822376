"""The Compare tab: one recipe varied along axes, all cells developing together in one contact sheet."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr

from engine.errors import EngineError, InvalidRequest
from engine.recipes.axes import Offer, find_axis
from engine.recipes.plan import AxisLine, Grid, GridPreset, Plan, plan_grid, refine
from engine.recipes.recipe import Style
from engine.recipes.schedulers import scheduler_row
from engine.recipes.values import longer_line
from engine.running.engine import Engine
from engine.running.job import Job
from engine.running.speed import Estimate, seconds_shown
from ui.handlers import QUIET, TOLD, Newest, known_visitor
from ui.sheet.live import Answer, LiveSheet
from ui.sheet.view import counted
from ui.tabs.axes import NAMES, AxisPickers, axis_line
from ui.tabs.controls import Advice, Controls, Request, hint, hint_value

OPENS_WITH = GridPreset(
    title="", x=AxisLine(axis="cfg", values="2, 5, 9"), y=AxisLine(axis="seed", values="3 random seeds")
)  # fmt: skip
"""What the tab opens with: the comparison that most people make first."""

READY_MADE, EARLIER = ("Ready-made grids ...", ""), ("Sheets of this session ...", "")
"""What the lists show while nothing is chosen."""

SHEET_SCRIPT = """
const begin = () => {
  if (!window.Darkroom || !Darkroom.Blind) { setTimeout(begin, 50); return; }
  const sheet = new Darkroom.Sheet(
    element.querySelector('.sheet'),
    (question, details) => server.ask_sheet({question, key: sheet.key, ...details}),
    (what, details) => {
      trigger('act', {what, ...details});
      if (what === 'zoom') document.querySelector('#axes').scrollIntoView({block: 'nearest'});
    },
    (props.value || {}).presets,
  );
  const open = () => sheet.open((props.value || {}).key || '');
  watch('value', () => {
    open();
    if (innerWidth <= 900) element.scrollIntoView({block: 'start'});  // on a phone it is below what was just pressed
  });
  open();
};
begin();
"""


@dataclass(frozen=True)
class Wish:
    """What one press of Compare asks for."""

    request: Request
    grid: Grid
    anew: bool
    together: bool


class CompareTab:
    """Builds the tab in the places it is given, and wires it to the engine."""

    def __init__(
        self, engine: Engine, live: LiveSheet, controls: Controls, visitor: gr.BrowserState, styles: Sequence[Style],
        presets: Sequence[GridPreset],
    ):  # fmt: skip
        self.engine = engine
        self.live = live
        self.controls = controls
        self.visitor = visitor
        self.presets = {preset.title: preset for preset in presets}
        self._written_as: WeakKeyDictionary[Job, Grid] = WeakKeyDictionary()  # by a page that may have been closed since
        self.pickers = AxisPickers(Offer(engine.catalog, engine.limits, tuple(styles)))

    @property
    def offer(self) -> Offer:
        return self.pickers.offer

    def build_view(self) -> None:
        """The axes and the sheet."""
        self.shown = gr.State("")  # the id of the job whose sheet is shown
        self.asked = gr.State(None)  # the grid as it was written, before seeds were drawn
        self.newest = gr.State(Newest())  # among all that the line below the axes is asked for
        with gr.Column(elem_id="axes"):
            self.pickers.build(OPENS_WITH)
            with gr.Row(elem_id="axes-more"):
                self.preset = gr.Dropdown(
                    [READY_MADE, *self.presets], value=READY_MADE[1], label="Ready-made grids", container=False,
                    elem_id="grid-preset", min_width=150,
                )  # fmt: skip
                self.earlier = gr.Dropdown(
                    [EARLIER], value=EARLIER[1], label="Sheets of this session", container=False, elem_id="sheets", min_width=150
                )
                self.swap = gr.Button("Swap X and Y", size="sm", elem_id="swap-axes", min_width=90)
                self.together = gr.Checkbox(True, label="All cells at once", container=False, elem_id="together", min_width=120)
                self.anew = gr.Checkbox(False, label="Make every cell anew", container=False, elem_id="anew", min_width=150)
            self.cost = hint("grid-cost")

        def ask_sheet(asked: Any) -> Answer:
            return self.live.ask(asked)

        begin_with = [{"title": preset.title, "note": preset.note} for preset in self.presets.values()]
        self.sheet = gr.HTML(
            {"key": "", "presets": begin_with}, html_template='<div class="sheet"></div>', js_on_load=SHEET_SCRIPT,
            server_functions=[ask_sheet], elem_id="sheet", apply_default_css=False,
        )  # fmt: skip

    def build_actions(self) -> None:
        with gr.Row(elem_id="compare-actions", elem_classes="action-row"):
            self.compare = gr.Button("Compare", variant="primary", elem_id="compare")
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop-grid")

    def wire(self, tabs: gr.Tabs) -> None:
        self.tabs = tabs
        self.pickers.wire(QUIET)
        inputs, everything = self._inputs, self._everything
        self.compare.click(self._start, inputs, everything, **TOLD)
        # multiple: what is told while an earlier word is still being handled must not be dropped.
        told = self.sheet.act(self._act, [self.visitor, self.shown, self.asked], everything, trigger_mode="multiple", **TOLD)
        told.then(self._estimate, inputs, self.cost, **QUIET)
        self.stop.click(self._stop, [self.visitor, self.shown], None, **QUIET)
        # select, not input: gradio's dropdown also sends that when the focus only passes over it.
        self.preset.select(self._use_preset, self.preset, [*self.controls.components, *self.pickers.components], **QUIET)
        self.swap.click(self._swap, self.pickers.components, self.pickers.components, **QUIET)
        self.earlier.select(self._show_earlier, [self.visitor, self.shown, self.earlier], everything, **QUIET)
        changes = [component.change for component in self._wishes]
        gr.on(changes, self._estimate, inputs, self.cost, **{**QUIET, "trigger_mode": "always_last"})

    @property
    def remembered(self) -> dict[str, Any]:
        """The widgets of this tab that the browser remembers, by name."""
        axes = {f"axis_{name}": self.pickers.axes[name] for name in NAMES}
        return {**axes, **{f"values_{name}": self.pickers.values[name] for name in NAMES}, "anew": self.anew, "together": self.together}

    @property
    def _wishes(self) -> list[Any]:
        return [*self.controls.components, *self.pickers.components, self.anew, self.together]

    @property
    def _inputs(self) -> list[Any]:
        return [self.newest, self.visitor, self.shown, self.asked, *self._wishes]

    @property
    def _everything(self) -> list[Any]:
        results = [self.sheet, self.shown, self.asked, self.cost, self.earlier, self.stop, self.visitor]
        return [*self.controls.components, *self.pickers.components, self.tabs, *results]

    def restore(self, blocks: gr.Blocks) -> None:
        """What happens when the page is opened: the visitor's last sheet is found again; its fields the browser remembers."""
        blocks.load(self._restore, self.visitor, self._everything, **TOLD).then(self._estimate, self._inputs, self.cost, **QUIET)

    # Handlers. Each takes widget values and returns widget updates.

    def _start(self, newest: Newest, visitor: str, shown: str, asked: Any, *values: Any) -> dict[Any, Any]:
        newest.ask()
        visitor, pressed = known_visitor(visitor), time.time()
        try:
            wish = self._read(values)
            before, plan = self._planned(visitor, shown, asked, wish)
            new = plan.beyond(before.plan) if before else plan
            if before is not None:
                self.engine.extend(before, plan)
            job = before or self.engine.submit(plan, visitor, wish.request.previews, reuse=not wish.anew, together=wish.together)
        except EngineError as error:
            return {self.cost: hint_value((str(error), "warning")), self.visitor: visitor}
        cost = self.engine.estimate(new, reuse=job.reuse, together=job.together, before=pressed)
        seed = {self.controls.fields["seed"]: _grid_of(plan).recipe.seed, self.visitor: visitor}
        text, kind = cost_line(plan, cost, growing=before is not None)
        if any(other is not job and not other.done for other in self._sheets(visitor)):
            text += " · your other sheet goes on, under “Sheets of this session”"
        told = hint_value((text, kind))
        return {**self._opened(visitor, job, wish.grid), **seed, self.cost: told}

    def _estimate(self, newest: Newest, visitor: str, shown: str, asked: Any, *values: Any) -> dict[str, Any]:
        """What pressing Compare would do and cost, or what is wrong with the axes; nothing once something newer was asked."""
        still = newest.ask()
        try:
            wish = self._read(values)
            job, plan = self._planned(visitor, shown, asked, wish)
            new, reuse, together = (plan.beyond(job.plan), job.reuse, job.together) if job else (plan, not wish.anew, wish.together)
            told = cost_line(plan, self.engine.estimate(new, reuse=reuse, together=together), growing=job is not None)
        except EngineError as error:
            told = (str(error), "warning")
        return hint_value(told) if still() else gr.skip()

    def _act(self, visitor: str, shown: str, asked: Any, event: gr.EventData) -> dict[Any, Any]:
        """What the sheet's script tells: it runs or has ended, a cell was chosen to go on from, values were added."""
        if event.what == "state":
            return {self.stop: gr.Button(interactive=bool(event.running))}
        if event.what == "preset":
            return self._use_preset(str(event.title))
        try:
            job = self._shown_job(visitor, shown)
            if job is None:
                raise InvalidRequest("This sheet is not kept any more: press Compare again.")
            if event.what == "add":
                return self._add(visitor, job, asked, str(event.axis), str(event.values))
            cell = job.plan.cell(event.cell)
            if event.what == "use":
                return {**self.controls.show({**dict(cell.recipe), "exact": job.plan.exact}), self.tabs: gr.Tabs(selected="generate")}
            finer = self.show_grid(refine(_grid_of(job.plan), cell.place, self.offer))
            gr.Info("A finer grid around this cell stands in the axes: press Compare to develop it.", title="Zoomed in")
            return finer
        except EngineError as error:
            gr.Warning(html.escape(str(error)), title="Not done")
            return {self.cost: gr.skip()}

    def _add(self, visitor: str, job: Job, asked: Any, axis: str, more: str) -> dict[Any, Any]:
        """Values typed at the sheet's edge go to the end of that axis' line, and the grid grows."""
        line: AxisLine | None = getattr(job.plan.grid, axis) if axis in NAMES else None
        if line is None:
            raise InvalidRequest("This axis is not used: choose what it varies above, and press Compare.")
        longer = axis_line(axis, line.axis, longer_line(line.values, more))
        grown = job.plan.grown_to(plan_grid(_grid_of(job.plan).model_copy(update={axis: longer}), self.offer))
        if grown is None:
            raise InvalidRequest(f"Values cannot be added to {find_axis(line.axis).label} here: change them above, and press Compare.")
        self.engine.extend(job, grown)
        now: AxisLine = getattr(grown.grid, axis)
        written = Grid.model_validate(asked or grown.grid).model_copy(update={axis: now})  # the other axes are still written as they were
        shown = {self.pickers.axes[axis]: now.axis, self.pickers.values[axis]: now.values}
        return {**self._opened(visitor, job, written), **shown}

    def _stop(self, visitor: str, shown: str) -> None:
        job = self._shown_job(visitor, shown)
        if job is not None and not job.done:
            self.engine.stop(job)

    def _use_preset(self, title: str | None) -> dict[Any, Any]:
        preset = self.presets.get(title or "")
        if preset is None:
            return {self.controls.fields["seed"]: gr.skip()}
        words = {self.controls.fields["prompt"]: preset.prompt} if preset.prompt is not None else {}
        return {**self.pickers.show(preset), **words}

    def _swap(self, *values: Any) -> list[Any]:
        x_axis, x_values, y_axis, y_values, *z = values
        return [y_axis, y_values, x_axis, x_values, *z]

    def _show_earlier(self, visitor: str, shown: str, job_id: str | None) -> dict[Any, Any]:
        job = self._job(visitor, job_id or "")
        return self._shown_again(visitor, job) if job is not None and job.id != shown else {self.cost: gr.skip()}

    def _restore(self, visitor: str) -> dict[Any, Any]:
        jobs = self._sheets(visitor)
        return self._opened(visitor, jobs[-1], self._written_as.get(jobs[-1])) if jobs else {self.earlier: gr.skip()}

    # What several handlers need.

    def show_grid(self, grid: Grid) -> dict[Any, Any]:
        """Updates that put a grid into the widgets and bring this tab to the front; nothing is started."""
        return {**self._written(grid), self.tabs: gr.Tabs(selected="compare")}

    def _written(self, grid: Grid) -> dict[Any, Any]:
        return {**self.controls.show({**dict(grid.recipe), "exact": grid.exact}), **self.pickers.show(grid)}

    def _shown_again(self, visitor: str, job: Job) -> dict[Any, Any]:
        """A sheet, with the recipe and the axes that it was made from."""
        grid = _grid_of(job.plan)
        return {**self._opened(visitor, job, grid), **self._written(grid)}

    def _read(self, values: Sequence[Any]) -> Wish:
        count = len(self.controls.components)
        *axes, anew, together = values[count:]
        request = self.controls.read(values[:count])
        return Wish(request, Grid(recipe=request.recipe, exact=request.exact, **self.pickers.read(axes)), bool(anew), bool(together))

    def _planned(self, visitor: str, shown: str, asked: Any, wish: Wish) -> tuple[Job | None, Plan]:
        """The plan of a wish, and the job that is shown where that can grow to it: it has all its cells, and more."""
        job = self._shown_job(visitor, shown)
        if job is not None and not wish.anew:
            grown = job.plan.grown_to(plan_grid(self._as_before(wish, asked, job), self.offer))
            if grown is not None and len(grown.cells) > len(job.plan.cells):
                return job, grown
        return None, plan_grid(wish.grid, self.offer)

    def _as_before(self, wish: Wish, asked: Any, job: Job) -> Grid:
        """The grid with what was left to chance last time, and is written the same now, as it fell then."""
        before, resolved = Grid.model_validate(asked) if asked else wish.grid, _grid_of(job.plan)
        lines = {name: getattr(resolved, name) for name in NAMES if getattr(before, name) == getattr(wish.grid, name)}
        drawn = {"seed": resolved.recipe.seed} if wish.request.random else {}
        return wish.grid.model_copy(update={**lines, "recipe": wish.grid.recipe.replace(**drawn)})

    def _opened(self, visitor: str, job: Job, asked: Grid | None) -> dict[Any, Any]:
        """A job's sheet; `asked` is its grid as it was written, where that is known."""
        asked = self._written_as[job] = asked or _grid_of(job.plan)
        return {
            self.sheet: self._sheet_value(job), self.shown: job.id, self.asked: asked.model_dump(mode="json"),
            self.earlier: self._earlier_choices(visitor, job),
        }  # fmt: skip

    def _sheet_value(self, job: Job) -> dict[str, Any]:
        # The time makes the value new when the same sheet is opened again, to go on with.
        return {"key": job.key, "opened": time.time()}

    def _job(self, visitor: str, job_id: str) -> Job | None:
        job = self.engine.job(job_id)
        return job if job is not None and job.owner == visitor and job.plan.grid is not None else None

    def _shown_job(self, visitor: str, shown: str) -> Job | None:
        """The job whose sheet is on the page: the newest, where gradio has forgotten what this page had told it."""
        return self._job(visitor, shown) if shown else next(iter(self._sheets(visitor)[::-1]), None)

    def _sheets(self, visitor: str) -> list[Job]:
        return [job for job in self.engine.jobs(visitor) if job.plan.grid is not None]

    def _earlier_choices(self, visitor: str, shown: Job) -> gr.Dropdown:
        choices = [(sheet_title(job), job.id) for job in reversed(self._sheets(visitor))]
        return gr.Dropdown([EARLIER, *choices], value=shown.id)


def sheet_title(job: Job) -> str:
    """A sheet in a list: "CFG scale (3) x Seed (4), 14:05:10"."""
    sides = [f"{title} ({length})" for length, title in zip(job.plan.shape, job.plan.titles, strict=True) if title]
    return f"{' x '.join(sides) or '1 picture'}, {time.strftime('%H:%M:%S', time.localtime(job.begun))}"


def cost_line(plan: Plan, cost: Estimate, *, growing: bool = False) -> Advice:
    """Cells, network calls and rows, and the time they will take, in one line."""
    sides = [str(length) for length, title in zip(plan.shape, plan.titles, strict=True) if title]
    cells = counted(len(plan.cells), "cell")
    failing = [cell.recipe for cell in plan.cells if cell.recipe.steps > scheduler_row(cell.recipe.scheduler).max_steps]
    parts = [f"{' x '.join(sides)} = {cells}" if len(sides) > 1 else cells]
    if growing:
        parts.append(f"{cost.cells + cost.reused} new")
    if cost.reused:
        parts.append(f"{cost.reused} on the disk already")
    if cost.calls:
        parts.append(f"{counted(cost.calls, 'network call')}, {counted(cost.rows, 'row')}")
        parts.append(f"about {seconds_shown(cost.seconds)}" if cost.seconds is not None else "time unknown until this model has drawn here")
    if failing:
        row = scheduler_row(failing[0].scheduler)
        parts.append(f"{counted(len(failing), 'cell')} will fail: {row.name} takes at most {row.max_steps} steps")
    return " · ".join(parts), "warning" if failing else ""


def _grid_of(plan: Plan) -> Grid:
    """The grid of a plan that is shown on this tab: all of them have one."""
    assert plan.grid is not None
    return plan.grid

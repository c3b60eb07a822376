"""Worker: one device's loop: inbox -> tick -> events.

One thread owns the network. Everything else only puts requests into its inbox.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from engine import metadata
from engine.catalog import Catalog, ModelSpec
from engine.device import Advance, Device, DeviceFacts, Key, TokenCount
from engine.errors import EngineError, ModelUnavailable, NotSaved
from engine.events import Cancelled, Event, Failed, Finished, Made, Notice, Preview, Provenance, Queued
from engine.history import History
from engine.job import Job
from engine.outputs import write_picture
from engine.packing import ADMITTED_A_TICK, Packer
from engine.plan import Cell
from engine.previewing import SHARE, Account, PreviewBudget, PreviewBudgets
from engine.speed import Speed

log = logging.getLogger(__name__)

REHEARSED_SECONDS = 0.5
"""A lone call that takes longer than this is not followed by a wider one just to know its speed."""

MISSED = 2
"""Previews that an image went without before its visitor is told: a first step may just have been a quick one."""


@dataclass(eq=False)  # a task is itself, whatever its arrays hold
class Task:
    """One cell on its way through the worker."""

    job: Job
    cell: Cell
    latents: Any = None
    started: float = 0.0
    step: int = 0
    total: int = 0
    shown: list[str] = field(default_factory=list)  # preview methods seen so far
    looked: int = 0  # the step that was shown last
    missed: int = 0  # previews asked for by name that it went without

    @property
    def key(self) -> Key:
        return (self.job.id, self.cell.index)

    @property
    def owner(self) -> str:
        return self.job.owner or self.job.id

    @property
    def account(self) -> Account:
        """Who pays for its previews."""
        return Account(self.owner, self.job.previews.method != "auto")

    def publish(self, event: Event) -> None:
        self.job.publish(event)


class Worker:
    """Runs jobs on one device. `open_device` is called in the worker's own thread, which it keeps; `folder` says
    where a picture made now is written, `history` what was made before."""

    def __init__(self, open_device: Callable[[], Device], catalog: Catalog, folder: Callable[[], Path], history: History):
        self._open_device = open_device
        self._catalog = catalog
        self._folder = folder
        self._history = history
        self.speed = Speed()
        self._inbox: queue.Queue[Callable[[], None]] = queue.Queue()
        self._waiting: list[Task] = []
        self._stopped: list[Task] = []  # out of the ticks, their pictures still to be developed
        self._live: dict[Key, Task] = {}
        self._loading: str | None = None
        self._rehearsing: str | None = None
        self._warmed: list[Future] = []  # those that wait for the load which is going on
        self._ready: tuple[str, Any] | None = None  # a loaded model that waits for the last images of the old one
        self._device: Device | None = None
        self._budgets = PreviewBudgets(SHARE["cpu"])
        self._told: dict[str, set[str]] = {}
        self._closing = False
        self._gate = threading.Lock()  # between closing and putting something into the inbox
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job, cells: Sequence[Cell], latents: Mapping[int, Any] | None = None) -> None:
        """Queues cells of a job; those of one model follow each other, since changing models is what costs most."""
        models = list(dict.fromkeys(cell.recipe.model for cell in cells))
        tasks = [Task(job, cell, (latents or {}).get(cell.index)) for cell in cells]
        tasks.sort(key=lambda task: models.index(task.cell.recipe.model))
        self._put(lambda: self._enqueue(tasks))

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Takes a job's cells (default: all) out of the ticks before the next one; what they had become is developed
        one by one, and told then.

        With `finish_current` the cell that has come furthest goes on to its end.
        """
        self._put(lambda: self._stop(job, cells, finish_current))

    def forget(self, job: Job) -> None:
        """Frees what is kept of a finished job."""
        self._put(lambda: self._forget(job))

    def warm(self, model: str) -> Future[None]:
        """Loads a model before anybody asks for a picture, if nothing else is going on; done once that is over, however it ended."""
        spec, over = self._catalog.find(model), Future()
        self._put(lambda: self._warm(spec, over))
        return over

    def ask(self, question: Callable[[Device], Any]) -> Future:
        """The answer of `question`, put to the device between two ticks."""
        answer: Future = Future()

        def put() -> None:
            try:
                answer.set_result(question(self._opened()))
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                answer.set_exception(error)

        self._put(put)
        return answer

    def count_tokens(self, model: str, text: str) -> TokenCount | None:
        """From any thread, without waiting for the device; None while that model is not the resident one."""
        device = self._device
        return device.count_tokens(text) if device is not None and device.model == model else None

    def packer(self, spec: ModelSpec) -> Packer:
        """A packer like the one that this model's calls are, or would be, packed with. From any thread."""
        device = self._device
        if device is not None and device.model == spec.name:
            return Packer(*device.packer.rules)
        kind = device.kind if device is not None else "cpu"
        return Packer(spec.rows_on(kind), padded=kind == "cuda")

    def facts(self, model: str) -> DeviceFacts | None:
        """What would compute a picture of this model now; None while it is not the resident one. From any thread."""
        device = self._device
        return device.facts() if device is not None and device.model == model else None

    @property
    def preview_share(self) -> float:
        """The part of the time worked that previews may add."""
        return self._budgets.share

    @property
    def resident(self) -> str | None:
        return self._device.model if self._device is not None else None

    def close(self) -> None:
        """Stops everything under way and ends the thread."""

        def end() -> None:
            for task in [*self._waiting, *self._live.values()]:
                self._stop(task.job, None, finish_current=False)

        with self._gate:
            self._closing = True
            self._inbox.put(end)
        self._thread.join(timeout=30)

    def _put(self, request: Callable[[], None]) -> None:
        with self._gate:
            if self._closing:
                raise EngineError("Darkroom is closing and takes no more requests.")
            self._inbox.put(request)

    # The rest runs in the worker's thread.

    def _run(self) -> None:
        while not self._closing or not self._inbox.empty() or self._stopped:
            try:
                self._read_inbox(wait=not self._busy())
                self._begin()
                self._tick()
                self._develop_stopped()
            except Exception:  # a bug: its images end with the reason, the worker goes on
                detail = traceback.format_exc()
                log.exception("the worker failed")
                self._tell_warmed()
                for task in [*self._live.values(), *self._waiting]:
                    self._fail(task, "Something went wrong inside Darkroom; the log has the details. Please try again.", detail)
                self._waiting.clear()

    def _busy(self) -> bool:
        """Whether there is something to do without a new request: all that waits for a load only is not."""
        if self._live or self._ready or self._stopped:
            return True
        return any(self._loading is None or task.cell.recipe.model == self.resident for task in self._waiting)

    def _read_inbox(self, wait: bool) -> None:
        try:
            self._inbox.get(block=wait)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _opened(self) -> Device:
        if self._device is None:
            self._device = self._open_device()
            self._budgets = PreviewBudgets(SHARE.get(self._device.kind, SHARE["cpu"]))
        return self._device

    def _enqueue(self, tasks: list[Task]) -> None:
        for task in tasks:
            task.publish(Queued(task.cell.index, ahead=len(self._live) + len(self._waiting)))
            self._waiting.append(task)

    def _warm(self, spec: ModelSpec, over: Future) -> None:
        if self._loading == spec.name:
            self._warmed.append(over)
        elif self._busy() or self._loading is not None or self.resident == spec.name:
            over.set_result(None)
        else:
            self._warmed.append(over)
            self._rehearsing = spec.name
            self._load(spec, tell=[])

    def _tell_warmed(self) -> None:
        for over in self._warmed:
            over.set_result(None)
        self._warmed.clear()

    def _begin(self) -> None:
        """Admits waiting images of the resident model, and has another loaded when the first in line needs it.

        Those of the resident model do not wait for a download behind somebody else's; once the other is ready,
        the ones under way are finished and it is its turn.
        """
        if self._ready and not (self._live or self._stopped):
            name, loaded = self._ready
            self._ready = None
            self._opened().install(loaded)
            self._rehearse(name)
            self._tell_warmed()
            log.info("%s is ready", name)
        if self._ready or not self._waiting:
            return
        if self._waiting[0].cell.recipe.model != self.resident:
            self._want(self._waiting[0].cell.recipe.model)
        fitting = [task for task in self._waiting if task.cell.recipe.model == self.resident][:ADMITTED_A_TICK]
        self._waiting = [task for task in self._waiting if task not in fitting]
        for task in fitting:
            self._admit(task)

    def _rehearse(self, model: str) -> None:
        """Of a model loaded before anybody asked: the time of a lone call and, where that is short, of the widest.

        The first estimate of a grid is then measured, not guessed, and the first picture finds a network that has run.
        """
        warmed, self._rehearsing = self._rehearsing == model, None
        if not warmed or self._waiting or not self._inbox.empty():
            return
        spec, device = self._catalog.find(model), self._opened()
        try:
            if self._rehearse_calls(device, spec, 1) <= REHEARSED_SECONDS:
                self._rehearse_calls(device, spec, max(device.packer.max_rows // 2, 1))
        except Exception:  # nothing depends on it
            log.exception("the rehearsal of %s failed", model)

    def _rehearse_calls(self, device: Device, spec: ModelSpec, images: int) -> float:
        """Seconds of a call for so many images: the second of two, since the first of a width is slower than any other."""
        keys: list[Key] = [("rehearsal", i) for i in range(images)]
        recipe = spec.recipe(steps=2)
        try:
            for seed, key in enumerate(keys):
                device.admit(key, recipe.replace(seed=seed), owner="", exact=False, latents=None)
            for _ in range(2):
                start = time.perf_counter()
                advances = device.tick()
                seconds = time.perf_counter() - start
                for advance in advances:
                    if advance.error is not None:
                        raise advance.error
        finally:
            for key in keys:
                device.forget(key)
        self.speed.called(spec.name, recipe.width * recipe.height, device.width, seconds)
        return seconds

    def _want(self, model: str) -> None:
        """Has a model loaded beside the resident one, unless something is being loaded already."""
        if self._loading is None:
            jobs = {task.job.id: task.job for task in self._waiting if task.cell.recipe.model == model}
            self._load(self._catalog.find(model), tell=list(jobs.values()))

    def _load(self, spec: ModelSpec, tell: list[Job]) -> None:
        self._loading = spec.name

        def report(text: str, progress: float | None = None) -> None:
            if progress is None:  # a download shows its own bar in the terminal
                log.info("%s", text)
            jobs = {task.job.id: task.job for task in list(self._waiting)} or {job.id: job for job in tell}
            for job in jobs.values():
                job.publish(Notice(text, progress=-1.0 if progress is None else progress))

        try:
            device = self._opened()
        except Exception as error:  # noqa: BLE001 - no torch, no such device: told to those who wait
            self._load_failed(spec, error)
            return

        def work() -> None:
            try:
                loaded = device.load(spec, report)
            except Exception as error:  # noqa: BLE001 - told to those who wait for the model
                failure = error
                self._inbox.put(lambda: self._load_failed(spec, failure))
            else:
                self._inbox.put(lambda: self._load_done(spec, loaded))

        threading.Thread(target=work, name=f"load {spec.name}", daemon=True).start()

    def _load_done(self, spec: ModelSpec, loaded: Any) -> None:
        self._loading = None
        self._ready = (spec.name, loaded)

    def _load_failed(self, spec: ModelSpec, error: Exception) -> None:
        self._loading = None
        self._tell_warmed()
        waiting = [task for task in self._waiting if task.cell.recipe.model == spec.name]
        self._waiting = [task for task in self._waiting if task not in waiting]
        if not isinstance(error, EngineError):
            log.error("loading %s failed", spec.name, exc_info=error)
            error = ModelUnavailable(f"{spec.title} could not be loaded: {error}")
        for task in waiting:
            self._fail(task, str(error))

    def _admit(self, task: Task) -> None:
        recipe, exact = task.cell.recipe, task.job.plan.exact
        try:
            device = self._opened()
            if task.job.reuse and task.latents is None and (made := self._history.find(recipe, exact, device.facts())):
                task.publish(Finished(task.cell.index, made, reused=True))
                return
            asked = {"exact": exact, "latents": task.latents, "job": task.job.id, "together": task.job.together}
            task.total = device.admit(task.key, recipe, owner=task.owner, **asked)
        except EngineError as error:
            self._fail(task, str(error))
            return
        except Exception:
            log.exception("an image could not be begun")
            self._fail(task, "This picture could not be begun; the log has the details.", traceback.format_exc())
            return
        task.started = time.perf_counter()
        self._live[task.key] = task
        self._tell_about_words(task)

    def _tell_about_words(self, task: Task) -> None:
        """Notices of an empty prompt and of words past the model's limit, each once a job."""
        recipe = task.cell.recipe
        if not recipe.full_prompt.strip():
            self._tell(task, "The prompt is empty, so the model draws whatever it likes.")
        for label, text in (("prompt", recipe.full_prompt), ("negative prompt", recipe.full_negative_prompt)):
            count = self._opened().count_tokens(text)
            if count and count.cut:
                self._tell(task, f"The model reads {count.limit} tokens of the {label}; these words were cut: “{count.cut}”.")

    def _tell(self, task: Task, text: str) -> None:
        """A notice of one of its images, once a job."""
        told = self._told.setdefault(task.job.id, set())
        if text not in told:
            told.add(text)
            task.publish(Notice(text, cell=task.cell.index))

    def _tick(self) -> None:
        if not self._live:
            return
        device = self._opened()
        start = time.perf_counter()
        advances = device.tick()
        seconds = time.perf_counter() - start
        present = {task.owner for task in (*self._live.values(), *self._waiting)}
        self._budgets.worked(seconds, [self._live[advance.key].account for advance in advances], present)
        if advances and all(advance.error is None for advance in advances):  # a failed call is tried again in others
            recipe = self._live[advances[0].key].cell.recipe
            self.speed.called(recipe.model, recipe.width * recipe.height, device.width, seconds)
        methods = self._choose_previews(device, advances, alone=len(present) == 1)
        for advance in advances:
            task = self._live[advance.key]
            task.step, task.total = advance.step, advance.total
            if advance.error is not None:
                self._fail(task, *_explain(advance.error))
                continue
            image, method = self._look(device, task, methods.get(advance.key))
            elapsed = time.perf_counter() - task.started
            task.publish(Preview(task.cell.index, advance.step, advance.total, image, method, elapsed))
            if advance.done:
                self._finish(task)

    def _choose_previews(self, device: Device, advances: Sequence[Advance], alone: bool) -> dict[Key, str]:
        """The previewer of each image that is shown after a tick, as far as its owner's budget goes."""
        due: dict[Account, list[Task]] = {}
        for advance in advances:
            task = self._live[advance.key]
            if not (advance.error or advance.done) and task.job.previews.due(advance.step):
                due.setdefault(task.account, []).append(task)
        methods: dict[Key, str] = {}
        for account, tasks in due.items():
            costs = device.preview_costs(tasks[0].key)  # images of one tick are of one size
            if account.named:
                methods |= self._choose_named(self._budgets[account], costs, tasks, alone)
            else:
                methods |= self._choose_auto(self._budgets[account], costs, tasks)
        return methods

    def _choose_auto(self, budget: PreviewBudget, costs: Mapping[str, float], tasks: Sequence[Task]) -> dict[Key, str]:
        """One previewer for all of an owner's images; those who have seen nothing yet need not wait with those who have."""
        new = [task for task in tasks if not task.shown]
        for some, seen in ((tasks, {name for task in tasks for name in task.shown}), (new, ())):
            if some and (method := budget.choose(costs, len(some), seen)):
                return dict.fromkeys((task.key for task in some), method)
        return {}

    def _choose_named(
        self, budget: PreviewBudget, costs: Mapping[str, float], tasks: Sequence[Task], alone: bool
    ) -> dict[Key, str]:  # fmt: skip
        """The previewers asked for by name, of the images first that went without for the most steps."""
        tasks = sorted(tasks, key=lambda task: task.looked - task.step)
        asked = [task.job.previews.method for task in tasks]
        methods = [method if method in costs else "linear" for method in asked]
        paid = budget.afford([costs[method] for method in methods])
        for task, wanted, method in zip(tasks, asked, methods, strict=True):
            if wanted != method:
                self._tell(task, f"This model has no “{wanted}” previews here: “{method}” ones are shown.")
        for task, method in list(zip(tasks, methods, strict=True))[paid:]:
            task.missed += 1
            if task.missed == MISSED:
                why = "take longer than the steps themselves, so they" if alone else "would hold up others, so for now they"
                self._tell(task, f"“{method}” previews {why} are shown less often than you asked: “auto” shows what there is time for.")
        return {task.key: method for task, method in zip(tasks[:paid], methods[:paid], strict=True)}

    def _look(self, device: Device, task: Task, method: str | None) -> tuple[Image.Image | None, str]:
        """A picture of an image under way, and how it was made."""
        if method is None:
            return None, ""
        try:
            image = device.preview(task.key, method)
        except Exception:  # watching must never end an image
            log.exception("a preview failed")
            return None, ""
        finally:
            self._budgets[task.account].spent(device.preview_seconds)
        task.looked = task.step
        if method not in task.shown:
            task.shown.append(method)
        return image, method

    def _finish(self, task: Task) -> None:
        start = time.perf_counter()
        try:
            made = self._develop(task)
        except Exception as error:  # noqa: BLE001 - this image's failure
            self._fail(task, *_explain(error))
            return
        recipe = task.cell.recipe
        self.speed.developed(recipe.model, recipe.width * recipe.height, time.perf_counter() - start)
        if task.latents is None:  # noise that was handed in is in no recipe
            self._history.remember(made, self._opened().facts(task.key))
        self._live.pop(task.key, None)
        self._opened().settle(task.key)
        task.publish(Finished(task.cell.index, made))

    def _stop(self, job: Job, cells: set[int] | None, finish_current: bool) -> None:
        mine = [task for task in [*self._live.values(), *self._waiting] if task.job is job]
        mine = [task for task in mine if cells is None or task.cell.index in cells]
        if finish_current and mine:
            furthest = max(mine, key=lambda task: task.step / max(task.total, 1))
            mine.remove(furthest)
        self._waiting = [task for task in self._waiting if task not in mine]
        for task in mine:
            if self._live.pop(task.key, None) is not None:
                self._opened().drop(task.key)
                self._stopped.append(task)
            else:
                task.publish(Cancelled(task.cell.index, 0, task.total))

    def _develop_stopped(self) -> None:
        """Develops one stopped image: a hundred at once would hold up everybody else's."""
        if not self._stopped:
            return
        task, made = self._stopped.pop(0), None
        if task.step:
            try:
                made = self._develop(task)
            except Exception:  # what cannot be shown of a stopped image is no news
                log.exception("a stopped image could not be developed")
        self._opened().settle(task.key)
        task.publish(Cancelled(task.cell.index, task.step, task.total, made))

    def _fail(self, task: Task, message: str, detail: str = "") -> None:
        self._live.pop(task.key, None)
        if self._device is not None:
            self._device.settle(task.key)
        task.publish(Failed(task.cell.index, message, detail))

    def _forget(self, job: Job) -> None:
        self._told.pop(job.id, None)
        if self._device is not None:
            for cell in job.plan.cells:
                self._device.forget((job.id, cell.index))

    def _develop(self, task: Task) -> Made:
        """The picture as it now is, written to disk with its recipe; unsaved, with the reason, when that fails."""
        device, recipe = self._opened(), task.cell.recipe
        image = device.picture(task.key)
        facts = device.facts(task.key)
        provenance = Provenance(
            facts.model_revision, facts.device, facts.dtype, facts.bucket, task.job.plan.exact,
            task.step, task.total, round(time.perf_counter() - task.started, 3), facts.versions,
        )  # fmt: skip
        sha256 = hashlib.sha256(image.tobytes()).hexdigest()
        mark = f"-unfinished-{task.step}-of-{task.total}" if provenance.unfinished else ""
        name = f"{time.strftime('%H%M%S')}-{task.job.id}-{task.cell.index:02d}-seed-{recipe.seed}{mark}"
        try:
            path = write_picture(metadata.png_bytes(image, recipe, provenance), self._folder(), name)
        except NotSaved as error:
            task.publish(Notice(str(error), cell=task.cell.index))
            return Made(recipe, provenance, sha256, pixels=image, unsaved=str(error))
        return Made(recipe, provenance, sha256, path)


def _explain(error: Exception) -> tuple[str, str]:
    """(sentence for the person, traceback for the log): bugs keep theirs."""
    if isinstance(error, EngineError):
        return str(error), ""
    detail = "".join(traceback.format_exception(error))
    log.error("an image failed: %s", detail)
    return "This picture failed inside Darkroom; the log has the details. The others go on.", detail

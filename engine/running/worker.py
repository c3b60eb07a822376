"""Worker: one device's loop: inbox -> tick -> events.

One thread owns the network. Everything else only puts requests into its inbox, or images into its line. Whatever goes
wrong ends what it belongs to and nothing else: the loop goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import EngineError, ModelUnavailable
from engine.pictures.history import History
from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import Catalog, ModelSpec
from engine.recipes.plan import Cell
from engine.running.admission import Admission
from engine.running.developing import Developer
from engine.running.device import Advance, Device, Key, TokenCount
from engine.running.events import Cancelled, Developing, Failed, Notice, Preview, Queued
from engine.running.job import Job
from engine.running.packing import Packer, Turns
from engine.running.previewing import SHARE, Account, PreviewBudget, PreviewBudgets
from engine.running.speed import Speed, seconds_shown
from engine.running.task import Task

log = logging.getLogger(__name__)

REHEARSED_SECONDS = 0.5
"""A lone call that takes longer than this is not followed by a larger or wider one just to know its speed."""

SMALLEST_REHEARSED = 64
"""Pixels of the side with which a rehearsal begins: a network of real size takes 10 s a call at 512 on a CPU."""

PLACES_EVERY = 0.5
"""Seconds between two tellings of how many images come before those that wait."""

HANG_SECONDS = 120.0
"""A call that takes longer is spoken of: the first one of a real-size model on a CPU may take nearly as long."""

HANG_TIMES = 5
"""... unless calls here have been so slow that it is not even so many times the slowest of them."""

CLOSING_SECONDS = 30.0
"""How long the next stopped image may take to be decoded when Darkroom is closed."""

_BROKEN = "Something went wrong inside Darkroom; the log has the details. Please try again."

MISSED = 2
"""Previews that an image went without before its visitor is told: a first step may just have been a quick one."""


@dataclass(frozen=True)
class Request:
    """Something for the worker's thread to do. `failed` is told of an error that nobody expected."""

    run: Callable[[], None]
    failed: Callable[[BaseException], None] = lambda error: None


class Worker:
    """Runs jobs on one device. `open_device` is called in the worker's own thread, which it keeps; `folder` says
    where a picture made now is written, `history` what was made before."""

    def __init__(self, open_device: Callable[[], Device], catalog: Catalog, folder: Callable[[], Path], history: History):
        self._open_device = open_device
        self._catalog = catalog
        self.speed = Speed()
        self._inbox: queue.Queue[Request] = queue.Queue()
        self._line = Admission()
        self._developer = Developer(folder, history)
        self._looked_up: dict[Key, Task] = {}  # let in, but perhaps on disk already
        self._live: dict[Key, Task] = {}
        self._stopped: list[Task] = []  # out of the ticks, their pictures still to be decoded
        self._stop_turns = Turns()
        self._questions: deque[Callable[[], None]] = deque()
        self._loading: str | None = None
        self._loading_told: Notice | None = None
        self._rehearsing: str | None = None
        self._warmed: list[Future] = []  # those that wait for the load which is going on
        self._ready: tuple[str, Any] | None = None  # a loaded model that waits for the last images of the old one
        self._troubles: dict[str, str] = {}
        self._device: Device | None = None
        self._budgets = PreviewBudgets(SHARE["cpu"])
        self._told: dict[str, set[str]] = {}
        self._places_told = 0.0
        self._calling_since: float | None = None
        self._slowest_call = 0.0
        self._hang_told: float | None = None
        self._closing = self._all_stopped = False
        self._over = threading.Event()
        self._gate = threading.Lock()  # between closing and putting something into the inbox
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="worker's watch", daemon=True).start()

    def submit(self, job: Job, cells: Sequence[Cell], latents: Mapping[int, Any] | None = None) -> None:
        """Queues cells of a job; those of one model follow each other, since changing models is what costs most.

        Raises EngineError when nobody works any more.
        """
        models = list(dict.fromkeys(cell.recipe.model for cell in cells))
        tasks = [Task(job, cell, (latents or {}).get(cell.index)) for cell in cells]
        tasks.sort(key=lambda task: models.index(task.model))
        with self._gate:
            self._check_open()
            ahead = self._line.before_a_newcomer
            for place, task in enumerate(tasks):  # told here: the worker may be busy with a long call
                task.publish(Queued(task.cell.index, ahead + place))
            self._line.join(tasks)
            self._wake()
        told = self._loading_told
        if told is not None and self._loading in models:
            job.publish(told)

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Takes a job's cells (default: all) out of the ticks before the next one; what they had become is developed
        one by one, and told then. That they take no more steps is told at once.

        With `finish_current` the cell that has come furthest goes on to its end.
        """
        cells = {cell.index for cell in job.plan.cells} if cells is None else set(cells)  # not those that are added later
        self._put(lambda: self._stop(job, cells, finish_current))
        if not finish_current:
            job.stopping(cells)

    def forget(self, job: Job) -> None:
        """Frees what is kept of a finished job."""
        self._put(lambda: self._forget(job))

    def warm(self, model: str) -> Future[None]:
        """Loads a model before anybody asks for a picture, if nothing else is going on; done once that is over, however it
        ended. It cannot be cancelled."""
        spec, over = self._catalog.find(model), Future()
        over.set_running_or_notify_cancel()
        self._put(lambda: self._warm(spec, over), lambda error: self._tell_warmed())
        return over

    def trouble(self, model: str) -> str | None:
        """Why a model could not be loaded when that was last tried, in a sentence; None where it was not tried or went well."""
        return self._troubles.get(model)

    def ask(self, question: Callable[[Device], Any]) -> Future:
        """The answer of `question`, put to the device between two ticks, one in each pause: steps come before looks back."""
        answer: Future = Future()

        def put() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked does not wait any more
            try:
                with self._calling():
                    answer.set_result(question(self._opened()))
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                answer.set_exception(error)

        self._put(lambda: self._questions.append(put))
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
        return Packer(spec.rows_on(kind), padded=kind == "cuda", native_pixels=spec.native_size**2)

    def facts(self, model: str) -> DeviceFacts | None:
        """What would compute a picture of this model now; None while it is not the resident one, or its files are still being
        hashed. From any thread."""
        device = self._device
        facts = device.facts() if device is not None and device.model == model else None
        return facts.result() if facts is not None and facts.done() else None

    @property
    def preview_share(self) -> float:
        """The part of the time worked that previews may add."""
        return self._budgets.share

    @property
    def resident(self) -> str | None:
        return self._device.model if self._device is not None else None

    def close(self) -> None:
        """Stops everything under way, writes what was made, and ends the threads."""
        with self._gate:
            self._closing = True
            self._inbox.put(Request(self._stop_all))
        left = None
        while self._thread.is_alive() and left != (left := len(self._stopped)):  # as long as there is progress
            self._thread.join(CLOSING_SECONDS)
        self._over.set()
        self._developer.close()

    def _put(self, run: Callable[[], None], failed: Callable[[BaseException], None] = lambda error: None) -> None:
        with self._gate:
            self._check_open()
            self._inbox.put(Request(run, failed))

    def _check_open(self) -> None:
        """Raises EngineError when nobody would do what is asked. The gate is held."""
        if self._closing:
            raise EngineError("Darkroom is closing and takes no more requests.")
        if not self._thread.is_alive():
            raise EngineError("Darkroom's engine has stopped: restart Darkroom. All finished pictures are on disk.")

    def _wake(self) -> None:
        """Has the loop look round once more. From any thread."""
        self._inbox.put(Request(lambda: None))

    # The rest runs in the worker's thread, but for what is said to be otherwise.

    def _supervise(self) -> None:
        """Keeps the loop going whatever is raised in it, also by what cleans up after an error."""
        while True:
            try:
                self._run()
                return
            except BaseException:
                log.critical("the worker's loop broke off; it is begun again", exc_info=True)
                self._safely(self._abandon, [*self._live.values(), *self._looked_up.values(), *self._line.leave(lambda task: True)])

    def _run(self) -> None:
        """The loop. BaseException: a SystemExit raised by some library must not leave callers waiting for ever."""
        while not self._all_stopped or not self._inbox.empty() or self._stopped or self._questions:
            self._read_inbox(wait=not self._busy())
            if self._questions:
                self._handle(Request(self._questions.popleft()))
            try:
                self._begin()
            except BaseException:
                log.exception("waiting images could not be begun")
                self._safely(self._abandon, [*self._line.leave(lambda task: True), *self._looked_up.values()])
            try:
                self._tick()
            except BaseException:
                log.exception("a tick failed")
                self._safely(self._abandon, list(self._live.values()))
            self._develop_stopped()

    def _busy(self) -> bool:
        """Whether there is something to do without a new request: what waits for a load, a disk or a writer is not."""
        if self._live or self._stopped or self._questions:
            return True
        if self._looked_up:
            return False
        if self._ready:
            return True
        if self._loading is None and self._line.wanted(self.resident) is not None:
            return True
        return not self._developer.crowded and self._line.waits_for(self.resident)

    def _read_inbox(self, wait: bool) -> None:
        try:
            self._handle(self._inbox.get(block=wait))
            for _ in range(self._inbox.qsize()):  # those there now: whoever asks without pause does not hold up the ticks
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            pass

    def _handle(self, request: Request) -> None:
        try:
            request.run()
        except BaseException as error:
            log.exception("a request failed")
            self._safely(request.failed, error)

    def _safely(self, clean_up: Callable[..., object], *arguments: Any) -> None:
        """Cleaning up after an error must not raise another."""
        try:
            clean_up(*arguments)
        except BaseException:
            log.exception("cleaning up after an error failed")

    def _abandon(self, tasks: Iterable[Task]) -> None:
        detail = traceback.format_exc()
        for task in tasks:
            self._safely(self._fail, task, _BROKEN, detail)

    def _opened(self) -> Device:
        if self._device is None:
            self._device = self._open_device()
            self._budgets = PreviewBudgets(SHARE.get(self._device.kind, SHARE["cpu"]))
        return self._device

    def _warm(self, spec: ModelSpec, over: Future) -> None:
        idle = not (self._busy() or self._looked_up or self._ready or self._loading is not None)
        if self._loading != spec.name and (not idle or self.resident == spec.name):
            over.set_result(None)
            return
        self._warmed.append(over)
        if self._loading is None:
            self._rehearsing = spec.name
            self._load(spec)

    def _tell_warmed(self) -> None:
        warmed, self._warmed = self._warmed, []
        for over in warmed:
            over.set_result(None)

    def _begin(self) -> None:
        """Lets waiting images of the resident model in, and has another loaded when a job's next images need it.

        Those of the resident model do not wait for a download behind somebody else's; once the other is ready,
        the ones under way are finished and it is its turn.
        """
        if self._ready and not (self._live or self._stopped or self._looked_up):
            self._install(*self._ready)
        if self._ready:
            return
        wanted, resident = self._line.wanted(self.resident), self.resident
        if wanted is not None and self._loading is None:
            self._load(self._catalog.find(wanted))
        if resident is None or self._developer.crowded or not self._line.waits_for(resident):
            return
        for task in self._line.admit(resident, self._opened().room, self._cost):
            self._admit(task)
        self._tell_places()

    def _cost(self, task: Task) -> int:
        try:
            return self._opened().cost(task.cell.recipe)
        except BaseException:  # noqa: BLE001 - a recipe so odd is told of where it is begun
            return 0

    def _tell_places(self) -> None:
        if time.monotonic() - self._places_told < PLACES_EVERY:
            return
        self._places_told = time.monotonic()
        for task, ahead in self._line.places():
            task.publish(Queued(task.cell.index, ahead))

    def _install(self, model: str, loaded: Any) -> None:
        self._ready = None
        try:
            with self._calling():
                self._opened().install(loaded)
        except BaseException as error:  # noqa: BLE001 - told to those who wait for the model
            self._load_failed(self._catalog.find(model), error)
            return
        self._rehearse(model)
        self._tell_warmed()
        log.info("%s is ready", model)

    def _rehearse(self, model: str) -> None:
        """Of a model loaded before anybody asked: the time of a lone call, from small pictures to those of its own size as long
        as that is short, and of the widest.

        The first estimate of a grid is then measured, not guessed, and the first picture finds a network that has run.
        """
        warmed, self._rehearsing = self._rehearsing == model, None
        if not warmed:
            return
        spec, device = self._catalog.find(model), self._opened()
        sides = [side for side in (SMALLEST_REHEARSED << doubled for doubled in range(8)) if side < spec.native_size] + [spec.native_size]
        try:
            for images, side in [*((1, side) for side in sides), (max(device.packer.max_rows // 2, 1), sides[-1])]:
                if len(self._line) or not self._inbox.empty():
                    return  # somebody came: nobody waits for a rehearsal
                if self._rehearse_calls(device, spec, images, side) > REHEARSED_SECONDS:
                    return
        except Exception:  # nothing depends on it
            log.exception("the rehearsal of %s failed", model)

    def _rehearse_calls(self, device: Device, spec: ModelSpec, images: int, side: int) -> float:
        """Seconds of a call for so many images: the second of two, since the first of a width is slower than any other."""
        keys: list[Key] = [("rehearsal", i) for i in range(images)]
        recipe = spec.recipe(steps=2, width=side, height=side)
        try:
            for seed, key in enumerate(keys):
                device.admit(key, recipe.replace(seed=seed), owner="", exact=False, latents=None)
            for _ in range(2):
                start = time.perf_counter()
                with self._calling():
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

    def _load(self, spec: ModelSpec) -> None:
        """Has a model loaded beside the resident one."""
        self._loading = spec.name
        self._troubles.pop(spec.name, None)

        def report(text: str, progress: float | None = None) -> None:  # in the loading thread
            if progress is None:  # a download shows its own bar in the terminal
                log.info("%s", text)
            self._loading_told = Notice(text, progress=-1.0 if progress is None else progress)
            for job in self._line.jobs(spec.name):
                job.publish(self._loading_told)

        try:
            device = self._opened()
        except BaseException as error:  # noqa: BLE001 - no torch, no such device: told to those who wait
            self._load_failed(spec, error)
            return

        def work() -> None:
            try:
                loaded = device.load(spec, report)
            except BaseException as error:  # noqa: BLE001 - told to those who wait for the model
                failure = error
                self._inbox.put(Request(lambda: self._load_failed(spec, failure)))
            else:
                self._inbox.put(Request(lambda: self._load_done(spec, loaded)))

        try:
            threading.Thread(target=work, name=f"load {spec.name}", daemon=True).start()
        except RuntimeError as error:  # no more threads can be had
            self._load_failed(spec, error)

    def _load_done(self, spec: ModelSpec, loaded: Any) -> None:
        self._loading = self._loading_told = None
        others = self._live or self._looked_up or self._stopped or self._line.waits_for(self.resident)
        if self._rehearsing == spec.name and others and not self._line.waits_for(spec.name):
            self._rehearsing = None  # nobody waits for it, and others' pictures came first
            self._tell_warmed()
            return
        self._ready = (spec.name, loaded)

    def _load_failed(self, spec: ModelSpec, error: BaseException) -> None:
        self._loading = self._loading_told = self._rehearsing = None
        self._tell_warmed()
        if not isinstance(error, EngineError):
            log.error("loading %s failed", spec.name, exc_info=error)
            error = ModelUnavailable(f"{spec.title} could not be loaded; the log has the details.")  # its words may hold a path
        log.info("%s", error)  # the command line tells it by itself
        self._troubles[spec.name] = str(error)
        for task in self._line.leave(lambda task: task.model == spec.name):
            self._fail(task, str(error))

    def _admit(self, task: Task) -> None:
        """An image that was let in: it is looked for on disk where its job says so, else begun."""
        if not task.job.reuse or task.latents is not None:
            self._start(task)
            return
        self._looked_up[task.key] = task

        def over(found: bool) -> None:  # in the developer's thread
            self._inbox.put(Request(lambda: self._looked(task, found), lambda error: self._fail(task, _BROKEN, str(error))))

        try:
            self._developer.look_up(task, self._opened().facts(), over)
        except BaseException:
            log.exception("a picture made before could not be looked for")
            self._looked(task, found=False)

    def _looked(self, task: Task, found: bool) -> None:
        if self._looked_up.pop(task.key, None) is None:
            return  # it was stopped meanwhile
        if found:
            self._line.release(task)
        else:
            self._start(task)

    def _start(self, task: Task) -> None:
        job = task.job
        asked = {"exact": job.plan.exact, "latents": task.latents, "job": job.id, "together": job.together}
        try:
            task.total = self._opened().admit(task.key, task.cell.recipe, owner=task.owner, **asked)
            task.started = time.perf_counter()
            self._live[task.key] = task
            self._tell_about_words(task)
        except EngineError as error:
            self._fail(task, str(error))
        except BaseException:
            log.exception("an image could not be begun")
            self._fail(task, "This picture could not be begun; the log has the details.", traceback.format_exc())

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
        with self._calling():
            advances = device.tick()
        seconds = time.perf_counter() - start
        advances = [advance for advance in advances if advance.key in self._live]
        present = self._line.owners
        self._budgets.worked(seconds, [self._live[advance.key].account for advance in advances], present)
        if advances and all(advance.error is None for advance in advances):  # a failed call is tried again in others
            recipe = self._live[advances[0].key].cell.recipe
            self.speed.called(recipe.model, recipe.width * recipe.height, device.width, seconds)
        methods = self._previews_due(device, advances, alone=len(present) == 1)
        for advance in advances:
            task = self._live[advance.key]
            try:
                self._advance(device, task, advance, methods.get(advance.key))
            except BaseException as error:  # noqa: BLE001 - this image's failure
                self._fail(task, *_explain(error))

    def _advance(self, device: Device, task: Task, advance: Advance, method: str | None) -> None:
        task.step, task.total = advance.step, advance.total
        if advance.error is not None:
            self._fail(task, *_explain(advance.error))
            return
        image, method = self._look(device, task, method)
        elapsed = time.perf_counter() - task.started
        task.publish(Preview(task.cell.index, advance.step, advance.total, image, method, elapsed))
        if advance.done:
            task.publish(Developing(task.cell.index, advance.step, advance.total))
            self._develop(task)

    def _previews_due(self, device: Device, advances: Sequence[Advance], alone: bool) -> Mapping[Key, str]:
        try:
            return self._choose_previews(device, advances, alone)
        except Exception:  # watching must never end an image
            log.exception("no previews could be chosen")
            return {}

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
            with self._calling():
                image = device.preview(task.key, method)
        except EngineError:  # nothing to see of this step
            return None, ""
        except Exception:  # watching must never end an image
            log.exception("a preview failed")
            return None, ""
        finally:
            self._budgets[task.account].spent(device.preview_seconds)
        task.looked = task.step
        if method not in task.shown:
            task.shown.append(method)
        return image, method

    def _develop(self, task: Task) -> None:
        """Decodes what an image has become, and has it written. Raises what the decoder raises; the image is settled then too."""
        device, recipe = self._opened(), task.cell.recipe
        start = time.perf_counter()
        try:
            with self._calling():
                image, facts = device.picture(task.key), device.facts(task.key)
        finally:
            self._settle(task)
        self.speed.developed(recipe.model, recipe.width * recipe.height, time.perf_counter() - start)
        self._developer.develop(task, image, facts, self._wake)

    def _settle(self, task: Task) -> None:
        """An image has ended, or is about to: it holds up nobody any more."""
        self._live.pop(task.key, None)
        self._looked_up.pop(task.key, None)
        self._line.release(task)
        if self._device is not None:
            self._safely(self._device.settle, task.key)

    def _stop(self, job: Job, cells: set[int] | None, finish_current: bool) -> None:
        def mine(task: Task) -> bool:
            return task.job is job and (cells is None or task.cell.index in cells) and task is not spared

        spared: Task | None = None
        begun = [task for task in (*self._live.values(), *self._looked_up.values()) if mine(task)]
        if finish_current and begun:
            spared = max(begun, key=lambda task: task.step / max(task.total, 1))
            begun.remove(spared)
        waiting = self._line.leave(mine)
        if finish_current and waiting and spared is None:
            self._line.join([waiting.pop(0)])
        for task in waiting:
            task.publish(Cancelled(task.cell.index, 0, task.total))
        for task in begun:
            self._stop_begun(task)

    def _stop_begun(self, task: Task) -> None:
        self._looked_up.pop(task.key, None)
        if self._live.pop(task.key, None) is None:  # it was still looked for on disk
            self._line.release(task)
            task.publish(Cancelled(task.cell.index, 0, task.total))
            return
        if not task.step:  # there is nothing to decode
            self._settle(task)
            task.publish(Cancelled(task.cell.index, 0, task.total))
            return
        self._stopped.append(task)  # it holds its room until it is decoded
        self._safely(self._opened().drop, task.key)
        task.publish(Developing(task.cell.index, task.step, task.total))

    def _stop_all(self) -> None:
        self._all_stopped = True
        self._tell_warmed()
        tasks = [*self._line.leave(lambda task: True), *self._live.values(), *self._looked_up.values()]
        for task in tasks:
            if task.key in self._live or task.key in self._looked_up:
                self._stop_begun(task)
            else:
                task.publish(Cancelled(task.cell.index, 0, task.total))

    def _develop_stopped(self) -> None:
        """Decodes one stopped image: a hundred at once would hold up everybody else's."""
        if not self._stopped:
            return
        # Owners take turns: another's only one does not wait for somebody's hundred.
        owner = self._stop_turns.in_turn(dict.fromkeys(task.owner for task in self._stopped))[0]
        self._stop_turns.took([owner])
        task = next(task for task in self._stopped if task.owner == owner)
        self._stopped.remove(task)
        try:
            self._develop(task)
            return
        except BaseException:  # what cannot be shown of a stopped image is no news
            log.exception("a stopped image could not be developed")
        self._settle(task)
        task.publish(Cancelled(task.cell.index, task.step, task.total))

    def _fail(self, task: Task, message: str, detail: str = "") -> None:
        self._settle(task)
        task.publish(Failed(task.cell.index, message, detail))

    def _forget(self, job: Job) -> None:
        self._told.pop(job.id, None)
        if self._device is not None:
            for cell in job.plan.cells:
                self._device.forget((job.id, cell.index))

    # A call that does not come back.

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Around what may take long, or hang: a call of the network or the decoder."""
        since = self._calling_since = time.monotonic()
        try:
            yield
        finally:
            self._calling_since = None
            self._slowest_call = max(self._slowest_call, time.monotonic() - since)

    def _watch(self) -> None:
        """In a thread of its own, until the worker is closed."""
        while not self._over.wait(HANG_SECONDS / 20):
            self._safely(self._tell_of_a_hang, time.monotonic())

    def _tell_of_a_hang(self, now: float) -> None:
        """Once a call: those whose images are under way are told that it may never come back. From any thread."""
        since = self._calling_since
        if since is None or since == self._hang_told or now - since < max(HANG_SECONDS, HANG_TIMES * self._slowest_call):
            return
        self._hang_told = since
        silence = seconds_shown(now - since)
        text = f"The device has not answered for {silence}. If this goes on, Darkroom must be restarted; what is finished is on disk."
        log.error("%s", text)
        jobs = [task.job for task in (*list(self._live.values()), *list(self._stopped))] + self._line.jobs()
        for job in dict.fromkeys(jobs):
            job.publish(Notice(text))


def _explain(error: BaseException) -> tuple[str, str]:
    """(sentence for the person, traceback for the log): bugs keep theirs."""
    if isinstance(error, EngineError):
        return str(error), ""
    detail = "".join(traceback.format_exception(error))
    log.error("an image failed: %s", detail)
    return "This picture failed inside Darkroom; the log has the details. The others go on.", detail

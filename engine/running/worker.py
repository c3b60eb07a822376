"""Worker: one device's loop: inbox -> tick -> messages.

One thread owns the network. Everything else only puts requests into its inbox, or images into its line. Whatever goes
wrong ends what it belongs to and nothing else: the loop goes on. What goes in and what comes out is in engine.running.messages.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from engine.errors import EngineError
from engine.library.library import Library
from engine.pictures.developing import Developer
from engine.pictures.made import Made
from engine.recipes.catalog import Catalog
from engine.running.admission import Admission
from engine.running.device import Advance, Device, Key
from engine.running.events import Cancelled, Developing, Failed, Finished, Notice, Preview, Queued
from engine.running.finishing import Finisher
from engine.running.lookups import Lookups
from engine.running.messages import (
    Answered,
    Ask,
    Begin,
    Called,
    CountTokens,
    Forget,
    Order,
    Stop,
    Tell,
    Told,
    Warm,
    Withdraw,
)
from engine.running.packing import Turns
from engine.running.patience import Patience
from engine.running.previewing import Previews
from engine.running.questions import Looks
from engine.running.residency import Residency
from engine.running.task import Task

log = logging.getLogger(__name__)

PLACES_EVERY = 0.5
"""Seconds between two tellings of how many images come before those that wait."""

CLOSING_SECONDS = 30.0
"""How long the next stopped image may take to be decoded when Darkroom is closed."""

_BROKEN = "Something went wrong inside Darkroom; the log has the details. Please try again."


@dataclass(frozen=True)
class Request:
    """Something for the worker's thread to do. `failed` is told of an error that nobody expected."""

    run: Callable[[], None]
    failed: Callable[[BaseException], None] = lambda error: None


class Worker:
    """Runs jobs on one device; a Link to itself. `open_device` is called in the worker's own thread, which it keeps; `folder` says
    where a picture made now is written, `library` what was made before, and `tell` takes what it has to say."""

    def __init__(self, open_device: Callable[[], Device], catalog: Catalog, folder: Callable[[], Path], library: Library, tell: Tell):
        self.line = Admission()
        self._tell = tell
        self._inbox: queue.Queue[Request] = queue.Queue()
        self._residency = Residency(open_device, catalog, tell, self)
        self._patience = Patience(self._tell_everybody)
        self._previews: Previews | None = None
        self._lookups = Lookups(library)
        self._developer = Developer(folder, library)
        self._finisher = Finisher(self._developer, self.calling, tell, self._wake)
        self._looked_up: dict[Key, Task] = {}  # let in, but perhaps on disk already
        self._live: dict[Key, Task] = {}
        self._stopped: list[Task] = []  # out of the ticks, their pictures still to be decoded
        self._stop_turns = Turns()
        self._questions: deque[Ask] = deque()
        self._looks: Looks = {}
        self._noticed: dict[str, set[str]] = {}  # by job
        self._places_told = 0.0
        self._closing = self._all_stopped = False
        self._gate = threading.Lock()  # between closing and putting something into the inbox
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)
        self._thread.start()

    def send(self, order: Order) -> None:
        """Takes an order. Images join the line at once, and tokens are counted at once: the worker may be busy with a long call."""
        if isinstance(order, CountTokens):
            self._count_tokens(order)
            return
        with self._gate:
            if self._closing:
                raise EngineError("Darkroom is closing and takes no more requests.")
            if not self._thread.is_alive():
                raise EngineError("Darkroom's engine has stopped: restart Darkroom. All finished pictures are on disk.")
            if isinstance(order, Begin):
                self._join(order)
            else:
                self._inbox.put(self._request(order))

    def close(self) -> None:
        """Stops everything under way, writes what was made, and ends the threads."""
        with self._gate:
            self._closing = True
            self._inbox.put(Request(self._stop_all))
        left = None
        while self._thread.is_alive() and left != (left := len(self._stopped)):  # as long as there is progress
            self._thread.join(CLOSING_SECONDS)
        self._patience.close()
        self._lookups.close()
        self._developer.close()

    def _request(self, order: Stop | Forget | Warm | Ask | Withdraw) -> Request:
        match order:
            case Stop():
                return Request(partial(self._stop, order))
            case Forget():
                return Request(partial(self._forget, order))
            case Warm():
                answer = partial(self._tell, Answered(order.ticket))
                return Request(partial(self._warm, order), lambda error: answer())
            case Ask():
                return Request(partial(self._questions.append, order))
            case Withdraw():
                return Request(partial(self._withdraw, order.ticket))

    def _join(self, order: Begin) -> None:
        """The cells of an order wait from now on. The gate is held."""
        noticed = self._noticed.setdefault(order.job, set())
        self._looks.setdefault(order.job, {})
        self.line.join(Task(order, cell, self._tell, noticed) for cell in order.cells)
        self._wake()
        told = self._residency.progress_of({cell.recipe.model for cell in order.cells})
        if told is not None:
            self._tell(Told(order.job, told))

    def _count_tokens(self, order: CountTokens) -> None:
        """From any thread, without waiting for the device."""
        device = self._residency.opened
        try:
            count = device.count_tokens(order.text) if device is not None and device.model == order.model else None
            self._tell(Answered(order.ticket, count))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            self._tell(Answered(order.ticket, error=error))

    def _wake(self) -> None:
        """Has the loop look round once more. From any thread."""
        self.post(lambda: None)

    # What the residency needs (engine.running.residency.Surroundings).

    def post(self, run: Callable[[], None], failed: Callable[[BaseException], None] = lambda error: None) -> None:
        """Has something done in the worker's thread. From any thread."""
        self._inbox.put(Request(run, failed))

    def calling(self) -> AbstractContextManager[None]:
        return self._patience.calling()

    def under_way(self) -> bool:
        return bool(self._live or self._stopped or self._looked_up)

    def disturbed(self) -> bool:
        return bool(len(self.line)) or not self._inbox.empty()

    def lost(self, model: str, message: str) -> None:
        for task in self.line.leave(lambda task: task.model == model):
            self._fail(task, message)

    # The rest runs in the worker's thread, but for what is said to be otherwise.

    def _supervise(self) -> None:
        """Keeps the loop going whatever is raised in it, also by what cleans up after an error."""
        while True:
            try:
                self._run()
                return
            except BaseException:
                log.critical("the worker's loop broke off; it is begun again", exc_info=True)
                self._safely(self._abandon, [*self._live.values(), *self._looked_up.values(), *self.line.leave(lambda task: True)])

    def _run(self) -> None:
        """The loop. BaseException: a SystemExit raised by some library must not leave callers waiting for ever."""
        while not self._all_stopped or not self._inbox.empty() or self._stopped or self._questions:
            self._read_inbox(wait=not self._busy())
            if self._questions:
                self._answer(self._questions.popleft())
            try:
                self._begin()
            except BaseException:
                log.exception("waiting images could not be begun")
                self._safely(self._abandon, [*self.line.leave(lambda task: True), *self._looked_up.values()])
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
        if self._residency.changing:
            return True
        if self._residency.may_load and self.line.wanted(self._residency.model) is not None:
            return True
        return not self._developer.crowded and self.line.waits_for(self._residency.model)

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

    def _answer(self, asked: Ask) -> None:
        try:
            with self.calling():
                value = asked.question.answer(self._residency.device, self._looks)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked
            self._safely(self._tell, Answered(asked.ticket, error=error))
        else:
            self._safely(self._tell, Answered(asked.ticket, value))

    def _withdraw(self, ticket: int) -> None:
        self._questions = deque(asked for asked in self._questions if asked.ticket != ticket)

    def _safely(self, clean_up: Callable[..., object], *arguments: object) -> None:
        """Cleaning up after an error must not raise another."""
        try:
            clean_up(*arguments)
        except BaseException:
            log.exception("cleaning up after an error failed")

    def _abandon(self, tasks: Iterable[Task]) -> None:
        detail = traceback.format_exc()
        for task in tasks:
            self._safely(self._fail, task, _BROKEN, detail)

    def _warm(self, order: Warm) -> None:
        self._residency.warm(order.ticket, order.model, idle=not (self._busy() or self._looked_up))

    def _begin(self) -> None:
        """Lets waiting images of the resident model in, as far as there is room."""
        model = self._residency.model if self._residency.turn() else None
        if model is None or self._developer.crowded or not self.line.waits_for(model):
            return
        for task in self.line.admit(model, self._residency.device.room, self._cost):
            self._admit(task)
        self._tell_places()

    def _cost(self, task: Task) -> int:
        try:
            return self._residency.device.cost(task.recipe)
        except BaseException:  # noqa: BLE001 - a recipe so odd is told of where it is begun
            return 0

    def _tell_places(self) -> None:
        if time.monotonic() - self._places_told < PLACES_EVERY:
            return
        self._places_told = time.monotonic()
        for task, ahead in self.line.places():
            task.publish(Queued(task.cell.index, ahead))

    def _admit(self, task: Task) -> None:
        """An image that was let in: it is looked for on disk where its job says so, else begun."""
        if not task.order.reuse or task.latents is not None:
            self._start(task)
            return
        self._looked_up[task.key] = task

        def over(made: Made | None) -> None:  # in the lookups' thread
            if made is not None:
                task.publish(Finished(task.cell.index, made, reused=True))
            self.post(lambda: self._looked(task, made is not None), lambda error: self._fail(task, _BROKEN, str(error)))

        try:
            self._lookups.look_up(task, self._residency.device.facts(), over)
        except BaseException:
            log.exception("a picture made before could not be looked for")
            self._looked(task, found=False)

    def _looked(self, task: Task, found: bool) -> None:
        if self._looked_up.pop(task.key, None) is None:
            return  # it was stopped meanwhile
        if found:
            self.line.release(task)
        else:
            self._start(task)

    def _start(self, task: Task) -> None:
        order = task.order
        asked = {"exact": order.exact, "latents": task.latents, "job": order.job, "together": order.together, "alone": order.replay}
        try:
            task.total = self._residency.device.admit(task.key, task.recipe, owner=task.owner, **asked)
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
        recipe = task.recipe
        if not recipe.full_prompt.strip():
            task.notice("The prompt is empty, so the model draws whatever it likes.")
        for label, text in (("prompt", recipe.full_prompt), ("negative prompt", recipe.full_negative_prompt)):
            count = self._residency.device.count_tokens(text)
            if count and count.cut:
                task.notice(f"The model reads {count.limit} tokens of the {label}; these words were cut: “{count.cut}”.")

    def _tick(self) -> None:
        if not self._live:
            return
        device = self._residency.device
        start = time.perf_counter()
        with self.calling():
            advances = device.tick()
        seconds = time.perf_counter() - start
        advances = [advance for advance in advances if advance.key in self._live]
        tasks = [self._live[advance.key] for advance in advances]
        if advances and all(advance.error is None for advance in advances):  # a failed call is tried again in others
            recipe = tasks[0].recipe
            self._tell(Called(recipe.model, recipe.width * recipe.height, device.width, seconds))
        self._residency.refresh()
        for task, advance in zip(tasks, advances, strict=True):
            task.step, task.total = advance.step, advance.total
        previews, present = self._previews_of(device), self.line.owners
        previews.worked(seconds, tasks, present)
        seen = [task for task, advance in zip(tasks, advances, strict=True) if not (advance.error or advance.done)]
        methods = previews.due(device, seen, alone=len(present) == 1)
        for task, advance in zip(tasks, advances, strict=True):
            try:
                self._advance(task, advance, *previews.look(device, task, methods.get(task.key)))
            except BaseException as error:  # noqa: BLE001 - this image's failure
                self._fail(task, *_explain(error))

    def _previews_of(self, device: Device) -> Previews:
        if self._previews is None:
            self._previews = Previews(device.kind, self.calling)
        return self._previews

    def _advance(self, task: Task, advance: Advance, image: Image.Image | None, method: str) -> None:
        if advance.error is not None:
            self._fail(task, *_explain(advance.error))
            return
        elapsed = time.perf_counter() - task.started
        task.publish(Preview(task.cell.index, advance.step, advance.total, image, method, elapsed))
        if advance.done:
            task.publish(Developing(task.cell.index, advance.step, advance.total))
            self._finisher.finish(self._residency.device, task, self._settle)

    def _settle(self, task: Task) -> None:
        """An image has ended, or is about to: it holds up nobody any more."""
        self._live.pop(task.key, None)
        self._looked_up.pop(task.key, None)
        self.line.release(task)
        if self._residency.opened is not None:
            self._safely(self._residency.opened.settle, task.key)

    def _stop(self, order: Stop) -> None:
        def mine(task: Task) -> bool:
            return task.job == order.job and task.cell.index in order.cells and task is not spared

        spared: Task | None = None
        begun = [task for task in (*self._live.values(), *self._looked_up.values()) if mine(task)]
        if order.finish_current and begun:
            spared = max(begun, key=lambda task: task.step / max(task.total, 1))
            begun.remove(spared)
        waiting = self.line.leave(mine)
        if order.finish_current and waiting and spared is None:
            self.line.join([waiting.pop(0)])
        for task in waiting:
            task.publish(Cancelled(task.cell.index, 0, task.total))
        for task in begun:
            self._stop_begun(task)

    def _stop_begun(self, task: Task) -> None:
        self._looked_up.pop(task.key, None)
        if self._live.pop(task.key, None) is None:  # it was still looked for on disk
            self.line.release(task)
            task.publish(Cancelled(task.cell.index, 0, task.total))
            return
        if not task.step:  # there is nothing to decode
            self._settle(task)
            task.publish(Cancelled(task.cell.index, 0, task.total))
            return
        self._stopped.append(task)  # it holds its room until it is decoded
        self._safely(self._residency.device.drop, task.key)
        task.publish(Developing(task.cell.index, task.step, task.total))

    def _stop_all(self) -> None:
        self._all_stopped = True
        self._residency.answer_warmed()
        tasks = [*self.line.leave(lambda task: True), *self._live.values(), *self._looked_up.values()]
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
            self._finisher.finish(self._residency.device, task, self._settle)
            return
        except BaseException:  # what cannot be shown of a stopped image is no news
            log.exception("a stopped image could not be developed")
        self._settle(task)
        task.publish(Cancelled(task.cell.index, task.step, task.total))

    def _fail(self, task: Task, message: str, detail: str = "") -> None:
        self._settle(task)
        task.publish(Failed(task.cell.index, message, detail))

    def _forget(self, order: Forget) -> None:
        self._noticed.pop(order.job, None)
        self._looks.pop(order.job, None)
        if self._residency.opened is not None:
            for cell in order.cells:
                self._residency.opened.forget((order.job, cell))

    def _tell_everybody(self, text: str) -> None:
        """A notice to all whose images wait or are under way. From any thread."""
        jobs = [task.job for task in (*list(self._live.values()), *list(self._stopped))] + self.line.jobs()
        for job in dict.fromkeys(jobs):
            self._tell(Told(job, Notice(text)))


def _explain(error: BaseException) -> tuple[str, str]:
    """(sentence for the person, traceback for the log): bugs keep theirs."""
    if isinstance(error, EngineError):
        return str(error), ""
    detail = "".join(traceback.format_exception(error))
    log.error("an image failed: %s", detail)
    return "This picture failed inside Darkroom; the log has the details. The others go on.", detail

"""Engine: takes plans, gives jobs. It knows who asked for what; its worker knows how it is made."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import EngineError, InvalidRequest
from engine.library.library import Library
from engine.pictures.outputs import OWN_FOLDER, day_folder
from engine.recipes.catalog import Catalog, Limits, ModelSpec
from engine.recipes.families import FAMILIES
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.device import Device, TokenCount
from engine.running.events import Failed, Finished, Queued
from engine.running.forecast import count_calls
from engine.running.job import Job
from engine.running.kept import KeptJobs
from engine.running.messages import (
    Answered,
    Ask,
    Begin,
    Called,
    CountTokens,
    Developed,
    Forget,
    Link,
    Message,
    Order,
    Resident,
    Stop,
    Tell,
    Told,
    Trouble,
    Warm,
    Withdraw,
)
from engine.running.packing import Packer
from engine.running.preview_budget import SHARE
from engine.running.preview_options import PreviewOptions
from engine.running.questions import LatentsOf, Question, StepOf, StepsOf
from engine.running.speed import Estimate, Speed
from engine.running.worker import Worker

ANSWER_SECONDS = 60.0
"""How long a look back at a step waits for the device: a call of a real-size network on a CPU may take half a minute."""

COUNT_SECONDS = 2.0
"""How long a count of tokens is waited for: a worker gives it at once, but the line to one may be slow."""


class Engine:
    """One per process. `open_device` makes the device when it is first needed, in the worker's thread.

    Pictures are written under `data_dir`/outputs, a folder a day, or straight into `out` where that is given.
    Usable as a context manager; leaving it stops what is under way. `worker` begins one, in another thread unless it is told otherwise.
    """

    def __init__(
        self, catalog: Catalog, open_device: Callable[[], Device], data_dir: Path, limits: Limits | None = None, out: Path | None = None,
        worker: Callable[[Callable[[], Device], Catalog, Callable[[], Path], Library, Tell], Link] = Worker,
    ):  # fmt: skip
        self.catalog = catalog
        self.limits = limits or Limits()
        self.outputs = out or data_dir / "outputs"
        self.library = Library(data_dir / OWN_FOLDER / "pictures.sqlite", self.outputs)
        self._lock = threading.Lock()
        self._jobs = KeptJobs()
        self._speed = Speed()
        self._resident: Resident | None = None
        self._troubles: dict[str, str] = {}
        self._tickets = itertools.count()
        self._answers: dict[int, Future[Any]] = {}
        folder = partial(Path, out) if out else partial(day_folder, self.outputs)
        self._link: Link = worker(open_device, catalog, folder, self.library, self._receive)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(
        self, plan: Plan, owner: str = "", previews: PreviewOptions | None = None, latents: Mapping[int, Any] | None = None,
        reuse: bool = False, together: bool = False, replay: int = 0,
    ) -> Job:  # fmt: skip
        """Starts a plan. `latents` gives cells (by index) their initial noise: standard normal arrays (C, h, w).

        With `reuse`, cells that were made before are taken from the disk: equal recipe, weights, device, versions and
        exactness. With `together` all cells develop at once; else early ones are finished before late ones are begun.
        In a `replay` each cell has network calls of that many rows to itself, whoever else draws: a picture made among others is
        mostly the same bits again in calls as wide as those were. Its pictures are not written (Made.pixels).

        Raises InvalidRequest when this owner, or everybody together, has too much waiting, or a recipe asks for more than
        the limits.
        """
        self._check(plan)
        job = Job(plan, owner, previews or PreviewOptions(), reuse, together, replay)
        with self._lock:
            ahead = self._check_waiting(owner, len(plan.cells))
            self._jobs.add(job)
            dropped = self._jobs.drop_old()
            try:
                self._begin(job, plan.cells, ahead, latents)
                for old in dropped:
                    self._link.send(Forget(old.id, tuple(cell.index for cell in old.plan.cells)))
            except EngineError:  # nobody works on it: it would count as under way for ever
                self._jobs.remove(job)
                raise
        return job

    def extend(self, job: Job, plan: Plan) -> None:
        """Lets a job's plan grow to `plan` (see Plan.grown_to), while it runs or afterwards: only new cells are computed.

        Raises InvalidRequest when the plan is too large, its owner has too much waiting, the job is kept no longer, or a cell
        of the job is missing in the plan or has changed.
        """
        self._check(plan)
        with self._lock:
            if job not in self._jobs:
                raise InvalidRequest("This grid is not kept any more: start it anew; its pictures are taken from the disk.")
            ahead = self._check_waiting(job.owner if job.done else None, len(plan.cells) - len(job.plan.cells))
            try:
                new = job.grow(plan)
            except ValueError:  # it has grown since the plan was made
                raise InvalidRequest("The grid has just grown: try again.") from None
            self._jobs.add(job)  # the newest again: others are forgotten before it
            try:
                self._begin(job, new, ahead)  # under the lock: no stop comes between a plan's growing and its cells' joining the line
            except EngineError as error:
                for cell in new:
                    job.publish(Failed(cell.index, str(error)))
                raise

    def estimate(self, plan: Plan, *, reuse: bool = True, together: bool = False, before: float = math.inf) -> Estimate:
        """What a plan will cost by the speed measured here; with `reuse`, pictures that are on disk already cost nothing.

        Of a plan that runs already, only pictures made `before` it began (in seconds, as time.time) are on disk.

        What growing a job will cost is what the cells will that it has not (Plan.beyond), in the job's own way.
        """
        new = [cell.recipe for cell in plan.cells]
        fresh = [recipe for recipe in new if not (reuse and self._is_made(recipe, plan.exact, before))]
        calls: Counter[tuple[str, int, int]] = Counter()
        for model in dict.fromkeys(recipe.model for recipe in fresh):
            spec, of_it = self.catalog.find(model), [recipe for recipe in fresh if recipe.model == model]
            needs, packer = FAMILIES[spec.family].needs, self._packer(spec)
            counted = count_calls(of_it, needs, packer, exact=plan.exact, together=together)
            calls.update({(model, *call): times for call, times in counted.items()})
        seconds = self._speed.total(calls)
        if seconds is not None:
            seconds *= 1 + SHARE.get(self._kind, SHARE["cpu"])
            seconds += sum(self._speed.of_picture(recipe.model, recipe.width * recipe.height) for recipe in fresh)
        rows = sum(width * times for (_, _, width), times in calls.items())
        return Estimate(len(fresh), len(new) - len(fresh), calls.total(), rows, seconds)

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Takes a job's cells (default: all) out of the run within one tick; what they had become is kept, marked as unfinished.

        With `finish_current` the image that has come furthest is finished and the others are stopped.
        """
        with self._lock:
            known = frozenset(cell.index for cell in job.plan.cells)  # not those that are added later
            stopped = known if cells is None else known & cells
            self._link.send(Stop(job.id, stopped, finish_current))
        if not finish_current:
            job.stopping(stopped)

    def job(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def job_of_key(self, key: str) -> Job | None:
        """The job that a browser was given this key of. None for any other text, whatever is in it."""
        with self._lock:
            return self._jobs.of_key(key)

    def jobs(self, owner: str) -> list[Job]:
        """An owner's jobs that are kept, oldest first."""
        with self._lock:
            return self._jobs.of(owner)

    def frame(self, job: Job, cell: int, step: int, method: str = "linear") -> Image.Image:
        """The predicted x0 of a cell after `step`, while the job is kept. Raises InvalidRequest when it is not there."""
        [place] = self._places(job, [cell])
        try:
            return self._asked(StepOf(place, step, method))
        except (KeyError, IndexError):
            raise InvalidRequest(f"Step {step} of this picture is not kept any more.") from None

    def frames(self, job: Job, steps: Mapping[int, int]) -> dict[int, Image.Image]:
        """The predicted x0 of many cells of a page (by index) after a step of each, all by one previewer: the truest that all
        of them have and that is quick enough for the whole page. Cells whose steps are not kept, or hold no numbers, are left out.

        A step that was shown stays the same picture, whatever a previewer is measured to take by then.
        """
        cells = {cell.index: cell for cell in job.plan.cells}
        steps = {cell: step for cell, step in steps.items() if cell in cells}
        if not steps:
            return {}
        images = dict(zip(steps, self._places(job, steps), strict=True))
        page = cells[next(iter(steps))].place[2]
        whole = sum(cell.recipe.pixels for cell in cells.values() if cell.place[2] == page)
        makers = tuple(dict.fromkeys(place[0] for place in images.values() if place[0] != job.id))
        pixels = {cell: cells[cell].recipe.pixels for cell in steps}
        return self._asked(StepsOf(job.id, page, whole, images, steps, pixels, makers))

    def latents(self, job: Job, cell: int) -> Any:
        """The latents a cell has come to, float32 (C, h, w), while the job is kept."""
        [place] = self._places(job, [cell])
        try:
            return self._asked(LatentsOf(place))
        except KeyError:
            raise InvalidRequest("The latents of this picture are not kept any more.") from None

    def warm(self, model: str | None = None) -> Future[None]:
        """Begins to load a model (default: the catalog's first) so that the first picture does not wait for it.

        Done once it is loaded, or is not going to be: it failed, or others' pictures come first.
        """
        name = self.catalog.find(model or self.catalog.default.name).name
        ticket, over = self._expect()
        over.set_running_or_notify_cancel()  # it cannot be cancelled
        self._send(ticket, Warm(ticket, name))
        return over

    def trouble(self, model: str) -> str | None:
        """Why a model could not be loaded when that was last tried, in a sentence; None where it went well or was not tried."""
        return self._troubles.get(model) or None

    def count_tokens(self, model: str, text: str) -> TokenCount | None:
        """How much of the model's text limit a prompt takes; None while that model is not loaded."""
        if self._resident is None or self._resident.model != model:
            return None
        ticket, count = self._expect()
        self._send(ticket, CountTokens(ticket, model, text))
        try:
            return count.result(COUNT_SECONDS)
        except NoAnswer:
            self._answers.pop(ticket, None)
            return None

    def close(self) -> None:
        self._link.close()
        self.library.close()

    def _begin(self, job: Job, cells: Sequence[Cell], ahead: int, latents: Mapping[int, Any] | None = None) -> None:
        """Has cells of a job made; those of one model follow each other, since changing models is what costs most."""
        models = list(dict.fromkeys(cell.recipe.model for cell in cells))
        cells = tuple(sorted(cells, key=lambda cell: models.index(cell.recipe.model)))
        for place, cell in enumerate(cells):  # told here: the worker may be busy with a long call
            job.publish(Queued(cell.index, ahead + place))
        order = Begin(job.id, job.owner, cells, job.plan.exact, job.previews, job.reuse, job.together, dict(latents or {}), job.replay)
        self._link.send(order)

    def _receive(self, message: Message) -> None:
        """What a worker has to say. From any thread, and without the lock, which may be held by whoever has just sent an order."""
        match message:
            case Told():
                job = self._jobs.get(message.job)
                if job is not None:
                    job.publish(message.event)
            case Answered():
                answer = self._answers.pop(message.ticket, None)
                if answer is not None and not answer.done():
                    answer.set_result(message.value) if message.error is None else answer.set_exception(message.error)
            case Resident():
                self._resident = message
            case Trouble():
                self._troubles[message.model] = message.text
            case Called():
                self._speed.called(message.model, message.pixels, message.width, message.seconds)
            case Developed():
                self._speed.developed(message.model, message.pixels, message.seconds)

    def _expect(self) -> tuple[int, Future[Any]]:
        """A ticket, and the answer that will come for it."""
        ticket, answer = next(self._tickets), Future()
        self._answers[ticket] = answer
        return ticket, answer

    def _send(self, ticket: int, order: Order) -> None:
        """Sends an order that will be answered. Raises EngineError when nobody works any more."""
        try:
            self._link.send(order)
        except EngineError:
            self._answers.pop(ticket, None)
            raise

    def _asked(self, question: Question) -> Any:
        """The device's answer. Raises InvalidRequest when it has none for ANSWER_SECONDS: nobody waits for ever."""
        ticket, answer = self._expect()
        self._send(ticket, Ask(ticket, question))
        try:
            return answer.result(ANSWER_SECONDS)
        except NoAnswer:
            self._answers.pop(ticket, None)
            self._link.send(Withdraw(ticket))
            raise InvalidRequest("The device is busy with a long step: try again in a moment.") from None

    @property
    def _kind(self) -> str:
        return self._resident.kind if self._resident is not None else "cpu"

    def _packer(self, spec: ModelSpec) -> Packer:
        """A packer like the one that this model's calls are, or would be, packed with."""
        resident = self._resident
        if resident is not None and resident.rules is not None and resident.model == spec.name:
            return Packer(*resident.rules)
        return Packer(spec.rows_on(self._kind), padded=self._kind == "cuda", native_pixels=spec.native_size**2)

    def _check(self, plan: Plan) -> None:
        """Raises InvalidRequest when a plan asks for more than the limits."""
        if not plan.cells:
            raise InvalidRequest("There is nothing to make: the plan has no images.")
        if len(plan.cells) > self.limits.max_images:
            raise InvalidRequest(f"At most {self.limits.max_images} images can be made at once; it was {len(plan.cells)}.")
        for recipe in (cell.recipe for cell in plan.cells):
            self.catalog.find(recipe.model)
            self.limits.check(recipe)

    def _check_waiting(self, owner: str | None, cells: int) -> int:
        """How many images of anybody have not ended, before so many more.

        Raises InvalidRequest when that is more than may wait: of an owner who asks for a request of its own (None: it goes on
        with one), and of everybody, since anybody may come under many names. The lock is held.
        """
        limits, under_way, full = self.limits, self._jobs.under_way(), "Darkroom has its hands full"
        if owner is not None and sum(job.owner == owner for job in under_way) >= limits.max_waiting:
            raise InvalidRequest(f"{limits.max_waiting} requests of yours are under way: wait for one, or stop one.")
        if owner is not None and len(under_way) >= limits.max_requests:
            raise InvalidRequest(f"{full}: {len(under_way):,} requests are under way. Try again in a while.")
        waiting = sum(job.open for job in under_way)
        if cells and waiting + cells > limits.max_open:
            raise InvalidRequest(f"{full}: {waiting:,} pictures are under way. Ask for fewer, or try again in a while.")
        return waiting

    def _is_made(self, recipe: Recipe, exact: bool, before: float) -> bool:
        """Whether an equal picture is on disk, as far as that is known: not before the model is loaded and its files are hashed."""
        resident = self._resident
        if resident is None or resident.model != recipe.model or resident.facts is None:
            return False
        return self.library.knows(recipe, exact, resident.facts, before)

    def _places(self, job: Job, cells: Iterable[int]) -> list[tuple[str, int]]:
        """Where the steps of cells are kept: those of a picture taken from the disk, with the job that made it last."""
        ends = {cell: job.end(cell) for cell in cells}
        reused = {cell: end.made for cell, end in ends.items() if isinstance(end, Finished) and end.reused}
        wanted = {made.sha256 for made in reused.values()}
        with self._lock:
            others = list(self._jobs) if wanted else []
        makers = {
            (end.made.recipe, end.made.sha256): (other.id, end.cell)
            for other in others for end in other.finished() if not end.reused and end.made.sha256 in wanted
        }  # fmt: skip
        own = {cell: (job.id, cell) for cell in ends}
        return [makers.get((reused[cell].recipe, reused[cell].sha256), own[cell]) if cell in reused else own[cell] for cell in ends]

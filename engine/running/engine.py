"""Engine: takes plans, gives jobs. It knows who asked for what; its worker knows how it is made."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import EngineError, InvalidRequest
from engine.pictures.history import History
from engine.pictures.outputs import OWN_FOLDER, day_folder
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.families import FAMILIES
from engine.recipes.plan import Plan
from engine.recipes.recipe import Recipe
from engine.running.device import Device, Key, TokenCount
from engine.running.events import Failed, Finished
from engine.running.forecast import count_calls
from engine.running.job import Job, Look
from engine.running.kept import KeptJobs
from engine.running.previewing import BEST_FIRST, PreviewOptions
from engine.running.speed import Estimate
from engine.running.worker import Worker

ANSWER_SECONDS = 60.0
"""How long a look back at a step waits for the device: a call of a real-size network on a CPU may take half a minute."""

LOOK_SECONDS = 0.3
"""For looking back at a step of a whole grid: images under way wait for it, and a hand on the scrubber too."""


class Engine:
    """One per process. `open_device` makes the device when it is first needed, in the worker's thread.

    Pictures are written under `data_dir`/outputs, a folder a day, or straight into `out` where that is given.
    Usable as a context manager; leaving it stops what is under way.
    """

    def __init__(
        self, catalog: Catalog, open_device: Callable[[], Device], data_dir: Path, limits: Limits | None = None, out: Path | None = None
    ):
        self.catalog = catalog
        self.limits = limits or Limits()
        self.outputs = out or data_dir / "outputs"
        self._history = History(data_dir / OWN_FOLDER / "pictures.sqlite", self.outputs)
        self._worker = Worker(open_device, catalog, lambda: out or day_folder(self.outputs), self._history)
        self._lock = threading.Lock()
        self._jobs = KeptJobs()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(
        self, plan: Plan, owner: str = "", previews: PreviewOptions | None = None, latents: Mapping[int, Any] | None = None,
        reuse: bool = False, together: bool = False,
    ) -> Job:  # fmt: skip
        """Starts a plan. `latents` gives cells (by index) their initial noise: standard normal arrays (C, h, w).

        With `reuse`, cells that were made before are taken from the disk: equal recipe, weights, device, versions and
        exactness. With `together` all cells develop at once; else early ones are finished before late ones are begun.

        Raises InvalidRequest when this owner, or everybody together, has too much waiting, or a recipe asks for more than
        the limits.
        """
        self._check(plan)
        job = Job(plan, owner, previews or PreviewOptions(), reuse, together)
        with self._lock:
            self._check_waiting(owner, len(plan.cells))
            self._jobs.add(job)
            dropped = self._jobs.drop_old()
            try:
                self._worker.submit(job, plan.cells, latents)
                for old in dropped:
                    self._worker.forget(old)
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
            self._check_waiting(job.owner if job.done else None, len(plan.cells) - len(job.plan.cells))
            try:
                new = job.grow(plan)
            except ValueError:  # it has grown since the plan was made
                raise InvalidRequest("The grid has just grown: try again.") from None
            self._jobs.add(job)  # the newest again: others are forgotten before it
            try:
                self._worker.submit(job, new)  # under the lock: no stop comes between a plan's growing and its cells' joining the line
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
            needs, packer = FAMILIES[spec.family].needs, self._worker.packer(spec)
            counted = count_calls(of_it, needs, packer, exact=plan.exact, together=together)
            calls.update({(model, *call): times for call, times in counted.items()})
        speed = self._worker.speed
        seconds = speed.total(calls)
        if seconds is not None:
            seconds *= 1 + self._worker.preview_share
            seconds += sum(speed.of_picture(recipe.model, recipe.width * recipe.height) for recipe in fresh)
        rows = sum(width * times for (_, _, width), times in calls.items())
        return Estimate(len(fresh), len(new) - len(fresh), calls.total(), rows, seconds)

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Takes a job's cells (default: all) out of the run within one tick; what they had become is kept, marked as unfinished.

        With `finish_current` the image that has come furthest is finished and the others are stopped.
        """
        with self._lock:
            self._worker.stop(job, cells, finish_current=finish_current)

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
            return self._asked(lambda device: device.preview(place, method, step))
        except (KeyError, IndexError):
            raise InvalidRequest(f"Step {step} of this picture is not kept any more.") from None

    def frames(self, job: Job, steps: Mapping[int, int]) -> dict[int, Image.Image]:
        """The predicted x0 of many cells of a page (by index) after a step of each, all by one previewer: the truest that all
        of them have and that takes at most LOOK_SECONDS for the whole page. Cells whose steps are not kept, or hold no
        numbers, are left out.

        A step that was shown stays the same picture, whatever a previewer is measured to take by then: the previewer is chosen
        once, and again only for a larger page.
        """
        places = dict(zip(steps, self._places(job, steps), strict=True))
        plan, others = job.plan, {place[0] for place in places.values()} - {job.id}
        with self._lock:
            makers = [other for other in self._jobs if other.id in others] if others else []

        def look(device: Device) -> dict[int, Image.Image]:
            costs, images = {}, {}
            for cell, place in places.items():
                with suppress(KeyError):
                    costs[cell] = device.preview_costs(place)
            if not costs:
                return {}
            page = plan.cell(next(iter(costs))).place[2]
            known = [job.looks[page]] if page in job.looks else []
            known += [look for maker in makers for look in maker.looks.values()]
            method, _ = job.looks[page] = _choose_look(plan, page, costs, known)
            for cell in costs:
                with suppress(IndexError, EngineError):
                    images[cell] = device.preview(places[cell], method, steps[cell])
            return images

        return self._asked(look)

    def latents(self, job: Job, cell: int) -> Any:
        """The latents a cell has come to, float32 (C, h, w), while the job is kept."""
        [place] = self._places(job, [cell])
        try:
            return self._asked(lambda device: device.latents(place))
        except KeyError:
            raise InvalidRequest("The latents of this picture are not kept any more.") from None

    def warm(self, model: str | None = None) -> Future[None]:
        """Begins to load a model (default: the catalog's first) so that the first picture does not wait for it.

        Done once it is loaded, or is not going to be: it failed, or others' pictures come first.
        """
        return self._worker.warm(model or self.catalog.default.name)

    def trouble(self, model: str) -> str | None:
        """Why a model could not be loaded when that was last tried, in a sentence; None where it went well or was not tried."""
        return self._worker.trouble(model)

    def count_tokens(self, model: str, text: str) -> TokenCount | None:
        """How much of the model's text limit a prompt takes; None while that model is not loaded."""
        return self._worker.count_tokens(model, text)

    def close(self) -> None:
        self._worker.close()
        self._history.close()

    def _asked(self, question: Callable[[Device], Any]) -> Any:
        """The device's answer. Raises InvalidRequest when it has none for ANSWER_SECONDS: nobody waits for ever."""
        answer = self._worker.ask(question)
        try:
            return answer.result(ANSWER_SECONDS)
        except NoAnswer:
            answer.cancel()
            raise InvalidRequest("The device is busy with a long step: try again in a moment.") from None

    def _check(self, plan: Plan) -> None:
        """Raises InvalidRequest when a plan asks for more than the limits."""
        if not plan.cells:
            raise InvalidRequest("There is nothing to make: the plan has no images.")
        if len(plan.cells) > self.limits.max_images:
            raise InvalidRequest(f"At most {self.limits.max_images} images can be made at once; it was {len(plan.cells)}.")
        for recipe in (cell.recipe for cell in plan.cells):
            self.catalog.find(recipe.model)
            self.limits.check(recipe)

    def _check_waiting(self, owner: str | None, cells: int) -> None:
        """Raises InvalidRequest when so many more images are more than may wait: of an owner who asks for a request of its own
        (None: it goes on with one), and of everybody, since anybody may come under many names. The lock is held."""
        limits, under_way, full = self.limits, self._jobs.under_way(), "Darkroom has its hands full"
        if owner is not None and sum(job.owner == owner for job in under_way) >= limits.max_waiting:
            raise InvalidRequest(f"{limits.max_waiting} requests of yours are under way: wait for one, or stop one.")
        if owner is not None and len(under_way) >= limits.max_requests:
            raise InvalidRequest(f"{full}: {len(under_way):,} requests are under way. Try again in a while.")
        waiting = sum(job.open for job in under_way)
        if cells and waiting + cells > limits.max_open:
            raise InvalidRequest(f"{full}: {waiting:,} pictures are under way. Ask for fewer, or try again in a while.")

    def _is_made(self, recipe: Recipe, exact: bool, before: float) -> bool:
        facts = self._worker.facts(recipe.model)
        return facts is not None and self._history.knows(recipe, exact, facts, before)

    def _places(self, job: Job, cells: Iterable[int]) -> list[Key]:
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


def _choose_look(plan: Plan, page: int, costs: Mapping[int, Mapping[str, float]], known: Iterable[Look]) -> Look:
    """The first known look that all cells have and that was chosen for a page as large as this one; else by the truest
    previewer that takes at most LOOK_SECONDS for this page, going by the `costs` of some of its cells."""
    shared = [name for name in BEST_FIRST if all(name in one for one in costs.values())]
    whole = sum(cell.recipe.pixels for cell in plan.cells if cell.place[2] == page)
    part = sum(plan.cell(cell).recipe.pixels for cell in costs)
    quick = [name for name in shared if sum(one[name] for one in costs.values()) * whole / part <= LOOK_SECONDS]
    kept = [(method, pixels) for method, pixels in known if method in shared and pixels >= whole]
    return kept[0] if kept else (quick[0] if quick else "linear", whole)

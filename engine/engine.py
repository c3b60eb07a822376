"""Engine: takes plans, gives jobs. It knows who asked for what; its worker knows how it is made."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from PIL import Image

from engine.catalog import Catalog, Limits
from engine.device import Device, Key, TokenCount
from engine.errors import InvalidRequest
from engine.events import Finished, Made
from engine.history import History
from engine.job import Job
from engine.outputs import day_folder
from engine.packing import simulate
from engine.plan import Plan
from engine.previewing import BEST_FIRST, PreviewOptions
from engine.recipe import Recipe
from engine.speed import Estimate
from engine.worker import Worker

KEPT_JOBS = 64
"""Finished jobs whose steps can still be looked at; older ones are forgotten (their pictures are on disk)."""


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
        self._history = History(data_dir / "outputs" / ".cache" / "pictures.sqlite")
        self._worker = Worker(open_device, catalog, lambda: out or day_folder(self.outputs), self._history)
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(
        self, plan: Plan, owner: str = "", previews: PreviewOptions | None = None, latents: Mapping[int, Any] | None = None,
        reuse: bool = False,
    ) -> Job:  # fmt: skip
        """Starts a plan. `latents` gives cells (by index) their initial noise: standard normal arrays (C, h, w).

        With `reuse`, cells that were made before are taken from the disk: equal recipe, weights, device, versions and
        exactness. Raises InvalidRequest when this owner has too much waiting, or a recipe asks for more than the limits.
        """
        self._check(plan)
        job = Job(plan, owner, previews or PreviewOptions(), reuse)
        with self._lock:
            if sum(not other.done for other in self._jobs.values() if other.owner == owner) >= self.limits.max_waiting:
                raise InvalidRequest(f"{self.limits.max_waiting} requests of yours are under way: wait for one, or stop one.")
            self._jobs[job.id] = job
            self._forget_old()
        self._worker.submit(job, plan.cells, latents)
        return job

    def extend(self, job: Job, plan: Plan) -> None:
        """Lets a job's plan grow to `plan` (see Plan.grown_to), while it runs or afterwards: only new cells are computed.

        Raises InvalidRequest when the plan is too large or the job is kept no longer.
        """
        self._check(plan)
        with self._lock:
            if job.id not in self._jobs:
                raise InvalidRequest("This grid is not kept any more: start it anew; its pictures are taken from the disk.")
            new = job.grow(plan)
        self._worker.submit(job, new)

    def estimate(self, plan: Plan, job: Job | None = None, *, reuse: bool = True) -> Estimate:
        """What a plan will cost by the speed measured here; with `job`, what growing that job to it will.

        With `reuse`, pictures that are on disk already cost nothing.
        """
        known = {cell.index for cell in job.plan.cells} if job else set()
        new = [cell.recipe for cell in plan.cells if cell.index not in known]
        fresh = [recipe for recipe in new if not (reuse and self._made_before(recipe, plan.exact))]
        calls: list[tuple[str, int, int]] = []
        for model in dict.fromkeys(recipe.model for recipe in fresh):
            packer = self._worker.packer(self.catalog.find(model))
            simulated = simulate([recipe for recipe in fresh if recipe.model == model], packer, exact=plan.exact)
            calls += [(model, recipe.width * recipe.height, call.width) for call, recipe in simulated]
        speed = self._worker.speed
        seconds = speed.total(calls)
        if seconds is not None:
            seconds *= 1 + self._worker.preview_share
            seconds += sum(speed.of_picture(recipe.model, recipe.width * recipe.height) for recipe in fresh)
        return Estimate(len(fresh), len(new) - len(fresh), len(calls), sum(width for _, _, width in calls), seconds)

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Ends a job's cells (default: all) within one tick; what they had become is kept and marked as unfinished.

        With `finish_current` the image that has come furthest is finished and the others are stopped.
        """
        self._worker.stop(job, cells, finish_current=finish_current)

    def job(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def job_of_key(self, key: str) -> Job | None:
        """The job that a browser was given this key of."""
        with self._lock:
            return next((job for job in self._jobs.values() if secrets.compare_digest(job.key, key)), None)

    def jobs(self, owner: str) -> list[Job]:
        """An owner's jobs that are kept, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.owner == owner]

    def pictures(self, owner: str) -> list[tuple[str, Made]]:
        """An owner's pictures as ("job id:cell", picture), newest first."""
        found = [(f"{job.id}:{cell}", made) for job in self.jobs(owner) for cell, made in job.made().items()]
        return found[::-1]

    def frame(self, job: Job, cell: int, step: int, method: str = "linear") -> Image.Image:
        """The predicted x0 of a cell after `step`, while the job is kept. Raises InvalidRequest when it is not there."""
        try:
            return self._worker.ask(lambda device: device.preview((job.id, cell), method, step)).result()
        except (KeyError, IndexError):
            raise InvalidRequest(f"Step {step} of this picture is not kept any more.") from None

    def frames(self, job: Job, steps: Mapping[int, int]) -> dict[int, Image.Image]:
        """The predicted x0 of many cells (by index) after a step of each, all by one previewer: the truest that takes
        at most LOOK_SECONDS for all. Cells whose steps are not kept are left out."""
        places = {cell: (self._source(job, cell), step) for cell, step in steps.items()}

        def look(device: Device) -> dict[int, Image.Image]:
            method, images = "", {}
            for cell, (key, step) in places.items():
                try:
                    method = method or _look_method(device.preview_costs(key), len(places))
                    images[cell] = device.preview(key, method, step)
                except (KeyError, IndexError):
                    continue
            return images

        return self._worker.ask(look).result()

    def latents(self, job: Job, cell: int) -> Any:
        """The latents a cell has come to, float32 (C, h, w), while the job is kept."""
        try:
            return self._worker.ask(lambda device: device.latents((job.id, cell))).result()
        except KeyError:
            raise InvalidRequest("The latents of this picture are not kept any more.") from None

    def warm(self, model: str | None = None) -> Future[None]:
        """Begins to load a model (default: the catalog's first) so that the first picture does not wait for it.

        Done once it is loaded, or is not going to be: it failed, or others' pictures come first.
        """
        return self._worker.warm(model or self.catalog.default.name)

    def count_tokens(self, model: str, text: str) -> TokenCount | None:
        """How much of the model's text limit a prompt takes; None while that model is not loaded."""
        return self._worker.count_tokens(model, text)

    def close(self) -> None:
        self._worker.close()
        self._history.close()

    def _check(self, plan: Plan) -> None:
        """Raises InvalidRequest when a plan asks for more than the limits."""
        if not plan.cells:
            raise InvalidRequest("There is nothing to make: the plan has no images.")
        if len(plan.cells) > self.limits.max_images:
            raise InvalidRequest(f"At most {self.limits.max_images} images can be made at once; it was {len(plan.cells)}.")
        for recipe in (cell.recipe for cell in plan.cells):
            self.catalog.find(recipe.model)
            self.limits.check(recipe)

    def _made_before(self, recipe: Recipe, exact: bool) -> bool:
        facts = self._worker.facts(recipe.model)
        return facts is not None and self._history.knows(recipe, exact, facts)

    def _source(self, job: Job, cell: int) -> Key:
        """Where a cell's steps are kept: of a picture taken from the disk, with the job that made it."""
        end = job.end(cell)
        if isinstance(end, Finished) and end.reused:
            with self._lock:
                for other in self._jobs.values():
                    for made in other.ends(Finished):
                        if not made.reused and made.made.path == end.made.path:
                            return (other.id, made.cell)
        return (job.id, cell)

    def _forget_old(self) -> None:
        done = [job for job in self._jobs.values() if job.done]
        for job in done[: max(0, len(done) - KEPT_JOBS)]:
            del self._jobs[job.id]
            self._worker.forget(job)


def _look_method(costs: Mapping[str, float], images: int) -> str:
    return next((name for name in BEST_FIRST if name in costs and costs[name] * images <= LOOK_SECONDS), "linear")

"""Engine: takes plans, gives jobs. It knows who asked for what; its worker knows how it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from engine.catalog import Catalog, Limits
from engine.device import Device, TokenCount
from engine.errors import InvalidRequest
from engine.events import Made
from engine.job import Job
from engine.outputs import day_folder
from engine.plan import Plan
from engine.previewing import PreviewOptions
from engine.worker import Worker

KEPT_JOBS = 64
"""Finished jobs whose steps can still be looked at; older ones are forgotten (their pictures are on disk)."""


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
        self._worker = Worker(open_device, catalog, lambda: out or day_folder(self.outputs))
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(
        self, plan: Plan, owner: str = "", previews: PreviewOptions | None = None, latents: Mapping[int, Any] | None = None
    ) -> Job:
        """Starts a plan. `latents` gives cells (by index) their initial noise: standard normal arrays (C, h, w).

        Raises InvalidRequest when this owner has too much waiting, or a recipe asks for more than the limits.
        """
        if not plan.cells:
            raise InvalidRequest("There is nothing to make: the plan has no images.")
        for recipe in (cell.recipe for cell in plan.cells):
            self.catalog.find(recipe.model)
            self.limits.check(recipe)
        if len(plan.cells) > self.limits.max_images:
            raise InvalidRequest(f"At most {self.limits.max_images} images can be made at once; it was {len(plan.cells)}.")
        job = Job(plan, owner, previews or PreviewOptions())
        with self._lock:
            if sum(not other.done for other in self._jobs.values() if other.owner == owner) >= self.limits.max_waiting:
                raise InvalidRequest(f"{self.limits.max_waiting} requests of yours are under way: wait for one, or stop one.")
            self._jobs[job.id] = job
            self._forget_old()
        self._worker.submit(job, latents)
        return job

    def stop(self, job: Job, cells: set[int] | None = None, *, finish_current: bool = False) -> None:
        """Ends a job's cells (default: all) within one tick; what they had become is kept and marked as unfinished.

        With `finish_current` the image that has come furthest is finished and the others are stopped.
        """
        self._worker.stop(job, cells, finish_current=finish_current)

    def job(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

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

    def latents(self, job: Job, cell: int) -> Any:
        """The latents a cell has come to, float32 (C, h, w), while the job is kept."""
        try:
            return self._worker.ask(lambda device: device.latents((job.id, cell))).result()
        except KeyError:
            raise InvalidRequest("The latents of this picture are not kept any more.") from None

    def warm(self, model: str | None = None) -> None:
        """Begins to load a model (default: the catalog's first) so that the first picture does not wait for it."""
        self._worker.warm(model or self.catalog.default.name)

    def count_tokens(self, model: str, text: str) -> TokenCount | None:
        """How much of the model's text limit a prompt takes; None while that model is not loaded."""
        return self._worker.count_tokens(model, text)

    def close(self) -> None:
        self._worker.close()

    def _forget_old(self) -> None:
        done = [job for job in self._jobs.values() if job.done]
        for job in done[: max(0, len(done) - KEPT_JOBS)]:
            del self._jobs[job.id]
            self._worker.forget(job)

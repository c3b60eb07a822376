"""A job followed to its end: its progress on stderr, and a word to whoever tells of its pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tqdm import tqdm

from engine.pictures.made import Made
from engine.running.engine import Engine
from engine.running.events import Cancelled, Failed, Finished, Notice, Preview
from engine.running.job import Job

STOPPED = 130
"""The exit code of what was ended by Ctrl+C, as shells have it."""

Tell = Callable[[int, Made, bool], None]
"""Is called with each picture: its cell, the picture, and whether it was made before and taken from the disk."""


def follow(engine: Engine, job: Job, tell: Tell) -> int:
    """Follows a job to its end, or stops it at Ctrl+C; returns the exit code."""
    try:
        return 0 if _shown(job, tell) else 1
    except KeyboardInterrupt:
        engine.stop(job)
        job.wait()
        print("\nStopped.", file=sys.stderr)
        return STOPPED


def _shown(job: Job, tell: Tell) -> bool:
    """Shows a job's progress on stderr and tells of each picture as it is there; returns whether all were made and saved."""
    well = True
    said: set[str] = set()
    with _StepBar(len(job.plan.cells)) as bar:
        for event in job.events():
            if isinstance(event, Preview):
                bar.step(event)
            elif isinstance(event, Notice) and event.progress is not None and event.progress >= 0:
                continue
            elif isinstance(event, (Notice, Failed)):
                well = well and not isinstance(event, Failed)
                text = event.text if isinstance(event, Notice) else event.message
                if text not in said:  # a whole grid may fail for one reason
                    tqdm.write(text, file=sys.stderr)
                said.add(text)
            elif isinstance(event, (Finished, Cancelled)) and event.made:
                well = well and not event.made.unsaved
                reused = isinstance(event, Finished) and event.reused
                if reused:
                    bar.leave_out()
                tell(event.cell, event.made, reused)
    return well


def told_of(made: Made, **where: Any) -> dict[str, Any]:
    """What every command tells of one picture, as JSON takes it; `where` stands after the path."""
    path, recipe = str(made.path) if made.path else None, made.recipe.model_dump(mode="json")
    return {"path": path, **where, "recipe": recipe, "seconds": made.provenance.seconds, "sha256": made.sha256}


class _StepBar:
    """Progress on stderr: one bar for the steps of all images. (A model's download shows bars of its own.)"""

    def __init__(self, images: int):
        self._images = images
        self._steps: dict[int, tuple[int, int]] = {}
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> _StepBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def leave_out(self) -> None:
        """One image takes no steps: it was there already."""
        self._images -= 1

    def step(self, event: Preview) -> None:
        self._steps[event.cell] = (event.step, event.total)
        total = sum(total for _, total in self._steps.values()) * self._images // len(self._steps)
        if self._bar is None:
            self._bar = tqdm(total=total, unit="step", file=sys.stderr)
        self._bar.total = total
        self._bar.update(sum(step for step, _ in self._steps.values()) - self._bar.n)

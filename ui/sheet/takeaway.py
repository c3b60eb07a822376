"""Files of a sheet, for the browser to fetch: written anew each time, and kept for as long as fetching them may take."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from engine.errors import InvalidRequest, NotSaved
from engine.replay.notebook import notebook
from engine.running.engine import Engine
from engine.running.job import Job
from engine.sheets.film import animation
from engine.sheets.takeaway import cells_zip, sheet_file
from ui.files import passing_folder
from ui.sheet.saved_page import saved_page

DRAWN = {"png", "zip", "webp"}
"""Kinds whose words are drawn here; those of a page are drawn by the browser that shows it."""

KINDS = {"png": "the sheet", "zip": "all cells", "html": "a page", "webp": "the sheet developing", "ipynb": "a notebook that draws it"}


class Takeaway:
    """Writes the files of one engine's sheets."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def write(self, job: Job, kind: str, page: int) -> Path:
        """The file of that kind, of the pictures there are now; `page` is the Z value that an animation shows.

        gradio serves it, to whoever has the address: it holds the job's key, which only the job's own visitor was given.
        Raises InvalidRequest for another kind and while there is no picture, NotSaved when the disk does not take it.
        """
        if kind not in KINDS:
            raise InvalidRequest(f"There is no file “{kind[:20]}” of a sheet; there is {', '.join(KINDS)}.")
        if job.plan.grid is None:
            raise InvalidRequest("These pictures are no grid, so there is no sheet of them.")
        if not job.made():
            raise InvalidRequest("There is no picture yet: wait for the first one.")
        try:
            return self._replaced(_folder_of(job) / _name(job, kind), lambda stream: self._fill(stream, job, kind, page))
        except OSError as error:
            raise NotSaved(f"The file could not be written: {error.strerror or error}. Make room on the disk, then try again.") from error

    def _replaced(self, target: Path, fill: Callable[[BinaryIO], None]) -> Path:
        """`target`, written under another name first: an earlier one may just be on its way to somebody."""
        handle, unfinished = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                fill(stream)
            os.replace(unfinished, target)
        finally:
            Path(unfinished).unlink(missing_ok=True)
        return target

    def _fill(self, stream: BinaryIO, job: Job, kind: str, page: int) -> None:
        plan, made, failures = job.plan, job.made(), job.failures()
        frames = partial(self._engine.frames, job)
        if kind == "png":
            stream.write(sheet_file(plan, made, failures))
        elif kind == "zip":
            cells_zip(plan, made, stream, failures)
        elif kind == "webp":
            stream.write(animation(plan, made, frames, page, failures))
        elif kind == "ipynb":
            stream.write(notebook(plan, next(iter(made.values())).provenance, self._engine.catalog).encode())
        else:
            stream.write(saved_page(job, frames).encode("utf-8", "replace"))


def _folder_of(job: Job) -> Path:
    """Where a job's files are. Its name is the job's key, which cannot be guessed."""
    folder = passing_folder("sheets") / job.key
    folder.mkdir(exist_ok=True)
    os.utime(folder)  # what is in use is not old
    return folder


def _name(job: Job, kind: str) -> str:
    """What the file is called when it is saved: "darkroom seed x cfg.zip"."""
    axes = " x ".join(axis.name.replace("_", " ") for axis in job.plan.axes)
    return f"darkroom {axes or 'sheet'}.{kind}"

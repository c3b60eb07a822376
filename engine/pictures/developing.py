"""Developing: from pixels to a file with its settings, in threads of their own.

Compressing a picture of 1024 x 1024 takes longer than many a step, and a disk may take any time: neither holds up the
worker's ticks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from engine.errors import NotSaved
from engine.pictures import metadata
from engine.pictures.made import DeviceFacts, Made, Origin, Provenance
from engine.pictures.outputs import write_picture
from engine.recipes.recipe import Recipe

NICENESS = 15
"""Of these threads, where threads can have one (Linux): the network's own threads are to have the cores first."""

CROWDED = 32
"""Pictures that wait to be written. With more than these no new image is begun: each holds its pixels in memory."""


@dataclass(frozen=True)
class Exposed:
    """A picture that takes no more steps: its pixels, and what is known of how they came about."""

    image: Image.Image
    recipe: Recipe
    exact: bool
    step: int
    total: int
    seconds: float
    name: str
    """Tells it apart from others made in the same second; part of its file's name."""
    repeatable: bool = True
    """Whether the recipe says all: a picture from noise that was handed in is taken for no other."""
    kept: bool = True
    """Whether it is written; else its pixels stay in memory."""
    origin: Origin = field(default_factory=Origin)


class Keeper(Protocol):
    """Who keeps account of the pictures on disk. Neither of these raises."""

    def expect(self, path: Path, origin: Origin, repeatable: bool) -> None:
        """A picture is about to be written there."""

    def remember(self, made: Made, facts: DeviceFacts, origin: Origin, repeatable: bool) -> None:
        """It was."""

    def give_up(self, path: Path) -> None:
        """It could not be."""


class Developer:
    """Writes pictures. `folder` says where a picture made now is written; `library` keeps account of them."""

    def __init__(self, folder: Callable[[], Path], library: Keeper):
        self._folder = folder
        self._library = library
        # zlib and hashing let go of the interpreter: on a larger machine several pictures are compressed at a time.
        self._writers = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2)), "developing", initializer=be_nice)
        self._lock = threading.Lock()
        self._unwritten = 0

    @property
    def crowded(self) -> bool:
        """Whether new images should not be begun, since those that are done already wait for the disk."""
        with self._lock:
            return self._unwritten >= CROWDED

    def develop(self, exposed: Exposed, facts: Future[DeviceFacts], over: Callable[[Future[Made]], None]) -> None:
        """Has a picture written; `over` is given what it has become, in a thread of the developer's, or the error that it ended with."""
        with self._lock:
            self._unwritten += 1

        def work() -> None:
            made: Future[Made] = Future()
            try:
                made.set_result(self._made(exposed, facts.result()))
            except BaseException as error:  # noqa: BLE001 - handed on
                made.set_exception(error)
            with self._lock:
                self._unwritten -= 1
            over(made)

        self._writers.submit(work)

    def close(self) -> None:
        """Writes what is still to be written, and ends the threads."""
        self._writers.shutdown(wait=True, cancel_futures=False)

    def _made(self, exposed: Exposed, facts: DeviceFacts) -> Made:
        """The picture, written to disk with its recipe; unsaved, with the reason, when that fails."""
        recipe, image = exposed.recipe, exposed.image
        provenance = Provenance(
            facts.model_revision, facts.device, facts.dtype, facts.bucket, exposed.exact,
            exposed.step, exposed.total, exposed.seconds, facts.versions, facts.tiled, facts.weights,
        )  # fmt: skip
        sha256 = hashlib.sha256(image.tobytes()).hexdigest()
        if not exposed.kept:
            return Made(recipe, provenance, sha256, pixels=image)
        mark = f"-unfinished-{exposed.step}-of-{exposed.total}" if provenance.unfinished else ""
        name = f"{time.strftime('%H%M%S')}-{exposed.name}-seed-{recipe.seed}{mark}"
        folder = self._folder()
        self._library.expect(folder / f"{name}.png", exposed.origin, exposed.repeatable)
        try:
            path = write_picture(metadata.png_bytes(image, recipe, provenance), folder, name)
        except NotSaved as error:
            self._library.give_up(folder / f"{name}.png")
            return Made(recipe, provenance, sha256, pixels=image, unsaved=str(error))
        made = Made(recipe, provenance, sha256, path)
        self._library.remember(made, facts, exposed.origin, exposed.repeatable)
        return made


def be_nice() -> None:
    """Gives the thread that calls it a lower priority than the network's threads have."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

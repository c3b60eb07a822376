"""Developing: from pixels to a file with its settings, in threads of its own.

Compressing a picture of 1024 x 1024 takes longer than many a step, and a disk may take any time: neither holds up the
worker's ticks. Looking for pictures that were made before reads the disk too, so it is done here as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.errors import NotSaved
from engine.pictures import metadata
from engine.pictures.history import History
from engine.pictures.made import DeviceFacts, Made, Provenance
from engine.pictures.outputs import write_picture
from engine.running import heap
from engine.running.events import Cancelled, Failed, Finished, Notice
from engine.running.packing import Turns
from engine.running.task import Task

log = logging.getLogger(__name__)

NICENESS = 15
"""Of these threads, where threads can have one (Linux): the network's own threads are to have the cores first."""

CROWDED = 32
"""Pictures that wait to be written. With more than these no new image is begun: each holds its pixels in memory."""

TILED = (
    "This picture did not fit into the device's memory as a whole and was decoded in tiles: faint seams are possible,"
    " and it may not be the same bits again."
)


GIVEN_BACK_EVERY = 50
"""Pictures after which freed memory is returned to the kernel: what a crowd's requests leave behind between what is kept would
otherwise add up. It takes milliseconds."""


class Developer:
    """Writes pictures, and looks for those made before. `folder` says where a picture made now is written."""

    def __init__(self, folder: Callable[[], Path], history: History):
        self._folder = folder
        self._history = history
        # zlib and hashing let go of the interpreter: on a larger machine several pictures are compressed at a time.
        self._writers = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2)), "developing", initializer=_be_nice)
        # One thread: cells are told apart by the order in which they come, and the disk is one too.
        self._readers = ThreadPoolExecutor(1, "looking up", initializer=_be_nice)
        self._lock = threading.Lock()
        self._lookups: dict[str, deque[Callable[[], None]]] = {}  # by owner
        self._turns = Turns()
        self._unwritten = 0
        self._written = 0

    @property
    def crowded(self) -> bool:
        """Whether new images should not be begun, since those that are done already wait for the disk."""
        with self._lock:
            return self._unwritten >= CROWDED

    def develop(self, task: Task, image: Image.Image, facts: Future[DeviceFacts], written: Callable[[], None]) -> None:
        """Has a picture written; its task's end is told then, Failed if it comes to that. `written` is called in any case.

        An image that was stopped on its way ends as Cancelled, any other as Finished.
        """
        seconds = round(time.perf_counter() - task.started, 3)
        with self._lock:
            self._unwritten += 1

        def work() -> None:
            try:
                known = facts.result()
                self._tell(task, self._made(task, image, known, seconds), known)
            except BaseException:
                log.exception("a picture could not be developed")
                message = "This picture could not be developed; the log has the details."
                task.publish(Failed(task.cell.index, message, traceback.format_exc()))
            finally:
                with self._lock:
                    self._unwritten -= 1
                    self._written += 1
                    due = self._written % GIVEN_BACK_EVERY == 0
                written()
                if due:
                    heap.give_back()

        self._writers.submit(work)

    def look_up(self, task: Task, facts: Future[DeviceFacts], over: Callable[[bool], None]) -> None:
        """Has an equal picture looked for on disk; its task ends with that. `over` is told whether there was one."""

        def work() -> None:
            if task.job.end(task.cell.index) is not None:  # stopped meanwhile
                over(False)
                return
            made = None
            try:
                made = self._history.find(task.cell.recipe, task.job.plan.exact, facts.result())
            except Exception:  # it costs only the reuse
                log.exception("a picture made before could not be looked for")
            if made is not None:
                task.publish(Finished(task.cell.index, made, reused=True))
            over(made is not None)

        with self._lock:
            self._lookups.setdefault(task.owner, deque()).append(work)
        self._readers.submit(self._look_up_next)

    def _look_up_next(self) -> None:
        """One of whoever's turn it is: a large picture takes a third of a second, and somebody may look for hundreds."""
        with self._lock:
            owner = self._turns.in_turn(self._lookups)[0]
            self._turns.took([owner])
            work = self._lookups[owner].popleft()
            if not self._lookups[owner]:
                del self._lookups[owner]
        work()

    def close(self) -> None:
        """Writes what is still to be written, and ends the threads."""
        self._readers.shutdown(wait=True, cancel_futures=False)
        self._writers.shutdown(wait=True, cancel_futures=False)

    def _tell(self, task: Task, made: Made, facts: DeviceFacts) -> None:
        if made.provenance.unfinished:
            task.publish(Cancelled(task.cell.index, task.step, task.total, made))
            return
        if task.latents is None:  # noise that was handed in is in no recipe
            self._history.remember(made, facts)
        task.publish(Finished(task.cell.index, made))

    def _made(self, task: Task, image: Image.Image, facts: DeviceFacts, seconds: float) -> Made:
        """The picture, written to disk with its recipe; unsaved, with the reason, when that fails."""
        recipe = task.cell.recipe
        provenance = Provenance(
            facts.model_revision, facts.device, facts.dtype, facts.bucket, task.job.plan.exact,
            task.step, task.total, seconds, facts.versions, facts.tiled,
        )  # fmt: skip
        if facts.tiled:
            task.publish(Notice(TILED, cell=task.cell.index))
        sha256 = hashlib.sha256(image.tobytes()).hexdigest()
        mark = f"-unfinished-{task.step}-of-{task.total}" if provenance.unfinished else ""
        name = f"{time.strftime('%H%M%S')}-{task.job.id}-{task.cell.index:02d}-seed-{recipe.seed}{mark}"
        try:
            path = write_picture(metadata.png_bytes(image, recipe, provenance), self._folder(), name)
        except NotSaved as error:
            task.publish(Notice(str(error), cell=task.cell.index))
            return Made(recipe, provenance, sha256, pixels=image, unsaved=str(error))
        return Made(recipe, provenance, sha256, path)


def _be_nice() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

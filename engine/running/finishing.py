"""Finishing: what an image has become is decoded, handed to the developer, and told as its end."""

from __future__ import annotations

import itertools
import logging
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial

from engine.pictures.developing import Developer, Exposed
from engine.pictures.made import Made, Origin
from engine.running import heap
from engine.running.device import Device
from engine.running.events import Cancelled, Failed, Finished, Notice
from engine.running.messages import Developed, Tell
from engine.running.task import Task

log = logging.getLogger(__name__)

GIVEN_BACK_EVERY = 50
"""Pictures after which freed memory is returned to the kernel: what a crowd's requests leave behind between what is kept would
otherwise add up. It takes milliseconds."""

TILED = (
    "This picture did not fit into the device's memory as a whole and was decoded in tiles: faint seams are possible,"
    " and it may not be the same bits again."
)


class Finisher:
    """Has pictures written by `developer`. `calling` stands around what may hang; `over` is called after each end, in any thread."""

    def __init__(self, developer: Developer, calling: Callable[[], AbstractContextManager[None]], tell: Tell, over: Callable[[], None]):
        self._developer = developer
        self._calling = calling
        self._tell = tell
        self._over = over
        self._written = itertools.count(1)

    def finish(self, device: Device, task: Task, settle: Callable[[Task], None]) -> None:
        """Decodes what an image has become, and has it written. Raises what the decoder raises; `settle` is called in any case,
        once the device is needed no more.

        An image that was stopped on its way ends as Cancelled, any other as Finished.
        """
        recipe, order = task.recipe, task.order
        start = time.perf_counter()
        try:
            with self._calling():
                image, facts = device.picture(task.key), device.facts(task.key)
        finally:
            settle(task)
        now = time.perf_counter()
        self._tell(Developed(recipe.model, recipe.width * recipe.height, now - start))
        exposed = Exposed(
            image, recipe, order.exact, task.step, task.total, round(now - task.started, 3), f"{order.job}-{task.cell.index:02d}",
            repeatable=task.latents is None, kept=not order.replay,
            origin=Origin(order.owner, order.job, task.cell.index),
        )  # fmt: skip
        self._developer.develop(exposed, facts, partial(self._end, task))

    def _end(self, task: Task, developed: Future[Made]) -> None:
        """Tells the end of an image that was written, or could not be. In a thread of the developer's."""
        cell = task.cell.index
        try:
            made = developed.result()
            if made.provenance.tiled:
                task.publish(Notice(TILED, cell=cell))
            if made.unsaved:
                task.publish(Notice(made.unsaved, cell=cell))
            task.publish(Cancelled(cell, task.step, task.total, made) if made.provenance.unfinished else Finished(cell, made))
        except BaseException:
            log.exception("a picture could not be developed")
            task.publish(Failed(cell, "This picture could not be developed; the log has the details.", traceback.format_exc()))
        finally:
            self._over()
            if next(self._written) % GIVEN_BACK_EVERY == 0:
                heap.give_back()

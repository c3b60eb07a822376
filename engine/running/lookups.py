"""Lookups: whether a picture was made before is asked of the disk, in a thread of its own, by whoever's turn it is."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from engine.library.library import Library
from engine.pictures.developing import be_nice
from engine.pictures.made import DeviceFacts, Made
from engine.running.packing import Turns
from engine.running.task import Task

log = logging.getLogger(__name__)


class Lookups:
    """Looks for pictures made before."""

    def __init__(self, library: Library):
        self._library = library
        # One thread: cells are told apart by the order in which they come, and the disk is one too.
        self._readers = ThreadPoolExecutor(1, "looking up", initializer=be_nice)
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Callable[[], None]]] = {}  # by owner
        self._turns = Turns()

    def look_up(self, task: Task, facts: Future[DeviceFacts], over: Callable[[Made | None], None]) -> None:
        """Has a picture equal to a task's looked for on disk; `over` is told of it in the lookups' thread, None where there is none."""

        def work() -> None:
            made = None
            try:
                if not task.ended:  # it may have been stopped meanwhile
                    made = self._library.find(task.recipe, task.order.exact, facts.result())
            except Exception:  # it costs only the reuse
                log.exception("a picture made before could not be looked for")
            over(made)

        with self._lock:
            self._waiting.setdefault(task.owner, deque()).append(work)
        self._readers.submit(self._next)

    @property
    def owners(self) -> set[str]:
        """Whoever waits for an answer."""
        with self._lock:
            return set(self._waiting)

    def close(self) -> None:
        self._readers.shutdown(wait=True, cancel_futures=False)

    def _next(self) -> None:
        """One of whoever's turn it is: a large picture takes a third of a second, and somebody may look for hundreds."""
        with self._lock:
            owner = self._turns.in_turn(self._waiting)[0]
            self._turns.took([owner])
            work = self._waiting[owner].popleft()
            if not self._waiting[owner]:
                del self._waiting[owner]
        work()

"""Job: a plan under way, and the mailboxes of those who watch it.

A job lives in the engine, not in a browser's request: closing the tab loses nothing, and a new watcher is
first told where everything stands.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.pictures.made import Made
from engine.recipes.plan import Cell, Plan
from engine.running.events import Cancelled, Developing, End, Event, Failed, Finished, Notice, Preview, Queued
from engine.running.preview_options import PreviewOptions


class Watcher:
    """One reader's mailbox. A slow reader finds only the newest preview and place in the line of each cell, the newest
    progress of a download, and every other event."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: dict[Any, Event] = {}
        self._sealed = False

    def put(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, Preview):
                event = self._with_last_image(event)
                self._pending[("preview", event.cell)] = event
            elif isinstance(event, Queued):
                self._pending[("queued", event.cell)] = event
            elif isinstance(event, Notice) and event.progress is not None:
                self._pending["progress"] = event
            else:
                self._pending[object()] = event
            self._changed.notify_all()

    def seal(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> list[Event]:
        """All that has come since the last call, waiting for the first up to `timeout` seconds. May be empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._sealed, timeout)
            events, self._pending = list(self._pending.values()), {}
            return events

    @property
    def ended(self) -> bool:
        """Whether everything has been taken and nothing more will come."""
        with self._changed:
            return self._sealed and not self._pending

    def _with_last_image(self, event: Preview) -> Preview:
        """A step without a picture must not make an unseen earlier picture vanish."""
        unseen = self._pending.pop(("preview", event.cell), None)
        if event.image is None and isinstance(unseen, Preview):
            return replace(event, image=unseen.image, method=unseen.method)
        return event


@dataclass(frozen=True)
class Standing:
    """Where a job stands at one moment. `version` grows with every event; standings of one version are equal, but for the time."""

    version: int
    plan: Plan
    cells: Mapping[int, Event]
    """The last word of each cell that has had one."""
    notices: tuple[Notice, ...]
    loading: Notice | None
    """The newest progress of a model's load, while the job waits for it."""
    changed: Mapping[int, int]
    """The version at which each cell had its last word."""
    developing: frozenset[int]
    """Cells that take no more steps, whose end is still to come."""
    earlier: frozenset[int]
    """Cells that had ended before the plan last grew: no part of the run that is going on."""
    seconds: float = field(compare=False)
    """Since the first image of this run was begun; 0 before that."""


@dataclass(eq=False)
class Job:
    """What was asked for, by whom, and where it stands. Thread-safe. Its plan may grow."""

    plan: Plan
    owner: str = ""
    previews: PreviewOptions = field(default_factory=PreviewOptions)
    reuse: bool = False
    """Whether equal pictures on disk are taken instead of making them again."""
    together: bool = False
    """Whether all cells develop at once, or early ones are finished before late ones are begun."""
    replay: int = 0
    """Rows of the network calls that each cell has to itself, where its pictures are made to be compared with earlier ones and not to
    be written; else 0."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    """What lets a browser look at the job. Not its id: that is part of file names, which travel."""

    def __post_init__(self) -> None:
        self.begun = time.time()
        self._lock = threading.Lock()
        self._version = 0
        self._changed: dict[int, int] = {}
        self._earlier: frozenset[int] = frozenset()
        self._working_since: float | None = None
        self._loading: Notice | None = None
        self._watchers: list[Watcher] = []
        self._queued: dict[int, Queued] = {}
        self._newest: dict[int, Preview] = {}
        self._developing: dict[int, Developing] = {}
        self._ends: dict[int, End] = {}
        self._notices: list[Notice] = []

    @property
    def done(self) -> bool:
        with self._lock:
            return len(self._ends) == len(self.plan.cells)

    @property
    def version(self) -> int:
        """Grows with every event."""
        with self._lock:
            return self._version

    @property
    def open(self) -> int:
        """How many cells have not ended."""
        with self._lock:
            return len(self.plan.cells) - len(self._ends)

    def end(self, cell: int) -> End | None:
        """How a cell ended; None while it has not."""
        with self._lock:
            return self._ends.get(cell)

    def publish(self, event: Event) -> None:
        """Tells every watcher. An event of a cell that has ended is dropped, as its end was its last word, and so is a step
        of one that takes no more steps."""
        with self._lock:
            cell = getattr(event, "cell", None)
            if cell in self._ends or len(self._ends) == len(self.plan.cells):
                return
            if isinstance(event, Queued | Preview) and cell in self._developing:
                return
            self._remember(event)
            self._version += 1
            if cell is not None:
                self._changed[cell] = self._version
            for watcher in self._watchers:
                watcher.put(event)
            if len(self._ends) == len(self.plan.cells):
                for watcher in self._watchers:
                    watcher.seal()
                self._watchers.clear()

    def grow(self, plan: Plan) -> tuple[Cell, ...]:
        """Takes on a plan that has all cells of this one and more; returns the new ones. What has ended stays as it is.

        Those who watch are told of the new cells too, unless the last end has been told already: they watch anew then.
        Raises ValueError when a cell is missing or has changed.
        """
        with self._lock:
            recipes = {cell.index: cell.recipe for cell in plan.cells}
            if plan.exact != self.plan.exact or any(recipes.get(cell.index) != cell.recipe for cell in self.plan.cells):
                raise ValueError("a plan can only grow")
            known = {cell.index for cell in self.plan.cells}
            if len(self._ends) == len(known):  # a run of its own begins
                self._earlier, self._working_since = frozenset(known), None
            self.plan = plan
            self._version += 1
            return tuple(cell for cell in plan.cells if cell.index not in known)

    def stopping(self, cells: Collection[int] | None = None) -> None:
        """Says of cells that have begun (default: of all) that they take no more steps, before the worker has come to it."""
        with self._lock:
            begun = [preview for cell, preview in self._newest.items() if cells is None or cell in cells]
        for preview in begun:
            self.publish(Developing(preview.cell, preview.step, preview.total))

    def standing(self) -> Standing:
        """Where everything stands now."""
        with self._lock:
            cells: dict[int, Event] = {**self._queued, **self._newest, **self._ends}
            seconds = time.monotonic() - self._working_since if self._working_since is not None else 0.0
            return Standing(
                self._version, self.plan, cells, tuple(self._notices), self._loading, dict(self._changed),
                frozenset(self._developing), self._earlier, seconds,
            )

    def watch(self) -> Watcher:
        """A mailbox that starts with how things stand now: notices, each cell's newest preview, and the ends."""
        watcher = Watcher()
        with self._lock:
            cells = (self._queued, self._newest, self._developing, self._ends)
            for event in (*self._notices, *(event for told in cells for event in told.values())):
                watcher.put(event)
            if len(self._ends) == len(self.plan.cells):
                watcher.seal()
            else:
                self._watchers.append(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def events(self) -> Iterator[Event]:
        """All events until the last cell's end, as they come."""
        watcher = self.watch()
        try:
            while not watcher.ended:
                yield from watcher.take(timeout=1)
        finally:
            self.leave(watcher)

    def wait(self) -> dict[int, End]:
        """The end of each cell by its index, once all have ended."""
        for _ in self.events():
            pass
        with self._lock:
            return dict(self._ends)

    def finished(self) -> list[Finished]:
        """The cells that were finished so far, in the order in which they were."""
        with self._lock:
            return [end for end in self._ends.values() if isinstance(end, Finished)]

    def made(self) -> dict[int, Made]:
        """The pictures there are so far, finished or stopped, by cell, in the order in which they were made."""
        with self._lock:
            ends = [end for end in self._ends.values() if isinstance(end, (Finished, Cancelled))]
            return {end.cell: end.made for end in ends if end.made}

    def failures(self) -> dict[int, str]:
        """Why cells failed, in a sentence each."""
        with self._lock:
            return {end.cell: end.message for end in self._ends.values() if isinstance(end, Failed)}

    def _remember(self, event: Event) -> None:
        if not isinstance(event, Notice | Queued):
            self._loading = None
        if isinstance(event, End):
            self._ends[event.cell] = event
            for told in (self._newest, self._developing, self._queued):
                told.pop(event.cell, None)
        elif isinstance(event, Developing):
            self._developing[event.cell] = event
        elif isinstance(event, Preview):
            if self._working_since is None:
                self._working_since = time.monotonic() - event.elapsed
            last = self._newest.get(event.cell)
            if event.image is None and last is not None:
                event = replace(event, image=last.image, method=last.method)
            self._newest[event.cell] = event
            self._queued.pop(event.cell, None)
        elif isinstance(event, Queued):
            self._queued[event.cell] = event
        elif event.progress is None:
            self._notices.append(event)
        else:
            self._loading = event

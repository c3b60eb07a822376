"""Admission: which waiting images are begun, and when. It only decides; nothing here waits or computes.

Owners take turns, and so do an owner's jobs. What is under way is bounded, in images and in bytes, so that a thousand
waiting cells slow down nobody's step; but whoever has nothing under way is let in whatever others hold, up to twice that room.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

from engine.running.device import Key
from engine.running.packing import ADMITTED_A_TICK, Turns
from engine.running.task import Task

UNDER_WAY = 256
"""Images under way at a time: two whole sheets that develop together. More would only lengthen each tick's bookkeeping."""

BEYOND = 2
"""How many times the room in bytes may be held by those who have one image each."""

Line = dict[str, deque[Task]]
"""A job's waiting images by model."""


class Admission:
    """The line of waiting images, and what is held by those that were let in. Thread-safe: anybody may join or look.

    `room` is the bytes that images under way may keep, and `cost` what one of them will have kept by its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, dict[str, Line]] = {}  # by owner and job
        self._numbers = itertools.count()
        self._owners = Turns()
        self._jobs: dict[str, Turns] = defaultdict(Turns)
        self._held: dict[str, dict[Key, int]] = {}  # owner -> bytes of each image under way

    def __len__(self) -> int:
        """Images that wait."""
        with self._lock:
            return sum(1 for _ in self._waiting())

    @property
    def owners(self) -> set[str]:
        """Whoever has an image that waits or is under way."""
        with self._lock:
            return self._lines.keys() | self._held.keys()

    def join(self, tasks: Iterable[Task]) -> None:
        """More images wait, behind those of their own job and model."""
        with self._lock:
            for task in tasks:
                task.number = next(self._numbers)
                line = self._lines.setdefault(task.owner, {}).setdefault(task.job, {})
                line.setdefault(task.model, deque()).append(task)

    def leave(self, wanted: Callable[[Task], bool]) -> list[Task]:
        """Takes images out of the line, in the order in which they came."""
        with self._lock:
            gone = sorted((task for task in self._waiting() if wanted(task)), key=_number)
            for task in gone:
                self._lines[task.owner][task.job][task.model].remove(task)
            self._tidy()
            return gone

    def admit(self, model: str, room: int, cost: Callable[[Task], int]) -> list[Task]:
        """The images of a model that are begun now, by turns; they hold their room from now on, until `release`."""
        admitted: list[Task] = []
        with self._lock:
            candidates = {owner: [job for job in jobs if model in jobs[job]] for owner, jobs in self._lines.items()}
            order = self._owners.in_turn([owner for owner, jobs in candidates.items() if jobs])
            saved_up_for = False
            while order and len(admitted) < ADMITTED_A_TICK and not saved_up_for:
                let_in = []
                for owner in order:
                    if self._let_in(owner, model, room, cost, admitted):
                        let_in.append(owner)
                    elif owner not in self._held and len(admitted) < ADMITTED_A_TICK:
                        saved_up_for = True  # what comes free is for whoever has nothing, however large it is
                        break
                self._tidy()
                order = [owner for owner in let_in if any(model in line for line in self._lines.get(owner, {}).values())]
            if admitted:
                self._owners.took(task.owner for task in admitted)
        return admitted

    def release(self, task: Task) -> None:
        """An image is under way no longer. Doing it twice does no harm."""
        with self._lock:
            held = self._held.get(task.owner, {})
            held.pop(task.key, None)
            if not held:
                self._held.pop(task.owner, None)
                if task.owner not in self._lines:
                    self._jobs.pop(task.owner, None)

    def waits_for(self, model: str | None) -> bool:
        with self._lock:
            return any(model in line for jobs in self._lines.values() for line in jobs.values())

    def wanted(self, resident: str | None) -> str | None:
        """The model to be loaded next: that of the job which has waited longest and whose next image is not the resident's.

        A job's next image is the one that came first, whatever its model: cells of one model follow each other.
        """
        with self._lock:
            heads = [task for task in map(_next, self._all_lines()) if task.model != resident]
            return min(heads, key=_number).model if heads else None

    def jobs(self, model: str | None = None) -> list[str]:
        """The ids of the jobs that wait: those of one model, or all."""
        with self._lock:
            return list(dict.fromkeys(task.job for task in self._waiting() if model in (None, task.model)))

    def places(self) -> list[tuple[Task, int]]:
        """The next image of each job that waits, and how many of anybody come before it."""
        with self._lock:
            order = self._owners.in_turn(self._lines)
            waiting = {owner: sum(map(len, self._lines_of(owner))) for owner in order}
            under_way = sum(map(len, self._held.values()))
            places = []
            for place, owner in enumerate(order):
                for turn, job in enumerate(self._jobs[owner].in_turn(self._lines[owner])):
                    earlier = sum(min(waiting[other], turn + (other_place < place)) for other_place, other in enumerate(order))
                    places.append((_next(self._lines[owner][job]), under_way + earlier))
            return places

    def _let_in(self, owner: str, model: str, room: int, cost: Callable[[Task], int], admitted: list[Task]) -> bool:
        """Admits one image of an owner if there is room for it. The lock is held."""
        if len(admitted) == ADMITTED_A_TICK:
            return False
        lines = {job: line for job, line in self._lines[owner].items() if line.get(model)}
        if not lines:
            return False
        job = self._jobs[owner].in_turn(lines)[0]
        bytes_needed = cost(lines[job][model][0])
        if not self._has_room(owner, bytes_needed, room):
            return False
        task = lines[job][model].popleft()
        self._jobs[owner].took([job])
        self._held.setdefault(owner, {})[task.key] = bytes_needed
        admitted.append(task)
        return True

    def _has_room(self, owner: str, bytes_needed: int, room: int) -> bool:
        """Whether all that is under way leaves room, or an owner has not yet got its equal part of it."""
        mine = self._held.get(owner, {})
        if not mine:  # beyond the room, but not without end: a name costs nothing
            return not self._held or sum(map(sum, (held.values() for held in self._held.values()))) + bytes_needed <= BEYOND * room
        owners = len(self._lines.keys() | self._held.keys())
        everybodys = [held for of_owner in self._held.values() for held in of_owner.values()]
        return _fits(everybodys, bytes_needed, UNDER_WAY, room) or _fits(mine.values(), bytes_needed, UNDER_WAY // owners, room // owners)

    def _all_lines(self) -> Iterator[Line]:
        return (line for jobs in self._lines.values() for line in jobs.values())

    def _lines_of(self, owner: str) -> Iterator[deque[Task]]:
        return (tasks for line in self._lines[owner].values() for tasks in line.values())

    def _waiting(self) -> Iterator[Task]:
        return (task for line in self._all_lines() for tasks in line.values() for task in tasks)

    def _tidy(self) -> None:
        """Forgets lines, jobs and owners without a waiting image. The lock is held."""
        for owner, jobs in list(self._lines.items()):
            for job, line in list(jobs.items()):
                for model in [model for model, tasks in line.items() if not tasks]:
                    del line[model]
                if not line:
                    del jobs[job]
            if not jobs:
                del self._lines[owner]
                if owner not in self._held:
                    self._jobs.pop(owner, None)


_number = attrgetter("number")


def _next(line: Line) -> Task:
    """The image of a job that came first."""
    return min((tasks[0] for tasks in line.values()), key=_number)


def _fits(held: Iterable[int], bytes_needed: int, most_images: int, most_bytes: int) -> bool:
    held = list(held)
    return len(held) < most_images and sum(held) + bytes_needed <= most_bytes

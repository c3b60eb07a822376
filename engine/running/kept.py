"""Kept: the jobs there are, by owner, and which finished ones are forgotten first."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

from engine.running.job import Job

OWN_BYTES = 4 * 2**20
"""Of one owner's finished jobs: some 680 single pictures, or 13 grids of 100 cells. With the steps of small pictures and all that
the process holds beside them it is about four times as much."""

ALL_BYTES = 128 * 2**20
"""Of everybody's."""

JOB_BYTES, CELL_BYTES = 3072, 3072
"""Of a finished job and of each of its cells: recipe, provenance, path and place, as measured with tracemalloc."""


def weight(job: Job) -> int:
    """Bytes of memory that a finished job takes, roughly. Its steps do not count: the device bounds those by itself."""
    recipes = [cell.recipe for cell in job.plan.cells]
    texts = sum(len(recipe.prompt) + len(recipe.negative_prompt) for recipe in recipes)
    pixels = sum(3 * made.pixels.width * made.pixels.height for made in job.made().values() if made.pixels is not None)
    return JOB_BYTES + len(recipes) * CELL_BYTES + texts + pixels


class KeptJobs:
    """All jobs under way, and the finished ones that can still be looked at. Not thread-safe: the engine holds its lock.

    What is forgotten is on disk all the same; only pictures that could not be saved are lost with their job.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Job] = {}
        self._by_key: dict[bytes, Job] = {}
        self._by_owner: dict[str, dict[str, Job]] = {}  # each oldest first
        self._under_way: dict[str, Job] = {}
        self._weights: dict[str, int] = {}  # of finished jobs, by id
        self._bytes: Counter[str] = Counter()  # of finished jobs, by owner

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._by_id.values()))

    def __contains__(self, job: Job) -> bool:
        return job.id in self._by_id

    def add(self, job: Job) -> None:
        """A job that begins, or goes on: it is its owner's newest now."""
        if job in self:
            self._take_out(job)
        # Never out of this, not for a moment: what a worker tells of a job finds it here without the engine's lock.
        self._by_id[job.id] = job
        self._by_key[_digest(job.key)] = self._under_way[job.id] = job
        self._by_owner.setdefault(job.owner, {})[job.id] = job

    def remove(self, job: Job) -> None:
        if self._by_id.pop(job.id, None) is not None:
            self._take_out(job)

    def _take_out(self, job: Job) -> None:
        """Of all places but the one by its id."""
        del self._by_key[_digest(job.key)], self._by_owner[job.owner][job.id]
        if not self._by_owner[job.owner]:
            del self._by_owner[job.owner]
        self._under_way.pop(job.id, None)
        self._bytes[job.owner] -= self._weights.pop(job.id, 0)
        if not self._bytes[job.owner]:
            del self._bytes[job.owner]

    def get(self, job_id: str) -> Job | None:
        return self._by_id.get(job_id)

    def of_key(self, key: str) -> Job | None:
        """Found by the key's hash, so that the time it takes tells nothing of any other key."""
        return self._by_key.get(_digest(key))

    def of(self, owner: str) -> list[Job]:
        """An owner's jobs, oldest first; none for what is no text, since a browser says who asks."""
        return list(self._by_owner.get(owner, {}).values()) if isinstance(owner, str) else []

    def under_way(self) -> list[Job]:
        """Everybody's jobs that have not ended."""
        for job in [job for job in self._under_way.values() if job.done]:
            del self._under_way[job.id]
            self._weights[job.id] = weight(job)
            self._bytes[job.owner] += self._weights[job.id]
        return list(self._under_way.values())

    def drop_old(self) -> list[Job]:
        """Takes out the finished jobs that are too many, and returns them.

        Nobody loses a job because of what others do, as long as all of them together have room: an owner's oldest go when
        that owner has more than OWN_BYTES (the last one stays), and beyond ALL_BYTES the oldest of whoever has most.
        """
        self.under_way()
        dropped: list[Job] = []
        for owner in [owner for owner, taken in self._bytes.items() if taken > OWN_BYTES]:
            while self._bytes[owner] > OWN_BYTES and len(finished := self._finished(owner)) > 1:
                dropped.append(finished[0])
                self.remove(finished[0])
        while self._bytes.total() > ALL_BYTES:
            oldest = self._finished(max(self._bytes, key=self._bytes.__getitem__))[0]
            dropped.append(oldest)
            self.remove(oldest)
        return dropped

    def _finished(self, owner: str) -> list[Job]:
        return [job for job in self.of(owner) if job.id in self._weights]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()

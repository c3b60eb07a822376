"""Task: one cell on its way from a job's line to a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.recipes.plan import Cell
from engine.running.device import Key
from engine.running.events import Event
from engine.running.job import Job
from engine.running.previewing import Account


@dataclass(eq=False)  # a task is itself, whatever its arrays hold
class Task:
    """One cell on its way through the worker."""

    job: Job
    cell: Cell
    latents: Any = None
    started: float = 0.0
    step: int = 0
    total: int = 0
    shown: list[str] = field(default_factory=list)  # preview methods seen so far
    looked: int = 0  # the step that was shown last
    missed: int = 0  # previews asked for by name that it went without
    number: int = 0  # of all that ever waited, in the order in which they came

    @property
    def key(self) -> Key:
        return (self.job.id, self.cell.index)

    @property
    def owner(self) -> str:
        """Who takes a turn with it; an unnamed owner's jobs are as many owners."""
        return self.job.owner or self.job.id

    @property
    def account(self) -> Account:
        """Who pays for its previews."""
        return Account(self.owner, self.job.previews.method != "auto")

    @property
    def model(self) -> str:
        return self.cell.recipe.model

    def publish(self, event: Event) -> None:
        self.job.publish(event)

"""Task: one cell on its way through the worker, from a job's line to a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.recipes.plan import Cell
from engine.recipes.recipe import Recipe
from engine.running.device import Key
from engine.running.events import End, Event, Notice
from engine.running.messages import Begin, Tell, Told
from engine.running.preview_budget import Account


@dataclass(eq=False)  # a task is itself, whatever its arrays hold
class Task:
    """One cell of an order. What is told of it goes to `tell`; `noticed` are the notices that its job was given."""

    order: Begin
    cell: Cell
    tell: Tell
    noticed: set[str] = field(default_factory=set)
    started: float = 0.0
    step: int = 0
    total: int = 0
    shown: list[str] = field(default_factory=list)  # preview methods seen so far
    looked: int = 0  # the step that was shown last
    missed: int = 0  # previews asked for by name that it went without
    number: int = 0  # of all that ever waited, in the order in which they came
    ended: bool = False

    @property
    def key(self) -> Key:
        return (self.order.job, self.cell.index)

    @property
    def job(self) -> str:
        return self.order.job

    @property
    def owner(self) -> str:
        """Who takes a turn with it; an unnamed owner's jobs are as many owners."""
        return self.order.owner or self.order.job

    @property
    def account(self) -> Account:
        """Who pays for its previews."""
        return Account(self.owner, self.order.previews.method != "auto")

    @property
    def recipe(self) -> Recipe:
        return self.cell.recipe

    @property
    def model(self) -> str:
        return self.cell.recipe.model

    @property
    def latents(self) -> Any | None:
        """The noise that was handed in for it: in no recipe, so such a picture is neither looked for nor remembered."""
        return self.order.latents.get(self.cell.index)

    def publish(self, event: Event) -> None:
        self.ended = self.ended or isinstance(event, End)
        self.tell(Told(self.order.job, event))

    def notice(self, text: str) -> None:
        """Tells a notice of it, once a job."""
        if text not in self.noticed:
            self.noticed.add(text)
            self.publish(Notice(text, cell=self.cell.index))

"""What an engine and its worker say to each other: orders go to the worker, messages come back.

All of them are frozen values that pickle, and nothing else passes between the two, so that a worker may stand in another thread, in
another process, or on another machine. Whoever sends an order does not wait for what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.pictures.made import DeviceFacts
from engine.recipes.plan import Cell
from engine.running.events import Event
from engine.running.packing import Rules
from engine.running.preview_options import PreviewOptions
from engine.running.questions import Question

# Orders.


@dataclass(frozen=True)
class Begin:
    """Cells of a job wait from now on, those first that come first. `latents` gives cells (by index) their initial noise:
    standard normal arrays (C, h, w)."""

    job: str
    owner: str
    """Who takes a turn with them."""
    cells: tuple[Cell, ...]
    exact: bool = False
    previews: PreviewOptions = field(default_factory=PreviewOptions)
    reuse: bool = False
    """Whether equal pictures on disk are taken instead of making them again."""
    together: bool = False
    """Whether all cells develop at once, or early ones are finished before late ones are begun."""
    latents: Mapping[int, Any] = field(default_factory=dict)
    replay: int = 0
    """Rows of the network calls that each cell has to itself, where they are made to be compared with earlier pictures and not to be
    written; else 0."""


@dataclass(frozen=True)
class Stop:
    """Takes cells of a job out of the ticks before the next one; what they had become is developed one by one.

    With `finish_current` the cell that has come furthest goes on to its end.
    """

    job: str
    cells: frozenset[int]
    finish_current: bool = False


@dataclass(frozen=True)
class Forget:
    """Frees what is kept of a job's cells, all of which have ended."""

    job: str
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Warm:
    """Loads a model before anybody asks for a picture, if nothing else is going on; answered once that is over, however it ended."""

    ticket: int
    model: str


@dataclass(frozen=True)
class Ask:
    """Puts a question to the device between two ticks, one in each pause: steps come before looks back."""

    ticket: int
    question: Question


@dataclass(frozen=True)
class Withdraw:
    """Nobody waits for an answer any more."""

    ticket: int


@dataclass(frozen=True)
class CountTokens:
    """How much of a model's text limit a prompt takes. Answered at once, without waiting for the device: None while that model is
    not the resident one."""

    ticket: int
    model: str
    text: str


Order = Begin | Stop | Forget | Warm | Ask | Withdraw | CountTokens

# Messages.


@dataclass(frozen=True)
class Told:
    """What a job is to publish."""

    job: str
    event: Event


@dataclass(frozen=True)
class Answered:
    """The answer to what was asked under a ticket, or the error that it ended with."""

    ticket: int
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Resident:
    """What would compute a picture now, whenever that has changed; `model` and `rules` are None before there is a model."""

    kind: str
    """ "cpu" or "cuda"."""
    model: str | None = None
    rules: Rules | None = None
    """What its calls are packed by."""
    facts: DeviceFacts | None = None
    """None while the model's files are still being hashed."""


@dataclass(frozen=True)
class Trouble:
    """Why a model could not be loaded, in a sentence; "" where it is tried anew."""

    model: str
    text: str


@dataclass(frozen=True)
class Called:
    """One network call of `width` rows for pictures of so many pixels took so long."""

    model: str
    pixels: int
    width: int
    seconds: float


@dataclass(frozen=True)
class Developed:
    """One picture of so many pixels was decoded in so long."""

    model: str
    pixels: int
    seconds: float


Message = Told | Answered | Resident | Trouble | Called | Developed

Tell = Callable[[Message], None]
"""Takes a worker's message. It may come from any thread, also from the one that is sending an order."""


class Link(Protocol):
    """The engine's end of the line to a worker."""

    def send(self, order: Order) -> None:
        """Hands an order over. Raises EngineError when nobody works any more."""

    def close(self) -> None:
        """Stops everything under way, waits until what was made is written, and ends the worker."""

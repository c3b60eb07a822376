"""Device: what a Worker drives. engine.diffusion.device.TorchDevice is the real one; tests have one without a model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import ModelSpec
from engine.recipes.recipe import Recipe
from engine.running.packing import Packer

Key = Hashable
"""Names one image on a device: (job id, cell index)."""

Report = Callable[[str, float | None], None]
"""Tells a sentence and, where known, the part done from 0 to 1."""


@dataclass(frozen=True)
class Advance:
    """What a tick did to one image. After `done` or `error` it takes part in no further tick."""

    key: Key
    step: int
    total: int
    done: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class TokenCount:
    """`used` of `limit` tokens (start and end marks not counted), and the words beyond the limit.

    With `more` the text is longer than is looked at: there are more tokens, and more words are cut.
    """

    used: int
    limit: int
    cut: str = ""
    more: bool = False


class Device(Protocol):
    """One device with at most one model resident. Only `load`, `count_tokens`, `facts` without a key, and the attributes
    may be used from any thread; `packer` is there once `model` is."""

    @property
    def kind(self) -> str:
        """ "cpu" or "cuda"."""
        ...

    @property
    def model(self) -> str | None:
        """The resident model's name."""
        ...

    @property
    def packer(self) -> Packer:
        """How the resident model's calls are packed."""
        ...

    @property
    def width(self) -> int:
        """Rows of the last network call, padding included."""
        ...

    @property
    def preview_seconds(self) -> float:
        """What the last preview took, whether or not it succeeded: without the network's calls, for which it may have had to wait."""
        ...

    @property
    def room(self) -> int:
        """Bytes that images under way may keep together; of those that have ended, what is left of it."""
        ...

    @property
    def kept_bytes(self) -> int:
        """All that is kept of images now, under way and ended; for the worker's thread, as most is."""
        ...

    def cost(self, recipe: Recipe) -> int:
        """Bytes that will be kept of an image of the resident model by its end: its latents, and x0 of each step."""
        ...

    def load(self, spec: ModelSpec, report: Report) -> Any:
        """A model made ready beside the resident one. Raises ModelUnavailable; the resident one stays."""
        ...

    def install(self, loaded: Any) -> None:
        """Makes a loaded model the resident one. No image may be under way."""
        ...

    def admit(
        self, key: Key, recipe: Recipe, *, owner: str, exact: bool, latents: Any | None, job: str = "", together: bool = False,
        alone: int = 0,
    ) -> int:  # fmt: skip
        """Starts an image at its noise and returns its number of steps. Raises EngineError.

        Owners take turns, and each owner's jobs. Of a job, images that develop `together` take turns too; of others, early ones
        are finished before late ones are begun. One that is `alone` shares no network call with any
        other: they have so many rows, padded, or as many as fit.
        """
        ...

    def tick(self) -> list[Advance]:
        """One network call for as many images as fit. Empty when none is under way."""
        ...

    def preview_costs(self, key: Key) -> Mapping[str, float]:
        """Seconds a preview of this image, by previewer."""
        ...

    def preview(self, key: Key, method: str, step: int | None = None) -> Image.Image:
        """The predicted x0 after `step` (default: the last one) of an image not forgotten."""
        ...

    def picture(self, key: Key) -> Image.Image:
        """The finished picture; of an unfinished image, its last x0 through the full decoder.

        Raises SpoiltPicture, and OutOfMemory where not even tiles of it can be decoded: its latents are still there then.
        """
        ...

    def latents(self, key: Key) -> Any:
        """An image's current latents as a float32 array (C, h, w), as the network's space has them."""
        ...

    def facts(self, key: Key | None = None) -> Future[DeviceFacts]:
        """What computed an image; with no key, what would compute one now (its bucket is 0).

        Known once the model's files are hashed, which takes seconds after a large model's load: the worker's thread never
        waits for it.
        """
        ...

    def drop(self, key: Key) -> None:
        """Takes an image out of the ticks; what it has become can still be developed and looked at."""
        ...

    def settle(self, key: Key) -> None:
        """Drops an image of which no picture will be developed any more: it can be looked at while there is room to keep it.

        Images under way come first: those that have ended are forgotten, oldest first, where they need the room.
        """
        ...

    def forget(self, key: Key) -> None:
        """Frees all that is kept of an image."""
        ...

    def count_tokens(self, text: str) -> TokenCount | None:
        """How much of the model's text limit a prompt takes; None while no model is resident."""
        ...

"""Questions put to the device about images that are kept: frozen values that know how they are answered.

They are answered in the worker's thread, beside the looks that were chosen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from engine.errors import EngineError
from engine.running.device import Device, Key
from engine.running.preview_options import BEST_FIRST

LOOK_SECONDS = 0.3
"""For looking back at a step of a whole grid: images under way wait for it, and a hand on the scrubber too."""

Look = tuple[str, int]
"""A previewer, and the pixels of the page that it was chosen for."""

Looks = dict[str, dict[int, Look]]
"""How the steps of each page's cells are looked back at, once that is chosen, by job; of those jobs only that are kept."""


class Question(Protocol):
    """Something to be asked of a device."""

    def answer(self, device: Device, looks: Looks) -> Any:
        """In the worker's thread. What it raises is handed to whoever asked."""


@dataclass(frozen=True)
class StepOf:
    """The picture of an image's x0 after `step`. Raises KeyError and IndexError where that is not kept."""

    image: Key
    step: int
    method: str

    def answer(self, device: Device, looks: Looks) -> Image.Image:
        return device.preview(self.image, self.method, self.step)


@dataclass(frozen=True)
class StepsOf:
    """Pictures of many cells of a page, each after a step of its own, all by one previewer: the truest that all of them have and
    that takes at most LOOK_SECONDS for the whole page.

    It is chosen once, and again only for a larger page: a step that was shown stays the same picture, whatever a previewer is
    measured to take by then. Cells whose steps are not kept, or hold no numbers, are left out.
    """

    job: str
    page: int
    whole: int
    """Pixels of all cells of the page together."""
    images: Mapping[int, Key]
    """Where the steps of each cell are kept, by its index: pictures from the disk have theirs with the job that made them."""
    steps: Mapping[int, int]
    pixels: Mapping[int, int]
    """Of each cell."""
    makers: tuple[str, ...] = ()
    """Other jobs that made some of the pictures: how they are looked at counts too."""

    def answer(self, device: Device, looks: Looks) -> dict[int, Image.Image]:
        costs, shown = {}, {}
        for cell, image in self.images.items():
            with suppress(KeyError):
                costs[cell] = device.preview_costs(image)
        if not costs:
            return {}
        own = looks.get(self.job, {})  # a job that was forgotten while this waited leaves nothing behind
        known = [own[self.page]] if self.page in own else []
        known += [look for maker in self.makers for look in looks.get(maker, {}).values()]
        method, _ = own[self.page] = self._choose(costs, known)
        for cell in costs:
            with suppress(IndexError, EngineError):
                shown[cell] = device.preview(self.images[cell], method, self.steps[cell])
        return shown

    def _choose(self, costs: Mapping[int, Mapping[str, float]], known: Iterable[Look]) -> Look:
        """The first known look that all cells have and that was chosen for a page as large as this one; else by the truest
        previewer that takes at most LOOK_SECONDS for this page, going by the `costs` of some of its cells."""
        shared = [name for name in BEST_FIRST if all(name in one for one in costs.values())]
        part = sum(self.pixels[cell] for cell in costs)
        quick = [name for name in shared if sum(one[name] for one in costs.values()) * self.whole / part <= LOOK_SECONDS]
        kept = [(method, pixels) for method, pixels in known if method in shared and pixels >= self.whole]
        return kept[0] if kept else (quick[0] if quick else "linear", self.whole)


@dataclass(frozen=True)
class LatentsOf:
    """The latents an image has come to, float32 (C, h, w). Raises KeyError where they are not kept."""

    image: Key

    def answer(self, device: Device, looks: Looks) -> Any:
        return device.latents(self.image)

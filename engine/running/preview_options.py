"""What a person asked to see while images develop.

None of this is in a Recipe: watching never changes the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from engine.errors import InvalidRequest

Method = Literal["auto", "linear", "tiny", "vae", "off"]
METHODS: tuple[str, ...] = get_args(Method)

BEST_FIRST = ("vae", "tiny", "linear")
"""Previewers from the truest to the cheapest."""


@dataclass(frozen=True)
class PreviewOptions:
    """`method` names a previewer, "auto" or "off"; `every` shows each n-th step."""

    method: Method = "auto"
    every: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidRequest(f"There is no preview method “{self.method}”; there is {', '.join(METHODS)}.")
        if not 1 <= self.every <= 1000:
            raise InvalidRequest(f"Previews can be shown every 1 to 1,000 steps; it was {self.every}.")

    def due(self, step: int) -> bool:
        return self.method != "off" and step % self.every == 0

"""What a person asked to see while images develop, and the time that may be spent on it.

None of this is in a Recipe: watching never changes the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.errors import InvalidRequest

Method = Literal["auto", "linear", "tiny", "vae", "off"]
METHODS: tuple[str, ...] = get_args(Method)

BEST_FIRST = ("vae", "tiny", "linear")
"""Previewers from the truest to the cheapest."""

PATIENCE = 5
"""Steps: `auto` takes the truest previewer that it can afford at least this often."""

SHARE = {"cpu": 0.10, "cuda": 0.03}
"""The part of a run's time that `auto` may spend on previews, by kind of device."""


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


class PreviewBudget:
    """Decides which previewer `auto` uses now, so that previews stay within `share` of the time worked.

    Earned as work is done, spent as previews are made: a preview that cannot be paid for is skipped.
    """

    def __init__(self, share: float):
        self.share = share
        self._credit = 0.0
        self._tick = 0.0  # seconds of an average tick

    def worked(self, seconds: float) -> None:
        """A tick took so long."""
        self._tick = seconds if not self._tick else 0.8 * self._tick + 0.2 * seconds
        # What is saved up is bounded: a long pause must not pay for a burst.
        self._credit = min(self._credit + self.share * seconds, self.share * self._tick * PATIENCE * 4)

    def spent(self, seconds: float) -> None:
        self._credit -= seconds

    def choose(self, costs: Mapping[str, float], images: int, seen: Sequence[str] = ()) -> str | None:
        """The previewer for all `images` pictures of this tick, or None to show nothing new.

        `costs` is seconds a picture of each previewer at hand. The truest that can be afforded every PATIENCE
        steps is used when its credit is there. Until then the cheapest fills in, but only while nothing
        truer has been `seen`: falling back would look like a flicker, so the truer one is waited for.
        """
        offered = [name for name in BEST_FIRST if name in costs]
        if not offered:
            return None
        earned = self.share * self._tick * PATIENCE
        cheapest = offered[-1]
        target = next((name for name in offered if name in seen or costs[name] * images <= earned), cheapest)
        if self._affordable(costs[target] * images):
            return target
        better_seen = any(name in seen for name in offered[:-1])
        # What the filling-in spends must not starve the true one for ever: it may take a fifth of a step's earnings.
        cheap = costs[cheapest] * images <= self.share * self._tick / 5
        return cheapest if cheap and not better_seen and self._affordable(costs[cheapest] * images) else None

    def _affordable(self, seconds: float) -> bool:
        return seconds <= self._credit



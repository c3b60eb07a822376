"""Speed: what network calls and finished pictures have cost here, and from that what others will cost.

Only what was measured on this machine since it was started; nothing is guessed from a table of devices.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

SAMPLES = 9
"""Calls of one width whose median counts: enough to outvote a slow first call, few enough to follow a busier machine."""


@dataclass(frozen=True)
class Estimate:
    """What a plan will take: `cells` to compute, network `calls` and their `rows`, padding included.

    `reused` cells are on disk already. `seconds` is None where nothing was measured yet.
    """

    cells: int
    reused: int
    calls: int
    rows: int
    seconds: float | None


class Speed:
    """Seconds by model, picture size and width of the call. Thread-safe: the worker tells, anybody asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, dict[int, dict[int, deque[float]]]] = {}
        self._pictures: dict[str, dict[int, deque[float]]] = {}

    def called(self, model: str, pixels: int, width: int, seconds: float) -> None:
        """One network call of `width` rows, for pictures of so many pixels, took so long."""
        with self._lock:
            sizes = self._calls.setdefault(model, {})
            sizes.setdefault(pixels, {}).setdefault(width, deque(maxlen=SAMPLES)).append(seconds)

    def developed(self, model: str, pixels: int, seconds: float) -> None:
        """One picture was decoded and written in so long."""
        with self._lock:
            self._pictures.setdefault(model, {}).setdefault(pixels, deque(maxlen=SAMPLES)).append(seconds)

    def of_call(self, model: str, pixels: int, width: int) -> float | None:
        """Seconds of such a call: between measured widths a straight line, from the measured size nearest to this one
        in proportion to its pixels. None when this model was not measured."""
        with self._lock:
            sizes = self._calls.get(model)
            if not sizes:
                return None
            size = min(sizes, key=lambda known: abs(known - pixels))
            known = sorted((rows, statistics.median(samples)) for rows, samples in sizes[size].items())
        return _between(known, width) * pixels / size

    def of_picture(self, model: str, pixels: int) -> float:
        """Seconds to decode and write a picture; 0 when none was measured, as it is little beside the calls."""
        with self._lock:
            sizes = self._pictures.get(model)
            if not sizes:
                return 0.0
            size = min(sizes, key=lambda known: abs(known - pixels))
            return statistics.median(sizes[size]) * pixels / size

    def total(self, calls: Mapping[tuple[str, int, int], int]) -> float | None:
        """Seconds of so many calls of each (model, pixels, width) together; None when a model was not measured."""
        seconds = {call: self.of_call(*call) for call in calls}
        return None if None in seconds.values() else float(sum(times * (seconds[call] or 0) for call, times in calls.items()))


def seconds_shown(seconds: float) -> str:
    """A time as a person reads it: "2.4 s", "3 min 20 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _between(known: list[tuple[int, float]], width: int) -> float:
    """The value at `width` of the line through (width, seconds) points, the last piece drawn on beyond them.

    One point alone scales upwards in proportion and is a floor below: rows share much of a call's cost.
    """
    if width <= known[0][0]:
        return known[0][1]
    if len(known) == 1:
        return known[0][1] * width / known[0][0]
    low, high = next((pair for pair in pairwise(known) if width <= pair[1][0]), (known[-2], known[-1]))
    slope = (high[1] - low[1]) / (high[0] - low[0])
    if width > high[0]:
        slope = max(slope, 0.0)  # a wider call that seemed faster was noise: drawn on, it would end below zero
    return high[1] + slope * (width - high[0])

"""Samples of seconds, and the interleaved comparison of two ways to do the same work."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One thing measured several times: raw samples in `unit`."""

    case: str
    name: str
    unit: str
    samples: tuple[float, ...]
    aim: float | None = None
    """The median is to be at most this, in `unit`."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        return None if self.aim is None else self.median <= self.aim

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "name": self.name, "unit": self.unit, **spread(self.samples),
            "aim": self.aim, "met": self.met, "facts": self.facts,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The same work done by us and by the peer: samples[i] of both were taken one right after the other."""

    case: str
    name: str
    peer_name: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    aim: float | None = None
    """The ratio is to be at most this."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours divided by the peer, pair by pair."""
        return tuple(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        return None if self.aim is None else self.ratio <= self.aim

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "name": self.name, "peer_name": self.peer_name, "unit": "s",
            "ours": spread(self.ours), "peer": spread(self.peer), "ratio": spread(self.ratios),
            "aim": self.aim, "met": self.met, "facts": self.facts,
        }  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A promise kept or not: raw samples in `unit` of what is measured, and of the same `before` (none: not measured there)."""

    case: str
    name: str
    unit: str
    samples: tuple[float, ...]
    before: tuple[float, ...] = ()
    aim: float | None = None
    """The median is to be at most this, or with `least` at least."""
    least: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    facts_before: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        median = statistics.median(self.samples)
        return median >= self.aim if self.least else median <= self.aim

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "name": self.name, "unit": self.unit, "now": spread(self.samples),
            "before": spread(self.before) if self.before else None, "aim": self.aim, "least": self.least, "met": self.met,
            "facts": self.facts, "facts_before": self.facts_before,
        }  # fmt: skip


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why."""

    case: str
    name: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"case": self.case, "name": self.name, "reason": self.reason}


Result = Measure | Comparison | Figure | Skipped

Work = Callable[[int], Any]
"""Does the work of one repeat, given its number, and returns its product once it is complete."""


@dataclass(frozen=True)
class Series:
    """Seconds of each repeat of both, in pairs, and what each repeat made."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]
    products: tuple[tuple[Any, Any], ...]


def interleave(ours: Work, peer: Work, repeats: int, warmups: int = 1) -> Series:
    """`repeats` pairs in the order A B B A A B B A ..., after `warmups` untimed pairs.

    Both of a pair get the same number, no two pairs the same one: warm-ups get negative ones.
    """
    for number in range(warmups):
        ours(-1 - number)
        peer(-1 - number)
    seconds: dict[Work, list[float]] = {ours: [], peer: []}
    products: list[tuple[Any, Any]] = []
    for number in range(repeats):
        made: dict[Work, Any] = {}
        for work in (ours, peer) if number % 2 == 0 else (peer, ours):
            taken, made[work] = timed(lambda work=work, number=number: work(number))
            seconds[work].append(taken)
        products.append((made[ours], made[peer]))
    return Series(tuple(seconds[ours]), tuple(seconds[peer]), tuple(products))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, product) of one run; rubbish of earlier runs is collected before the clock starts."""
    gc.collect()
    start = time.perf_counter()
    product = work()
    return time.perf_counter() - start, product


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Raw samples with their median and range."""
    return {
        "samples": [round(one, 6) for one in samples],
        "median": round(statistics.median(samples), 6),
        "min": round(min(samples), 6),
        "max": round(max(samples), 6),
    }

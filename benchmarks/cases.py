"""What is measured inside this process, on a warm model. Imports torch."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import frames
from benchmarks.plans import one_picture, square
from benchmarks.subjects import Bare, Drawn, Ours, Peer, count_calls, largest_difference
from benchmarks.timing import Comparison, Measure, Result, interleave, timed
from engine.recipes.plan import Plan
from engine.running.preview_options import Method

PIPE = "pipe(...)"
PIPE_SAVED = "pipe(...) + PNG"

_series = itertools.count(1)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    repeats: int
    grids: Mapping[int, int]
    """Cells along a grid's side -> timed pairs of each of its comparisons."""
    frames: int
    """Frames of each kind of contact sheet."""
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    ways: bool = True
    """Whether grids are compared with all ways to draw them, or with one call a cell only."""
    alone: bool = False
    """Whether only pictures and grids are compared with diffusers."""


@dataclass(frozen=True)
class Scene:
    """Everybody who is measured, warm, over one model."""

    ours: Ours
    bare: Bare
    peer: Peer

    def one(self, number: int) -> Plan:
        return one_picture(self.ours.engine.catalog, number)

    def grid(self, number: int, side: int, exact: bool = False) -> Plan:
        return square(self.ours.engine.catalog, number, side, exact=exact)


@dataclass(frozen=True)
class Way:
    """One way to draw a plan. Calls are counted at `unet`, where there is one."""

    name: str
    draw: Callable[[Plan], Drawn]
    unet: Any = field(default=None, repr=False)


def measure(effort: Effort, say: Callable[[str], None]) -> Iterator[Result]:
    """Every case of this process, one result after the other."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(Path(folder) / "ours")
        try:
            say("loading the model twice: ours and the peer's")
            ours.draw(one_picture(ours.engine.catalog, 0))
            scene = Scene(ours, Bare(ours), Peer(ours.spec, Path(folder) / "peer"))
            everything = (single_pictures, first_preview, grids, disk_reuse, sheet_frames, call_cost)
            for case in (single_pictures, grids) if effort.alone else everything:
                say(case.__doc__ or case.__name__)
                yield from case(scene, effort)
        finally:
            ours.close()


def single_pictures(scene: Scene, effort: Effort) -> Iterator[Result]:
    """One picture: the Denoiser alone, the whole Engine, the Engine with previews."""
    ours, peer = scene.ours, scene.peer
    unsaved, saved = Way(PIPE, partial(peer.draw, save=False)), Way(PIPE_SAVED, peer.draw)
    bare, off = Way("Denoiser to picture", scene.bare.draw), Way("Engine, previews off", ours.draw)
    auto = Way("Engine, previews auto", partial(ours.draw, previews="auto"))
    for way, other, aim in ((bare, unsaved, 1.02), (off, saved, 1.02), (auto, saved, 1.10)):
        yield _compare("1 picture", way, other, scene.one, effort.repeats, aim)


def grids(scene: Scene, effort: Effort) -> Iterator[Result]:
    """Comparison grids of seeds by CFG scales: all cells at once, against one by one."""
    # An Engine of its own for cells one by one: neither then finds a prompt encoded because the other has just drawn it.
    with tempfile.TemporaryDirectory() as folder, closing(Ours(Path(folder))) as alone:
        alone.draw(scene.one(0))
        for side, repeats in effort.grids.items():
            for exact, previews, other, aim in _grid_comparisons(scene.peer, alone, side, effort.ways):
                name = f"Engine, {'exact' if exact else 'fast'}, previews {previews}"
                way = Way(name, partial(scene.ours.draw, previews=previews), scene.ours.unet)
                yield _compare(f"grid {side}x{side}", way, other, partial(scene.grid, side=side, exact=exact), repeats, aim)


def disk_reuse(scene: Scene, effort: Effort) -> Iterator[Result]:
    """A grid of 3 x 3 a second time: every cell is taken from the disk."""
    plan = scene.grid(1000 * next(_series), 3)
    scene.ours.draw(plan)
    again = partial(scene.ours.draw, plan, reuse=True)
    facts = {"network calls": count_calls(scene.ours.unet, again)["calls"]}
    samples = tuple(timed(again)[0] for _ in range(effort.repeats))
    yield Measure("disk reuse", "grid 3x3 a second time", "s", samples, facts=facts)


def sheet_frames(scene: Scene, effort: Effort) -> Iterator[Result]:
    """Frames of the contact sheet, while its cells develop and once they are finished."""
    yield from frames.measure(scene.ours, effort.frames)


def first_preview(scene: Scene, effort: Effort) -> Iterator[Result]:
    """From engine.submit to the first preview with a picture, previews auto."""
    first = 1000 * next(_series)
    scene.ours.first_preview(scene.one(first - 1))
    found = [scene.ours.first_preview(scene.one(first + number)) for number in range(effort.repeats)]
    facts = {"methods": dict(Counter(event.method for _, event in found)), "steps": [event.step for _, event in found]}
    yield Measure("first preview", "submit to first preview picture", "s", tuple(seconds for seconds, _ in found), facts=facts)


def call_cost(scene: Scene, effort: Effort) -> Iterator[Result]:
    """One network call by its number of rows."""
    samples: dict[int, list[float]] = {rows: [] for rows in effort.rows}
    calls = {rows: scene.bare.call(rows) for rows in effort.rows}
    for call in calls.values():
        call()
    for _ in range(2 * effort.repeats):
        for rows in effort.rows:
            samples[rows].append(1000 * timed(calls[rows])[0])
    for rows in effort.rows:
        facts = {"ms a row": round(statistics.median(samples[rows]) / rows, 3)}
        yield Measure("network call", f"{rows} rows" if rows > 1 else "1 row", "ms", tuple(samples[rows]), facts=facts)


def _grid_comparisons(peer: Peer, alone: Ours, side: int, ways: bool) -> Iterator[tuple[bool, Method, Way, float | None]]:
    """(exact, previews, whom to compare with, aim) of each comparison of a grid; the smallest has some more."""
    cells = side * side
    piped = Way(f"{cells} x {PIPE_SAVED}", peer.draw, peer.unet)
    both: tuple[Method, ...] = ("off", "auto")
    for previews in both:
        yield False, previews, piped, 0.40
        if not ways:
            continue
        one_by_one = partial(alone.draw_one_by_one, previews=previews)
        yield False, previews, Way(f"{cells} x Engine, one by one, previews {previews}", one_by_one, alone.unet), None
    if side == 3 and ways:
        for previews in both:
            yield True, previews, piped, None
        yield False, "off", Way(f"3 x {PIPE} of three seeds + PNG", peer.draw_by_guidance, peer.unet), None


def _compare(case: str, ours: Way, peer: Way, plan: Callable[[int], Plan], repeats: int, aim: float | None = None) -> Comparison:
    """Both over the same plans, with how far their pictures differ, the network calls of the untimed pair, and which
    previews were seen."""
    first = 1000 * next(_series)
    facts: dict[str, Any] = {}
    counted = ours.unet is not None and peer.unet is not None
    if counted:
        untimed = plan(first - 1)
        ways = {"ours": ours, "peer": peer}
        facts["network"] = {who: count_calls(way.unet, partial(way.draw, untimed)) for who, way in ways.items()}
    series = interleave(
        lambda number: ours.draw(plan(first + number)), lambda number: peer.draw(plan(first + number)), repeats,
        warmups=0 if counted else 1,
    )  # fmt: skip
    facts["largest pixel difference"] = largest_difference(series.products)
    previews = [dict(left.previews) for left, _ in series.products]
    if any(previews):
        facts["previews"] = previews
    return Comparison(case, ours.name, peer.name, series.ours, series.peer, aim, facts)

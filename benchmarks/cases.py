"""What is measured inside this process, on a warm model. Imports torch."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.subjects import Bare, Drawn, Ours, Peer, count_calls, largest_difference
from benchmarks.timing import Comparison, Measure, Result, interleave, timed
from engine.recipe import Recipe

PIPE = "pipe(...)"
PIPE_SAVED = "pipe(...) + PNG"
SCALES = (1.0, 5.0, 9.0)
SEEDS = 3

_series = itertools.count(1)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    repeats: int
    grid_repeats: int
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Scene:
    """Everybody who is measured, warm, over one model."""

    ours: Ours
    bare: Bare
    peer: Peer

    def one(self, number: int) -> list[Recipe]:
        """One picture of the catalog's own settings; a new number is a new prompt, which nobody has encoded already."""
        return [self.ours.spec.recipe(prompt=f"an owl, noto style {number}", seed=number)]

    def grid(self, number: int) -> list[Recipe]:
        """Nine pictures of one prompt: three seeds by three guidance scales."""
        [first] = self.one(number)
        return [first.replace(seed=first.seed * SEEDS + i, guidance_scale=scale) for i in range(SEEDS) for scale in SCALES]


def measure(effort: Effort, say: Callable[[str], None]) -> Iterator[Result]:
    """Every case of this process, one result after the other."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(Path(folder) / "ours")
        try:
            say("loading the model twice: ours and the peer's")
            ours.draw([ours.spec.recipe(prompt="a warm-up")])
            scene = Scene(ours, Bare(ours), Peer(ours.spec, Path(folder) / "peer"))
            for case in (single_pictures, first_preview, grids, call_cost):
                say(case.__doc__ or case.__name__)
                yield from case(scene, effort)
        finally:
            ours.close()


def single_pictures(scene: Scene, effort: Effort) -> Iterator[Result]:
    """One picture: the Denoiser alone, the whole Engine, the Engine with previews."""
    ours, peer = scene.ours, scene.peer
    yield _compare(
        "1 picture", "Denoiser to picture", PIPE, effort.repeats, scene.one,
        scene.bare.draw, lambda recipes: peer.draw(recipes, save=False), aim=1.02,
    )  # fmt: skip
    yield _compare("1 picture", "Engine, previews off", PIPE_SAVED, effort.repeats, scene.one, ours.draw, peer.draw, aim=1.02)
    yield _compare(
        "1 picture", "Engine, previews auto", PIPE_SAVED, effort.repeats, scene.one,
        lambda recipes: ours.draw(recipes, "auto"), peer.draw, aim=1.10,
    )  # fmt: skip


def grids(scene: Scene, effort: Effort) -> Iterator[Result]:
    """Nine pictures: three seeds by three guidance scales, fast and exact, with previews and without."""
    ours, peer, repeats = scene.ours, scene.peer, effort.grid_repeats
    peer_calls = count_calls(peer.pipe.unet, lambda: peer.draw(scene.grid(1)))
    for exact in (False, True):
        for previews in ("off", "auto"):
            mode = "exact" if exact else "fast"

            def draw(recipes: list[Recipe], previews: str = previews, exact: bool = exact) -> Drawn:
                return ours.draw(recipes, previews, exact)

            calls = count_calls(ours.device.denoiser.family.unet, lambda draw=draw: draw(scene.grid(1)))
            yield _compare(
                "9 pictures", f"Engine, {mode}, previews {previews}", f"9 x {PIPE_SAVED}", repeats, scene.grid,
                draw, peer.draw, aim=None if exact else 0.40, facts={"network": {"ours": calls, "peer": peer_calls}},
            )  # fmt: skip
    batched = count_calls(peer.pipe.unet, lambda: peer.draw_by_guidance(scene.grid(1)))
    calls = count_calls(ours.device.denoiser.family.unet, lambda: ours.draw(scene.grid(1)))
    yield _compare(
        "9 pictures", "Engine, fast, previews off", f"3 x {PIPE} of three seeds + PNG", repeats, scene.grid,
        ours.draw, peer.draw_by_guidance, facts={"network": {"ours": calls, "peer": batched}},
    )  # fmt: skip


def first_preview(scene: Scene, effort: Effort) -> Iterator[Result]:
    """From engine.submit to the first preview with a picture, previews auto."""
    first = 1000 * next(_series)
    scene.ours.first_preview(scene.one(first - 1)[0])
    found = [scene.ours.first_preview(scene.one(first + number)[0]) for number in range(effort.repeats)]
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


def _compare(
    case: str, name: str, peer_name: str, repeats: int, recipes: Callable[[int], list[Recipe]],
    ours: Callable[[list[Recipe]], Drawn], peer: Callable[[list[Recipe]], Drawn],
    *, aim: float | None = None, facts: dict[str, Any] | None = None,
) -> Comparison:  # fmt: skip
    """Both over the same recipes, with how far their pictures differ and which previews were seen."""
    first = 1000 * next(_series)
    series = interleave(lambda number: ours(recipes(first + number)), lambda number: peer(recipes(first + number)), repeats)
    found = {"largest pixel difference": largest_difference(series.products)}
    previews = [dict(left.previews) for left, _ in series.products]
    if any(previews):
        found["previews"] = previews
    return Comparison(case, name, peer_name, series.ours, series.peer, aim, {**(facts or {}), **found})

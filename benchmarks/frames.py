"""What a frame of the contact sheet costs: the answer to the page's question, while cells develop and once they are finished.

Jobs are told what a worker would tell them; no network runs meanwhile.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy
from PIL import Image

from benchmarks.plans import square
from benchmarks.subjects import Ours
from benchmarks.timing import Measure, Result
from engine.pictures.made import Made
from engine.pictures.metadata import png_bytes
from engine.pictures.outputs import open_picture, write_picture
from engine.recipes.catalog import Catalog
from engine.recipes.plan import Cell, Plan
from engine.running.events import Finished, Preview
from engine.running.job import Job
from engine.running.preview_options import PreviewOptions
from ui.sheet.answers import Frame
from ui.sheet.live import LiveSheet

SIDES = (3, 5, 8)
DIFFERENT = 16
"""Pictures made up of each size: enough that neighbours in a sheet are not alike."""

GRAIN = 12.0
"""Standard deviation of the grain in a made-up picture (colours 0 to 255): a tile's JPEG then takes 1.6 to 2.1 bits a pixel,
as it does of photographs."""


@dataclass(frozen=True)
class OneJob:
    """Knows one job by its key, which is all that a frame asks of an engine."""

    job: Job

    def job_of_key(self, key: str) -> Job | None:
        return self.job if key == self.job.key else None


class Watched:
    """A grid's job and the page that looks at it."""

    def __init__(self, plan: Plan):
        self.job = Job(plan, together=True)
        # Neither an engine nor a takeaway: a frame asks for one job alone, and for no file.
        self._sheet = LiveSheet(OneJob(self.job), takeaway=None)  # pyright: ignore[reportArgumentType]
        self._seen = -1
        gc.collect()  # not before each frame: it would take a hundred times as long as the frame

    def frame(self) -> tuple[float, Frame, int]:
        """(milliseconds until it can be sent, the answer, its bytes) of what is new since the last frame."""
        asked = {"question": "frame", "key": self.job.key, "seen": self._seen, "page": 0}
        start = time.perf_counter()
        answer = self._sheet.ask(asked)
        content = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        seconds = time.perf_counter() - start
        frame = cast("Frame", answer)
        self._seen = frame["version"]
        return 1000 * seconds, frame, len(content)


def measure(ours: Ours, repeats: int) -> Iterator[Result]:
    """Frames of grids of 3 x 3, 5 x 5 and 8 x 8 cells, of the embedded model's pictures and of larger ones made up."""
    catalog = ours.engine.catalog
    previews, made = developed(ours)
    small, large = ([made_up(side, number) for number in range(DIFFERENT)] for side in (128, 512))
    with tempfile.TemporaryDirectory() as folder:
        large_made = [_written(image, made[0], Path(folder), str(number)) for number, image in enumerate(large)]
        for side in SIDES:
            for images in (previews, small, large):
                yield developing(catalog, side, images, repeats)
            for pictures in (made, large_made):
                yield finished(catalog, side, pictures, max(repeats // 4, 1))


def developing(catalog: Catalog, side: int, images: Sequence[Image.Image], repeats: int) -> Measure:
    """Frames in which each cell has a new preview."""
    plan = square(catalog, 0, side)
    watched = Watched(plan)

    def preview(cell: Cell, step: int) -> Preview:
        return Preview(cell.index, step, repeats, images[(step * len(plan.cells) + cell.index) % len(images)], "linear", 0.1 * step)

    frames = []
    for step in range(repeats + 1):
        for cell in plan.cells:
            watched.job.publish(preview(cell, step))
        frames.append(watched.frame())
    return _measured(side, f"developing, previews of {_size(images[0])}", frames[1:])


def finished(catalog: Catalog, side: int, pictures: Sequence[Made], repeats: int) -> Measure:
    """Frames that show all cells finished, to a page that has seen nothing yet."""
    plan = square(catalog, 0, side)
    frames = []
    for _ in range(repeats + 1):
        watched = Watched(plan)
        for cell in plan.cells:
            watched.job.publish(Finished(cell.index, pictures[cell.index % len(pictures)]))
        frames.append(watched.frame())
    return _measured(side, f"all finished, pictures of {_size(open_picture(pictures[0]))}", frames[1:])


def developed(ours: Ours) -> tuple[list[Image.Image], list[Made]]:
    """The linear previews of a grid of 3 x 3 in the order in which they came, and its pictures."""
    job = ours.engine.submit(square(ours.engine.catalog, 0, 3), previews=PreviewOptions("linear"), together=True)
    previews = [event.image for event in job.events() if isinstance(event, Preview) and event.image is not None]
    return previews, list(job.made().values())


def made_up(side: int, number: int) -> Image.Image:
    """A picture of `side` x `side` pixels with soft shapes and grain, the same at every size."""
    generator = numpy.random.default_rng(number)
    colours = Image.fromarray(generator.integers(0, 256, (8, 8, 3), numpy.uint8))
    soft = numpy.asarray(colours.resize((128, 128), Image.Resampling.BICUBIC))
    grainy = (soft + generator.normal(0, GRAIN, soft.shape)).clip(0, 255).astype(numpy.uint8)
    return Image.fromarray(grainy).resize((side, side), Image.Resampling.BICUBIC)


def _written(image: Image.Image, like: Made, folder: Path, name: str) -> Made:
    """The picture on disk, as one whose recipe and provenance are those of `like`."""
    return Made(like.recipe, like.provenance, "", write_picture(png_bytes(image, like.recipe, like.provenance), folder, name))


def _measured(side: int, name: str, frames: Sequence[tuple[float, Frame, int]]) -> Measure:
    facts: dict[str, Any] = {"bytes": round(statistics.median(content for _, _, content in frames))}
    sprites = [answer["sprite"] for _, answer, _ in frames if answer["sprite"]]
    if sprites:
        facts["bytes of the sprite"] = round(statistics.median(len(sprite["src"]) for sprite in sprites))
        facts["its tiles"] = f"{sprites[0]['width']}x{sprites[0]['height']}"
    return Measure(f"sheet frame {side}x{side}", name, "ms", tuple(milliseconds for milliseconds, _, _ in frames), facts=facts)


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"

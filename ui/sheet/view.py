"""What the page shows of a job: a value made from where the job stands. No gradio here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from engine.pictures import metadata
from engine.pictures.encoding import encoded
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture, thumbnail
from engine.recipes.recipe import Recipe
from engine.running.events import Cancelled, Event, Failed, Finished, Preview, Queued
from engine.running.job import Job, Standing
from engine.running.speed import seconds_shown

THUMB = 320
"""Pixels of a finished picture's longer side in the sheet and the strip; the picture itself is fetched to look closer."""

LOSSLESS_BELOW = 128 * 128
"""Pixels. Smaller previews are sent as PNG: JPEG's blocks would show once they are enlarged."""


@dataclass(frozen=True)
class CellView:
    """One image: "waiting", "developing", "finished", "stopped" or "failed"."""

    index: int
    recipe: Recipe
    state: str = "waiting"
    step: int = 0
    total: int = 0
    elapsed: float = 0.0
    preview: Image.Image | None = None
    message: str = ""
    made: Made | None = None
    reused: bool = False
    last_step: bool = False
    """Whether it takes no more steps; its picture is still being decoded or written."""

    @property
    def ended(self) -> bool:
        return self.state in {"finished", "stopped", "failed"}


@dataclass(frozen=True)
class JobView:
    """All images of one job, and what there is to say about it."""

    cells: tuple[CellView, ...]
    ahead: int = 0
    notices: tuple[str, ...] = ()
    loading: str = ""
    loaded_part: float = -1.0
    """From 0 to 1; -1 while unknown."""
    noun: str = "pictures"
    seconds: float = 0.0
    """Since the first image was begun; 0 to go by the images' own times."""

    @property
    def ended(self) -> bool:
        return all(cell.ended for cell in self.cells)

    @property
    def status(self) -> str:
        """One line: what is going on, from real measurements."""
        if self.ended:
            return self._summary()
        if self.loading:
            return self.loading
        under_way = [cell for cell in self.cells if not cell.ended]
        if all(cell.last_step for cell in under_way):
            return _last_step_line(under_way)
        begun = [cell for cell in self.cells if cell.total and not cell.reused]
        if not begun:
            return f"Waiting: {counted(self.ahead, 'picture')} before yours." if self.ahead else "Starting ..."
        return _progress_line(self.cells, self.seconds or max(cell.elapsed for cell in begun))

    @property
    def part(self) -> float:
        """How much is done, from 0 to 1."""
        if self.loading:
            return max(self.loaded_part, 0.0)
        return sum(1.0 if cell.ended else cell.step / max(cell.total, 1) for cell in self.cells) / len(self.cells)

    def _summary(self) -> str:
        states = [cell.state for cell in self.cells]
        made = [cell.made for cell in self.cells if cell.made]
        if len(states) == 1 and states == ["finished"]:
            facts = made[0].provenance
            return f"{made[0].recipe.steps} steps in {facts.seconds:.1f} s on {facts.device}, seed {made[0].recipe.seed}"
        if len(states) == 1 and states == ["stopped"]:
            cell = self.cells[0]
            return f"Stopped after step {cell.step} of {cell.total}." if cell.step else "Stopped before it began."
        if states == ["failed"]:
            return ""
        counts = [f"{states.count(state)} {state}" for state in ("finished", "stopped", "failed") if state in states]
        return ", ".join(counts) + f" of {len(states)} {self.noun}"


@dataclass(frozen=True)
class Pace:
    """Steps done and to do of the images under way."""

    done: int
    total: int
    seconds: float = field(default=0.0)

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        return (self.total - self.done) / self.rate if self.rate else 0.0


def standing_view(job: Job, standing: Standing) -> JobView:
    """The view of where a job stands, all at once."""
    cells = [CellView(cell.index, cell.recipe) for cell in standing.plan.cells]
    cells = [_told(cell, standing.cells[cell.index]) if cell.index in standing.cells else cell for cell in cells]
    cells = [replace(cell, last_step=cell.index in standing.developing) for cell in cells]
    waits = [event.ahead for event in standing.cells.values() if isinstance(event, Queued)]
    loading = standing.loading
    return JobView(
        tuple(cells), min(waits, default=0), tuple(dict.fromkeys(notice.text for notice in standing.notices)),
        loading.text if loading else "", loading.progress if loading and loading.progress is not None else -1.0, seconds=standing.seconds,
    )  # fmt: skip


def _told(cell: CellView, event: Event) -> CellView:
    """A cell by its last word."""
    if isinstance(event, Preview):
        preview = event.image if event.image is not None else cell.preview
        return replace(cell, state="developing", step=event.step, total=event.total, elapsed=event.elapsed, preview=preview)
    if isinstance(event, Finished):
        total = event.made.provenance.total
        return replace(cell, state="finished", step=total, total=total, preview=None, made=event.made, reused=event.reused)
    if isinstance(event, Cancelled):
        return replace(cell, state="stopped", step=event.step, total=event.total, preview=None, made=event.made)
    if isinstance(event, Failed):
        return replace(cell, state="failed", preview=None, message=event.message)
    return cell


def picture_src(made: Made) -> str:
    """Where a browser finds a picture: its file, whose metadata survives a "save as"; or inline when it is not saved."""
    if made.path is not None:
        return file_src(made.path)
    return data_uri(metadata.png_bytes(open_picture(made), made.recipe, made.provenance), "png")


def thumbnail_src(made: Made) -> str:
    """Where a browser finds a picture at the size of a thumbnail. Raises InvalidRequest when its file is not there any more."""
    if made.path is not None:
        return file_src(thumbnail(made.path, THUMB))
    small = open_picture(made).copy()
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return image_uri(small, quality=88)


def file_src(file: Path) -> str:
    """Where a browser finds a file that gradio may serve."""
    return "gradio_api/file=" + quote(str(file))  # relative: the page may be served below a path


def image_uri(image: Image.Image, quality: int = 75) -> str:
    """A preview as an inline image; small ones without loss, others as JPEG."""
    if image.width * image.height <= LOSSLESS_BELOW:
        return png_uri(image)
    return data_uri(encoded(image, "JPEG", quality=quality), "jpeg")


def png_uri(image: Image.Image) -> str:
    """A picture as an inline image without loss, and without any text in it."""
    return data_uri(encoded(image, "PNG"), "png")


def data_uri(content: bytes, kind: str) -> str:
    """An image file as an address of its own."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def _progress_line(cells: tuple[CellView, ...], seconds: float) -> str:
    made_here = [cell for cell in cells if not cell.reused]  # what came from the disk took no step
    typical = next(cell.total for cell in made_here if cell.total)
    dropped = {"stopped", "failed"}  # their missing steps will never be made
    done = sum(cell.total if cell.state == "finished" else cell.step for cell in made_here)
    total = sum(cell.step if cell.state in dropped else cell.total or typical for cell in made_here)
    pace = Pace(done, total, seconds)
    if len(cells) == 1:
        where = f"step {cells[0].step} of {cells[0].total}"
    else:
        where = f"{sum(cell.ended for cell in cells)} of {len(cells)} pictures, step {pace.done} of {pace.total}"
    return f"{where} · {pace.rate:.1f} steps/s · {seconds_shown(pace.left)} left"


def _last_step_line(cells: Sequence[CellView]) -> str:
    """All steps are done, or were stopped: a decoder may take longer than many of them."""
    stopped = [cell for cell in cells if cell.step < cell.total]
    if not stopped:
        return "Developing the picture ..." if len(cells) == 1 else f"Developing the last {len(cells)} pictures ..."
    where = f" after step {cells[0].step} of {cells[0].total}" if len(cells) == 1 else ""
    return f"Stopped{where}. Developing what there is ..."


def counted(count: int, word: str) -> str:
    """A number of things: "1 cell", "1,280 rows"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"

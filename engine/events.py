"""What a job tells of its cells.

For each cell: `Queued* Preview* Developing?` and then exactly one of Finished, Failed, Cancelled. A cell's steps
increase. Notice may come anywhere. Nothing comes after the last cell's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from engine.errors import InvalidRequest
from engine.recipe import Recipe


@dataclass(frozen=True)
class Queued:
    """The cell waits; `ahead` images of anybody come before it."""

    cell: int
    ahead: int


@dataclass(frozen=True)
class Notice:
    """Something to know: a prompt that was cut (`cell` set), a model being loaded (`progress` from 0 to 1, -1 while unknown)."""

    text: str
    cell: int | None = None
    progress: float | None = None


@dataclass(frozen=True)
class Preview:
    """`step` of `total` network calls is done. `image` shows the predicted x0, or is None where no picture was due."""

    cell: int
    step: int
    total: int
    image: Image.Image | None = None
    method: str = ""
    elapsed: float = 0.0
    """Seconds since the image was begun."""


@dataclass(frozen=True)
class Developing:
    """No more steps will be taken: what the cell has become after `step` of `total` is being decoded and written.

    The last preview stays what there is to see of it until the end comes.
    """

    cell: int
    step: int
    total: int


@dataclass(frozen=True)
class Provenance:
    """What happened to be true when the image was made; with the recipe it is all that is needed to make it again.

    `bucket` is the widest network batch it took part in (rows), `device` and `dtype` the network's.
    `step` of `total` is less than total for a picture that was stopped on its way.
    """

    model_revision: str
    device: str
    dtype: str
    bucket: int
    exact: bool
    step: int
    total: int
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)
    tiled: bool = False
    """Whether it was decoded in tiles, for want of memory: another decode may differ from it where tiles meet."""

    @property
    def unfinished(self) -> bool:
        return self.step < self.total


@dataclass(frozen=True)
class Made:
    """A picture with all that is known of it. `path` is None when it could not be written: `unsaved` says why, and
    only then are its pixels kept in memory."""

    recipe: Recipe
    provenance: Provenance
    sha256: str
    """Of the RGB bytes, row by row."""
    path: Path | None = None
    pixels: Image.Image | None = None
    unsaved: str = ""

    @property
    def image(self) -> Image.Image:
        """The picture, read from its file. Raises InvalidRequest when the file is not there any more."""
        if self.pixels is not None:
            return self.pixels
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, AttributeError):  # the middle two: what Pillow raises on damaged chunks
            raise InvalidRequest(f"The file {self.path.name} is not there any more, or is damaged.") from None


@dataclass(frozen=True)
class Finished:
    """`reused`: an equal picture was on disk already, and nothing was computed."""

    cell: int
    made: Made
    reused: bool = False


@dataclass(frozen=True)
class Failed:
    """`message` is for the person; `detail` is the traceback of a bug, for the log."""

    cell: int
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Cancelled:
    """Stopped after `step` of `total`; `made` is what the image had become, None when it had not begun."""

    cell: int
    step: int
    total: int
    made: Made | None = None


Event = Queued | Notice | Preview | Developing | Finished | Failed | Cancelled
TERMINAL = (Finished, Failed, Cancelled)

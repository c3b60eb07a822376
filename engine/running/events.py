"""What a job tells of its cells.

For each cell: `Queued* Preview* Developing?` and then exactly one of Finished, Failed, Cancelled. A cell's steps
increase. Notice may come anywhere. Nothing comes after the last cell's end.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from engine.pictures.made import Made


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


End = Finished | Failed | Cancelled
"""After which nothing comes of that cell any more."""
Event = Queued | Notice | Preview | Developing | End

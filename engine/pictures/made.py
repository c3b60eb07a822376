"""A picture with all that is known of it: what it is, where it lies, and what made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from engine.recipes.recipe import Recipe


@dataclass(frozen=True)
class DeviceFacts:
    """For the provenance: what computed an image, and on what."""

    model_revision: str
    weights: str
    """Digest of all files that decide what the model draws: equal digests are equal models."""
    device: str
    dtype: str
    bucket: int
    versions: dict[str, str] = field(default_factory=dict)
    tiled: bool = False
    """Whether the picture was decoded in tiles, as the whole did not fit into memory: nearly the same, not the same bits.
    Known once there is a picture."""


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
    weights: str = ""
    """DeviceFacts.weights; "" in records that are older than this field."""

    @property
    def unfinished(self) -> bool:
        return self.step < self.total


@dataclass(frozen=True)
class Origin:
    """Who asked for a picture, and with which others: its job, and its place among the job's cells."""

    owner: str = ""
    job: str = ""
    cell: int | None = None


@dataclass(frozen=True)
class Made:
    """A picture with all that is known of it. `path` is None when it could not be written, and `unsaved` says why, or was not to be:
    only then are its pixels kept in memory. `engine.pictures.outputs.open_picture` reads either."""

    recipe: Recipe
    provenance: Provenance
    sha256: str
    """Of the RGB bytes, row by row."""
    path: Path | None = None
    pixels: Image.Image | None = None
    unsaved: str = ""

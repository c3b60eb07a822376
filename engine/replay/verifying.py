"""Verifying: whether a picture's recipe still gives that picture; where not, by how much, and what has changed since it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.errors import InvalidRequest, UnreadablePicture
from engine.pictures.made import Made, Provenance
from engine.pictures.metadata import read_picture, read_record
from engine.pictures.outputs import open_picture
from engine.recipes.plan import plan_images
from engine.recipes.recipe import Recipe
from engine.running.engine import Engine
from engine.running.events import Failed, Finished
from engine.running.job import Job
from engine.running.preview_options import PreviewOptions
from engine.sheets.difference import Difference, compare

LONE_ROWS = 2
"""Rows of a network call that only one guided picture takes part in: more are company, or padding."""

_PACKAGES = {"darkroom": "Darkroom", "torch": "PyTorch", "diffusers": "diffusers", "transformers": "transformers"}


@dataclass(frozen=True)
class Original:
    """A finished picture of Darkroom's, as its file is now."""

    recipe: Recipe
    provenance: Provenance
    image: Image.Image


@dataclass(frozen=True)
class Change:
    """One part of the environment that is not what it was: what it is called, and what it was and is."""

    name: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} was {self.before or 'unknown'} and is {self.now or 'unknown'}"


@dataclass(frozen=True)
class Verdict:
    """What came of making a picture again. `difference` is None when they are identical, or not of one size."""

    identical: bool
    difference: Difference | None
    changes: tuple[Change, ...]
    sentences: tuple[str, ...]
    """What a person is told: first whether it is the same picture, then what may be the reason."""


def read_original(file: Path) -> Original:
    """The picture in a file, to be made again.

    Raises UnreadablePicture when it is no finished picture of Darkroom's, OSError when it is gone.
    """
    try:
        record, image = read_record(file)
    except UnreadablePicture:
        found = read_picture(file)  # its own sentence where the file holds nothing
        if found.grid is not None:
            raise UnreadablePicture("This is a contact sheet: verify the pictures of its cells instead.") from None
        if found.source != "Darkroom":
            made_by = f"This picture was made by {found.source}, or carries only the text that it and others read"
            raise UnreadablePicture(f"{made_by}: only Darkroom's own PNG files say all that is needed to make them again.") from None
        raise
    if record.provenance.unfinished:
        step = f"{record.provenance.step} of {record.provenance.total}"
        raise UnreadablePicture(f"This picture was stopped at step {step}: only finished ones can be verified.")
    return Original(record.recipe, record.provenance, image)


def replay(engine: Engine, original: Original, owner: str = "") -> Job:
    """Begins to make a picture again, in network calls as wide as those that it was made in and without a file. Raises InvalidRequest."""
    plan = plan_images(original.recipe, engine.catalog, engine.limits, exact=original.provenance.exact)
    return engine.submit(plan, owner, PreviewOptions("off"), replay=max(original.provenance.bucket, 1))


def verdict_of(original: Original, job: Job) -> Verdict:
    """What a replay that has ended came to. Raises InvalidRequest when it was stopped or failed."""
    [end] = job.wait().values()
    if isinstance(end, Failed):
        raise InvalidRequest(f"It could not be made again: {end.message}")
    if not isinstance(end, Finished):
        raise InvalidRequest("It was stopped before it was made again.")
    return judge(original, end.made)


def judge(original: Original, again: Made) -> Verdict:
    """Compares a picture with what its recipe gives now, pixel by pixel, and what was true then with what is now."""
    changes = tuple(changes_between(original.provenance, again.provenance))
    reasons = _reasons(changes, original.provenance)
    image = open_picture(again)
    if original.image.size != image.size:
        then, now = (f"{one.width} x {one.height}" for one in (original.image, image))
        return Verdict(False, None, changes, (f"Different: the file holds {then} pixels, and its recipe makes {now}.", *reasons))
    if _is_see_through(original.image):
        return Verdict(False, None, changes, ("Different: parts of it are transparent, which no picture of Darkroom's is: it was edited.",))
    difference = compare(original.image, image)
    if difference.same:
        return Verdict(True, None, changes, ("Identical: its recipe gives the same bits here and now.", *map(_although, changes)))
    figures = (
        f"Different: in {difference.part:.2%} of the pixels, by at most {difference.largest} of 255 and {difference.mean:.3g} on average"
        f" (PSNR {difference.psnr:.1f} dB)."
    )
    return Verdict(False, difference, changes, (figures, *reasons))


def changes_between(before: Provenance, now: Provenance) -> list[Change]:
    """What of the environment is not as it was. The weights are compared by all their files where the record has their digest."""
    packages = {**now.versions, **before.versions}
    pairs = [(_PACKAGES.get(name, name), before.versions.get(name, ""), now.versions.get(name, "")) for name in packages]
    pairs += [("the device", before.device, now.device), ("the number format", before.dtype, now.dtype)]
    if before.weights:
        told = [one.model_revision if before.model_revision != now.model_revision else one.weights[:12] for one in (before, now)]
        pairs += [("the model", *told)] if before.weights != now.weights else []
    else:
        pairs.append(("the model", before.model_revision, now.model_revision))
    then, today = (f"{one.bucket} row{'s' if one.bucket != 1 else ''}" for one in (before, now))
    pairs.append(("the widest network call", then, today))
    then, today = ("in tiles" if one.tiled else "of the whole" for one in (before, now))
    pairs.append(("the decoding", then, today))
    return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


def _although(change: Change) -> str:
    return f"This although {change}."


def _reasons(changes: tuple[Change, ...], before: Provenance) -> list[str]:
    """Sentences about why two pictures may differ."""
    names = {change.name for change in changes}
    reasons = [f"Since it was made, {'; '.join(map(str, changes))}."] if changes else []
    if names & {"the device", "the number format"}:
        reasons.append("Nothing is promised from one device or number format to another: verify it on the one that made it.")
    if before.bucket > LONE_ROWS and not before.exact:
        reasons.append("It was drawn among other pictures, which may change rounding: those made with Exact are the same in any company.")
    if not changes and (before.exact or before.bucket <= LONE_ROWS):
        reasons.append(
            "All that its file tells of its making is as it was, so its pixels or its settings were probably edited. Not told are the"
            " kind of processor, the number of threads, and drivers."
        )
    return reasons


def _is_see_through(image: Image.Image) -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)

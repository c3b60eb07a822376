"""Where pictures and their thumbnails are written, once, whole or not at all; and where they are opened again."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
from datetime import datetime
from pathlib import Path

from PIL import Image

from engine.errors import InvalidRequest, NotSaved
from engine.pictures.encoding import encoded
from engine.pictures.made import Made

log = logging.getLogger(__name__)

OWN_FOLDER = ".darkroom"
"""Beside outputs/, what only Darkroom itself reads. Not below it: outputs/ is served to browsers."""

THUMBNAILS = ".thumbnails"
"""Beside the pictures, which is where browsers may fetch them from."""

SMALL_FILE = 32 * 2**10
"""Bytes. A picture that is no larger is its own thumbnail."""

_swept: set[Path] = set()

_KEEP = "Download this picture to keep it."


def day_folder(outputs: Path) -> Path:
    """Today's folder: a year of pictures in one folder is slow to open."""
    return outputs / datetime.now().strftime("%Y-%m-%d")


def write_picture(content: bytes, folder: Path, name: str, suffix: str = ".png") -> Path:
    """Writes `content` as `folder`/<name><suffix> and returns its path; nobody ever sees half a file.

    Raises NotSaved, in the user's words, when it cannot be written; nothing is left behind then.
    """
    try:
        return _write(content, folder / f"{name}{suffix}")
    except OSError as error:
        log.warning("%s cannot be written in %s: %s", name, folder, error)  # the operator's, who may see where
        raise NotSaved(_sentence(error)) from error


def open_picture(made: Made) -> Image.Image:
    """The picture in RGB, read from its file, or from memory where it could not be written.

    Raises InvalidRequest when the file is not there any more, or is damaged.
    """
    if made.pixels is not None:
        return made.pixels
    assert made.path is not None, "what was made is a file or in memory"
    return _opened(made.path)


def thumbnail(picture: Path, side: int) -> Path:
    """A JPEG of a picture, its longer side at most `side` pixels, made once and then found again; the picture itself where its
    file is as small, or none can be written. From any thread.

    It is as old as its picture, to the nanosecond: of one that was replaced it is made anew. Those whose pictures are gone go
    when the first of a folder is made. Raises InvalidRequest when the picture is not there any more, or is damaged.
    """
    small = picture.parent / THUMBNAILS / f"{picture.stem}-{side}.jpg"
    try:
        facts = picture.stat()
        if facts.st_size <= SMALL_FILE:
            return picture
        with contextlib.suppress(OSError):
            if small.stat().st_mtime_ns == facts.st_mtime_ns:
                return small
        image = _opened(picture)
    except (OSError, InvalidRequest):
        with contextlib.suppress(OSError):
            small.unlink(missing_ok=True)
        raise _gone(picture) from None
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    content = encoded(image, "JPEG", quality=88)
    try:
        _sweep(small.parent)
        return _write(content, small, facts.st_mtime_ns)
    except OSError:
        return picture


def _opened(picture: Path) -> Image.Image:
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, AttributeError):  # all but the first: what Pillow raises on damaged chunks
        raise _gone(picture) from None


def _gone(picture: Path) -> InvalidRequest:
    return InvalidRequest(f"The file {picture.name} is not there any more, or is damaged.")


def _sweep(folder: Path) -> None:
    """Removes the thumbnails whose pictures are gone, once for each folder."""
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        smalls = list(folder.glob("*.jpg"))  # first: one made meanwhile has its picture
        there = {picture.stem for picture in folder.parent.iterdir()}
        for small in smalls:
            if small.stem.rpartition("-")[0] not in there:
                small.unlink(missing_ok=True)


def _write(content: bytes, target: Path, modified: int | None = None) -> Path:
    """Puts a whole file in its place, last modified at that many nanoseconds. Raises OSError, and leaves nothing behind then."""
    unfinished = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # No fsync: the rename alone keeps half files from being seen; only a power cut could lose a picture just
        # made, and waiting for the disk would hold up every image under way.
        os.chmod(unfinished, 0o644)  # mkstemp's own 0600 would keep others from opening the picture
        if modified is not None:
            os.utime(unfinished, ns=(modified, modified))
        os.replace(unfinished, target)
        return target
    except OSError:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                Path(unfinished).unlink(missing_ok=True)
        raise


def check_folder(folder: Path) -> None:
    """Raises NotSaved when nothing can be written into a folder, before anything is made for it. It is there afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        reason = "it is no folder" if error.errno in {errno.EEXIST, errno.ENOTDIR} else error.strerror or type(error).__name__
        raise NotSaved(f"Pictures cannot be written into {folder}: {reason}. Name another folder.") from error


def _sentence(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"The picture could not be saved: the disk is full; make room there. {_KEEP}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"The picture could not be saved: its folder may not be written to; start with --data-dir FOLDER. {_KEEP}"
    return f"The picture could not be saved: {error.strerror or type(error).__name__}. {_KEEP}"

"""Where pictures are written: once, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
from datetime import datetime
from pathlib import Path

from engine.errors import NotSaved

log = logging.getLogger(__name__)

OWN_FOLDER = ".darkroom"
"""Beside outputs/, what only Darkroom itself reads. Not below it: outputs/ is served to browsers."""

_KEEP = "Download this picture to keep it."


def day_folder(outputs: Path) -> Path:
    """Today's folder: a year of pictures in one folder is slow to open."""
    return outputs / datetime.now().strftime("%Y-%m-%d")


def write_picture(content: bytes, folder: Path, name: str) -> Path:
    """Writes `content` as `folder`/<name>.png and returns its path; nobody ever sees half a file.

    Raises NotSaved, in the user's words, when it cannot be written; nothing is left behind then.
    """
    unfinished = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # No fsync: the rename alone keeps half files from being seen; only a power cut could lose a picture just
        # made, and waiting for the disk would hold up every image under way.
        os.chmod(unfinished, 0o644)  # mkstemp's own 0600 would keep others from opening the picture
        target = folder / f"{name}.png"
        os.replace(unfinished, target)
        return target
    except OSError as error:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                Path(unfinished).unlink(missing_ok=True)
        log.warning("%s cannot be written in %s: %s", name, folder, error)  # the operator's, who may see where
        raise NotSaved(_sentence(error)) from error


def _sentence(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"The picture could not be saved: the disk is full; make room there. {_KEEP}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"The picture could not be saved: its folder may not be written to; start with --data-dir FOLDER. {_KEEP}"
    return f"The picture could not be saved: {error.strerror or type(error).__name__}. {_KEEP}"

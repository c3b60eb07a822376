"""Where pictures are written: once, whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from datetime import datetime
from pathlib import Path

from engine.errors import NotSaved

_KEEP = "Download this picture to keep it."


def write_picture(content: bytes, folder: Path, name: str) -> Path:
    """Writes `content` as `folder`/<today>/<name>.png and returns its path; nobody ever sees half a file.

    Raises NotSaved, in the user's words, when it cannot be written; nothing is left behind then.
    """
    day = folder / datetime.now().strftime("%Y-%m-%d")
    unfinished = None
    try:
        day.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=day, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(unfinished, 0o644)  # mkstemp's own 0600 would keep others from opening the picture
        target = day / f"{name}.png"
        os.replace(unfinished, target)
        return target
    except OSError as error:
        if unfinished is not None:
            Path(unfinished).unlink(missing_ok=True)
        raise NotSaved(_sentence(error, folder)) from error


def _sentence(error: OSError, folder: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"The picture could not be saved: the disk of {folder} is full; make room there. {_KEEP}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"The picture could not be saved: {folder} may not be written to; start with --data-dir FOLDER. {_KEEP}"
    return f"The picture could not be saved in {folder}: {error.strerror or error}. {_KEEP}"

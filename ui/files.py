"""Files made only to be fetched: below gradio's own folder, for an hour."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from gradio.utils import get_upload_folder

KEPT_SECONDS = 3600
"""A file is fetched as soon as it is made; it must outlast the fetching only."""


def passing_folder(name: str) -> Path:
    """The folder of that name, for one folder or file to each thing that is fetched; those that are old go now. Raises OSError."""
    folder = Path(get_upload_folder()) / name
    folder.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - KEPT_SECONDS
    for made in folder.iterdir():
        with contextlib.suppress(OSError):  # somebody else may be at it
            if made.stat().st_mtime < oldest:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
    return folder

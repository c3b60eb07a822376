"""The frames of an animation and their milliseconds, as Pillow reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image


def frames_of(content: bytes) -> Iterator[tuple[Image.Image, int]]:
    with Image.open(io.BytesIO(content)) as image:
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            yield image.convert("RGB"), image.info["duration"]

"""A picture as a file in memory: the one place that calls Pillow's `save`."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of that kind, such as "PNG", with what Pillow's writer of it takes. From any thread.

    While it is saved, an image carries the options of that save as `encoderinfo`, and a save that finds some there prefers them to its
    own (PIL.Image.Image.save). Two threads that save one image would so give one's texts to the other's file, and leave them there
    for good: a copy is saved.
    """
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()

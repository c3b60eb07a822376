"""Pictures as the page's scripts get them."""

from __future__ import annotations

import base64
import io

from PIL import Image


def picture_of(uri: str) -> Image.Image:
    """The image inside a data URI; its kind must be the one that the URI names."""
    head, _, content = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert head == f"data:image/{image.format.lower()}"
    return image

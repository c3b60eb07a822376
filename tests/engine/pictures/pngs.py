"""PNG files put together and taken apart chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, PngImagePlugin

from engine.pictures.metadata import Found
from tests.engine.pictures.texts import check_settings

IMAGE = Image.effect_noise((16, 16), 64).convert("RGB")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_with(file: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    IMAGE.save(file, "PNG", pnginfo=info)
    return file


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += 12 + size


def png_of(*parts: tuple[bytes, bytes]) -> bytes:
    sealed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return SIGNATURE + b"".join(sealed)


def check_clean(found: Found) -> None:
    assert found.grid is None or dict(found.grid.recipe) == found.settings
    check_settings(found.settings, found.notes)

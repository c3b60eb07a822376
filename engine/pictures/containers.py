"""The texts a picture file carries, by key, read from its chunks and tags alone: no pixel is decoded, whatever the picture's size.

PNG keeps them in chunks with keywords of their own; JPEG, WebP, AVIF and PNG's eXIf in EXIF, where "UserComment" is what
is "parameters" in a PNG. What is read of a stranger's file is bounded: its parts, and the bytes they unpack to.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from engine.errors import UnreadablePicture

MAX_TEXT = 2 * 1024**2
"""Bytes of one text, unpacked. Our own longest has 2 MB (MAX_RECORD characters of four bytes at most), ComfyUI's graphs of thousands
of nodes less than one."""

MAX_TEXTS = 4 * MAX_TEXT
"""Bytes of all texts of a file together."""

MAX_PARTS = 100_000
"""Chunks or segments of a file that are looked at. 88 megapixels, in the 8 KiB chunks of libpng, are 33,000 at most."""

USER_COMMENT, EXIF_IFD = 0x9286, 0x8769
_EXIF_KEYS = {0x010E: "Description", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software", USER_COMMENT: "parameters"}
"""EXIF 3.0's tags that hold text of interest -> what they are called in a PNG. ComfyUI's savers write "prompt:{...}" into Model
and "workflow:{...}" into Make."""

XMP_KEY = "XML:com.adobe.xmp"
"""The keyword of XMP in a PNG (XMP specification part 3, 1.1.5)."""

_DAMAGED = "This picture is damaged or was cut short: copy it again from where it came from."
_TOO_LONG = f"The text in this picture is too long to be read: more than {MAX_TEXT // 1024**2} MB."
_NO_PICTURE = "This file is no PNG, JPEG, WebP or AVIF picture, whatever its name says: drop a picture as it was saved by what made it."


@dataclass(frozen=True)
class Texts:
    """What was found in a file, and a sentence about what of it could not be read ("" when all was)."""

    found: dict[str, str]
    trouble: str = ""


Parts = Iterator[tuple[str, bytes | str]]
"""Of each part of a file, the key and the raw text; ("", b"") for one without, and a sentence in place of what cannot be read."""


def read_texts(file: Path) -> Texts:
    """The texts in a PNG, JPEG, WebP or AVIF file. Raises UnreadablePicture when it is none, OSError when it cannot be opened.

    What stands before a place where the file is cut short or damaged is found.
    """
    found: dict[str, str] = {}
    trouble, room = "", MAX_TEXTS
    with file.open("rb") as stream:
        parts = _reader(stream.read(12))
        if parts is None:
            raise UnreadablePicture(_NO_PICTURE)
        try:
            for key, raw in islice(parts(stream), MAX_PARTS):
                unread = isinstance(raw, str)
                room -= MAX_TEXT if unread else len(raw)  # whatever it was, it may have cost as much as the longest
                if unread or room < 0:
                    trouble = trouble or (raw if unread else _TOO_LONG)
                elif key == "exif":
                    for name, text in _exif(raw).items():
                        found.setdefault(name, text)  # PNG's own chunks count
                elif key:
                    found[key] = _decoded(raw)
                if room < 0:
                    break
        except struct.error:  # a length or an offset that leads out of the file
            trouble = trouble or _DAMAGED
    return Texts(found, trouble)


def _reader(head: bytes) -> Callable[[BinaryIO], Parts] | None:
    """What reads a file that begins so."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return _webp
    return _avif if head[4:] in {b"ftypavif", b"ftypavis"} else None


def _png(stream: BinaryIO) -> Parts:
    """PNG specification (third edition), 5.3 and 11.3.3. Texts may stand after the pixels too."""
    stream.seek(8)
    while True:
        size, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"IEND":
            return
        if kind not in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"} or size > MAX_TEXT:
            stream.seek(size + 4, 1)
            yield "", _TOO_LONG if kind in {b"tEXt", b"zTXt", b"iTXt", b"eXIf"} else b""
            continue
        data = stream.read(size)
        if struct.pack(">I", zlib.crc32(kind + data)) != stream.read(4):
            yield "", _DAMAGED
        else:
            yield _chunk_text(kind, data)


def _chunk_text(kind: bytes, data: bytes) -> tuple[str, bytes | str]:
    """The keyword and the text of a PNG's chunk."""
    if kind == b"eXIf":
        return "exif", data
    keyword, _, rest = data.partition(b"\0")
    text: bytes | str = rest
    if kind == b"zTXt":
        text = _unpacked(rest[1:])  # after the method, which is always zlib's
    elif kind == b"iTXt":
        tail = rest[2:].split(b"\0", 2)[-1]  # after whether it is packed, the method, the language and the translated keyword
        text = _unpacked(tail) if rest[:1] == b"\1" else tail
    return keyword.decode("latin-1"), text


def _unpacked(data: bytes) -> bytes | str:
    """What zlib packed, or a sentence when that is too long or damaged. No more than is read is unpacked."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_TEXT + 1)
    except zlib.error:
        return _DAMAGED
    return _TOO_LONG if len(text) > MAX_TEXT else text if unpacker.eof else _DAMAGED


def _jpeg(stream: BinaryIO) -> Parts:
    """JPEG's marker segments (ITU T.81, B.1.1) up to the first scan; EXIF longer than one goes on in the next."""
    stream.seek(2)
    exif = bytearray()
    try:
        while True:
            mark, kind = struct.unpack("2B", stream.read(2))
            while mark == kind == 0xFF:  # any number of fill bytes may stand before a marker (B.1.1.2)
                (kind,) = stream.read(1) or b"\xd9"
            if kind in {0xDA, 0xD9}:
                break
            (size,) = struct.unpack(">H", stream.read(2))
            if mark != 0xFF or size < 2:
                raise struct.error
            data = stream.read(size - 2)
            if len(data) < size - 2:
                raise struct.error
            if kind == 0xE1 and data.startswith(b"Exif\0\0") and len(exif) < MAX_TEXT:
                exif += data[6:]
            xmp = kind == 0xE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0")
            yield (XMP_KEY, data.partition(b"\0")[2]) if xmp else ("", b"")
    except struct.error:  # cut short: what stood before is told
        yield "exif", bytes(exif)
        raise
    yield "exif", bytes(exif)


def _webp(stream: BinaryIO) -> Parts:
    """RIFF's chunks (RFC 9649, 2.3), each padded to an even length."""
    stream.seek(4)
    end = 8 + struct.unpack("<I4x", stream.read(8))[0]
    while stream.tell() < end:
        kind, size = struct.unpack("<4sI", stream.read(8))
        key = {b"EXIF": "exif", b"XMP ": XMP_KEY}.get(kind, "")
        if not key or size > MAX_TEXT:
            stream.seek(size, 1)
            yield "", _TOO_LONG if key else b""
        else:
            data = stream.read(size)
            yield key, data.removeprefix(b"Exif\0\0") if len(data) == size else _DAMAGED
        stream.seek(size % 2, 1)


def _avif(stream: BinaryIO) -> Parts:
    """The item of type "Exif" in a file of boxes (ISO/IEC 14496-12, 8.11). Pillow's plugin would parse all of its tags."""
    stream.seek(0)
    while True:
        size, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"meta":
            break
        if size < 8:  # one to the file's end, or of gigabytes: the pixels
            raise struct.error
        stream.seek(size - 8, 1)
        yield "", b""
    meta = stream.read(min(size - 8, MAX_TEXT))
    if len(meta) < size - 8:
        raise struct.error
    boxes = dict(_boxes(io.BytesIO(meta), skip=4))
    room = MAX_TEXT  # together: pieces may lie over each other
    for start, length in _places(boxes.get(b"iloc", b""), _exif_item(boxes.get(b"iinf", b""))):
        room -= length
        if room < 0:
            yield "", _TOO_LONG
            return
        stream.seek(min(start, 2**40))  # further than any file goes
        data = stream.read(length)
        if len(data) < length:
            raise struct.error
        (before,) = struct.unpack_from(">I", data)  # what stands before the tags: ISO/IEC 23008-12, A.2.1
        yield "exif", data[4 + before :]


def _boxes(content: BinaryIO, skip: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box in a box, after its own first bytes."""
    content.seek(skip)
    while head := content.read(8):
        size, kind = struct.unpack(">I4s", head)
        yield kind, content.read(max(size - 8, 0))


def _exif_item(iinf: bytes) -> int | None:
    """The number of the item that "iinf" says to be EXIF."""
    for kind, entry in _boxes(io.BytesIO(iinf), skip=8 if iinf[:1] > b"\0" else 6):
        wide = 2 if entry[:1] == b"\3" else 0  # bytes that a number takes more
        if kind == b"infe" and entry[8 + wide : 12 + wide] == b"Exif":
            return int.from_bytes(entry[4 : 6 + wide])
    return None


def _places(iloc: bytes, wanted: int | None) -> Iterator[tuple[int, int]]:
    """Offset in the file and length of an item's pieces, as "iloc" says."""
    at = 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):
            raise struct.error
        return int.from_bytes(iloc[at - size : at])

    version, sizes = struct.unpack_from(">B3xH", iloc.ljust(6, b"\0"))
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        number(4 if version else 2)  # how it is built, and the file it lies in: here
        base = number(base_size)
        for _ in range(number(2) if offset_size + length_size else 0):
            number(index_size if version else 0)
            start, length = base + number(offset_size), number(length_size)
            if item == wanted:
                yield start, length


def _exif(data: bytes) -> dict[str, str]:
    """The texts among EXIF's tags (TIFF 6.0, section 2): those of the first directory, and of the EXIF directory it points to.

    Only the tags that are wanted are looked at: Pillow copies each one's bytes, which may overlap, tens of thousands of times.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    found: dict[int, bytes] = {}
    with suppress(struct.error):  # an offset that leads out of it: what was found before counts
        directories = [struct.unpack_from(order + "I", data, 4)[0]]
        for at in directories:  # the second is found in the first
            (count,) = struct.unpack_from(order + "H", data, at)
            for entry in range(at + 2, at + 2 + 12 * count, 12):
                tag, kind, size = struct.unpack_from(order + "HHI", data, entry)
                if tag == EXIF_IFD and len(directories) == 1:
                    directories += struct.unpack_from(order + "I", data, entry + 8)
                elif tag in _EXIF_KEYS and tag not in found and kind in {1, 2, 7}:  # BYTE, ASCII, UNDEFINED: a byte each
                    start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
                    if start + size <= len(data):
                        found[tag] = data[start : start + size]
    texts: dict[str, str] = {}
    for tag, raw in found.items():
        text = _comment(raw) if tag == USER_COMMENT else _decoded(raw.rstrip(b"\0"))
        if text.strip(" \0"):  # cameras leave room for one
            texts |= _named(_EXIF_KEYS[tag], text)
    return texts


def _named(key: str, text: str) -> dict[str, str]:
    """A text under its key; "prompt:{...}" and "workflow:{...}" name their own."""
    if named := re.match(r"(prompt|workflow):\s*(?=\{)", text, re.IGNORECASE):
        return {named[1].lower(): text[named.end() :]}
    return {key: text}


def _comment(raw: bytes) -> str:
    """UserComment: eight bytes that name the encoding (EXIF 3.0, 4.6.6.D), and the text."""
    code, text = raw[:8], raw[8:]
    if code == b"UNICODE\0":
        # Writers differ in the order of the bytes, not with the file's own. Zeros are the upper half of ASCII, which settings hold.
        zeros_first, zeros_second = text[::2].count(0), text[1::2].count(0)
        if zeros_first or zeros_second:
            return text.decode("utf-16-be" if zeros_first >= zeros_second else "utf-16-le", "replace").lstrip("\ufeff").rstrip("\0")
        return _decoded(text)
    if code == b"JIS\0\0\0\0\0":
        return text.decode("iso2022_jp", "replace")
    return _decoded((text if code in {b"ASCII\0\0\0", bytes(8)} else raw).rstrip(b"\0"))


def _decoded(raw: bytes) -> str:
    """UTF-8 where the bytes are, as most tools write even into PNG's Latin-1 chunks; no Latin-1 prose looks like it by chance."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")

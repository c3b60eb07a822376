"""Texts from picture files, as Pillow wrote them and as strangers might."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.errors import UnreadablePicture
from engine.pictures import containers
from engine.pictures.containers import MAX_PARTS, MAX_TEXT, MAX_TEXTS, Texts, read_texts
from tests.conftest import ROOT
from tests.engine.pictures.pngs import IMAGE, chunks, png_of
from tests.engine.pictures.texts import any_text, examples

CASES = ROOT / "tests/data/metadata"
"""Files made elsewhere: A1111's text in EXIF, and UTF-8 in a Latin-1 chunk."""

EXIF_FORMATS = ["JPEG", "WEBP", "AVIF", "PNG"]
TEXT = "a red car, 猫\nSteps: 20, Seed: 1234"
UNICODE, ASCII, JIS, UNDEFINED = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "picture"


def read_bytes(content: bytes, file: Path) -> Texts:
    file.write_bytes(content)
    return read_texts(file)


def saved(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind, **options)
    return buffer.getvalue()


def with_comment(kind: str, raw: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = raw
    return saved(kind, exif=exif.tobytes())


def parts() -> list[tuple[bytes, bytes]]:
    return list(chunks(saved("PNG")))


# ---- PNG


@examples
@given(texts=st.dictionaries(st.sampled_from(["parameters", "prompt", "Comment"]), any_text), how=st.sampled_from(["itxt", "packed"]))
def test_texts_are_those_that_pillow_wrote(texts: dict[str, str], how: str, file: Path) -> None:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text, zip=how == "packed")
    assert read_bytes(saved("PNG", pnginfo=info), file) == Texts(texts)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_latin_1_chunk_is_read_as_what_its_bytes_are(kind: bytes, encoding: str, file: Path) -> None:
    data = "café, ß".encode(encoding)
    chunk = (kind, b"parameters\0" + (b"\0" + zlib.compress(data) if kind == b"zTXt" else data))
    assert read_bytes(png_of(parts()[0], chunk, *parts()[1:]), file).found == {"parameters": "café, ß"}


def test_utf_8_in_a_latin_1_chunk_of_another_tool_is_no_mojibake() -> None:
    lines = read_texts(CASES / "34-utf8-in-tEXt.png").found["parameters"].split("\n")
    assert lines[:2] == ["猫, café", "Negative prompt: ß"]


def test_texts_after_the_pixels_are_found(file: Path) -> None:
    *before, end = parts()
    late = [(b"tEXt", b"parameters\0late"), (b"iTXt", b"prompt\0\0\0\0\0later"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"last"))]
    assert read_bytes(png_of(*before, *late, end), file) == Texts({"parameters": "late", "prompt": "later", "Comment": "last"})


def test_no_pixels_are_decoded(file: Path) -> None:
    header = (b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0))
    content = png_of(header, (b"IDAT", b"no pixels at all"), (b"tEXt", b"parameters\0x"), (b"IEND", b""))
    assert read_bytes(content, file) == Texts({"parameters": "x"})


BOMB = zlib.compress(bytes(40_000_000), 9)
TOO_LONG = {
    "zTXt": (b"zTXt", b"parameters\0\0" + BOMB),
    "iTXt": (b"iTXt", b"parameters\0\1\0\0\0" + BOMB),
    "tEXt": (b"tEXt", b"parameters\0" + bytes(MAX_TEXT)),
    "eXIf": (b"eXIf", b"MM\0*" + bytes(MAX_TEXT)),
}


@pytest.mark.parametrize("chunk", TOO_LONG.values(), ids=TOO_LONG)
def test_a_text_that_is_too_long_is_said_to_be_and_costs_no_other(chunk: tuple[bytes, bytes], file: Path) -> None:
    head, *rest = parts()
    file.write_bytes(png_of(head, chunk, (b"tEXt", b"Comment\0after"), *rest))
    tracemalloc.start()
    texts = read_texts(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts.found == {"Comment": "after"}
    assert "too long" in texts.trouble
    assert peak < 4 * MAX_TEXT


def test_all_texts_together_are_bounded(file: Path) -> None:
    head, *rest = parts()
    many = [(b"tEXt", b"%d\0" % at + bytes(MAX_TEXT // 2)) for at in range(20)]
    texts = read_bytes(png_of(head, *many, *rest), file)
    assert sum(map(len, texts.found.values())) <= MAX_TEXTS
    assert "too long" in texts.trouble


def test_few_bombs_are_unpacked_however_many_there_are(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, *rest = parts()
    unpacked: list[bytes] = []
    monkeypatch.setattr(containers, "_unpacked", lambda data, once=containers._unpacked: unpacked.append(data) or once(data))
    for bomb in (TOO_LONG["zTXt"], (b"zTXt", b"a\0\0" + zlib.compress(bytes(MAX_TEXT), 9)), (b"zTXt", b"a\0\0" + BOMB[:200])):
        unpacked.clear()
        read_bytes(png_of(head, *[bomb] * 50, *rest), file)
        assert len(unpacked) <= MAX_TEXTS // MAX_TEXT + 1


def test_the_room_that_a_camera_leaves_for_a_comment_is_no_text(file: Path) -> None:
    for raw in (UNDEFINED, ASCII + b" " * 40 + b"\0", UNICODE + bytes(40), bytes(200)):
        assert read_bytes(with_comment("JPEG", raw), file) == Texts({})


def test_no_more_chunks_are_walked_than_a_picture_can_have(file: Path) -> None:
    head, *rest = parts()
    empty = png_of((b"IDAT", b""))[8:]
    content = png_of(head) + empty * MAX_PARTS + png_of((b"tEXt", b"parameters\0x"), *rest)[8:]
    assert read_bytes(content, file).found == {}


@pytest.mark.parametrize("damage", [b"x", b"parameters\0\1\0\0\0not packed", b"parameters\0\1\0\0\0" + BOMB[:50]])
def test_a_damaged_chunk_costs_no_other(damage: bytes, file: Path) -> None:
    head, *rest = parts()
    texts = read_bytes(png_of(head, (b"iTXt", damage), (b"tEXt", b"Comment\0after"), *rest), file)
    assert texts.found["Comment"] == "after"
    assert texts.found.get("parameters", "") == ""


def test_a_chunk_with_a_wrong_checksum_is_damaged(file: Path) -> None:
    content = png_of(parts()[0], (b"tEXt", b"parameters\0Seed: 5"), *parts()[1:]).replace(b"Seed: 5", b"Seed: 6")
    texts = read_bytes(content, file)
    assert texts.found == {}
    assert "damaged" in texts.trouble


# ---- EXIF


@pytest.mark.parametrize("name", ["40-a1111.jpg", "41-a1111.webp", "42-exif.png"])
def test_the_user_comment_of_another_tools_file_is_its_parameters(name: str) -> None:
    texts = read_texts(CASES / name)
    assert texts.trouble == ""
    assert texts.found["parameters"].startswith("a red car, a blue house\nNegative prompt: text, frame\nSteps: 20, Sampler: Euler a, ")


COMMENTS = {
    "utf-16-be": UNICODE + TEXT.encode("utf-16-be"),  # piexif, which A1111 writes with
    "utf-16-le": UNICODE + TEXT.encode("utf-16-le"),  # ImageSharp, which SwarmUI writes with
    "byte-order-mark": UNICODE + TEXT.encode("utf-16"),
    "utf-8-called-unicode": UNICODE + TEXT.encode(),
    "ascii": ASCII + TEXT.encode(),
    "undefined": UNDEFINED + TEXT.encode() + b"\0",
    "jis": JIS + TEXT.encode("iso2022_jp"),
    "no-code": TEXT.encode(),  # Fooocus
}


@pytest.mark.parametrize("kind", EXIF_FORMATS)
@pytest.mark.parametrize("raw", COMMENTS.values(), ids=COMMENTS)
def test_a_user_comment_is_read_in_every_encoding(raw: bytes, kind: str, file: Path) -> None:
    assert read_bytes(with_comment(kind, raw), file) == Texts({"parameters": TEXT})


@pytest.mark.parametrize("kind", EXIF_FORMATS)
def test_comfyuis_graph_is_found_in_the_tags_it_is_written_to(kind: str, file: Path) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x010F], exif[0x0131] = 'prompt:{"3": {}}', 'Workflow: {"nodes": []}', "Some tool"
    found = read_bytes(saved(kind, exif=exif), file).found
    assert found == {"prompt": '{"3": {}}', "workflow": '{"nodes": []}', "Software": "Some tool"}


def test_a_chunk_of_png_counts_before_its_exif(file: Path) -> None:
    head, *rest = chunks(with_comment("PNG", ASCII + b"of EXIF"))
    text = (b"tEXt", b"parameters\0of PNG")
    assert read_bytes(png_of(head, text, *rest), file).found == {"parameters": "of PNG"}
    assert read_bytes(png_of(head, *rest[:-1], text, rest[-1]), file).found == {"parameters": "of PNG"}


def test_exif_before_a_jpegs_cut_or_behind_fill_bytes_is_read(file: Path) -> None:
    """ITU T.81, B.1.1.2: any number of bytes FF may stand before a marker."""
    whole = with_comment("JPEG", ASCII + b"of EXIF")
    end = whole.index(b"\xff\xe1") + 2
    end += struct.unpack_from(">H", whole, end)[0]
    texts = read_bytes(whole[: end + 3], file)
    assert (texts.found, "damaged" in texts.trouble) == ({"parameters": "of EXIF"}, True)
    assert read_bytes(whole[:end] + b"\xff\xff" + whole[end:], file).found == {"parameters": "of EXIF"}


def test_exif_in_two_segments_is_put_together(file: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = ASCII + b"x" * 90_000
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    segments = [b"Exif\0\0" + data[:60_000], b"Exif\0\0" + data[60_000:]]
    plain = saved("JPEG")
    content = plain[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments) + plain[2:]
    assert read_bytes(content, file).found == {"parameters": "x" * 90_000}


def test_tags_that_overlap_are_no_bomb(file: Path) -> None:
    count = 60_000
    entries = b"".join(struct.pack(">HHII", 0x9286 if at % 2 else 0x0110, 7, 1_000_000, 10) for at in range(count))
    exif = b"MM\0*" + struct.pack(">IH", 8, count) + entries + bytes(1_000_000)
    file.write_bytes(png_of(parts()[0], (b"eXIf", exif), *parts()[1:]))
    tracemalloc.start()
    read_texts(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * MAX_TEXT


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_xmp_is_found(kind: str, file: Path) -> None:
    assert read_bytes(saved(kind, xmp=b"<x:xmpmeta/>"), file).found == {"XML:com.adobe.xmp": "<x:xmpmeta/>"}


# ---- files that are something else, or damaged


def test_what_is_no_picture_is_refused_and_a_missing_file_is_missing(file: Path, tmp_path: Path) -> None:
    for content in (b"", b"RIFF", b"RIFF....WAVE", b"\xff\xd8", b"\0\0\0\x20ftypheic" + bytes(40), saved("GIF"), saved("BMP")):
        with pytest.raises(UnreadablePicture, match=r"^This file is no PNG, JPEG, WebP or AVIF picture"):
            read_bytes(content, file)
    with pytest.raises(FileNotFoundError):
        read_texts(tmp_path / "gone.png")


WHOLE = {kind: with_comment(kind, UNICODE + TEXT.encode("utf-16-be")) for kind in EXIF_FORMATS}


@pytest.mark.parametrize("kind", EXIF_FORMATS)
def test_a_file_cut_short_anywhere_gives_the_whole_text_or_none(kind: str, file: Path) -> None:
    whole = WHOLE[kind]
    for length in range(12, len(whole), 7):
        texts = read_bytes(whole[:length], file)
        assert texts.found in ({}, {"parameters": TEXT})
        assert texts.found or "damaged" in texts.trouble


@pytest.mark.parametrize("kind", EXIF_FORMATS)
def test_flipped_bytes_end_in_text_or_in_a_sentence(kind: str, file: Path) -> None:
    dice = random.Random(kind)
    for _ in range(300):
        damaged = bytearray(WHOLE[kind])
        for _ in range(dice.choice([1, 2, 8])):
            damaged[dice.randrange(min(len(damaged), 600))] = dice.choice([0, 1, 0x7F, 0xFF, dice.randrange(256)])
        try:
            found = read_bytes(bytes(damaged), file).found
        except UnreadablePicture:
            continue
        for text in found.values():
            text.encode()


HEADS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x20ftypavif"]
PIECES = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"EXIF", b"XMP ", b"Exif\0\0", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b"\xff" * 4, b"\0" * 4]


@examples
@given(head=st.sampled_from(HEADS), rest=st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=40))
def test_anything_after_a_picture_s_first_bytes_is_survived(head: bytes, rest: list[bytes], file: Path) -> None:
    for text in read_bytes(head.ljust(12, b"\0") + b"".join(rest), file).found.values():
        text.encode()

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, PngImagePlugin

from engine.pictures.encoding import encoded

COLOUR = (200, 30, 60)


def test_an_image_becomes_a_file_of_the_kind_asked_for() -> None:
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (16, 8), COLOUR), "PNG"))) as image:
        assert (image.format, image.size, image.getpixel((15, 7)), image.info) == ("PNG", (16, 8), COLOUR, {})


def test_threads_that_save_one_image_at_once_write_each_its_own_text(monkeypatch) -> None:
    """Pillow keeps a save's options on the image and takes those it finds there: two saves that overlap must not share them."""
    image, together = Image.new("RGB", (16, 16), COLOUR), threading.Barrier(2)
    Image.preinit()
    write = Image.SAVE["PNG"]

    def write_together(*arguments: object, **keywords: object) -> None:
        together.wait(30)
        write(*arguments, **keywords)

    monkeypatch.setitem(Image.SAVE, "PNG", write_together)
    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(lambda word: encoded(image, "PNG", pnginfo=saying(word)), ["one", "other"]))
    assert [text_of(file) for file in files] == [{"said": "one"}, {"said": "other"}]
    monkeypatch.setitem(Image.SAVE, "PNG", write)
    assert text_of(encoded(image, "PNG")) == {}


def saying(word: str) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("said", word)
    return texts


def text_of(file: bytes) -> dict[str, str]:
    with Image.open(io.BytesIO(file)) as image:
        return image.text

"""Text in pictures: any string, broken into lines, in a font that has its characters.

Pillow's bundled font is always there and has little more than ASCII; a font of the system steps in for the rest. What no font
has is drawn as a box, and `missing_scripts` tells of it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from PIL import Image, ImageDraw, ImageFont

MAX_TEXT = 4000
"""Characters of a text that are looked at: a prompt's most, and more than the few lines of a label ever show."""

BUNDLED = ""
"""Stands for Pillow's own font among the names of files."""

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "segoeui.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
    "arialuni.ttf",
    "malgun.ttf",
    "LeelawUI.ttf",
    "Nirmala.ttf",
    "NotoEmoji-Regular.ttf",
    "seguiemj.ttf",
)
"""Tried in this order, on Linux, Windows and macOS: wide alphabets, then Chinese, Japanese and those of southern Asia, then emoji.
A script that none of them has is looked for in Noto's font of its own, such as NotoSansThai-Regular.ttf."""

_SCRIPTS = {"Cjk": "Chinese", "Hiragana": "Japanese", "Katakana": "Japanese", "Hangul": "Korean"}
"""What people call the scripts whose letters Unicode names otherwise."""

_TOFU = "\U0010fffe"
"""A character that no font has, as Unicode never assigns it: it is drawn as each font draws what it lacks."""

_LEADING = 1.3
"""Line height in font sizes: room for accents and descenders of both fonts at any size."""

_PROBE = 16
"""Size, in pixels, at which a character's drawing is compared with the missing one's."""


@dataclass(frozen=True)
class Block:
    """Lines of one text at one size in pixels; `fonts` are names of files, the preferred one first. `cut`: there was more text."""

    lines: tuple[str, ...]
    size: int
    fonts: tuple[str, ...]
    cut: bool = False

    @cached_property
    def width(self) -> int:
        """Pixels of the longest line."""
        return math.ceil(max((_length(line, self.size, self.fonts) for line in self.lines), default=0))

    @property
    def height(self) -> int:
        return len(self.lines) * line_height(self.size)

    def draw(self, picture: Image.Image, box: tuple[int, int, int, int], colour: str, across: float = 0.0, down: float = 0.0) -> None:
        """Draws the lines into `box` and never outside it. `across` and `down`: 0 is left or top, 1 right or bottom."""
        left, top, right, bottom = box
        if not self.lines or right <= left or bottom <= top:
            return
        # A mask of the box cuts off what no measure foresees: stacks of accents, letters wider than the box.
        mask = Image.new("L", (right - left, bottom - top))
        pen = ImageDraw.Draw(mask)
        baseline = max(0, bottom - top - self.height) * down + line_height(self.size) * 0.75
        for line in self.lines:
            start = max(0.0, right - left - _length(line, self.size, self.fonts)) * across
            for font, run in _runs(line, self.fonts):
                shape = _font(font, self.size)
                pen.text((round(start), round(baseline)), run, fill=255, font=shape, anchor="ls")
                start += shape.getlength(run)
            baseline += line_height(self.size)
        picture.paste(colour, box, mask)


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return math.ceil(size * _LEADING)


def wrapped(text: str, size: int, width: int, most: int) -> Block:
    """`text` in lines no wider than `width` pixels, at most `most` of them, the last one with an ellipsis where text is left out.

    Lines of the text stay lines; a word wider than a line is broken. Time is linear in the text.
    """
    paragraphs = _printable(text[: MAX_TEXT + 1])
    fonts = _preferred("".join(paragraphs))
    lines: list[str] = []
    for paragraph in paragraphs:
        for line in _broken(paragraph, size, fonts, width):
            lines.append(line)
            if len(lines) > most:
                break
        if len(lines) > most:
            break
    cut = len(lines) > most or len(text) > MAX_TEXT
    if cut:
        lines = lines[:most]
        lines[-1:] = [_cut(line, size, fonts, width) for line in lines[-1:]]
    return Block(tuple(lines), size, fonts, cut)


def missing_scripts(texts: Iterable[str]) -> list[str]:
    """What the texts need and no font here has, in alphabetical order: scripts such as "Thai", "emoji", "signs"."""
    missing = set()
    for text in texts:
        marks = {mark for paragraph in _printable(text[:MAX_TEXT]) for mark in paragraph if unicodedata.category(mark)[0] in "LNPS"}
        fonts = _preferred("".join(marks))
        missing |= {_kind(mark) for mark in marks if not any(_has(font, mark) for font in fonts)}
    return sorted(missing, key=str.casefold)


def _kind(mark: str) -> str:
    """What a person calls characters like this one."""
    if mark.isalpha():
        script = _script(mark)
        return _SCRIPTS.get(script, script)
    return "emoji" if unicodedata.category(mark) in {"So", "Sk"} else "signs"


def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode: "Thai", "Cjk", "Latin"."""
    return unicodedata.name(letter, "Unknown").split()[0].title()


def _printable(text: str) -> list[str]:
    """The paragraphs of `text`, without empty ones, that any font engine takes: no lone surrogates, no control characters."""
    clean = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    paragraphs = ("".join(" " if unicodedata.category(mark) == "Cc" else mark for mark in line) for line in clean.splitlines())
    return [paragraph for line in paragraphs if (paragraph := " ".join(line.split()))]


def _broken(paragraph: str, size: int, fonts: tuple[str, ...], width: int) -> Iterator[str]:
    """The lines of one paragraph. Widths are sums over characters: kerning is left out, so a line is read once."""
    line, used = "", 0.0
    space = _advance(" ", size, fonts)
    for word in paragraph.split(" "):
        needed = sum(_advance(mark, size, fonts) for mark in word)
        if line and used + space + needed <= width:
            line, used = f"{line} {word}", used + space + needed
            continue
        if line:
            yield line
        if needed <= width:
            line, used = word, needed
            continue
        pieces = list(_pieces(word, size, fonts, width))
        yield from pieces[:-1]
        line = pieces[-1]
        used = sum(_advance(mark, size, fonts) for mark in line)
    if line:
        yield line


def _pieces(word: str, size: int, fonts: tuple[str, ...], width: float) -> Iterator[str]:
    """A word in pieces that fit, each of one character at least."""
    begin, used = 0, 0.0
    for at, mark in enumerate(word):
        advance = _advance(mark, size, fonts)
        if at > begin and advance and used + advance > width:
            yield word[begin:at]
            begin, used = at, 0.0
        used += advance
    yield word[begin:]


def _cut(line: str, size: int, fonts: tuple[str, ...], width: int) -> str:
    """The line with an ellipsis, as much of it as fits beside one."""
    return next(_pieces(line, size, fonts, max(0.0, width - _advance("…", size, fonts)))).rstrip() + "…"


def _preferred(text: str) -> tuple[str, ...]:
    """The fonts, that which lacks the fewest letters of `text` first: words in one font look better than in two."""
    marks = set(text)
    if all(_has(BUNDLED, mark) for mark in marks):
        return (BUNDLED,)  # system fonts are not even looked for
    letters = [mark for mark in marks if mark.isalpha()]
    fonts = (BUNDLED, *_system_files())
    scripts = sorted({_script(mark) for mark in letters if not any(_has(font, mark) for font in fonts)})
    own = [file for script in scripts if (file := _installed(f"NotoSans{script}-Regular.ttf"))]
    return tuple(sorted((*fonts, *own), key=lambda font: sum(not _has(font, mark) for mark in letters)))


def _runs(line: str, fonts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(font, characters) in the order of the line."""
    current, run = fonts[0], ""
    for mark in line:
        # Spaces and marks stay with the letters before them, or words of right-to-left scripts would change places.
        font = current if run and not mark.isalnum() and _has(current, mark) else _font_of(mark, fonts)
        if run and font != current:
            yield current, run
            run = ""
        current, run = font, run + mark
    if run:
        yield current, run


def _length(line: str, size: int, fonts: tuple[str, ...]) -> float:
    return sum(_font(font, size).getlength(run) for font, run in _runs(line, fonts))


@lru_cache(maxsize=1 << 16)
def _advance(mark: str, size: int, fonts: tuple[str, ...]) -> float:
    """Pixels that a character adds to a line; 0 for those that join the one before."""
    if unicodedata.category(mark) in {"Mn", "Me", "Cf"}:
        return 0.0
    return _font(_font_of(mark, fonts), size).getlength(mark)


def _font_of(mark: str, fonts: tuple[str, ...]) -> str:
    """The first font that has the character, or else the first."""
    return next((font for font in fonts if _has(font, mark)), fonts[0])


@lru_cache(maxsize=1 << 16)
def _has(font: str, mark: str) -> bool:
    """Whether the font draws the character otherwise than one it lacks: Pillow tells no list of a font's characters."""
    return mark == " " or _drawing(font, mark) != _drawing(font, _TOFU)


def _drawing(font: str, mark: str) -> tuple[tuple[int, int], bytes]:
    mask = _font(font, _PROBE).getmask(mark)
    return mask.size, bytes(mask)  # pyright: ignore[reportArgumentType]  # Pillow's core images have items, and no types


@lru_cache(maxsize=1)
def _system_files() -> tuple[str, ...]:
    """Those of SYSTEM_FONTS that are installed."""
    return tuple(file for name in SYSTEM_FONTS if (file := _installed(name)))


@lru_cache(maxsize=512)
def _installed(name: str) -> str | None:
    """Where a font is: Pillow searches the font folders for a bare name each time. None where it is not, or cannot be read."""
    try:
        return str(ImageFont.truetype(name, _PROBE).path)
    except OSError:
        return None  # not on this machine, or a format that FreeType was built without


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size) if name == BUNDLED else ImageFont.truetype(name, size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
    return font

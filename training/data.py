"""The data stage: art and words from packages to one archive of pictures and a manifest.

`pictures.zip` holds lossless WebP files (RGBA, transparent around the subject), `manifest.json` what each one is.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict

from engine.errors import InvalidRequest
from training.packages import Package, fetch
from training.settings import Config, Sources
from training.split import held_out_styles
from training.words import SHORTCODES, Subject, normal_code, subjects

PICTURES, MANIFEST = "pictures.zip", "manifest.json"

LEAST_COVER = 0.02
"""Of a picture's pixels that must show something; below it the renderer has failed."""


class Picture(BaseModel):
    """One subject in one style, held out of training or not."""

    model_config = ConfigDict(frozen=True)

    file: str
    code: str
    style: str
    held_out: bool


class Manifest(BaseModel):
    """What the archive holds, and on what terms. Pictures are in the subjects' order, then the styles'."""

    model_config = ConfigDict(frozen=True)

    size: int
    sources: Sources
    subjects: tuple[Subject, ...]
    pictures: tuple[Picture, ...]
    failed: tuple[str, ...]
    """Files that would not render, with the reason."""


def collect(config: Config, sources: Sources, folder: Path, say: Callable[[str], None]) -> Manifest:
    """Fetches the packages into `folder`/packages, renders all pictures and writes archive and manifest."""
    words = Package(sources.words, fetch(sources.words, folder / "packages"))
    known = {one.code: one for one in read_subjects(words, config)}
    drawn: dict[tuple[str, str], bytes] = {}
    failed: list[str] = []
    packages = {style: Package(source, fetch(source, folder / "packages")) for style, source in sources.styles.items()}
    for style, source in sources.styles.items():
        names = packages[source.codes_from or style]
        for code, image in _images(packages[style], names, set(known), config.picture_size, failed, style):
            if _cover(image) >= LEAST_COVER:
                drawn[code, style] = _webp(image)
            else:
                failed.append(f"{code}-{style}: nothing to be seen")
        say(f"{style}: {sum(key[1] == style for key in drawn)} pictures from {source.package} {source.version} ({source.license})")
    manifest = make_manifest(config, sources, list(known.values()), set(drawn), failed)
    write_archive(folder, manifest, drawn)
    return manifest


def read_subjects(words: Package, config: Config) -> list[Subject]:
    """The package's emoji as subjects, by the config's rules."""
    short: dict[str, list[str]] = {}
    for name in SHORTCODES:
        for code, found in words.json(f"en/shortcodes/{name}.json").items():
            short.setdefault(code, []).extend([found] if isinstance(found, str) else found)
    return subjects(words.json("en/data.json"), words.json("meta/groups.json"), short, config.subjects)


def read_manifest(folder: Path) -> Manifest:
    """Raises InvalidRequest where the data stage has not run."""
    if not (folder / MANIFEST).is_file():
        raise InvalidRequest(f"There is no {MANIFEST} in {folder}: run `python -m training data` first.")
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def counts(manifest: Manifest) -> dict[str, int]:
    """Pictures by style, in the sources' order."""
    found = Counter(picture.style for picture in manifest.pictures)
    return {style: found[style] for style in manifest.sources.styles}


def _images(
    package: Package, naming: Package, codes: set[str], size: int, failed: list[str], style: str
) -> Iterator[tuple[str, Image.Image]]:
    """(code, RGBA picture) of every wanted subject that the package draws; `naming` tells which icon is which code point."""
    assets = list(package.names("assets"))
    if assets:
        for name in assets:
            if (code := normal_code(Path(name).stem)) in codes:
                image = Image.open(io.BytesIO(package.read(f"assets/{name}"))).convert("RGBA")
                yield code, image.resize((size, size), Image.Resampling.LANCZOS)
        return
    icons = package.json("icons.json")
    names = {normal_code(code): name for code, name in naming.json("chars.json").items()}
    for code in sorted(codes & set(names)):
        if (icon := icons["icons"].get(names[code])) is not None:
            try:
                yield code, render_svg(_svg(icon, icons), size)
            except ValueError as error:
                failed.append(f"{code}-{style}: {error}")


def _svg(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    """An icon of an iconify collection as a document; `currentColor` is black."""
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    height = icon.get("height", icons.get("height", 16))
    width = icon.get("width", icons.get("width", height))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} color="black" viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'


def render_svg(svg: str, size: int) -> Image.Image:
    """A square RGBA picture. Raises ValueError for what resvg cannot draw, InvalidRequest without resvg-py."""
    try:
        import resvg_py  # pyright: ignore[reportMissingImports] - only who trains has it (training/requirements.txt)
    except ImportError as error:
        raise InvalidRequest("Drawing SVG needs resvg-py: pip install -r training/requirements.txt.") from error
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.size == (size, size):
        return image
    square = Image.new("RGBA", (size, size))  # a picture that is not square keeps its shape
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def _cover(image: Image.Image) -> float:
    histogram = image.getchannel("A").histogram()
    return sum(histogram[128:]) / (image.width * image.height)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    return buffer.getvalue()


def make_manifest(config: Config, sources: Sources, known: list[Subject], drawn: set[tuple[str, str]], failed: list[str]) -> Manifest:
    """Of what was drawn, by code and style: subjects with too few styles are left out, held-out pictures marked."""
    kept: list[Subject] = []
    pictures: list[Picture] = []
    for subject in known:
        styles = [style for style in sources.styles if (subject.code, style) in drawn]
        if len(styles) < config.subjects.min_styles:
            continue
        kept.append(subject)
        away = held_out_styles(subject.code, styles, config.held_out)
        pictures += [
            Picture(file=f"{subject.code}-{style}.webp", code=subject.code, style=style, held_out=style in away) for style in styles
        ]
    return Manifest(size=config.picture_size, sources=sources, subjects=tuple(kept), pictures=tuple(pictures), failed=tuple(failed))


def write_archive(folder: Path, manifest: Manifest, drawn: dict[tuple[str, str], bytes]) -> None:
    """Writes the archive with fixed dates, so that equal pictures give equal bytes; the manifest last, since it says that all is there."""
    with zipfile.ZipFile(folder / PICTURES, "w", zipfile.ZIP_STORED) as archive:
        for picture in manifest.pictures:
            archive.writestr(zipfile.ZipInfo(picture.file), drawn[picture.code, picture.style])
    (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

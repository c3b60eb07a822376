from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.errors import InvalidRequest, NotSaved
from engine.pictures import outputs
from engine.pictures.made import Made, Provenance
from engine.pictures.outputs import THUMBNAILS, day_folder, open_picture, thumbnail, write_picture
from engine.recipes.recipe import Recipe
from tests.conftest import ROOT
from tests.fake_device import SAFETY

FULL = "the disk is full; make room there"
FORBIDDEN = "its folder may not be written to; start with --data-dir FOLDER"


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def failing(code: int) -> Any:
    def fail(*_arguments: object, **_keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def check_not_saved(folder: Path, sentence: str) -> None:
    with pytest.raises(NotSaved) as caught:
        write_picture(b"picture", folder, "name")
    assert sentence in str(caught.value)
    assert str(folder) not in str(caught.value)  # a visitor reads it
    assert str(caught.value).endswith("Download this picture to keep it.")
    assert isinstance(caught.value.__cause__, OSError)
    assert files_in(folder) == []


def test_a_day_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert day_folder(tmp_path).parent == tmp_path
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day_folder(tmp_path).name)


def test_a_picture_lies_whole_in_a_folder_made_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    path = write_picture(b"picture", folder, "120000-abc")
    assert path.read_bytes() == b"picture"
    assert path.name == "120000-abc.png"
    assert path.parent == folder
    assert files_in(folder) == [path]


def test_others_may_open_the_picture(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        path = write_picture(b"picture", tmp_path, "name")
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_second_picture_joins_the_first(tmp_path: Path) -> None:
    first, second = write_picture(b"1", tmp_path, "one"), write_picture(b"2", tmp_path, "two")
    assert sorted(files_in(tmp_path)) == sorted([first, second])


def test_the_name_appears_only_when_everything_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    put_in_place = os.replace

    def note_replace(unfinished: str, target: Path) -> None:
        steps.append("replace")
        assert Path(unfinished).read_bytes() == b"picture" * 1000
        assert Path(unfinished).name.startswith(".")
        assert not target.exists()
        put_in_place(unfinished, target)

    monkeypatch.setattr(os, "replace", note_replace)
    write_picture(b"picture" * 1000, tmp_path, "name")
    assert steps == ["replace"]


@pytest.mark.parametrize("call", ["replace", "chmod", "fdopen"])
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EACCES, FORBIDDEN),
        (errno.EROFS, FORBIDDEN),
        (errno.EIO, "could not be saved: Input/output error"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_a_failure_at_any_step_says_why_and_leaves_nothing(
    call: str, code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, failing(code))
    check_not_saved(tmp_path, sentence)


def test_a_disk_that_fills_up_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.fdopen

    def open_on_full_disk(handle: int, mode: str) -> Any:
        return _FullDisk(really_open(handle, mode))

    monkeypatch.setattr(os, "fdopen", open_on_full_disk)
    check_not_saved(tmp_path, FULL)


class _FullDisk:
    """A file of which only the first bytes reach the disk."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, content: bytes) -> None:
        self._stream.write(content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["mkdir", "mkstemp"])
def test_a_folder_that_cannot_be_written_is_named(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "pathlib.Path.mkdir" if call == "mkdir" else "tempfile.mkstemp"
    monkeypatch.setattr(target, failing(errno.EACCES))
    check_not_saved(tmp_path, FORBIDDEN)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir(mode=0o555)
    check_not_saved(folder, FORBIDDEN)


def test_a_file_where_the_folder_should_be_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outputs").write_bytes(b"mine")
    with pytest.raises(NotSaved, match=r"^The picture could not be saved: File exists\. "):
        write_picture(b"picture", tmp_path / "outputs", "name")
    assert str(tmp_path / "outputs") in caplog.text
    assert (tmp_path / "outputs").read_bytes() == b"mine"


def test_a_disk_that_turned_read_only_meanwhile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", failing(errno.EROFS))
    monkeypatch.setattr("pathlib.Path.unlink", failing(errno.EROFS))
    with pytest.raises(NotSaved):
        write_picture(b"picture", tmp_path, "name")


WRITE_INSIDE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image

from engine.pictures import outputs
from engine.errors import InvalidRequest, NotSaved
from engine.pictures.outputs import THUMBNAILS, day_folder, thumbnail, write_picture
folder = Path(sys.argv[1])
try:
    write_picture(bytes(100_000), folder, "name")
except NotSaved as error:
    print(error)
print(sum(path.is_file() for path in folder.rglob("*")), "files left")
"""


@pytest.mark.parametrize(("options", "sentence"), [("size=32k", FULL), ("ro", FORBIDDEN)], ids=["full", "read-only"])
def test_a_real_disk_that_refuses_says_why_and_keeps_nothing(options: str, sentence: str, tmp_path: Path) -> None:
    """In a mount namespace of its own, which takes the disk with it when it ends."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    mount = 'mount -t tmpfs -o "$0" tmpfs "$1" || exit 77; shift; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, options, str(tmp_path)]
    done = subprocess.run(
        [*command, sys.executable, "-c", WRITE_INSIDE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=SAFETY, check=False
    )
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert str(tmp_path) in done.stderr  # the log
    assert sentence in done.stdout
    assert str(tmp_path) not in done.stdout
    assert done.stdout.endswith("\n0 files left\n")


# Pictures that are opened again.

MADE = Made(Recipe(), Provenance("", "cpu", "float32", 1, False, 9, 9, 1.0), "0" * 64)


def test_what_was_made_is_opened_from_its_file_or_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("L", (1, 1), 255).save(path)
    opened = open_picture(replace(MADE, path=path))
    assert (opened.mode, opened.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    path.unlink()
    assert opened.getpixel((0, 0)) == (255, 255, 255), "it is read whole: the file is needed no longer"
    kept = Image.new("RGB", (1, 1))
    assert open_picture(replace(MADE, pixels=kept)) is kept


@pytest.mark.parametrize("at", [0, 11, 18, 40])
def test_a_damaged_or_missing_file_is_told_in_words(tmp_path: Path, at: int) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(InvalidRequest, match=r"picture\.png is not there any more, or is damaged"):
        open_picture(replace(MADE, path=path))
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[at : at + 3] = b"\xb4\x06\xb4"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"picture\.png is not there any more, or is damaged"):
        open_picture(replace(MADE, path=path))


# Thumbnails.


def draw(folder: Path, name: str = "picture", size: tuple[int, int] = (400, 300)) -> Path:
    """A picture of noise, whose file is no small one."""
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(stream, "PNG")
    return write_picture(stream.getvalue(), folder, name)


def test_a_thumbnail_is_made_once_beside_its_picture(tmp_path: Path) -> None:
    picture = draw(tmp_path)
    small = thumbnail(picture, 100)
    assert small.parent == tmp_path / THUMBNAILS
    with Image.open(small) as image:
        assert (image.format, image.size) == ("JPEG", (100, 75))
    first = small.stat()
    assert thumbnail(picture, 100) == small
    assert small.stat().st_ino == first.st_ino, "it was made again"
    assert thumbnail(picture, 50) != small
    with Image.open(thumbnail(draw(tmp_path, "tiny", (160, 90)), 1000)) as image:
        assert image.size == (160, 90), "it is not enlarged"


def test_a_small_file_is_its_own_thumbnail(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(stream, "PNG")
    picture = write_picture(stream.getvalue(), tmp_path, "black")
    assert thumbnail(picture, 100) == picture
    assert files_in(tmp_path) == [picture]


def test_a_picture_that_was_replaced_gets_another_thumbnail(tmp_path: Path) -> None:
    picture = draw(tmp_path)
    thumbnail(picture, 100)
    os.utime(draw(tmp_path, size=(300, 400)), (1, 1))  # an older file may take its place
    with Image.open(thumbnail(picture, 100)) as image:
        assert image.size == (75, 100)


def test_the_thumbnail_of_a_picture_that_is_gone_goes_too(tmp_path: Path) -> None:
    picture = draw(tmp_path)
    small = thumbnail(picture, 100)
    picture.unlink()
    with pytest.raises(InvalidRequest, match=r"^The file picture\.png is not there any more, or is damaged\.$"):
        thumbnail(picture, 100)
    assert not small.exists()


def test_a_damaged_picture_has_no_thumbnail(tmp_path: Path) -> None:
    picture = draw(tmp_path)
    picture.write_bytes(picture.read_bytes()[:-40_000])
    with pytest.raises(InvalidRequest, match="is damaged"):
        thumbnail(picture, 100)
    assert files_in(tmp_path) == [picture]


def test_thumbnails_whose_pictures_are_gone_are_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [draw(tmp_path, name) for name in ("one-1", "two-2", "three-3")]
    one, two, _ = [thumbnail(picture, 100) for picture in pictures]
    pictures[0].unlink()
    monkeypatch.setattr(outputs, "_swept", set())  # as after a restart
    thumbnail(draw(tmp_path, "four-4"), 100)
    assert not one.exists()
    assert two.exists()
    assert len(files_in(tmp_path / THUMBNAILS)) == 3


@pytest.mark.parametrize("call", ["tempfile.mkstemp", "pathlib.Path.mkdir", "os.utime", "os.replace"])
def test_where_no_thumbnail_can_be_written_the_picture_is_shown(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = draw(tmp_path)
    monkeypatch.setattr(call, failing(errno.ENOSPC))
    assert thumbnail(picture, 100) == picture
    assert files_in(tmp_path) == [picture]


def test_threads_that_want_the_same_thumbnail_all_get_it_whole(tmp_path: Path) -> None:
    picture = draw(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        [small] = set(threads.map(lambda _: thumbnail(picture, 100), range(24)))
    with Image.open(small) as image:
        image.load()
    assert sorted(files_in(tmp_path)) == sorted([picture, small])

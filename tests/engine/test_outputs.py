from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotSaved
from engine.outputs import day_folder, write_picture
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
from pathlib import Path
from engine.errors import NotSaved
from engine.outputs import day_folder, write_picture
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

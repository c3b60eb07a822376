"""Reuse: an equal picture is found again, and only an equal one, whatever happens to the index or to the files."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.library.library import Library
from engine.library.schema import SCHEMA_VERSION
from engine.pictures import metadata
from engine.pictures.made import DeviceFacts, Made, Provenance
from engine.pictures.outputs import open_picture, write_picture
from engine.recipes.recipe import Recipe, Style
from tests.conftest import ROOT
from tests.fake_device import SAFETY

FACTS = DeviceFacts("revision", "weights", "cpu", "float32", 0, {"darkroom": "1", "torch": "2"})
PICTURES = Path("outputs")
"""The folder whose pictures an index is of."""

RECIPE = Recipe(prompt="an owl", seed=7, steps=4, width=64, height=64)


def provenance_of(facts: DeviceFacts = FACTS, *, exact: bool = False, step: int = 4) -> Provenance:
    return Provenance(facts.model_revision, facts.device, facts.dtype, 2, exact, step, 4, 0.5, facts.versions)


def draw(folder: Path, recipe: Recipe = RECIPE, color: str = "teal", provenance: Provenance | None = None, name: str = "picture") -> Made:
    """A picture on disk, as the worker writes one."""
    provenance = provenance or provenance_of()
    image = Image.new("RGB", (recipe.width, recipe.height), color)
    path = write_picture(metadata.png_bytes(image, recipe, provenance), folder, name)
    return Made(recipe, provenance, hashlib.sha256(image.tobytes()).hexdigest(), path)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "engine.library.library"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "outputs" / ".cache" / "pictures.sqlite"


@pytest.fixture
def library(file):
    library = Library(file, PICTURES)
    yield library
    library.close()


def test_what_was_remembered_is_found(library, tmp_path):
    made = draw(tmp_path)
    assert library.find(RECIPE, False, FACTS) is None
    assert not library.knows(RECIPE, False, FACTS)
    library.remember(made, FACTS)
    assert library.knows(RECIPE, False, FACTS)
    assert library.find(RECIPE, False, FACTS) == made
    assert open_picture(library.find(RECIPE, False, FACTS)).getpixel((0, 0)) == (0, 128, 128)


def test_the_bucket_does_not_matter(library, tmp_path):
    library.remember(draw(tmp_path), FACTS)
    assert library.knows(RECIPE, False, replace(FACTS, bucket=16))


def test_what_was_remembered_is_found_after_a_restart(library, file, tmp_path):
    made = draw(tmp_path)
    library.remember(made, FACTS)
    library.close()
    later = Library(file, PICTURES)
    assert later.find(RECIPE, False, FACTS) == made
    later.close()


def test_a_picture_remembered_by_a_relative_path_is_found_from_elsewhere(library, tmp_path, monkeypatch):
    made = draw(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    library.remember(replace(made, path=made.path.relative_to(tmp_path)), FACTS)
    monkeypatch.chdir(ROOT)
    assert library.find(RECIPE, False, FACTS) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"}, {"prompt": "an Owl"}, {"negative_prompt": "red"}, {"style": Style(name="Ink")}, {"seed": 8}, {"steps": 5},
        {"guidance_scale": 7.5}, {"scheduler": "Euler"}, {"width": 72}, {"height": 72}, {"clip_skip": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_another_recipe_is_another_picture(library, tmp_path, changes):
    library.remember(draw(tmp_path), FACTS)
    other = RECIPE.replace(**changes)
    assert (library.knows(other, False, FACTS), library.find(other, False, FACTS)) == (False, None)
    assert library.knows(RECIPE, False, FACTS)


def test_every_field_of_a_recipe_counts():
    """With the test above: a field that is added to Recipe needs a row there."""
    [marked] = [mark for mark in test_another_recipe_is_another_picture.pytestmark if mark.name == "parametrize"]
    assert {next(iter(changes)) for changes in marked.args[1]} == set(Recipe.model_fields)


@pytest.mark.parametrize(
    ("exact", "facts"),
    [
        (True, FACTS), (False, replace(FACTS, weights="newer")), (False, replace(FACTS, device="NVIDIA H100")),
        (False, replace(FACTS, dtype="float16")), (False, replace(FACTS, versions={"darkroom": "1", "torch": "3"})),
        (False, replace(FACTS, versions={"darkroom": "1"})),
    ],
    ids=["exactness", "weights", "device", "numbers", "version", "library"],
)  # fmt: skip
def test_made_another_way_it_is_another_picture(library, tmp_path, exact, facts):
    library.remember(draw(tmp_path), FACTS)
    assert (library.knows(RECIPE, exact, facts), library.find(RECIPE, exact, facts)) == (False, None)
    made = draw(tmp_path, color="red", provenance=provenance_of(facts, exact=exact), name="another")
    library.remember(made, facts)
    assert library.find(RECIPE, exact, facts) == made
    assert library.find(RECIPE, False, FACTS).path.name == "picture.png"


def test_pictures_of_another_folder_are_not_found(library, file, tmp_path):
    """A page serves only its own outputs: a command line's --out lies elsewhere."""
    library.remember(draw(tmp_path), FACTS)
    elsewhere = Library(file, Path("elsewhere"))
    assert not elsewhere.knows(RECIPE, False, FACTS)
    elsewhere.close()


def test_only_finished_pictures_on_disk_are_found(library, tmp_path):
    library.remember(draw(tmp_path, provenance=provenance_of(step=3)), FACTS)
    library.remember(Made(RECIPE, provenance_of(), "0" * 64, pixels=Image.new("RGB", (64, 64)), unsaved="The disk is full."), FACTS)
    library.remember(draw(tmp_path, name="from noise"), FACTS, repeatable=False)
    assert not library.knows(RECIPE, False, FACTS)


def test_the_last_picture_of_a_recipe_counts(library, tmp_path):
    library.remember(draw(tmp_path), FACTS)
    newer = draw(tmp_path, color="red", name="newer")
    library.remember(newer, FACTS)
    assert library.find(RECIPE, False, FACTS) == newer


# Files that are not what they were.


def cut(made: Made) -> None:
    content = made.path.read_bytes()
    made.path.write_bytes(content[: len(content) - 30])


def strip(made: Made) -> None:
    """What an editor leaves: the same pixels, without the record."""
    Image.open(made.path).convert("RGB").save(made.path)


CHANGES = {
    "gone": lambda made: made.path.unlink(),
    "a folder now": lambda made: (made.path.unlink(), made.path.mkdir()),
    "empty": lambda made: made.path.write_bytes(b""),
    "cut short": cut,
    "no picture": lambda made: made.path.write_bytes(b"notes"),
    "without its record": strip,
    "other pixels": lambda made: draw(made.path.parent, color="red"),
    "another recipe": lambda made: draw(made.path.parent, RECIPE.replace(seed=8)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_has_changed_is_not_used_and_is_forgotten(library, tmp_path, change):
    made = draw(tmp_path)
    library.remember(made, FACTS)
    change(made)
    assert library.knows(RECIPE, False, FACTS) == made.path.is_file()  # it does not read it
    assert library.find(RECIPE, False, FACTS) is None
    assert not library.knows(RECIPE, False, FACTS)
    again = draw(tmp_path, name="again")
    library.remember(again, FACTS)
    assert library.find(RECIPE, False, FACTS) == again


def test_a_picture_remembered_while_the_old_file_is_looked_at_is_not_forgotten(library, file, tmp_path, monkeypatch):
    old, new = draw(tmp_path, name="old"), draw(tmp_path, name="new")
    library.remember(old, FACTS)
    old.path.unlink()
    read, other = metadata.read_record, Library(file, PICTURES)

    def read_slowly(path: Path):
        other.remember(new, FACTS)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "read_record", read_slowly)
        assert library.find(RECIPE, False, FACTS) is None
    other.close()
    assert library.find(RECIPE, False, FACTS) == new


# Trouble with the index.


def test_a_damaged_index_is_said_once_and_nothing_is_found(library, file, tmp_path, caplog):
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a database " * 100)
    library.remember(draw(tmp_path), FACTS)
    assert library.find(RECIPE, False, FACTS) is None
    assert not library.knows(RECIPE, False, FACTS)
    [line] = warnings_in(caplog)
    assert str(file) in line
    assert line.endswith("pictures made before are made again.")
    assert file.read_bytes().startswith(b"not a database")


def test_an_index_damaged_while_it_is_open_is_no_trouble(file, tmp_path, caplog):
    first = Library(file, PICTURES)
    for seed in range(200):
        (tmp_path / f"{seed}.png").touch()
        first.remember(Made(RECIPE.replace(seed=seed), provenance_of(), "0" * 64, tmp_path / f"{seed}.png"), FACTS)
    first.close()
    library = Library(file, PICTURES)
    assert library.knows(RECIPE, False, FACTS)
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(1) * (len(content) - 4096)
    file.write_bytes(content)
    later = Library(file, PICTURES)
    for one in (library, later):
        assert one.find(RECIPE.replace(seed=150), False, FACTS) is None
        one.remember(draw(tmp_path), FACTS)
        one.close()
    assert warnings_in(caplog)


def test_an_index_of_a_later_version_is_left_alone(library, file, tmp_path, caplog):
    file.parent.mkdir(parents=True)
    later = sqlite3.connect(file)
    later.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    later.close()
    library.remember(draw(tmp_path), FACTS)
    assert library.find(RECIPE, False, FACTS) is None
    [line] = warnings_in(caplog)
    assert f"written by another version of Darkroom ({SCHEMA_VERSION + 1})" in line
    later = sqlite3.connect(file)
    assert later.execute("SELECT name FROM sqlite_master").fetchall() == []
    later.close()


def test_a_file_in_the_place_of_the_folder_costs_only_the_reuse(library, file, tmp_path, caplog):
    file.parent.parent.mkdir()
    file.parent.write_text("mine")
    made = draw(tmp_path)
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) is None
    assert warnings_in(caplog)
    assert file.parent.read_text() == "mine"
    file.parent.unlink()
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) == made


def test_a_folder_in_the_place_of_the_file_costs_only_the_reuse(library, file, tmp_path, caplog):
    file.mkdir(parents=True)
    made = draw(tmp_path)
    library.remember(made, FACTS)
    assert warnings_in(caplog)
    file.rmdir()
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) == made


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_costs_only_the_reuse(library, file, tmp_path, caplog):
    file.parent.mkdir(parents=True)
    file.parent.chmod(0o555)
    made = draw(tmp_path)
    library.remember(made, FACTS)
    assert warnings_in(caplog)
    file.parent.chmod(0o755)
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) == made


def test_a_busy_index_may_be_free_again(library, file, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("engine.library.schema.BUSY_SECONDS", 0.05)
    made = draw(tmp_path)
    assert not library.knows(RECIPE, False, FACTS)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    library.remember(made, FACTS)
    assert ["locked" in line for line in warnings_in(caplog)] == [True]
    assert not library.knows(RECIPE, False, FACTS)  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) == made


def test_a_path_that_is_no_text_costs_only_its_own_reuse(library, tmp_path, caplog):
    made = draw(tmp_path)
    library.remember(replace(made, path=Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff/picture.png"))), FACTS)
    assert len(warnings_in(caplog)) == 1
    library.remember(made, FACTS)
    assert library.find(RECIPE, False, FACTS) == made


FILL = """
import logging, sys
from pathlib import Path
from engine.library.library import Library
from tests.engine.library.test_reuse import FACTS, PICTURES, RECIPE, draw, provenance_of
logging.basicConfig(stream=sys.stdout, format="logged %(message)s")
disk, elsewhere = map(Path, sys.argv[1:])
library = Library(disk / "pictures.sqlite", PICTURES)
made = draw(elsewhere)
library.remember(made, FACTS)
filler = disk / "filler"
try:
    with filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
except OSError:
    pass
for seed in range(100):
    library.remember(draw(elsewhere, RECIPE.replace(seed=100 + seed), name=str(seed)), FACTS)
print("still found", library.find(RECIPE, False, FACTS) == made)
filler.unlink()
library.remember(draw(elsewhere, RECIPE.replace(seed=300), name="last"), FACTS)
print("next found", library.knows(RECIPE.replace(seed=300), False, FACTS))
library.close()
"""


def test_a_full_disk_costs_only_what_did_not_fit(tmp_path: Path) -> None:
    """In a mount namespace of its own, which takes the disk with it when it ends."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0" || exit 77; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(disk)]
    done = subprocess.run(
        [*command, sys.executable, "-c", FILL, str(disk), str(elsewhere)],
        cwd=ROOT, capture_output=True, text=True, timeout=SAFETY, check=False,
    )  # fmt: skip
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert "logged " in done.stdout
    assert done.stdout.endswith("still found True\nnext found True\n")


# Two at once, and the end.


def test_two_on_one_file_agree(file, tmp_path):
    libraries, pictures, trouble = [Library(file, PICTURES), Library(file, PICTURES)], 30, []
    mades = [draw(tmp_path, RECIPE.replace(seed=seed), name=str(seed)) for seed in range(2 * pictures)]
    start = threading.Barrier(2)

    def write(library: Library, mine: list[Made]) -> None:
        start.wait()
        for made in mine:
            library.remember(made, FACTS)
            if library.find(made.recipe, False, FACTS) != made:
                trouble.append(made)

    threads = [threading.Thread(target=write, args=(library, mades[place::2])) for place, library in enumerate(libraries)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY)
    assert trouble == []
    for library in libraries:
        assert all(library.knows(made.recipe, False, FACTS) for made in mades)
        library.close()


def test_those_who_open_a_new_file_at_once_wait_for_each_other(tmp_path, caplog):
    for attempt in range(20):
        libraries = [Library(tmp_path / str(attempt) / "pictures.sqlite", PICTURES) for _ in range(3)]
        start = threading.Barrier(len(libraries))

        def open_it(library: Library, start: threading.Barrier = start) -> None:
            start.wait()
            library.knows(RECIPE, False, FACTS)

        threads = [threading.Thread(target=open_it, args=(library,)) for library in libraries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SAFETY)
        for library in libraries:
            library.close()
    assert warnings_in(caplog) == []


def test_one_is_used_from_many_threads(library, tmp_path):
    mades = [draw(tmp_path, RECIPE.replace(seed=seed), name=str(seed)) for seed in range(20)]
    threads = [threading.Thread(target=library.remember, args=(made, FACTS)) for made in mades]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SAFETY)
    assert [library.find(made.recipe, False, FACTS) for made in mades] == mades


def test_closing_is_final(file, tmp_path, caplog):
    library = Library(file, PICTURES)
    made = draw(tmp_path)
    library.remember(made, FACTS)
    library.close()
    library.close()
    assert library.find(RECIPE, False, FACTS) is None
    assert not library.knows(RECIPE, False, FACTS)
    library.remember(draw(tmp_path, RECIPE.replace(seed=8), name="later"), FACTS)
    assert warnings_in(caplog) == []
    later = Library(file, PICTURES)
    assert not later.knows(RECIPE.replace(seed=8), False, FACTS)
    assert later.knows(RECIPE, False, FACTS)
    later.close()


def test_closed_before_it_was_used_it_leaves_no_file(library, file):
    library.close()
    assert not file.parent.exists()


def rows_in(file: Path) -> int:
    connection = sqlite3.connect(file)
    [(count,)] = connection.execute("SELECT count(*) FROM pictures").fetchall()
    connection.close()
    return count


def test_a_picture_whose_file_is_gone_is_forgotten_when_it_is_asked_for(library, file, tmp_path):
    """Else an estimate says for ever that it costs nothing."""
    made = draw(tmp_path)
    library.remember(made, FACTS)
    made.path.unlink()
    assert not library.knows(RECIPE, False, FACTS)
    assert rows_in(file) == 0


def test_rows_without_files_are_swept_away_while_pictures_are_made(library, file, tmp_path, monkeypatch):
    """A few at a time: a folder that was thrown away leaves thousands."""
    monkeypatch.setattr("engine.library.library.SWEEP_EVERY", 5)
    monkeypatch.setattr("engine.library.library.SWEPT", 10)
    looked_at: list[str] = []
    really_there = os.path.isfile
    monkeypatch.setattr("engine.library.library.os.path.isfile", lambda path: looked_at.append(path) or really_there(path))
    pictures = [draw(tmp_path, RECIPE.replace(seed=seed), name=str(seed)) for seed in range(60)]
    for made in pictures:
        library.remember(made, FACTS)
    for made in pictures[:50]:
        made.path.unlink()
    before = len(looked_at)
    for made in pictures[50:] * 4:
        library.remember(made, FACTS)
    assert rows_in(file) == 10
    assert len(looked_at) - before <= 8 * 10
    assert all(library.find(made.recipe, False, FACTS) == made for made in pictures[50:])

"""The library: every picture has its row and every row its picture, whatever ends the process; all are found by words and by facts."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InvalidRequest
from engine.library import search
from engine.library.library import Library
from engine.library.schema import SCHEMA_VERSION
from engine.library.search import Query
from engine.pictures import metadata
from engine.pictures.made import DeviceFacts, Made, Origin, Provenance
from engine.pictures.outputs import write_picture
from engine.recipes.recipe import Recipe, Style
from tests.conftest import ROOT
from tests.fake_device import SAFETY

FACTS = DeviceFacts("revision", "weights", "cpu", "float32", 0, {"darkroom": "1", "torch": "2"})
PROVENANCE = Provenance("revision", "cpu", "float32", 2, False, 4, 4, 0.5, FACTS.versions, weights="weights")
RECIPE = Recipe(prompt="an owl, noto style", negative_prompt="blurry", seed=7, steps=4, width=64, height=64)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def library(tmp_path, folder):
    library = Library(tmp_path / "pictures.sqlite", folder)
    yield library
    library.close()


def draw(folder: Path, name: str, recipe: Recipe = RECIPE, provenance: Provenance = PROVENANCE) -> Made:
    image = Image.new("RGB", (recipe.width, recipe.height), (recipe.seed % 256, 80, 80))
    path = write_picture(metadata.png_bytes(image, recipe, provenance), folder, name)
    return Made(recipe, provenance, hashlib.sha256(image.tobytes()).hexdigest(), path)


def add(library: Library, folder: Path, name: str, origin: Origin | None = None, **changes) -> Made:
    made = draw(folder, name, RECIPE.replace(**changes))
    library.remember(made, FACTS, origin)
    return made


def names(library: Library, query: Query | None = None) -> list[str]:
    """Of all pages, in order."""
    page = library.search(query or Query())
    found = list(page.items)
    while page.next:
        page = library.search(query or Query(), page.next)
        found += page.items
    return [item.path.stem for item in found]


def test_a_picture_is_kept_with_all_that_is_known_of_it(library, folder):
    made = add(library, folder, "one", Origin("ann", "job", 3))
    [item] = library.search(Query()).items
    assert (item.path, item.recipe, item.sha256) == (made.path, made.recipe, made.sha256)
    assert (item.owner, item.job, item.cell, item.star, item.note, item.unfinished) == ("ann", "job", 3, False, "", False)


def test_a_stopped_picture_is_kept_and_is_none_to_take_in_place_of_a_whole_one(library, folder):
    library.remember(draw(folder, "stopped", provenance=replace(PROVENANCE, step=2)), FACTS)
    [item] = library.search(Query()).items
    assert item.unfinished
    assert not library.knows(RECIPE, False, FACTS)


def test_stars_and_notes_stay_when_the_same_picture_is_written_again(library, folder):
    add(library, folder, "one", Origin("ann", "job", 3))
    add(library, folder, "two", seed=8)
    [item] = library.search(Query(job="job")).items
    library.star(item.id)
    library.note(item.id, "the good one")
    add(library, folder, "one")
    [item] = library.search(Query(star=True)).items
    assert (item.path.stem, item.note, item.owner) == ("one", "the good one", "ann")
    library.star(item.id, False)
    assert names(library, Query(star=True)) == []


# Search.


def test_words_are_found_in_both_prompts_in_any_order_and_by_their_beginnings(library, folder):
    add(library, folder, "owl")
    add(library, folder, "fox", prompt="a red fox", negative_prompt="", style=Style(name="Ink", prompt="{prompt}, drawn in ink"))
    for words, found in {
        "owl": ["owl"], "noto OWL": ["owl"], "blur": ["owl"], "fox owl": [], "ink": ["fox"], "": ["fox", "owl"], "  ": ["fox", "owl"],
    }.items():  # fmt: skip
        assert names(library, Query(words)) == found, words


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=30) | st.text('"*()^:-+{}\' ANDORNEAT,', max_size=20) | st.from_regex(r'(owl|NOT|"|NEAR\(|prompt:|\*)+'))
def test_no_text_is_syntax(library, caplog, words):
    library.search(Query(words))
    assert caplog.records == []


def test_filters(library, folder):
    add(library, folder, "a", Origin("ann", "one", 0))
    add(library, folder, "b", Origin("bob", "two", 0), scheduler="Euler", width=72)
    add(library, folder, "c", Origin("bob", "two", 1), model="other", height=72)
    for query, found in {
        Query(scheduler="Euler"): "b", Query(model="other"): "c", Query(width=64): "ca", Query(width=64, height=64): "a",
        Query(owner="bob"): "cb", Query(job="two", oldest_first=True): "bc", Query("owl", owner="ann"): "a",
        Query(before=0): "", Query(since=0): "cba",
    }.items():  # fmt: skip
        assert names(library, query) == list(found), query


def test_of_pictures_that_differ_only_by_seed_the_newest_that_is_found_stands_for_all(library, folder):
    for name, changes in {"a1": {"seed": 1}, "a2": {"seed": 2}, "b1": {"steps": 5}, "a3": {"seed": 3}}.items():
        add(library, folder, name, Origin(owner="bob" if name == "a3" else "ann"), **changes)
    assert names(library, Query(stacked=True)) == ["a3", "b1"]
    assert names(library, Query(stacked=True, owner="ann")) == ["b1", "a2"]


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_hold_each_picture_once_though_others_come_and_go_meanwhile(library, folder, monkeypatch, oldest_first):
    monkeypatch.setattr(search, "PAGE", 3)
    monkeypatch.setattr("engine.library.library.time.time", lambda: 5.0)  # all at once: their numbers alone order them
    for seed in range(8):
        add(library, folder, str(seed), seed=seed)
    query = Query(oldest_first=oldest_first)
    first = library.search(query)
    (folder / f"{first.items[0].path.stem}.png").unlink()
    library.reconcile()
    rest, page = [], first
    while page.next:
        page = library.search(query, page.next)
        rest += page.items
    seen = [int(item.path.stem) for item in (*first.items, *rest)]
    assert seen == sorted(range(8), reverse=not oldest_first)


@pytest.mark.parametrize("after", ["x", "[]", "1", "{}", '["a", 2]', "[1]", "null"])
def test_a_page_that_is_none_is_said(library, after):
    with pytest.raises(InvalidRequest, match="begin with the first"):
        library.search(Query(), after)


def test_a_value_that_does_not_fit_costs_only_itself(library, folder):
    add(library, folder, "owl")
    [item] = library.search(Query()).items
    library.note(item.id, None)
    library.star(item.id)
    assert [(one.star, one.note) for one in library.search(Query()).items] == [(True, "")]


# Rows and files.


def test_looking_through_the_folder_makes_rows_and_files_agree(library, folder):
    kept, gone = add(library, folder / "day", "kept"), add(library, folder / "day", "gone", seed=8)
    gone.path.unlink()
    draw(folder / "day", "without a row", RECIPE.replace(seed=9, prompt="a fox"))
    library.expect(folder / "day" / "never written.png", Origin("ann", "job", 0), True)
    library.expect(folder / "day" / "written.png", Origin("ann", "job", 1), True)
    draw(folder / "day", "written", RECIPE.replace(seed=10))
    (folder / "day" / "somebody's.png").write_bytes(b"notes")
    told = []
    library.reconcile(lambda done, of: told.append((done, of)))
    assert sorted(names(library)) == ["kept", "without a row", "written"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert names(library, Query("fox")) == ["without a row"]
    [written] = library.search(Query(job="job")).items
    assert (written.path.stem, written.cell, written.recipe.seed) == ("written", 1, 10)
    assert library.find(RECIPE, False, FACTS) == kept
    assert library.knows(written.recipe, False, FACTS)
    assert not library.knows(RECIPE.replace(seed=9, prompt="a fox"), False, FACTS), "who knows from which noise it was made"
    library.reconcile(lambda *told: pytest.fail("somebody's file alone is looked at again") if told[1] != 1 else None)
    assert len(names(library)) == 3


def test_nothing_is_written_where_there_is_nothing(library, tmp_path):
    library.give_up(tmp_path / "outputs" / "x.png")
    assert names(library) == []


def test_a_deleted_picture_can_be_taken_back_with_its_star(library, folder):
    made = add(library, folder, "one")
    [item] = library.search(Query()).items
    library.star(item.id)
    library.delete(item.id)
    library.reconcile()
    assert not made.path.exists()
    assert names(library) == []
    assert (library.knows(RECIPE, False, FACTS), library.find(RECIPE, False, FACTS)) == (False, None)
    with pytest.raises(InvalidRequest, match="not in the library"):
        library.delete(item.id)
    library.undelete(item.id)
    assert names(library, Query("owl", star=True)) == ["one"]
    assert library.find(RECIPE, False, FACTS) == made
    with pytest.raises(InvalidRequest, match="not in the library"):
        library.undelete(item.id)


def test_a_deleted_picture_goes_for_good_after_a_while(library, folder, tmp_path, monkeypatch):
    add(library, folder, "one")
    [item] = library.search(Query()).items
    library.delete(item.id)
    monkeypatch.setattr("engine.library.library.KEPT_SECONDS", -1.0)
    library.reconcile()
    assert list((tmp_path / "deleted").iterdir()) == []
    with pytest.raises(InvalidRequest, match="not in the library"):
        library.undelete(item.id)


def test_a_picture_whose_deletion_was_cut_short_is_there_again(library, folder, monkeypatch):
    add(library, folder, "one")
    [item] = library.search(Query()).items

    def killed(*files: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Library, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            library.delete(item.id)
    assert names(library) == []
    library.reconcile()
    assert names(library) == ["one"]


def test_a_picture_that_cannot_be_moved_is_not_deleted(library, folder):
    made = add(library, folder, "one")
    [item] = library.search(Query()).items
    made.path.unlink()
    with pytest.raises(InvalidRequest, match=r"one\.png could not be deleted"):
        library.delete(item.id)


FIRST = """
CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID
"""
"""As the first version wrote it, to the letter."""


def test_the_first_versions_file_is_taken_over(library, folder, tmp_path):
    made = draw(folder, "old")
    key = library._key(RECIPE, False, FACTS)  # as the first version built it: test_the_key_is_the_first_versions
    first = sqlite3.connect(tmp_path / "pictures.sqlite")
    first.execute(FIRST)
    first.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", [
        (key, str(made.path), made.sha256, 5.0), ("other", str(folder / "gone.png"), "0" * 64, 6.0),
        ("same file", str(made.path), "1", 4.0),
    ])  # fmt: skip
    first.execute("PRAGMA user_version = 1")
    first.commit()
    first.close()
    assert library.find(RECIPE, False, FACTS) == made
    library.reconcile()
    assert names(library, Query("owl")) == ["old"]
    assert library.find(RECIPE, False, FACTS) == made
    now = sqlite3.connect(tmp_path / "pictures.sqlite")
    assert now.execute("PRAGMA user_version").fetchall() == [(SCHEMA_VERSION,)]
    assert now.execute("SELECT count(*) FROM pictures").fetchall() == [(1,)]
    now.execute("INSERT INTO words (words) VALUES ('integrity-check')")  # sqlite.org/fts5.html, 6.4: raises where index and rows differ
    now.close()


def test_the_key_is_the_first_versions(tmp_path):
    """Else pictures that it remembered are made again. Written down from the first version."""
    library = Library(tmp_path / "x.sqlite", Path("/pictures"))
    assert library._key(RECIPE, False, FACTS) == "cfb78822395c55cbb29abdeb384f7aac7cd39992e81baf97b30dacc9ae485768"


WRITE = """
import itertools, sys
from concurrent.futures import Future
from pathlib import Path
from PIL import Image
from engine.library.library import Library
from engine.pictures.developing import Developer, Exposed
from engine.pictures.made import Origin
from tests.engine.library.test_library import FACTS, RECIPE
data = Path(sys.argv[1])
library = Library(data / "pictures.sqlite", data / "outputs")
library.reconcile()
developer, facts = Developer(lambda: data / "outputs", library), Future()
facts.set_result(FACTS)
def over(made):
    print(made.result().path.name, flush=True)
for number in itertools.count():
    recipe, image, origin = RECIPE.replace(seed=number), Image.new("RGB", (64, 64)), Origin("ann", sys.argv[2], number)
    developer.develop(Exposed(image, recipe, False, 4, 4, 0.1, f"{sys.argv[2]}-{number}", origin=origin), facts, over)
    while developer.crowded:
        pass
"""


def killed_while_writing(data: Path, run: int, pictures: int) -> list[str]:
    """The names of files that a process said it had finished, which was killed (SIGKILL) after so many."""
    command = [sys.executable, "-c", WRITE, str(data), f"run{run}"]
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            said.append(line.strip())
            if len(said) >= pictures:
                os.kill(process.pid, signal.SIGKILL)
                break
        said += [line.strip() for line in process.stdout if line.endswith(".png\n")]
        process.wait(SAFETY)
    assert process.returncode == -signal.SIGKILL
    return said


def test_rows_and_files_agree_after_each_of_some_kills(tmp_path: Path) -> None:
    """DARKROOM_KILLS asks for more of them."""
    chance, said = random.Random(1), set()
    for run in range(int(os.environ.get("DARKROOM_KILLS", "4"))):
        said |= {name.removesuffix(".png") for name in killed_while_writing(tmp_path, run, chance.randint(1, 40))}
        library = Library(tmp_path / "pictures.sqlite", tmp_path / "outputs")
        library.reconcile()
        rows = names(library)
        assert sorted(rows) == sorted(file.stem for file in (tmp_path / "outputs").glob("*.png"))
        assert said <= {*rows}, "what was said to be finished is found"
        last = library.search(Query(job=f"run{run}")).items
        assert all(library.find(item.recipe, False, FACTS) for item in last), "and taken instead of making it again"
        library.close()

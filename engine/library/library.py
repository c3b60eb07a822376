"""Library: every picture that was made, with its file; an equal one need not be made again.

A SQLite file beside the folder of pictures, not in it: that folder is served to browsers. Each PNG carries all that is known of how it
was made, and what the file says is believed, not the row: a library that is lost is made anew from its folder. Only stars and notes
are nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest, UnreadablePicture
from engine.library.schema import open_database
from engine.library.search import Page, Query, found
from engine.pictures import metadata
from engine.pictures.made import DeviceFacts, Made, Origin, Provenance
from engine.pictures.outputs import THUMBNAILS
from engine.recipes.recipe import Recipe

log = logging.getLogger(__name__)

SWEEP_EVERY, SWEPT = 100, 200
"""Pictures remembered between two looks for dead rows, and rows looked at then: twice as many as can have come."""

DELETED = "deleted"
"""Beside the database: where deleted pictures are kept for a while."""

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a deleted picture can be taken back."""

_COLUMNS = (
    "path", "key", "folder", "written", "made", "sha256", "recipe", "provenance",
    "model", "scheduler", "prompt", "negative", "seed", "width", "height", "stack", "unfinished",
)  # fmt: skip
"""What a file tells of a picture, and when it was made."""

_ORIGIN = ("owner", "job", "cell")


class Library:
    """One file, of the pictures below `folder`: others' are not found. Thread-safe, and several processes may use it.

    Each picture's row is there before its file (`expect`) and is completed after it (`remember`): after a crash between the two,
    `reconcile` makes rows and files agree. Trouble with the database (a full disk, damage) is logged and keeps no picture from being
    written. Unpickled elsewhere it is the same library, opened anew.
    """

    def __init__(self, file: Path, folder: Path):
        self._file = file
        self._pictures = folder
        self._folder = str(folder.resolve())
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._remembered = 0
        self._swept_to = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Library, (self._file, self._pictures)

    def expect(self, path: Path, origin: Origin, repeatable: bool) -> None:
        """Notes that a picture is about to be written there, and whether its recipe will say all."""
        row = (str(path.resolve()), self._folder, time.time(), repeatable, origin.owner, origin.job, origin.cell)
        self._run("INSERT OR IGNORE INTO pictures (path, folder, made, repeatable, owner, job, cell) VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def give_up(self, path: Path) -> None:
        """Nothing could be written there."""
        self._run("DELETE FROM pictures WHERE path = ? AND NOT written", (str(path.resolve()),))

    def remember(self, made: Made, facts: DeviceFacts, origin: Origin | None = None, repeatable: bool = True) -> None:
        """Completes the row of a picture that is on disk. Taken in place of making an equal one (`find`) are only those that are finished
        and `repeatable`, their recipe saying all, and that were not decoded in tiles."""
        if made.path is None:
            return
        self._put(made, made.path.resolve(), time.time(), self._reusable(made, facts) if repeatable else None, origin)
        self._remembered += 1
        if self._remembered % SWEEP_EVERY == 1:
            self._sweep()

    def find(self, recipe: Recipe, exact: bool, facts: DeviceFacts) -> Made | None:
        """The picture of an equal recipe, made by the same weights, device, number format, versions and exactness.

        None when there is none, or its file is gone, damaged or another than was written.
        """
        key = self._key(recipe, exact, facts)
        rows = self._run("SELECT path, sha256 FROM pictures WHERE key = ? AND deleted IS NULL", (key,))
        if not rows:
            return None
        path, sha256 = Path(rows[0][0]), rows[0][1]
        made = _read(path)
        if made is not None and (made.recipe, made.sha256) == (recipe, sha256):
            return made
        self._forget(key, rows[0][0])
        return None

    def knows(self, recipe: Recipe, exact: bool, facts: DeviceFacts, before: float = math.inf) -> bool:
        """Whether there probably is such a picture, made `before` then; its file is there, but is not read."""
        key = self._key(recipe, exact, facts)
        rows = self._run("SELECT path FROM pictures WHERE key = ? AND made < ? AND deleted IS NULL", (key, before))
        return bool(rows) and self._is_there(rows[0][0])

    def search(self, query: Query, after: str = "") -> Page:
        """A page of what a query finds, its first or the one `after` a Page's `next`. Raises InvalidRequest for an `after` that is none."""
        return found(self._run, self._folder, query, after)

    def star(self, picture: int, star: bool = True) -> None:
        """Marks a picture, named by its `id`, or takes the mark off."""
        self._run("UPDATE pictures SET star = ? WHERE id = ?", (star, picture))

    def note(self, picture: int, text: str) -> None:
        self._run("UPDATE pictures SET note = ? WHERE id = ?", (text, picture))

    def delete(self, picture: int) -> None:
        """Moves a picture's file aside, where `undelete` finds it for KEPT_SECONDS; it is found no more. Raises InvalidRequest when it
        is not there, or cannot be moved."""
        path = self._path(picture, "deleted IS NULL")
        self._run("UPDATE pictures SET deleted = ? WHERE id = ?", (time.time(), picture))
        try:
            self._move(path, self._aside(picture))
        except OSError:
            self._run("UPDATE pictures SET deleted = NULL WHERE id = ?", (picture,))
            raise InvalidRequest(f"{path.name} could not be deleted: its folder may not be written to, or it is gone.") from None

    def undelete(self, picture: int) -> None:
        """Puts a deleted picture back, with its star and note. Raises InvalidRequest when it was not deleted, or is gone for good."""
        path = self._path(picture, "deleted IS NOT NULL")
        try:
            self._move(self._aside(picture), path)
        except OSError:
            raise InvalidRequest(f"{path.name} could not be put back: its folder may not be written to, or it is gone.") from None
        self._run("UPDATE pictures SET deleted = NULL WHERE id = ?", (picture,))

    def reconcile(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Makes rows and files agree, as after a crash: rows whose files are gone go, pictures of Darkroom's below the folder that have
        none, or one that was not completed, get theirs from what their files say. `progress` is told (looked at, of how many).

        Other files are left alone. It may run while pictures are made.
        """
        self._reconcile_deleted()
        columns = "path, written AND recipe IS NOT NULL, repeatable"
        rows = self._run(f"SELECT {columns} FROM pictures WHERE (folder = ? OR folder IS NULL) AND deleted IS NULL", (self._folder,))
        known = {path for path, complete, _ in rows if complete}
        repeatable = {path for path, _, says_all in rows if says_all}
        for path, _, _ in rows:
            if not os.path.isfile(path):
                self._run("DELETE FROM pictures WHERE path = ?", (path,))
        below = (file for file in self._pictures.resolve().rglob("*.png") if THUMBNAILS not in file.parts)
        unknown = [file for file in below if str(file) not in known]
        for number, file in enumerate(sorted(unknown), 1):
            if self._broken:
                return
            with contextlib.suppress(FileNotFoundError):  # it may be deleted meanwhile
                if made := _read(file):
                    key = self._reusable(made, made.provenance) if str(file) in repeatable else None
                    self._put(made, file, file.stat().st_mtime, key)
            if progress:
                progress(number, len(unknown))

    def _reconcile_deleted(self) -> None:
        """Of those deleted, the ones whose file lies in its old place, after a crash, are taken back; those that have been aside for long
        go for good."""
        for picture, path, when in self._run("SELECT id, path, deleted FROM pictures WHERE deleted IS NOT NULL", ()):
            if os.path.isfile(path):
                self._run("UPDATE pictures SET deleted = NULL WHERE id = ?", (picture,))
            elif time.time() - when > KEPT_SECONDS:
                self._run("DELETE FROM pictures WHERE id = ?", (picture,))
                with contextlib.suppress(OSError):
                    self._aside(picture).unlink(missing_ok=True)

    def _path(self, picture: int, state: str) -> Path:
        rows = self._run(f"SELECT path FROM pictures WHERE id = ? AND folder = ? AND {state}", (picture, self._folder))
        if not rows:
            raise InvalidRequest("This picture is not in the library any more: load the page anew.")
        return Path(rows[0][0])

    def _aside(self, picture: int) -> Path:
        return self._file.parent / DELETED / f"{picture}.png"

    @staticmethod
    def _move(file: Path, target: Path) -> None:
        """Between disks, too. Raises OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target)

    def _put(self, made: Made, path: Path, when: float, key: str | None = None, origin: Origin | None = None) -> None:
        """Writes a picture's row; a key or origin that is not given stays as it was."""
        recipe = made.recipe
        rest = recipe.model_dump(mode="json", exclude={"seed"})
        values = (
            str(path), key, self._folder, True, when, made.sha256, recipe.model_dump_json(), json.dumps(asdict(made.provenance)),
            recipe.model, recipe.scheduler, recipe.full_prompt, recipe.full_negative_prompt, recipe.seed, recipe.width, recipe.height,
            hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest(), made.provenance.unfinished,
        )  # fmt: skip
        columns = [*_COLUMNS, *(_ORIGIN if origin else ())]
        if origin:
            values = (*values, origin.owner, origin.job, origin.cell)
        changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "path" and (name != "key" or key))
        statement = f"INSERT INTO pictures ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        older = ("UPDATE pictures SET key = NULL WHERE key = ? AND path != ?", (key, str(path)))
        self._run(f"{statement} ON CONFLICT (path) DO UPDATE SET {changed}", values, *([older] if key else []))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection, self._broken = None, True

    def _sweep(self) -> None:
        """Forgets those of the next SWEPT pictures whose files are gone."""
        some = "SELECT id, path FROM pictures WHERE id > ? AND written AND deleted IS NULL ORDER BY id LIMIT ?"
        rows = self._run(some, (self._swept_to, SWEPT)) or self._run(some, (0, SWEPT))
        self._swept_to = rows[-1][0] if len(rows) == SWEPT else 0
        for _, path in rows:
            self._is_there(path)

    def _is_there(self, path: str) -> bool:
        there = os.path.isfile(path)
        if not there:
            self._run("DELETE FROM pictures WHERE path = ? AND written AND deleted IS NULL", (path,))
        return there

    def _forget(self, key: str, path: str) -> None:
        """A picture is not what its key says any more; nor need it be there."""
        if self._is_there(path):
            self._run("UPDATE pictures SET key = NULL WHERE key = ? AND path = ?", (key, path))  # not one remembered meanwhile

    def _reusable(self, made: Made, facts: DeviceFacts | Provenance) -> str | None:
        unlike = made.provenance.unfinished or made.provenance.tiled
        return None if unlike else self._key(made.recipe, made.provenance.exact, facts)

    def _key(self, recipe: Recipe, exact: bool, facts: DeviceFacts | Provenance) -> str:
        """What decides a picture's pixels: with versions and device, since both may change the last bits."""
        content = {
            "folder": self._folder, "recipe": recipe.model_dump(mode="json"), "exact": exact, "weights": facts.weights,
            "device": facts.device, "dtype": facts.dtype, "versions": dict(facts.versions),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _run(self, statement: str, values: tuple[Any, ...], *before: tuple[str, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """What a statement gives, in one transaction with those `before` it; nothing, and a line in the log, where it cannot be run."""
        with self._lock:
            if self._broken:
                return []
            try:
                if self._connection is None:
                    self._connection = open_database(self._file)
                with self._connection:
                    for earlier in before:
                        self._connection.execute(*earlier)
                    return self._connection.execute(statement, values).fetchall()
            except (sqlite3.Error, OSError, UnicodeEncodeError) as error:  # the last: a path that is no text
                log.warning("%s cannot be used (%s): pictures made before are made again.", self._file, error)
                # A busy file, a full disk, a missing folder or a value that does not fit may pass, damage does not.
                passing = sqlite3.OperationalError | sqlite3.IntegrityError
                self._broken = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, passing)
                return []


def _read(path: Path) -> Made | None:
    """A picture as its own file tells of it, its pixels hashed anew."""
    try:
        record, image = metadata.read_record(path)
    except (UnreadablePicture, OSError):
        return None
    pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return Made(record.recipe, record.provenance, pixels, path)

"""History: which picture was made from which recipe, so that an equal one need not be made again.

A SQLite file beside the folder of pictures, not in it: that folder is served to browsers. It only points at them: each PNG
carries all that is known of it, and what the file says is believed, not the index. Losing the index loses no picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from engine.errors import UnreadablePicture
from engine.pictures import metadata
from engine.pictures.made import DeviceFacts, Made
from engine.recipes.recipe import Recipe

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID
"""
BUSY_SECONDS = 2.0
"""How long to wait for another Darkroom that writes to the same file."""

SWEEP_EVERY, SWEPT = 100, 200
"""Pictures remembered between two looks for dead rows, and rows looked at then: twice as many as can have come."""


class History:
    """One index file, of the pictures below `folder`: others' are not found. Thread-safe.

    Trouble with the file (a full disk, damage) is logged and costs only the reuse. Unpickled elsewhere it is the same index, opened anew.
    """

    def __init__(self, file: Path, folder: Path):
        self._file = file
        self._pictures = folder
        self._folder = str(folder.resolve())
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._remembered = 0
        self._swept_to = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return History, (self._file, self._pictures)

    def remember(self, made: Made, facts: DeviceFacts) -> None:
        """Notes a finished picture that is on disk, and what computed it; any other is no replacement for making it, nor is
        one that was decoded in tiles."""
        if made.path is None or made.provenance.unfinished or made.provenance.tiled:
            return
        key = self._key(made.recipe, made.provenance.exact, facts)
        row = (key, str(made.path.resolve()), made.sha256, time.time())
        self._run("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", row)
        self._remembered += 1
        if self._remembered % SWEEP_EVERY == 1:
            self._sweep()

    def find(self, recipe: Recipe, exact: bool, facts: DeviceFacts) -> Made | None:
        """The picture of an equal recipe, made by the same weights, device, number format, versions and exactness.

        None when there is none, or its file is gone, damaged or another than was written.
        """
        key = self._key(recipe, exact, facts)
        rows = self._run("SELECT path, sha256 FROM pictures WHERE key = ?", (key,))
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
        rows = self._run("SELECT path FROM pictures WHERE key = ? AND made < ?", (key, before))
        return bool(rows) and self._is_there(key, rows[0][0])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection, self._broken = None, True

    def _sweep(self) -> None:
        """Forgets those of the next SWEPT pictures, by key, whose files are gone."""
        rows = self._run("SELECT key, path FROM pictures WHERE key > ? ORDER BY key LIMIT ?", (self._swept_to, SWEPT))
        self._swept_to = rows[-1][0] if len(rows) == SWEPT else ""
        for key, path in rows:
            self._is_there(key, path)

    def _is_there(self, key: str, path: str) -> bool:
        there = os.path.isfile(path)
        if not there:
            self._forget(key, path)
        return there

    def _forget(self, key: str, path: str) -> None:
        self._run("DELETE FROM pictures WHERE key = ? AND path = ?", (key, path))  # not one remembered meanwhile

    def _key(self, recipe: Recipe, exact: bool, facts: DeviceFacts) -> str:
        """What decides a picture's pixels: with versions and device, since both may change the last bits."""
        content = {
            "folder": self._folder, "recipe": recipe.model_dump(mode="json"), "exact": exact, "weights": facts.weights,
            "device": facts.device, "dtype": facts.dtype, "versions": dict(facts.versions),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _run(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._broken:
                return []
            try:
                if self._connection is None:
                    self._connection = self._open()
                with self._connection:
                    return self._connection.execute(statement, values).fetchall()
            except (sqlite3.Error, OSError, UnicodeEncodeError) as error:  # the last: a path that is no text
                log.warning("%s cannot be used (%s): pictures made before are made again.", self._file, error)
                damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
                self._broken = damaged  # a busy file, a full disk or a missing folder may pass, damage does not
                return []

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=BUSY_SECONDS, check_same_thread=False)
        try:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            [(version,)] = connection.execute("PRAGMA user_version").fetchall()
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"it was written by another version of Darkroom ({version})")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Waits while another does the same to a new file, as SQLite's own timeout does not. Raises sqlite3.OperationalError."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _read(path: Path) -> Made | None:
    """A picture as its own file tells of it, its pixels hashed anew."""
    try:
        record, image = metadata.read_record(path)
    except (UnreadablePicture, OSError):
        return None
    pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return Made(record.recipe, record.provenance, pixels, path)

"""The library's database: its tables, how those of earlier versions become today's, and how the file is opened."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

BUSY_SECONDS = 2.0
"""How long to wait for another Darkroom that writes to the same file."""

_FIRST = ("CREATE TABLE pictures (key TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, made REAL NOT NULL) WITHOUT ROWID",)

_SECOND = (
    "ALTER TABLE pictures RENAME TO first_pictures",
    """CREATE TABLE pictures (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, key TEXT UNIQUE, folder TEXT, written INTEGER NOT NULL DEFAULT 0,
        made REAL NOT NULL, sha256 TEXT NOT NULL DEFAULT '', recipe TEXT, provenance TEXT, model TEXT, scheduler TEXT,
        prompt TEXT NOT NULL DEFAULT '', negative TEXT NOT NULL DEFAULT '', seed INTEGER, width INTEGER, height INTEGER,
        stack TEXT, unfinished INTEGER NOT NULL DEFAULT 0, repeatable INTEGER NOT NULL DEFAULT 0,
        owner TEXT NOT NULL DEFAULT '', job TEXT NOT NULL DEFAULT '', cell INTEGER, parent INTEGER,
        star INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX pictures_by_time ON pictures (folder, made, id)",
    "CREATE INDEX pictures_by_stack ON pictures (stack)",
    "CREATE VIRTUAL TABLE words USING fts5(prompt, negative, content='pictures', content_rowid='id')",
    """CREATE TRIGGER pictures_come AFTER INSERT ON pictures BEGIN
        INSERT INTO words (rowid, prompt, negative) VALUES (new.id, new.prompt, new.negative); END""",
    """CREATE TRIGGER pictures_go AFTER DELETE ON pictures BEGIN
        INSERT INTO words (words, rowid, prompt, negative) VALUES ('delete', old.id, old.prompt, old.negative); END""",
    """CREATE TRIGGER pictures_change AFTER UPDATE OF prompt, negative ON pictures BEGIN
        INSERT INTO words (words, rowid, prompt, negative) VALUES ('delete', old.id, old.prompt, old.negative);
        INSERT INTO words (rowid, prompt, negative) VALUES (new.id, new.prompt, new.negative); END""",
    # What a picture was made from is in its file, and read there when the folder is looked through (Library.reconcile).
    """INSERT OR REPLACE INTO pictures (path, key, sha256, made, written)
        SELECT path, key, sha256, made, 1 FROM first_pictures ORDER BY made""",
    "DROP TABLE first_pictures",
)

_THIRD = (
    "ALTER TABLE pictures ADD COLUMN deleted REAL",
    "CREATE INDEX pictures_by_job ON pictures (job, made, id)",
    "CREATE INDEX pictures_deleted ON pictures (deleted) WHERE deleted IS NOT NULL",
)

MIGRATIONS = (_FIRST, _SECOND, _THIRD)
"""One a version: what makes the tables of the version before into its own. What has once been published is not changed any more."""

SCHEMA_VERSION = len(MIGRATIONS)


def open_database(file: Path) -> sqlite3.Connection:
    """The file, made where it is missing, its tables today's. Raises OSError, and sqlite3.Error: DatabaseError for one that a later
    version has written, which is left as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        if _version(connection) != SCHEMA_VERSION:
            _migrate(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """All steps or none; whoever opens the file meanwhile waits."""
    connection.execute("BEGIN IMMEDIATE")
    version = _version(connection)  # again: another may just have done it
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"it was written by another version of Darkroom ({version})")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.commit()


def _version(connection: sqlite3.Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    return version


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

"""Search: what a library shows of itself, by words and by what is known of each picture, a page at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from engine.recipes.recipe import Recipe

PAGE = 60
"""Pictures."""

Run = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Query:
    """What is looked for. Fields that are None do not matter; times are seconds since 1970."""

    words: str = ""
    """All of them, or their beginnings, stand in the prompt or in the negative prompt, in any order and either case."""
    model: str | None = None
    scheduler: str | None = None
    width: int | None = None
    height: int | None = None
    star: bool | None = None
    owner: str | None = None
    job: str | None = None
    """Pictures of one run or grid."""
    since: float | None = None
    before: float | None = None
    oldest_first: bool = False
    stacked: bool = False
    """Whether of pictures that differ only by their seed the newest stands for all."""


@dataclass(frozen=True)
class Item:
    """A picture in the library."""

    id: int
    path: Path
    recipe: Recipe
    made: float
    """Seconds since 1970."""
    sha256: str
    """Of the RGB bytes, row by row."""
    unfinished: bool
    owner: str
    job: str
    cell: int | None
    star: bool
    note: str


@dataclass(frozen=True)
class Page:
    """Some of what was found. `next` asks for those behind them; "" where there are none."""

    items: tuple[Item, ...]
    next: str = ""


def found(run: Run, folder: str, query: Query, after: str) -> Page:
    """A page of the pictures of a folder. It goes on behind the last picture shown, not behind so many: what comes or goes meanwhile
    moves nothing, and the hundredth page costs what the first does. Raises InvalidRequest."""
    where, values = _conditions(folder, query)
    if query.stacked:
        inner, same = " AND ".join(part.replace("p.", "q.") for part in where), list(values)
        where.append(f"NOT EXISTS (SELECT 1 FROM pictures q WHERE q.stack = p.stack AND (q.made, q.id) > (p.made, p.id) AND {inner})")
        values += same
    if after:
        where.append(f"(p.made, p.id) {'>' if query.oldest_first else '<'} (?, ?)")
        values += _place(after)
    order = "ASC" if query.oldest_first else "DESC"
    rows = run(
        "SELECT p.id, p.path, p.recipe, p.made, p.sha256, p.unfinished, p.owner, p.job, p.cell, p.star, p.note FROM pictures p "
        f"WHERE {' AND '.join(where)} ORDER BY p.made {order}, p.id {order} LIMIT ?", (*values, PAGE + 1),
    )  # fmt: skip
    items = tuple(_item(row) for row in rows[:PAGE])
    return Page(items, json.dumps([items[-1].made, items[-1].id]) if len(rows) > PAGE else "")


def _conditions(folder: str, query: Query) -> tuple[list[str], list[Any]]:
    where = ["p.folder = ?", "p.written", "p.recipe IS NOT NULL", "p.deleted IS NULL"]
    values: list[Any] = [folder]
    for name in ("model", "scheduler", "width", "height", "star", "owner", "job"):
        if (wanted := getattr(query, name)) is not None:
            where.append(f"p.{name} = ?")
            values.append(wanted)
    for bound, sign in ((query.since, ">="), (query.before, "<")):
        if bound is not None:
            where.append(f"p.made {sign} ?")
            values.append(bound)
    if query.words.strip():
        where.append("p.id IN (SELECT rowid FROM words WHERE words MATCH ?)")
        values.append(_quoted(query.words))
    return where, values


def _quoted(words: str) -> str:
    """Words as FTS5 takes any text: each in quotes, so that nothing in it is syntax (sqlite.org/fts5.html, 3.1), and open at its end."""
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words.replace("\0", " ").encode(errors="replace").decode().split())


def _place(after: str) -> list[Any]:
    try:
        made, number = json.loads(after)
        return [float(made), min(int(number), 2**63 - 1)]  # SQLite's largest
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidRequest("This page of the library cannot be found: begin with the first.") from None


def _item(row: tuple[Any, ...]) -> Item:
    number, path, recipe, made, sha256, unfinished, owner, job, cell, star, note = row
    return Item(
        number, Path(path), Recipe.model_validate_json(recipe), made, sha256, bool(unfinished), owner, job, cell, bool(star), note
    )

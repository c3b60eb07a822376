"""Plan: all cells of a request, complete before a device is touched. Grid: a comparison as a person asks for it."""

from __future__ import annotations

import tomllib
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidRequest
from engine.recipes.axes import AXES, AxisRow, Offer, find_axis, write_values
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.recipe import MAX_SEED, Recipe, Style, label

T = TypeVar("T")
U = TypeVar("U")
Place = tuple[int, int, int]
"""Where a cell is: counted along X, Y and Z from 0."""

MAX_LINE = 20_000
"""Characters of an axis's values: a handful of the longest prompts."""


class AxisLine(BaseModel):
    """One axis as it is written: its name, and the line that `engine.recipes.axes` reads its values from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: str = Field(max_length=80)
    values: str = Field("", max_length=MAX_LINE)


class Grid(BaseModel):
    """A comparison, frozen: one recipe, varied along up to three axes. A contact sheet carries it, so that it can be made again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    x: AxisLine | None = None
    y: AxisLine | None = None
    z: AxisLine | None = None
    exact: bool = False


class GridPreset(BaseModel):
    """A ready-made grid: its axes, and a prompt where they need a certain one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    note: str = ""
    prompt: str | None = None
    x: AxisLine | None = None
    y: AxisLine | None = None
    z: AxisLine | None = None

    def grid(self, recipe: Recipe, *, exact: bool = False) -> Grid:
        """This preset's grid of a recipe."""
        recipe = recipe if self.prompt is None else recipe.replace(prompt=self.prompt)
        return Grid(recipe=recipe, x=self.x, y=self.y, z=self.z, exact=exact)


@dataclass(frozen=True)
class Cell:
    """One image of a plan. `index` names it among the plan's cells; its recipe is concrete. `place` is where it is in a grid."""

    index: int
    recipe: Recipe
    place: Place = (0, 0, 0)


@dataclass(frozen=True)
class Plan:
    """The cells of one request. `exact` asks for a fixed network batch, so that neighbours change no bit.

    A plan of a grid also has the grid as it was resolved, and of X, Y and Z the title and the values' labels;
    an axis that is absent has the title "" and one empty label.
    """

    cells: tuple[Cell, ...]
    exact: bool = False
    grid: Grid | None = None
    labels: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
    titles: tuple[str, str, str] = ("", "", "")

    @property
    def shape(self) -> Place:
        """The numbers of values of X, Y and Z; zeros when this is no grid."""
        x, y, z = map(len, self.labels)
        return (x, y, z)

    def cell(self, index: int) -> Cell:
        """The cell of an index. Raises InvalidRequest when there is none."""
        for cell in self.cells:
            if cell.index == index:
                return cell
        raise InvalidRequest("This cell is not part of the sheet any more.")

    def at(self, place: Place) -> Cell:
        """The cell of a place. Raises InvalidRequest when the grid has no such place."""
        for cell in self.cells:
            if cell.place == tuple(place):
                return cell
        raise InvalidRequest(f"There is no cell {_counted(place)} in this grid of {_counted(self.shape)}.")

    def values_at(self, place: Place) -> dict[str, str]:
        """The labels of a place by their axes' titles; a title that is on two axes is told apart: "Prompt S/R (Y)"."""
        values = {}
        for name, title, labels, at in zip("XYZ", self.titles, self.labels, place, strict=True):
            if title:
                values[f"{title} ({name})" if self.titles.count(title) > 1 else title] = labels[at]
        return values

    def name_of(self, cell: Cell) -> str:
        """A cell by its values: "CFG scale 5, Seed 2"."""
        values = self.values_at(cell.place)
        return ", ".join(f"{title} {label}" for title, label in values.items()) or f"Seed {cell.recipe.seed}"

    @property
    def axes(self) -> tuple[AxisRow, ...]:
        """What X, Y and Z vary, as far as they are there."""
        lines = (self.grid.x, self.grid.y, self.grid.z) if self.grid else ()
        return tuple(find_axis(line.axis) for line in lines if line)

    @property
    def heading(self) -> str:
        """The prompt that the cells have in common, or that an axis rewrites; "" where an axis puts another in its place."""
        prompt = self._shared("prompt")
        return "" if prompt is None else prompt or "no prompt"

    @property
    def negative_heading(self) -> str:
        """The negative prompt, likewise; "" too where there is none."""
        return self._shared("negative_prompt") or ""

    def _shared(self, field: str) -> str | None:
        """A prompt of the cells before any axis rewrites it, with its style unless an axis puts one; None where one puts the prompt."""
        recipe = self.grid.recipe if self.grid else self.cells[0].recipe
        put = {name for row in self.axes if not row.rewrite for name in row.fields}
        if field in put:
            return None
        return getattr(recipe, field if "style" in put else f"full_{field}")

    def beyond(self, old: Plan) -> Plan:
        """Of a plan that `old` has grown to, the new cells."""
        known = {cell.index for cell in old.cells}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.index not in known))

    def grown_to(self, new: Plan) -> Plan | None:
        """`new` with this plan's indexes for the recipes that both have, and the next free ones for the others.

        None when `new` lacks a recipe of this plan (one that is here twice must be there twice) or is not as exact.
        """
        kept: dict[Recipe, deque[int]] = defaultdict(deque)
        for cell in self.cells:
            kept[cell.recipe].append(cell.index)
        cells, free = [], max((cell.index for cell in self.cells), default=-1) + 1
        for cell in new.cells:
            if indexes := kept.get(cell.recipe):
                index = indexes.popleft()
            else:
                index, free = free, free + 1
            cells.append(replace(cell, index=index))
        return None if self.exact != new.exact or any(kept.values()) else replace(new, cells=tuple(cells))


@dataclass(frozen=True)
class _Axis:
    """A line that was read."""

    row: AxisRow
    values: tuple[Any, ...]
    line: AxisLine
    """As resolved: it reads back to the values without a draw or a guess."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.row.show(value) or "(empty)" for value in self.values)


_Axes = tuple[_Axis | None, _Axis | None, _Axis | None]


def plan_images(recipe: Recipe, catalog: Catalog, limits: Limits, *, count: int = 1, exact: bool = False) -> Plan:
    """`count` images of one recipe with seeds seed, seed+1, ... Raises InvalidRequest before anything runs."""
    if not 1 <= count <= limits.max_images:
        raise InvalidRequest(f"Number of images must be from 1 to {limits.max_images}; it was {count:,}.")
    if recipe.seed + count - 1 > MAX_SEED:
        raise InvalidRequest(f"The last seed would be above {MAX_SEED:,}: start lower or make fewer images.")
    catalog.find(recipe.model)
    limits.check(recipe)
    return Plan(tuple(Cell(i, recipe.replace(seed=recipe.seed + i)) for i in range(count)), exact)


def plan_grid(grid: Grid, offer: Offer) -> Plan:
    """The grid's cells, Z by Z, row by row, X fastest. Raises InvalidRequest before anything runs.

    The plan's own grid has its random seeds drawn, names completed and ranges written out: planned again, it gives an equal plan.
    """
    axes = _read_axes(grid, offer)
    _refuse_conflicts([axis.row for axis in axes if axis])
    sizes = [len(axis.values) for axis in axes if axis]
    if prod(sizes) > offer.limits.max_images:
        shown = " x ".join(map(str, sizes))
        raise InvalidRequest(f"{shown} = {prod(sizes):,} cells are more than the {offer.limits.max_images} allowed here: shorten an axis.")
    x, y, z = (range(len(axis.values) if axis else 1) for axis in axes)
    places = [(i, j, k) for k in z for j in y for i in x]
    cells = tuple(Cell(index, _recipe_at(grid.recipe, axes, place), place) for index, place in enumerate(places))
    for cell in cells:
        offer.catalog.find(cell.recipe.model)
        offer.limits.check(cell.recipe)
    lines = {name: axis and axis.line for name, axis in zip("xyz", axes, strict=True)}
    labels = _of_each(axes, lambda axis: axis.labels if axis else ("",))
    return Plan(cells, grid.exact, grid.model_copy(update=lines), labels, _of_each(axes, lambda axis: axis.row.label if axis else ""))


def refine(grid: Grid, place: Place, offer: Offer) -> Grid:
    """A finer grid round one cell: numbers go on halfway to their neighbours, every other axis stays at the cell's value.

    Give a grid as a plan has it: one with random seeds to draw would draw others. Raises InvalidRequest when no axis can be refined.
    """
    recipe = plan_grid(grid, offer).at(place).recipe
    lines: dict[str, AxisLine | None] = {}
    for name, axis, at in zip("xyz", _read_axes(grid, offer), place, strict=True):
        values = axis.row.finer(axis.values, at, offer) if axis and axis.row.finer else []
        lines[name] = AxisLine(axis=axis.row.name, values=write_values(axis.row, values)) if axis and len(values) > 1 else None
    if not any(lines.values()):
        able = ", ".join(row.label for row in AXES.values() if row.finer)
        raise InvalidRequest(f"Nothing here can be made finer: that takes an axis of {able} with values that lie apart.")
    return Grid(recipe=recipe, **lines, exact=grid.exact)


def differences(one: Recipe, other: Recipe) -> list[tuple[str, str, str]]:
    """(field's label, value in one, value in other) of each field that differs, as a person reads them."""
    pairs = {field: (getattr(one, field), getattr(other, field)) for field in Recipe.model_fields}
    return [(label(field), _read_out(mine), _read_out(theirs)) for field, (mine, theirs) in pairs.items() if mine != theirs]


def load_grids(folder: Path) -> list[GridPreset]:
    """The grid presets in a folder, one TOML file each, by file name."""
    return [GridPreset(**tomllib.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.toml"))]


def _read_axes(grid: Grid, offer: Offer) -> _Axes:
    return _of_each((grid.x, grid.y, grid.z), lambda line: line and _read_axis(line, grid.recipe, offer))


def _of_each(three: tuple[T, T, T], what: Callable[[T], U]) -> tuple[U, U, U]:
    x, y, z = three
    return what(x), what(y), what(z)


def _read_axis(line: AxisLine, recipe: Recipe, offer: Offer) -> _Axis:
    row = find_axis(line.axis)
    values = row.read(line.values, offer, recipe)
    written = line.values if row.kept_as_typed else write_values(row, values)
    return _Axis(row, tuple(values), AxisLine(axis=row.name, values=written))


def _refuse_conflicts(rows: list[AxisRow]) -> None:
    """Raises InvalidRequest when two axes put something into the same field."""
    owners: dict[str, AxisRow] = {}
    for row in (row for row in rows if not row.rewrite):
        for field in row.fields:
            if owners.get(field) is row:
                raise InvalidRequest(f"{row.label} is on two axes: keep one of them.")
            if field in owners:
                raise InvalidRequest(f"{owners[field].label} and {row.label} both change the {label(field).lower()}: keep one of them.")
        owners |= dict.fromkeys(row.fields, row)


def _recipe_at(recipe: Recipe, axes: _Axes, place: Place) -> Recipe:
    """The recipe with the values of a place: first all that put something there, then those that rewrite it, together."""
    chosen = [(axis.row, axis.values[at]) for axis, at in zip(axes, place, strict=True) if axis]
    changes: dict[str, Any] = {}
    for row, value in chosen:
        changes |= row.changes(value)
    recipe = recipe.replace(**changes)
    own = [span for row, value in chosen for span in row.own(value)]
    rewriting = {row.name: row.rewrite for row, _ in chosen if row.rewrite}
    for name, rewrite in rewriting.items():
        values = [value for other, value in chosen if other.name == name]
        recipe = recipe.replace(**rewrite(recipe, values, own))
    return recipe


def _read_out(value: Any) -> str:
    if isinstance(value, Style):
        return value.name
    return f"{value:g}" if isinstance(value, float) else str(value)


def _counted(place: Place) -> str:
    return " x ".join(map(str, place))

"""`grid`: a picture varied along up to three axes, and a contact sheet of all."""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from engine.cli.flags import add_place_flags, add_recipe_flags, engine_asked_for, recipe_asked_for
from engine.cli.following import follow, told_of
from engine.errors import InvalidRequest, NotSaved
from engine.local import PRESETS
from engine.pictures.made import Made
from engine.pictures.outputs import day_folder, write_picture
from engine.recipes.axes import AXES, Offer, find_axis
from engine.recipes.catalog import load_styles
from engine.recipes.plan import MAX_LINE, AxisLine, Grid, GridPreset, Plan, plan_grid
from engine.recipes.values import complete_name
from engine.running.engine import Engine
from engine.running.events import Cancelled, Finished
from engine.running.job import Job
from engine.running.preview_options import PreviewOptions
from engine.running.speed import Estimate, seconds_shown
from engine.sheets.sheet import missing_letters
from engine.sheets.takeaway import sheet_file


def define(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to those of the command line."""
    command = add_parser("grid", help="vary a picture along up to three axes, into a contact sheet")
    command.add_argument("--prompt", help="needed unless the preset has one")
    for name in "xyz":
        command.add_argument(f"--{name}", metavar="AXIS: VALUES", help=f"what {name.upper()} varies, such as “cfg: 3, 5, 7”")
    command.epilog = "Axes: " + "; ".join(f"{row.name} ({row.hint})" for row in AXES.values())
    presets = ", ".join(_presets())
    command.add_argument("--preset", metavar="NAME", help=f"a ready-made grid, whose axes make way for those given; one of: {presets}")
    add_recipe_flags(command)
    command.add_argument("--fresh", action="store_true", help="make every cell anew instead of taking equal pictures from the disk")
    add_place_flags(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Makes the cells, tells of each as it is there, and writes their sheet; returns the exit code."""
    with engine_asked_for(options) as engine:
        offer = Offer(engine.catalog, engine.limits, tuple(load_styles(PRESETS / "styles.toml")))
        plan = plan_grid(_read_grid(engine, options), offer)
        # What is on the disk, and how long the rest will take, is known only once the model is loaded.
        engine.warm(plan.cells[0].recipe.model).result()
        begun = time.time()
        job = engine.submit(plan, previews=PreviewOptions("off"), reuse=not options.fresh)
        print(_cost(plan, engine.estimate(plan, reuse=not options.fresh, before=begun)), file=sys.stderr)
        told: set[int] = set()

        def tell(cell: int, made: Made, reused: bool) -> None:
            told.add(cell)
            place = plan.cell(cell).place
            line = {**told_of(made, place=place, values=plan.values_at(place)), "reused": reused}
            tqdm.write(json.dumps(line, ensure_ascii=False))

        code = follow(engine, job, tell)
        for end in job.wait().values():  # those that had begun when the run was stopped
            if isinstance(end, (Finished, Cancelled)) and end.made and end.cell not in told:
                tell(end.cell, end.made, isinstance(end, Finished) and end.reused)
        sheet_code = _write_sheet(job, options.out or day_folder(engine.outputs))
        return code or sheet_code


def _read_grid(engine: Engine, options: argparse.Namespace) -> Grid:
    """The grid that was asked for. Raises InvalidRequest with the flag that is wrong or missing."""
    preset = GridPreset(title="") if options.preset is None else _read_preset(options.preset)
    if options.prompt is not None:
        preset = preset.model_copy(update={"prompt": None})
    elif preset.prompt is None:
        raise InvalidRequest("Say what to draw with --prompt.")
    axes = {name: _read_axis(name, getattr(options, name)) for name in "xyz" if getattr(options, name) is not None}
    grid = preset.grid(recipe_asked_for(engine, options), exact=options.exact).model_copy(update=axes)
    if not (grid.x or grid.y or grid.z):
        raise InvalidRequest("Say what to vary with --x, --y or --z, such as --x “cfg: 3, 5, 7”, or take a ready-made grid with --preset.")
    return grid


def _read_axis(name: str, text: str) -> AxisLine:
    axis, colon, values = text.partition(":")
    if not colon:
        raise InvalidRequest(f"--{name} takes an axis, a colon and its values, such as “cfg: 3, 5, 7”; “{text[:80]}” has no colon.")
    if len(values) > MAX_LINE:
        raise InvalidRequest(f"--{name} has {len(values):,} characters of values; at most {MAX_LINE:,} are accepted.")
    return AxisLine(axis=find_axis(axis).name, values=values.strip())


def _presets() -> dict[str, Path]:
    return {file.stem: file for file in sorted((PRESETS / "grids").glob("*.toml"))}


def _read_preset(name: str) -> GridPreset:
    file = _presets()[complete_name(name, list(_presets()), "--preset")]
    return GridPreset(**tomllib.loads(file.read_text(encoding="utf-8")))


def _cost(plan: Plan, estimate: Estimate) -> str:
    """What a grid will take, in a line."""
    # Of a model that is not loaded nobody knows which pictures are on the disk.
    least, most = ("at least ", "at most ") if len({cell.recipe.model for cell in plan.cells}) > 1 else ("", "")
    time_taken = "" if estimate.seconds is None else f", about {seconds_shown(estimate.seconds)}"
    cells = f"{len(plan.cells)} cells, {least}{estimate.reused} of them taken from the disk"
    return f"{cells}: {most}{estimate.calls:,} network calls of {estimate.rows:,} rows{time_taken}"


def _write_sheet(job: Job, folder: Path) -> int:
    """Writes the sheet of a job's pictures and tells of it; returns the exit code. Without a picture there is no sheet."""
    made = job.made()
    if not made:
        return 0
    try:
        path = write_picture(sheet_file(job.plan, made, job.failures()), folder, f"{time.strftime('%H%M%S')}-{job.id}-sheet")
    except NotSaved as error:
        print(error, file=sys.stderr)
        return 1
    if boxes := missing_letters(job.plan):
        print(boxes, file=sys.stderr)
    print(json.dumps({"sheet": str(path), "cells": len(made), "shape": job.plan.shape}))
    return 0

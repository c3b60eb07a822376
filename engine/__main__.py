"""python -m engine: pictures and comparison grids from the terminal, one JSON line each on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.errors import EngineError, InvalidRequest, NotSaved
from engine.local import DATA_DIR, PRESETS, open_catalog, open_engine
from engine.pictures.made import Made
from engine.pictures.outputs import check_folder, day_folder, open_picture, write_picture
from engine.recipes.axes import AXES, Offer, find_axis
from engine.recipes.catalog import load_styles
from engine.recipes.plan import MAX_LINE, AxisLine, Grid, GridPreset, Plan, plan_grid, plan_images
from engine.recipes.recipe import Recipe, make_recipe, random_seed
from engine.recipes.schedulers import available_schedulers
from engine.recipes.values import complete_name
from engine.running.engine import Engine
from engine.running.events import Cancelled, Failed, Finished, Notice, Preview
from engine.running.job import Job
from engine.running.previewing import PreviewOptions
from engine.running.speed import Estimate, seconds_shown
from engine.sheets.takeaway import missing_letters, sheet_file

STOPPED = 130
"""The exit code of what was ended by Ctrl+C, as shells have it."""

Tell = Callable[[Finished | Cancelled], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 when a picture failed, 2 for bad input, 130 when it was stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return options.run(options)
    except EngineError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Darkroom's engine: pictures from prompts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make pictures of one prompt"))
    _add_grid(commands.add_parser("grid", help="vary a picture along up to three axes, into a contact sheet"))
    models = commands.add_parser("models", help="list the models on offer, one JSON line each")
    models.set_defaults(run=_models)
    return parser


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompt", required=True)
    _add_recipe(command)
    command.add_argument("--count", type=int, default=1, help="pictures, with seeds SEED, SEED+1, ...; default: 1")
    _add_places(command)
    command.add_argument("--previews", type=Path, metavar="DIR", help="also write each step's picture into DIR")
    command.set_defaults(run=_generate)


def _add_grid(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompt", help="needed unless the preset has one")
    for name in "xyz":
        command.add_argument(f"--{name}", metavar="AXIS: VALUES", help=f"what {name.upper()} varies, such as “cfg: 3, 5, 7”")
    command.epilog = "Axes: " + "; ".join(f"{row.name} ({row.hint})" for row in AXES.values())
    presets = ", ".join(_presets())
    command.add_argument("--preset", metavar="NAME", help=f"a ready-made grid, whose axes make way for those given; one of: {presets}")
    _add_recipe(command)
    command.add_argument("--fresh", action="store_true", help="make every cell anew instead of taking equal pictures from the disk")
    _add_places(command)
    command.set_defaults(run=_grid)


def _add_recipe(command: argparse.ArgumentParser) -> None:
    """The flags that `_recipe` reads, but for the prompt."""
    defaults = "; default: the model's own"
    command.add_argument("--negative", default="", metavar="PROMPT", help="what should not be in the picture")
    command.add_argument("--seed", type=int, help="default: random")
    command.add_argument("--cfg", type=float, metavar="SCALE", help="CFG scale" + defaults)
    command.add_argument("--steps", type=int, help="steps" + defaults)
    command.add_argument("--scheduler", metavar="NAME", help=f"one of: {', '.join(available_schedulers())}{defaults}")
    command.add_argument("--width", type=int, help="pixels" + defaults)
    command.add_argument("--height", type=int, help="pixels" + defaults)
    command.add_argument("--clip-skip", type=int, metavar="N", help="the text encoder's layer, counted from its end; default: 1, the last")
    exact = "a fixed batch: every picture the same bits as in any other exact run; alone it takes about three times as long"
    command.add_argument("--exact", action="store_true", help=exact)


def _add_places(command: argparse.ArgumentParser) -> None:
    """The flags that `_open` reads: what computes the pictures, and where they go."""
    command.add_argument("--model", help="a name that `models` lists, or a folder saved by diffusers")
    command.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    command.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the network's number format")
    command.add_argument("--out", type=Path, metavar="DIR", help="write the pictures into DIR; default: DATA_DIR/outputs")
    command.add_argument("--data-dir", type=Path, default=DATA_DIR, metavar="DIR", help="where outputs and caches live")


def _models(options: argparse.Namespace) -> int:
    for spec in open_catalog():
        told = spec.model_dump(include={"name", "title", "native_size", "steps", "guidance_scale", "scheduler", "license", "note"})
        print(json.dumps({**told, "download": None if spec.is_local else spec.source}))
    return 0


def _generate(options: argparse.Namespace) -> int:
    with _open(options) as engine:
        plan = plan_images(_recipe(engine, options), engine.catalog, engine.limits, count=options.count, exact=options.exact)
        job = engine.submit(plan, previews=PreviewOptions("off"))

        def tell(end: Finished | Cancelled) -> None:
            tqdm.write(json.dumps(_told(end.made), ensure_ascii=False))
            if options.previews:
                _write_steps(engine, job, end.cell, end.made, options.previews)

        return _run(engine, job, tell)


def _grid(options: argparse.Namespace) -> int:
    with _open(options) as engine:
        offer = Offer(engine.catalog, engine.limits, tuple(load_styles(PRESETS / "styles.toml")))
        plan = plan_grid(_read_grid(engine, options), offer)
        # What is on the disk, and how long the rest will take, is known only once the model is loaded.
        engine.warm(plan.cells[0].recipe.model).result()
        begun = time.time()
        job = engine.submit(plan, previews=PreviewOptions("off"), reuse=not options.fresh)
        print(_cost(plan, engine.estimate(plan, reuse=not options.fresh, before=begun)), file=sys.stderr)
        told: set[int] = set()

        def tell(end: Finished | Cancelled) -> None:
            told.add(end.cell)
            cell = plan.cell(end.cell)
            picture = _told(end.made)
            line = {
                "path": picture.pop("path"), "place": cell.place, "values": plan.values_at(cell.place), **picture,
                "reused": isinstance(end, Finished) and end.reused,
            }  # fmt: skip
            tqdm.write(json.dumps(line, ensure_ascii=False))

        code = _run(engine, job, tell)
        for end in job.wait().values():  # those that had begun when the run was stopped
            if end.cell not in told and not isinstance(end, Failed) and end.made:
                tell(end)
        sheet_code = _write_sheet(job, options.out or day_folder(engine.outputs))
        return code or sheet_code


def _open(options: argparse.Namespace) -> Engine:
    check_folder(options.out or options.data_dir / "outputs")
    return open_engine(model=options.model, device=options.device, dtype=options.dtype, data_dir=options.data_dir, out=options.out)


def _recipe(engine: Engine, options: argparse.Namespace) -> Recipe:
    given = {
        "negative_prompt": options.negative, "guidance_scale": options.cfg, "steps": options.steps,
        "scheduler": options.scheduler, "width": options.width, "height": options.height,
        "clip_skip": options.clip_skip, "prompt": options.prompt,
    }  # fmt: skip
    seed = random_seed() if options.seed is None else options.seed
    given = {name: value for name, value in given.items() if value is not None}
    return make_recipe(engine.limits.bounds, **{**dict(engine.catalog.default.recipe()), "seed": seed, **given})


def _read_grid(engine: Engine, options: argparse.Namespace) -> Grid:
    """The grid that was asked for. Raises InvalidRequest with the flag that is wrong or missing."""
    preset = GridPreset(title="") if options.preset is None else _read_preset(options.preset)
    if options.prompt is not None:
        preset = preset.model_copy(update={"prompt": None})
    elif preset.prompt is None:
        raise InvalidRequest("Say what to draw with --prompt.")
    axes = {name: _read_axis(name, getattr(options, name)) for name in "xyz" if getattr(options, name) is not None}
    grid = preset.grid(_recipe(engine, options), exact=options.exact).model_copy(update=axes)
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


def _run(engine: Engine, job: Job, tell: Tell) -> int:
    """Follows a job to its end, or stops it at Ctrl+C; returns the exit code."""
    try:
        return 0 if _follow(job, tell) else 1
    except KeyboardInterrupt:
        engine.stop(job)
        job.wait()
        print("\nStopped.", file=sys.stderr)
        return STOPPED


def _follow(job: Job, tell: Tell) -> bool:
    """Shows a job's progress on stderr and tells of each picture as it is there; returns whether all were made and saved."""
    well, said = True, set()
    with StepBar(len(job.plan.cells)) as bar:
        for event in job.events():
            if isinstance(event, Preview):
                bar.step(event)
            elif isinstance(event, Notice) and event.progress is not None and event.progress >= 0:
                continue
            elif isinstance(event, (Notice, Failed)):
                well = well and not isinstance(event, Failed)
                text = event.text if isinstance(event, Notice) else event.message
                if text not in said:  # a whole grid may fail for one reason
                    tqdm.write(text, file=sys.stderr)
                said.add(text)
            elif isinstance(event, (Finished, Cancelled)) and event.made:
                well = well and event.made.path is not None
                if isinstance(event, Finished) and event.reused:
                    bar.leave_out()
                tell(event)
    return well


class StepBar:
    """Progress on stderr: one bar for the steps of all images. (A model's download shows bars of its own.)"""

    def __init__(self, images: int):
        self._images = images
        self._steps: dict[int, tuple[int, int]] = {}
        self._bar: tqdm | None = None

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def leave_out(self) -> None:
        """One image takes no steps: it was there already."""
        self._images -= 1

    def step(self, event: Preview) -> None:
        self._steps[event.cell] = (event.step, event.total)
        total = sum(total for _, total in self._steps.values()) * self._images // len(self._steps)
        if self._bar is None:
            self._bar = tqdm(total=total, unit="step", file=sys.stderr)
        self._bar.total = total
        self._bar.update(sum(step for step, _ in self._steps.values()) - self._bar.n)


def _told(made: Made) -> dict[str, Any]:
    """What is told of one picture."""
    path = str(made.path) if made.path else None
    return {"path": path, "recipe": made.recipe.model_dump(mode="json"), "seconds": made.provenance.seconds, "sha256": made.sha256}


def _write_steps(engine: Engine, job: Job, cell: int, made: Made, folder: Path) -> None:
    """What a picture looked like after each step, by the linear map, in the picture's own size."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for step in range(1, made.provenance.step + 1):
            frame = engine.frame(job, cell, step).resize(open_picture(made).size)
            frame.save(folder / f"{job.id}-{cell:02d}-step-{step:03d}.png")
    except OSError as error:
        raise InvalidRequest(f"Previews cannot be written into {folder}: {error.strerror or error}.") from None


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


if __name__ == "__main__":
    sys.exit(main())

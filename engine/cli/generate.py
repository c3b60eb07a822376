"""`generate`: pictures of one prompt."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from engine.cli.flags import add_place_flags, add_recipe_flags, engine_asked_for, recipe_asked_for
from engine.cli.following import follow, told_of
from engine.errors import InvalidRequest
from engine.pictures.encoding import encoded
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.plan import plan_images
from engine.running.engine import Engine
from engine.running.job import Job
from engine.running.preview_options import PreviewOptions


def define(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to those of the command line."""
    command = add_parser("generate", help="make pictures of one prompt")
    command.add_argument("--prompt", required=True, help="what to draw")
    add_recipe_flags(command)
    command.add_argument("--count", type=int, default=1, help="pictures, with seeds SEED, SEED+1, ...; default: 1")
    add_place_flags(command)
    command.add_argument("--previews", type=Path, metavar="DIR", help="also write each step's picture into DIR")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Makes the pictures and tells of each as it is there; returns the exit code."""
    with engine_asked_for(options) as engine:
        plan = plan_images(recipe_asked_for(engine, options), engine.catalog, engine.limits, count=options.count, exact=options.exact)
        job = engine.submit(plan, previews=PreviewOptions("off"))

        def tell(cell: int, made: Made, _reused: bool) -> None:
            tqdm.write(json.dumps(told_of(made), ensure_ascii=False))
            if options.previews:
                _write_steps(engine, job, cell, made, options.previews)

        return follow(engine, job, tell)


def _write_steps(engine: Engine, job: Job, cell: int, made: Made, folder: Path) -> None:
    """What a picture looked like after each step, by the linear map, in the picture's own size."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for step in range(1, made.provenance.step + 1):
            frame = engine.frame(job, cell, step).resize(open_picture(made).size)
            (folder / f"{job.id}-{cell:02d}-step-{step:03d}.png").write_bytes(encoded(frame, "PNG"))
    except OSError as error:
        raise InvalidRequest(f"Previews cannot be written into {folder}: {error.strerror or error}.") from None

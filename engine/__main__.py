"""python -m engine: pictures from the terminal, one JSON line each on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.engine import Engine
from engine.errors import EngineError, InvalidRequest, NotSaved
from engine.events import Cancelled, Event, Failed, Finished, Made, Notice, Preview
from engine.job import Job
from engine.local import DATA_DIR, open_catalog, open_engine
from engine.plan import plan_images, random_seed
from engine.previewing import PreviewOptions
from engine.recipe import Recipe
from engine.schedulers import available_schedulers


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 when a picture failed, 2 for bad input."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return options.run(options)
    except EngineError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Darkroom's engine: pictures from prompts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make pictures of one prompt"))
    models = commands.add_parser("models", help="list the models on offer, one JSON line each")
    models.set_defaults(run=_models)
    return parser


def _add_generate(command: argparse.ArgumentParser) -> None:
    defaults = "; default: the model's own"
    command.add_argument("--prompt", required=True)
    command.add_argument("--negative", default="", metavar="PROMPT", help="what should not be in the picture")
    command.add_argument("--seed", type=int, help="default: random")
    command.add_argument("--cfg", type=float, metavar="SCALE", help="CFG scale" + defaults)
    command.add_argument("--steps", type=int, help="steps" + defaults)
    command.add_argument("--scheduler", metavar="NAME", help=f"one of: {', '.join(available_schedulers())}{defaults}")
    command.add_argument("--width", type=int, help="pixels" + defaults)
    command.add_argument("--height", type=int, help="pixels" + defaults)
    command.add_argument("--count", type=int, default=1, help="pictures, with seeds SEED, SEED+1, ...; default: 1")
    command.add_argument("--model", help="a name that `models` lists, or a folder saved by diffusers")
    command.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    command.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the network's number format")
    command.add_argument("--exact", action="store_true", help="a fixed batch: every picture the same bits as in any other exact run")
    command.add_argument("--previews", type=Path, metavar="DIR", help="also write each step's picture into DIR")
    command.add_argument("--out", type=Path, metavar="DIR", help="write the pictures into DIR; default: DATA_DIR/outputs")
    command.add_argument("--data-dir", type=Path, default=DATA_DIR, metavar="DIR", help="where outputs and caches live")
    command.set_defaults(run=_generate)


def _models(options: argparse.Namespace) -> int:
    for spec in open_catalog():
        here = spec.is_local
        print(json.dumps({"name": spec.name, "title": spec.title, "source": "presets" if here else spec.source, "native_size": spec.native_size,
                          "steps": spec.steps, "cfg": spec.guidance_scale, "scheduler": spec.scheduler, "license": spec.license}))  # fmt: skip
    return 0


def _generate(options: argparse.Namespace) -> int:
    previews = PreviewOptions("linear" if options.previews else "off")
    with open_engine(model=options.model, device=options.device, dtype=options.dtype, data_dir=options.data_dir) as engine:
        plan = plan_images(_recipe(engine, options), engine.catalog, engine.limits, count=options.count, exact=options.exact)
        job = engine.submit(plan, previews=previews)
        try:
            return _follow(job, options)
        except KeyboardInterrupt:
            engine.stop(job)
            job.wait()
            print("\nStopped.", file=sys.stderr)
            return 130


def _recipe(engine: Engine, options: argparse.Namespace) -> Recipe:
    given = {
        "negative_prompt": options.negative, "guidance_scale": options.cfg, "steps": options.steps,
        "scheduler": options.scheduler, "width": options.width, "height": options.height,
    }  # fmt: skip
    seed = random_seed() if options.seed is None else options.seed
    return engine.catalog.default.recipe().replace(prompt=options.prompt, seed=seed, **{k: v for k, v in given.items() if v is not None})


def _follow(job: Job, options: argparse.Namespace) -> int:
    """Shows a job's progress on stderr and its pictures on stdout; returns the exit code."""
    steps: dict[int, tuple[int, int]] = {}
    failed = False
    for event in job.events():
        if isinstance(event, Preview):
            steps[event.cell] = (event.step, event.total)
            _show_progress(steps, len(job.plan.cells))
            _write_preview(event, options.previews)
        elif isinstance(event, (Finished, Cancelled)) and event.made:
            _clear_line()
            print(json.dumps(_line(event.made, options.out), ensure_ascii=False), flush=True)
        elif isinstance(event, (Notice, Failed)):
            failed = failed or isinstance(event, Failed)
            _clear_line()
            print(_sentence(event), file=sys.stderr)
    _clear_line()
    return 1 if failed else 0


def _line(made: Made, out: Path | None) -> dict:
    """What is told of one picture; it is moved into `out` first, where that is wanted."""
    if made.path is None:
        raise NotSaved(made.unsaved)
    path = made.path
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.move(path, out / path.name))
        except OSError as error:
            raise NotSaved(f"The picture is in {made.path}; it could not be moved to {out}: {error.strerror or error}.") from None
    return {"path": str(path), "recipe": made.recipe.model_dump(mode="json"), "seconds": made.provenance.seconds, "sha256": made.sha256}


def _write_preview(event: Preview, folder: Path | None) -> None:
    if folder is not None and event.image is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            event.image.save(folder / f"{event.cell:02d}-step-{event.step:03d}.png")
        except OSError as error:
            raise InvalidRequest(f"Previews cannot be written into {folder}: {error.strerror or error}.") from None


def _show_progress(steps: dict[int, tuple[int, int]], images: int) -> None:
    if sys.stderr.isatty():
        done = sum(step for step, _ in steps.values())
        total = max(sum(total for _, total in steps.values()), 1) * images // max(len(steps), 1)
        filled = 30 * done // total
        print(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done} of {total} steps", end="", file=sys.stderr, flush=True)


def _clear_line() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def _sentence(event: Event) -> str:
    return event.text if isinstance(event, Notice) else event.message


if __name__ == "__main__":
    sys.exit(main())

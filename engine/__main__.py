"""python -m engine: pictures from the terminal, one JSON line each on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine.engine import Engine
from engine.errors import EngineError, InvalidRequest
from engine.events import Cancelled, Failed, Finished, Made, Notice, Preview
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
    command.add_argument("--clip-skip", type=int, metavar="N", help="the text encoder's layer, counted from its end; default: 1, the last")
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
        told = spec.model_dump(include={"name", "title", "native_size", "steps", "guidance_scale", "scheduler", "license", "note"})
        print(json.dumps({**told, "download": None if spec.is_local else spec.source}))
    return 0


def _generate(options: argparse.Namespace) -> int:
    places = {"data_dir": options.data_dir, "out": options.out}
    with open_engine(model=options.model, device=options.device, dtype=options.dtype, **places) as engine:
        plan = plan_images(_recipe(engine, options), engine.catalog, engine.limits, count=options.count, exact=options.exact)
        job = engine.submit(plan, previews=PreviewOptions("off"))
        try:
            return _follow(engine, job, options)
        except KeyboardInterrupt:
            engine.stop(job)
            job.wait()
            print("\nStopped.", file=sys.stderr)
            return 130


def _recipe(engine: Engine, options: argparse.Namespace) -> Recipe:
    given = {
        "negative_prompt": options.negative, "guidance_scale": options.cfg, "steps": options.steps,
        "scheduler": options.scheduler, "width": options.width, "height": options.height,
        "clip_skip": options.clip_skip,
    }  # fmt: skip
    seed = random_seed() if options.seed is None else options.seed
    return engine.catalog.default.recipe().replace(prompt=options.prompt, seed=seed, **{k: v for k, v in given.items() if v is not None})


def _follow(engine: Engine, job: Job, options: argparse.Namespace) -> int:
    """Shows a job's progress on stderr and its pictures on stdout; returns the exit code."""
    failed = False
    with StepBar(len(job.plan.cells)) as bar:
        for event in job.events():
            if isinstance(event, Preview):
                bar.step(event)
            elif isinstance(event, Notice) and event.progress is not None and event.progress >= 0:
                continue
            elif isinstance(event, (Notice, Failed)):
                failed = failed or isinstance(event, Failed)
                tqdm.write(event.text if isinstance(event, Notice) else event.message, file=sys.stderr)
            elif isinstance(event, (Finished, Cancelled)) and event.made:
                failed = failed or event.made.path is None
                tqdm.write(json.dumps(_line(event.made), ensure_ascii=False))
                if options.previews:
                    _write_steps(engine, job, event.cell, event.made, options.previews)
    return 1 if failed else 0


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

    def step(self, event: Preview) -> None:
        self._steps[event.cell] = (event.step, event.total)
        total = sum(total for _, total in self._steps.values()) * self._images // len(self._steps)
        if self._bar is None:
            self._bar = tqdm(total=total, unit="step", file=sys.stderr)
        self._bar.total = total
        self._bar.update(sum(step for step, _ in self._steps.values()) - self._bar.n)


def _line(made: Made) -> dict:
    """What is told of one picture."""
    path = str(made.path) if made.path else None
    return {"path": path, "recipe": made.recipe.model_dump(mode="json"), "seconds": made.provenance.seconds, "sha256": made.sha256}


def _write_steps(engine: Engine, job: Job, cell: int, made: Made, folder: Path) -> None:
    """What a picture looked like after each step, by the linear map, in the picture's own size."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for step in range(1, made.provenance.step + 1):
            frame = engine.frame(job, cell, step).resize(made.image.size)
            frame.save(folder / f"{job.id}-{cell:02d}-step-{step:03d}.png")
    except OSError as error:
        raise InvalidRequest(f"Previews cannot be written into {folder}: {error.strerror or error}.") from None


if __name__ == "__main__":
    sys.exit(main())

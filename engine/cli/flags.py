"""Flags that several commands take, and what is read from them."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.local import DATA_DIR, open_engine
from engine.pictures.outputs import check_folder
from engine.recipes.recipe import Recipe, make_recipe, random_seed
from engine.recipes.schedulers import available_schedulers
from engine.running.engine import Engine


def add_recipe_flags(command: argparse.ArgumentParser) -> None:
    """The flags that `recipe_asked_for` reads, but for the prompt."""
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


def recipe_asked_for(engine: Engine, options: argparse.Namespace) -> Recipe:
    """The recipe of the flags, the model's own settings where there is none. Raises InvalidRequest with what is wrong."""
    given = {
        "negative_prompt": options.negative, "guidance_scale": options.cfg, "steps": options.steps,
        "scheduler": options.scheduler, "width": options.width, "height": options.height,
        "clip_skip": options.clip_skip, "prompt": options.prompt,
    }  # fmt: skip
    seed = random_seed() if options.seed is None else options.seed
    given = {name: value for name, value in given.items() if value is not None}
    return make_recipe(engine.limits.bounds, **{**dict(engine.catalog.default.recipe()), "seed": seed, **given})


def add_place_flags(command: argparse.ArgumentParser) -> None:
    """The flags that `engine_asked_for` reads: what computes the pictures, and where they go."""
    command.add_argument("--model", help="a name that `models` lists, or a folder saved by diffusers")
    command.add_argument("--device", help="cuda or cpu; default: cuda where there is one")
    command.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="the network's number format")
    command.add_argument("--out", type=Path, metavar="DIR", help="write the pictures into DIR; default: DATA_DIR/outputs")
    command.add_argument("--data-dir", type=Path, default=DATA_DIR, metavar="DIR", help="where outputs and caches live")


def engine_asked_for(options: argparse.Namespace) -> Engine:
    """An engine as the flags say. Raises NotSaved where its pictures could not be written, InvalidRequest for what is no model."""
    check_folder(options.out or options.data_dir / "outputs")
    return open_engine(model=options.model, device=options.device, dtype=options.dtype, data_dir=options.data_dir, out=options.out)

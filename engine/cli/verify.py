"""`verify`: whether pictures are what their recipes give here and now."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.cli.flags import add_place_flags, engine_asked_for
from engine.cli.following import STOPPED, follow
from engine.errors import EngineError
from engine.pictures.encoding import encoded
from engine.pictures.outputs import day_folder, write_picture
from engine.replay.verifying import read_original, replay, verdict_of
from engine.running.engine import Engine


def define(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to those of the command line."""
    command = add_parser("verify", help="make pictures again from their own files, and say whether they are the same")
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG made by Darkroom")
    command.epilog = "The exit code is 0 only where all are identical. Of one that is not, a picture of the difference is written."
    add_place_flags(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Makes each picture again and tells of it in a line; returns 0 where all are identical, else 1."""
    well = True
    with engine_asked_for(options) as engine:
        folder = options.out or day_folder(engine.outputs)
        for file in options.images:
            try:
                told, sentences = _verified(engine, file, folder)
            except (EngineError, OSError) as error:
                reason = str(error) if isinstance(error, EngineError) else f"It cannot be read: {error.strerror or error}."
                told, sentences = {"identical": None}, (f"Not verified. {reason}",)
            well = well and told["identical"] is True
            tqdm.write(f"{file.name}: {' '.join(sentences)}", file=sys.stderr)
            tqdm.write(json.dumps({"path": str(file), **told}, ensure_ascii=False))
    return 0 if well else 1


def _verified(engine: Engine, file: Path, folder: Path) -> tuple[dict[str, Any], Sequence[str]]:
    """What is told of a picture, for JSON and in sentences; the picture of a difference is written into `folder`.

    Raises EngineError or OSError where it cannot be verified, KeyboardInterrupt when that was stopped.
    """
    original = read_original(file)
    job = replay(engine, original)
    if follow(engine, job, lambda *_: None) == STOPPED:
        raise KeyboardInterrupt
    verdict = verdict_of(original, job)
    told: dict[str, Any] = {"identical": verdict.identical, "changed": [asdict(change) for change in verdict.changes]}
    if (one := verdict.difference) is not None:
        path = write_picture(encoded(one.image, "PNG"), folder, f"{file.stem}-difference-{job.id}")
        told |= {"largest": one.largest, "mean": one.mean, "psnr": one.psnr, "part": one.part, "difference": str(path)}
    return told, verdict.sentences

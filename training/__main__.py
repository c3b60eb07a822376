"""`python -m training STAGE --profile NAME`: one stage, or all that are left; `python -m training evaluate` compares models."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineError

if TYPE_CHECKING:
    from training.work import Work

OUTPUTS = Path(__file__).resolve().parent.parent / "outputs" / "training"
STAGES = ("data", "scenes", "tokenizer", "vae", "latents", "diffusion", "tiny", "export")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when done, 1 after a sentence on what is wrong, 3 when the minutes ran out and there is more to do."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return options.run(options)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="STAGE")
    for name in (*STAGES, "all"):
        stage = commands.add_parser(name, help="every stage that is not done yet" if name == "all" else None)
        stage.set_defaults(run=_run_stages, stages=STAGES if name == "all" else (name,))
        _add_where(stage)
        stage.add_argument("--minutes", type=float, default=float("inf"), help="then keep a checkpoint and stop; run again to go on")
    adopted = commands.add_parser("adopt", help="go on from a finished model at `restart_at`, instead of from nothing; then run all")
    adopted.set_defaults(run=_run_adoption)
    adopted.add_argument("model", type=Path, metavar="MODEL", help="a diffusers folder of the profile's shape, such as presets/starter")
    _add_where(adopted)
    _add_evaluate(commands.add_parser("evaluate", help="scores and sample pages of one or two model folders"))
    return parser


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="cpu", help="a size of model in config.toml; default: cpu")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: training/config.toml")
    parser.add_argument("--work", type=Path, default=OUTPUTS, metavar="DIR", help="default: outputs/training")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_evaluation)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="diffusers folders; the first is the one in question")
    parser.add_argument("--profile", default="cpu", help="whose subjects and pictures are asked for; default: cpu")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: training/config.toml")
    parser.add_argument("--work", type=Path, default=OUTPUTS, metavar="DIR", help="where data is; default: outputs/training")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: outputs/training/evaluation")
    parser.add_argument("--prompts", type=int, default=100, help="of each kind; default: 100")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def _run_stages(options: argparse.Namespace) -> int:
    work = _work(options, time.monotonic() + 60 * options.minutes)
    for name in options.stages:
        start = time.monotonic()
        if len(options.stages) > 1 and work.is_done(name):
            continue
        finished = _stage(name)(work)
        _say(f"{name}: {time.monotonic() - start:,.0f} s")
        if finished is False:
            _say("the minutes are over; run the same command again to go on")
            return 3
        work.mark_done(name)
    return 0


def _run_adoption(options: argparse.Namespace) -> int:
    from training.adopt import adopt

    adopt(_work(options), options.model)
    return 0


def _run_evaluation(options: argparse.Namespace) -> int:
    from training.evaluate import evaluate

    out = options.out or options.work / "evaluation"
    evaluate(_work(options), options.models, out, options.prompts)
    return 0


def _work(options: argparse.Namespace, stop_at: float = float("inf")) -> Work:
    import torch

    from training import work
    from training.settings import CONFIG, load_config

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = load_config(options.config or CONFIG)
    config.profile(options.profile)
    folder = options.work / options.profile
    return work.Work(config, options.profile, options.work / "data", folder, torch.device(device), _say, stop_at, _processes())


def _stage(name: str) -> Callable[..., object]:
    from training import composing, diffusion, export, tiny, tokenizer, vae

    return {
        "data": _collect, "scenes": composing.compose_scenes, "tokenizer": tokenizer.learn_captions, "vae": vae.train_vae,
        "latents": vae.encode_scenes, "diffusion": diffusion.train_diffusion, "tiny": tiny.train_tiny, "export": export.export,
    }[name]  # fmt: skip


def _collect(work: Work) -> None:
    from training.data import collect
    from training.settings import load_sources

    manifest = collect(work.config, load_sources(), work.data, work.say)
    work.say(f"{len(manifest.subjects):,} subjects, {len(manifest.pictures):,} pictures; {len(manifest.failed)} failed")


def _processes() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(f"[training] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

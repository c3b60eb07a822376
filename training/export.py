"""The export stage: a diffusers folder that StableDiffusionPipeline loads, float16, safetensors only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from engine.errors import InvalidRequest
from training.diffusion import diffusion_run
from training.files import write_json
from training.loop import Network, Run
from training.networks import make_scheduler
from training.tiny import tiny_run
from training.tokenizer import load_tokenizer, save_tokenizer
from training.vae import folded_vae
from training.work import Work

TINY = "tiny_decoder"
"""Folder beside the VAE's; pipelines do not read it, `tiny_decoder` in presets/models.toml may name it."""

TRAINING, ADOPTED = "training.json", "adopted.json"
"""Where a model came from: in its folder; and, in a profile's, the one of the model that `adopt` went on from."""


def export(work: Work) -> Path:
    """Writes the EMA's weights to `model` in the profile's folder. Raises InvalidRequest where a training is not finished."""
    trained = diffusion_run(work)
    model = _finished(trained)
    tiny = _finished(tiny_run(work))
    tokenizer = load_tokenizer(work.file("tokenizer"))
    pipeline = StableDiffusionPipeline(
        vae=_as_kept(folded_vae(work)), text_encoder=_as_kept(model.text_encoder), tokenizer=tokenizer, unet=_as_kept(model.unet),
        # Its annotations name an enumeration for the scheduler, and do not say that the other two may be None.
        scheduler=make_scheduler(), safety_checker=None, feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )  # fmt: skip
    folder, beside = work.folder / "model", work.folder / ".model.part"
    shutil.rmtree(beside, ignore_errors=True)
    pipeline.save_pretrained(beside, safe_serialization=True)
    # transformers computes in the dtype of the file unless told otherwise, diffusers in float32: a pipeline needs one for all.
    _rewrite(beside / "text_encoder" / "config.json", dtype="float32")
    save_tokenizer(tokenizer, beside / "tokenizer")
    _as_kept(tiny).save_pretrained(beside / TINY, safe_serialization=True)
    # AutoencoderTiny saves a copy of another setting under this name, and warns of it whenever it is loaded again.
    _rewrite(beside / TINY / "config.json", block_out_channels=None)
    made = {"profile": work.name, "made_with": trained.made_with, "steps": trained.step, "seconds": round(trained.seconds)}
    if (work.folder / ADOPTED).exists():
        made["went_on_from"] = json.loads((work.folder / ADOPTED).read_text(encoding="utf-8"))
    write_json(beside / TRAINING, made)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    work.say(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 2**20:.1f} MiB")
    return folder


def _finished(run: Run[Network]) -> Network:
    if not run.finished:
        raise InvalidRequest(f"The stage {run.name} has done {run.step:,} of {run.schedule.steps:,} steps: run it again to finish it.")
    return run.averaged()


def _rewrite(config: Path, **settings: object) -> None:
    """Puts settings into a config; None takes one out of it."""
    changed = {**json.loads(config.read_text(encoding="utf-8")), **settings}
    write_json(config, {key: value for key, value in changed.items() if key not in settings or value is not None})


def _as_kept(network: Network) -> Network:
    """float16 on the CPU: half the size, and the weights lose nothing that shows."""
    torch.nn.Module.half(network.cpu())  # diffusers' own `half` warns of layers to be kept in float32, of which there are none
    return network

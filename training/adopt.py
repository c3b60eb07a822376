"""Going on from a finished model: its folder's weights take the place of the stages that would begin from nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from engine.errors import InvalidRequest
from training.diffusion import diffusion_run
from training.export import ADOPTED, TINY, TRAINING
from training.loop import Run
from training.networks import TextAndUnet
from training.tiny import tiny_run
from training.tokenizer import load_tokenizer, save_tokenizer
from training.vae import vae_run
from training.work import Work


def adopt(work: Work, model: Path) -> None:
    """Leaves the profile's folder as if `model`'s stages had been run: VAE, tokenizer and small decoder done, the rest at `restart_at`.

    The optimiser begins anew, which is what the warm restart's rising rate is for. Raises InvalidRequest for a folder that
    is no model, or one of another size than the profile, and where the profile's folder holds a training already.
    """
    checkpoints = [work.folder / f"{name}.pt" for name in ("vae", "diffusion", "tiny")]
    if begun := [file.name for file in checkpoints if file.exists()]:
        raise InvalidRequest(f"{work.folder} holds {', '.join(begun)} already: move them away to go on from {model} instead.")
    if missing := [name for name in ("model_index.json", TRAINING, TINY) if not (model / name).exists()]:
        raise InvalidRequest(f"{model} is no folder that the export stage wrote: it lacks {', '.join(missing)}.")
    trained = TextAndUnet(
        CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32, use_safetensors=True),
        UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32, use_safetensors=True),
    )
    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32, use_safetensors=True)
    tiny = AutoencoderTiny.from_pretrained(model / TINY, torch_dtype=torch.float32, use_safetensors=True)
    vae_training, tiny_training = vae_run(work), tiny_run(work)
    for run, weights in ((vae_training, vae), (tiny_training, tiny)):
        _take(run, weights, model)
        run.step = run.schedule.steps
    save_tokenizer(load_tokenizer(model / "tokenizer"), work.folder / "tokenizer")
    diffusion = diffusion_run(work)  # whose text encoder is as large as the tokenizer
    _take(diffusion, trained, model)
    diffusion.step = diffusion.schedule.restart_at
    for run in (vae_training, tiny_training, diffusion):
        run.save()
    work.mark_done("tokenizer")
    shutil.copy(model / TRAINING, work.folder / ADOPTED)
    left = diffusion.schedule.steps - diffusion.step
    work.say(f"{work.folder} goes on from {model}: {left:,} steps of the diffusion stage are left")


def _take(run: Run[Any], weights: nn.Module, model: Path) -> None:
    """The weights of another model of the same shape, and their average with them."""
    try:
        run.model.load_state_dict(weights.state_dict())
    except RuntimeError as error:
        raise InvalidRequest(f"{model} has another {run.name} network than the profile: take the profile that it was made with.") from error
    run.average = {name: value.detach().clone().float() for name, value in run.model.named_parameters()}

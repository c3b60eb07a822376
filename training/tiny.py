"""The tiny stage: a small decoder that imitates the VAE's, for previews."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from training.loop import Run, train
from training.networks import decoded, make_tiny
from training.vae import folded_vae
from training.work import Work, as_input


def train_tiny(work: Work) -> bool:
    """Whether it is finished. The encoder learns beside it, since an AutoencoderTiny is not whole without one."""
    run = tiny_run(work)
    vae, pixels, latents = folded_vae(work), work.array("scenes.npy"), work.array("latents.npy")

    def loss_of(step: int, draws: torch.Generator) -> torch.Tensor:
        rows = np.sort(torch.randint(len(latents), (run.schedule.batch,), generator=draws).numpy())
        given = torch.from_numpy(np.ascontiguousarray(latents[rows])).to(work.device).float()
        with torch.no_grad():
            shown = decoded(vae, given).float()
        drawn = decoded(run.model, given).float()
        encoded = run.model.encode(as_input(np.ascontiguousarray(pixels[rows]), work.device), return_dict=False)[0].float()
        return functional.mse_loss(drawn, shown) + 0.3 * functional.l1_loss(drawn, shown) + 0.1 * functional.mse_loss(encoded, given)

    return train(run, loss_of, work.say)


def tiny_run(work: Work) -> Run[AutoencoderTiny]:
    profile = work.profile
    torch.manual_seed(profile.tiny_training.seed)
    made_with = work.made_with(profile.vae, profile.vae_training, profile.tiny, profile.tiny_training)
    return Run("tiny", make_tiny(profile), profile.tiny_training, made_with, work.folder, work.device, work.stop_at)

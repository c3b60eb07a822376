"""The VAE stage, and the latents stage that follows it: every scene as the network will see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from training.files import load_checkpoint, save_checkpoint, write_whole
from training.loop import Run, compiled, train
from training.networks import decoded, latent_side, make_vae, posterior_of
from training.tokenizer import load_tokenizer
from training.work import Work, as_input

MEASURED = 4096
"""Scenes whose latents' mean and spread are taken for all: 4096 x 256 values a channel."""

ENCODED_AT_ONCE = 64
WHOLE_FROM = 0.75
"""Of the steps: from here whole pictures instead of crops, so that borders are learnt too."""


def train_vae(work: Work) -> bool:
    """Whether it is finished. Squared error first, which finds colours and places; absolute error and edges as they are found."""
    run = vae_run(work)
    settings, pixels = work.profile.vae_training, work.array("scenes.npy")
    encode, decode = compiled(_Half(run.model, "encode"), work.device), compiled(_Half(run.model, "decode"), work.device)

    def loss_of(step: int, draws: torch.Generator) -> torch.Tensor:
        done = step / settings.steps
        batch = as_input(_cropped(pixels, settings.batch, 0 if done >= WHOLE_FROM else settings.crop, draws), work.device)
        mean, log_variance = encode(batch).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)  # as diffusers' own posterior
        noise = torch.randn(mean.shape, generator=draws).to(work.device)
        shown = decode(mean + (0.5 * log_variance).exp() * noise)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return reconstruction_loss(shown.float(), batch, done) + settings.kl * divergence

    return train(run, loss_of, work.say)


class _Half(nn.Module):
    """One direction of a VAE as a module of its own, which can be compiled."""

    def __init__(self, vae: AutoencoderKL, direction: str):
        super().__init__()
        into, out = _latents_convolutions(vae)
        self.first, self.second = (vae.encoder, into) if direction == "encode" else (out, vae.decoder)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(batch))


def vae_run(work: Work) -> Run[AutoencoderKL]:
    profile = work.profile
    torch.manual_seed(profile.vae_training.seed)
    made_with = work.made_with(profile.vae, profile.vae_training)
    return Run("vae", make_vae(profile), profile.vae_training, made_with, work.folder, work.device, work.stop_at)


def reconstruction_loss(shown: torch.Tensor, wanted: torch.Tensor, done: float) -> torch.Tensor:
    """4 MSE + (0.3 to 1) L1 + (0 to 0.3) L1 of the differences of neighbours, as training goes on from 0 to 1."""
    edges = sum(functional.l1_loss(shown.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3))
    return 4 * functional.mse_loss(shown, wanted) + (0.3 + 0.7 * done) * functional.l1_loss(shown, wanted) + 0.3 * done * edges


def encode_scenes(work: Work) -> None:
    """Writes the folded VAE, latents.npy # (N, C, h, w) float16 and tokens.npy # (N, wordings, T) int16."""
    run = vae_run(work)
    vae, pixels = run.averaged(), work.array("scenes.npy")
    fold_spread(vae, _encoded(vae, pixels[:MEASURED], work.device))
    error = _mean_error(vae, pixels[: ENCODED_AT_ONCE * 4], work.device)
    work.say(f"vae: {10 * np.log10(4 / error):.1f} dB on training scenes")  # pixels span 2, so the peak's square is 4
    save_checkpoint(work.folder / "vae-folded.pt", {"made_with": run.made_with, "model": vae.state_dict()})
    side, channels = latent_side(work.profile), work.profile.vae.latent_channels
    latents = np.lib.format.open_memmap(work.folder / ".latents.part.npy", "w+", np.float16, (len(pixels), channels, side, side))
    for start in range(0, len(pixels), ENCODED_AT_ONCE):
        latents[start : start + ENCODED_AT_ONCE] = _encoded(vae, pixels[start : start + ENCODED_AT_ONCE], work.device).numpy()
    latents.flush()
    (work.folder / ".latents.part.npy").replace(work.folder / "latents.npy")
    _tokenize(work)
    work.say(f"{len(pixels):,} latents of {channels} x {side} x {side}")


def folded_vae(work: Work) -> AutoencoderKL:
    """The trained VAE whose latents have mean 0 and spread 1. Raises InvalidRequest where there is none."""
    kept = load_checkpoint(work.file("vae-folded.pt"), work.made_with(work.profile.vae, work.profile.vae_training))
    assert kept is not None, "work.file has looked for it"
    vae = make_vae(work.profile)
    vae.load_state_dict(kept["model"])
    nn.Module.to(vae, work.device)  # diffusers' own `to` is wrapped so that no checker sees its arguments
    return vae.eval()


@torch.no_grad()
def fold_spread(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Makes each channel's mean 0 and spread 1 by its 1 x 1 convolutions, exactly; what it decodes stays the same."""
    mean, spread = latents.float().mean((0, 2, 3)), latents.float().std((0, 2, 3))
    mean, spread = mean.to(vae.device), spread.to(vae.device)
    channels = len(mean)
    into, out = _latents_convolutions(vae)
    assert into.bias is not None
    assert out.bias is not None
    into.weight[:channels] /= spread.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / spread
    into.bias[channels:] -= 2 * spread.log()  # the second half is the logarithm of the variance
    out.bias += (out.weight[:, :, 0, 0] * mean).sum(1)
    out.weight *= spread.view(1, -1, 1, 1)


def _latents_convolutions(vae: AutoencoderKL) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The 1 x 1 convolutions that latents leave the encoder by, and enter the decoder by."""
    assert vae.quant_conv is not None, "make_vae makes both"
    assert vae.post_quant_conv is not None
    return vae.quant_conv, vae.post_quant_conv


@torch.no_grad()
def _encoded(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """Means of the latents, on the CPU. # (n, C, h, w) float16"""
    starts = range(0, len(pixels), ENCODED_AT_ONCE)
    return torch.cat(
        [posterior_of(vae, as_input(pixels[at : at + ENCODED_AT_ONCE].copy(), device)).mean.half().cpu() for at in starts]
    )


@torch.no_grad()
def _mean_error(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device) -> float:
    batch = as_input(pixels.copy(), device)
    return functional.mse_loss(decoded(vae, posterior_of(vae, batch).mean).clamp(-1, 1), batch).item()


def _cropped(pixels: np.ndarray, batch: int, crop: int, draws: torch.Generator) -> np.ndarray:
    """Scenes drawn at random, cut to one random square of `crop` pixels; 0 leaves them whole."""
    found = pixels[np.sort(torch.randint(len(pixels), (batch,), generator=draws).numpy())]
    if not crop:
        return np.ascontiguousarray(found)
    top, left = torch.randint(pixels.shape[1] - crop + 1, (2,), generator=draws).tolist()
    return np.ascontiguousarray(found[:, top : top + crop, left : left + crop])


def _tokenize(work: Work) -> None:
    """tokens.npy, its last row the empty prompt's in all wordings."""
    tokenizer, said = load_tokenizer(work.file("tokenizer")), work.captions()
    flat = [caption for scene in said for caption in scene] + [""] * len(said[0])
    ids = tokenizer(flat, padding="max_length", max_length=work.profile.text.tokens, truncation=True, return_tensors="np").input_ids
    tokens = ids.astype(np.int16).reshape(len(said) + 1, len(said[0]), -1)
    write_whole(work.folder / "tokens.npy", lambda beside: _save_array(beside, tokens))


def _save_array(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as stream:
        np.save(stream, array)

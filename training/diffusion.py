"""The diffusion stage: text encoder and U-Net, from nothing, together."""

from __future__ import annotations

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor

from training.loop import Run, compiled, train
from training.networks import TextAndUnet, make_scheduler, make_text_encoder, make_unet
from training.questions import known_codes
from training.scenes import Stage
from training.settings import DiffusionTraining
from training.tokenizer import load_tokenizer
from training.work import Work


def train_diffusion(work: Work) -> bool:
    """Whether it is finished."""
    run = diffusion_run(work)
    loss = DiffusionLoss(
        run.model,
        torch.from_numpy(np.array(work.array("latents.npy"))),
        torch.from_numpy(np.array(work.array("tokens.npy"))),
        work.profile.diffusion,
        work.device,
        scenes_in_turn(work.stage(), work.profile.scenes, work.profile.diffusion),
    )
    return train(run, loss, work.say)


def scenes_in_turn(stage: Stage, scenes: int, settings: DiffusionTraining) -> torch.Tensor:
    """Rows of scenes to draw from, each as often as its subject (alone, or the first of two) and its style come round. # (rows,) int64"""
    known = known_codes(stage)

    def times(row: int) -> int:
        shown = stage.picture(stage.scene(row).parts[0])
        return (settings.known_times if shown.code in known else 1) * settings.style_times.get(shown.style, 1)

    return torch.tensor([row for row in range(scenes) for _ in range(times(row))])


def diffusion_run(work: Work) -> Run[TextAndUnet]:
    profile = work.profile
    torch.manual_seed(profile.diffusion.seed)
    tokenizer = load_tokenizer(work.file("tokenizer"))
    model = TextAndUnet(make_text_encoder(profile, tokenizer), make_unet(profile))
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub leaves this one out; it is what convolutions in bfloat16 are fastest with
    made_with = work.made_with(profile.vae, profile.vae_training, profile.text, profile.unet, profile.diffusion)
    return Run("diffusion", model, profile.diffusion, made_with, work.folder, work.device, work.stop_at)


class DiffusionLoss:
    """The v-prediction loss of a step. Latents and tokens stay on the device; the last row of tokens is the empty prompt.

    `rows` are the scenes to draw from, alike often.
    """

    def __init__(
        self,
        model: TextAndUnet,
        latents: torch.Tensor,
        tokens: torch.Tensor,
        settings: DiffusionTraining,
        device: torch.device,
        rows: torch.Tensor,
    ):
        self._rows = rows
        self._latents, self._tokens = latents.to(device), tokens.to(device)
        self._settings, self._device = settings, device
        self._alphas = make_scheduler().alphas_cumprod.to(device)
        if device.type == "cpu":  # a tenth faster a step: in bfloat16 fused attention's backward pass is slow there
            model.unet.set_attn_processor(AttnProcessor())
            model.text_encoder.set_attn_implementation("eager")
        self._text, self._unet = compiled(model.text_encoder, device), compiled(model.unet, device)

    def __call__(self, step: int, draws: torch.Generator) -> torch.Tensor:
        batch = self._settings.batch
        rows = self._rows[torch.randint(len(self._rows), (batch,), generator=draws)]
        wordings = torch.randint(self._tokens.shape[1], (batch,), generator=draws)
        dropped = torch.rand(batch, generator=draws) < self._settings.caption_dropout
        times = stratified_times(batch, len(self._alphas), draws).to(self._device)
        latents = self._latents[rows.to(self._device)].float()
        noise = noise_for(latents, draws)
        rows = torch.where(dropped, len(self._tokens) - 1, rows)
        text = self._text(self._tokens[rows.to(self._device), wordings.to(self._device)].long()).last_hidden_state
        alpha = self._alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        error = (self._unet(noisy, times, text).sample.float() - wanted).square().mean((1, 2, 3))
        return (error * min_snr_weights(self._alphas[times], self._settings.min_snr)).mean()


def stratified_times(batch: int, times: int, draws: torch.Generator) -> torch.Tensor:
    """One timestep from each of `batch` equal parts of the schedule, in random order: every batch sees all noise levels."""
    shares = (torch.randperm(batch, generator=draws) + torch.rand(batch, generator=draws)) / batch
    return (shares * times).long().clamp(max=times - 1)


def min_snr_weights(alphas: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR + 1, gamma) / (SNR + 1): 1 in noise, less where little noise is left.

    arXiv:2303.09556 gives min(SNR, gamma) / (SNR + 1) for v-prediction, which all but leaves out the steps in noise (0.01
    at t = 900). In latents this small they are where a prompt decides what is drawn, so they keep the v-loss's own weight.
    """
    snr = alphas / (1 - alphas)
    return (snr + 1).clamp(max=gamma) / (snr + 1)


def noise_for(latents: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Noise on the latents' own device: on CUDA from a generator there, seeded by the step's."""
    if latents.device.type == "cpu":
        return torch.randn(latents.shape, generator=draws)
    seed = int(torch.randint(2**31, (1,), generator=draws))
    return torch.randn(latents.shape, generator=torch.Generator(latents.device).manual_seed(seed), device=latents.device)

"""Family: what a kind of model must offer. Denoiser, TorchDevice, loading and previewers know this much of it, and no more.

engine.diffusion.stable_diffusion is one; its row in engine.diffusion.loading.FAMILIES lets a model be loaded by it, and the row of
the same name in engine.recipes.families says without torch what its images ask of a network call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from PIL import Image

from engine.recipes.families import Needs
from engine.recipes.recipe import Recipe
from engine.running.device import TokenCount

Conditioning = Mapping[str, torch.Tensor]
"""What a network is told beside latents and timesteps, by names of the family's own: tensors of one row each, or of a call's rows."""


@dataclass(frozen=True)
class Conditions:
    """What an image's network calls need, the same for each of its steps."""

    needs: Needs[Any]
    """What the family's row in engine.recipes.families says of the recipe. A `group` may tell more images apart than is known there."""
    rows: tuple[Conditioning, ...]
    """For each of `needs.rows`, in their order: tensors that can be stacked with those of any image of the same group, (1, ...)."""
    scales: tuple[float, ...] = ()
    """Numbers that `combine` joins the image's rows with."""


@dataclass(frozen=True)
class Traits:
    """What is to be known of a loaded model."""

    latent_channels: int
    scale: int
    """Pixels a latent, along one side."""
    latent_rgb: Sequence[Sequence[float]] | None = None
    """A published linear map of its latents, as ModelSpec.latent_rgb; one is fitted where None."""

    def latent_shape(self, recipe: Recipe) -> tuple[int, int, int]:
        """(C, h, w) of a recipe's latents."""
        return self.latent_channels, recipe.height // self.scale, recipe.width // self.scale


class Family(Protocol):
    """A loaded model. All but `count_tokens` is called by one thread, and within torch.inference_mode."""

    parts: ClassVar[Sequence[str]]
    """The folders of a model that `read` reads, that of the network itself first; beside them it reads model_index.json only."""
    device: torch.device
    dtype: torch.dtype
    """The network's; what it takes and gives is float32."""
    traits: Traits

    @classmethod
    def read(cls, folder: Path, variant: str | None, device: torch.device, dtype: torch.dtype) -> Self:
        """The model in a diffusers folder, in eval mode on `device`; weights of diffusers' variant ("fp16") where there are some.

        Raises Unfit with what is wrong with the folder, or whatever reading damaged files raises.
        """
        ...

    def networks(self) -> Mapping[str, torch.nn.Module]:
        """All that holds weights, by name."""
        ...

    def scheduler(self, recipe: Recipe) -> Any:
        """A fresh scheduler of the recipe's row, set to its steps, for this image alone. Raises InvalidRequest.

        It has what diffusers' schedulers share: timesteps (on the CPU), init_noise_sigma, scale_model_input and step; and sigmas where
        its row's noise is "seed".
        """
        ...

    def conditions(self, recipe: Recipe) -> Conditions:
        """What the recipe's words mean to the network. Raises InvalidRequest."""
        ...

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """One network call: (B, C, h, w) scaled latents at B timesteps (float32) -> (B, C, h, w) prediction, float32."""
        ...

    def combine(self, output: torch.Tensor, scales: torch.Tensor, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The prediction (1, C, h, w) of each image of a call, of `output` (B, C, h, w), what `predict` gave.

        `rows` are each image's places in it, in the order of its conditions; images may share some. `scales` (n) are all that the
        images' conditions have, one image's after the other's.
        """
        ...

    def x0(self, scheduler: Any, prediction: torch.Tensor, timestep: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        """The clean latents that the network now believes in, of one image's combined prediction. # (1, C, h, w)

        `model_input` is what the network was shown, `timestep` one of the scheduler's.
        """
        ...

    def encode_image(self, image: Image.Image, generator: torch.Generator | None = None) -> torch.Tensor:
        """A picture's latents, in the network's space: the likeliest ones, or with a CPU generator some drawn by it. # (1, C, h, w) float32

        Raises SpoiltPicture where the encoder gives no numbers, and ValueError where the picture's sides are no multiples of `scale`.
        """
        ...

    def decode(self, latents: torch.Tensor, tiles: int = 1) -> Image.Image:
        """The picture of one image's latents (1, C, h, w), in so many tiles along a side. Raises SpoiltPicture on NaN."""
        ...

    def decode_pixels(self, latents: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """Latents through the full decoder as it is. # (B, 3, H, W), about [-1, 1]"""
        ...

    def count_tokens(self, text: str) -> TokenCount:
        """How much of its text limit a prompt takes. From any thread."""
        ...

"""Family: how a kind of model encodes a prompt, calls its network, and scales and decodes its latents.

A new kind of model is one class here; the denoiser does not change. What a family must offer is what
StableDiffusion's public methods are; conditioning is a mapping of tensors with one row each, which the
denoiser only stacks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from PIL import Image

from engine.diffusion.prompts import TokenCounter
from engine.errors import InvalidRequest, SpoiltPicture
from engine.recipes.recipe import Recipe

Conditioning = Mapping[str, torch.Tensor]

CACHED_PROMPTS = 256
"""Encoded texts kept; 77 x 768 float32 is 0.23 MB, so at most 60 MB for Stable Diffusion 1.x."""


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, epsilon or v-prediction."""

    def __init__(self, pipeline: Any, device: torch.device):
        """Takes a diffusers pipeline's components, in the dtype they were read in, to `device`."""
        self.device, self.dtype = device, pipeline.unet.dtype
        # A copy, taken now: building other schedulers from a scheduler's config would leak options into them.
        self.scheduler_config = dict(pipeline.scheduler.config)
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.unet = pipeline.unet.to(device, memory_format=memory_format).eval()
        self.vae = pipeline.vae.to(device, memory_format=memory_format).eval()
        self.text_encoder = pipeline.text_encoder.to(device).eval()
        self.tokens = TokenCounter(pipeline.tokenizer)
        self._use_attention_mask = getattr(pipeline.text_encoder.config, "use_attention_mask", False)
        self._encoded: OrderedDict[tuple[str, int], Conditioning] = OrderedDict()
        self.latent_channels: int = self.unet.config.in_channels
        self.scale: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        """Pixels a latent, along one side."""

    def latent_shape(self, recipe: Recipe) -> tuple[int, int, int]:
        return self.latent_channels, recipe.height // self.scale, recipe.width // self.scale

    def encode(self, text: str, clip_skip: int = 1) -> Conditioning:
        """The text's conditioning, one row, from layer `clip_skip` of the text encoder; 1 is its last.

        The last CACHED_PROMPTS results are kept. Raises InvalidRequest when the encoder has fewer layers.
        """
        key = text, clip_skip
        if key not in self._encoded:
            self._encoded[key] = {"encoder_hidden_states": self._encode(text, clip_skip)}
        self._encoded.move_to_end(key)
        while len(self._encoded) > CACHED_PROMPTS:
            self._encoded.popitem(last=False)
        return self._encoded[key]

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """One network call: (B, C, h, w) latents at B timesteps -> (B, C, h, w) prediction, float32."""
        prediction = self.unet(model_input.to(self.dtype), timesteps, **conditioning, return_dict=False)[0]
        return prediction.float()

    def decode(self, latents: torch.Tensor, tiles: int = 1) -> Image.Image:
        """The picture of one image's latents (1, C, h, w). Raises SpoiltPicture on NaN.

        Decoders that overflow in half precision are tried again in float32: for this picture only, since what the others
        give in half precision must not depend on the company they are in.
        """
        pixels = self.decode_pixels(latents, tiles)
        if self.vae.dtype != torch.float32 and not _all_finite(pixels) and _all_finite(latents):
            half = self.vae.dtype
            try:
                self.vae.to(torch.float32)
                pixels = self.decode_pixels(latents, tiles)
            finally:
                self.vae.to(half)  # no bit is lost: they were half precision before
        if not _all_finite(pixels):
            raise SpoiltPicture("The decoder gave no numbers (NaN): try another scheduler, a lower CFG scale, or --dtype float32.")
        return to_image(pixels)

    def decode_pixels(self, latents: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """Latents through the full decoder. # (B, 3, H, W), about [-1, 1]

        `tiles` along a side, overlapping and blended, take less memory than the whole, and give nearly the same pixels.
        """
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        if tiles == 1:
            return self.vae.decode(scaled, return_dict=False)[0]
        usual = self.vae.tile_latent_min_size, self.vae.tile_sample_min_size
        side = 4 * math.ceil(max(scaled.shape[-2:]) / tiles / 4)  # a quarter of it is the overlap: in whole latents
        try:
            self.vae.enable_tiling()
            self.vae.tile_latent_min_size, self.vae.tile_sample_min_size = side, side * self.scale
            return self.vae.decode(scaled, return_dict=False)[0]
        finally:
            self.vae.disable_tiling()
            self.vae.tile_latent_min_size, self.vae.tile_sample_min_size = usual

    def _encode(self, text: str, clip_skip: int) -> torch.Tensor:
        layers = self.text_encoder.config.num_hidden_layers
        if clip_skip > layers:
            limit = f"at most {layers} with this model, whose text encoder has no more layers"
            raise InvalidRequest(f"CLIP skip must be {limit}; it was {clip_skip}.")
        ids, mask = (part.to(self.device) for part in self.tokens.padded(text))
        mask = mask if self._use_attention_mask else None
        if clip_skip == 1:
            return self.text_encoder(ids, attention_mask=mask)[0].to(self.dtype)  # (1, T, d)
        # The embeddings and then each layer's output, all of them before the final norm.
        hidden_states = self.text_encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return self.text_encoder.final_layer_norm(hidden_states[-clip_skip]).to(self.dtype)  # (1, T, d)


FAMILIES = {"sd": StableDiffusion}


def _all_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(1, 3, H, W) in [-1, 1] as an RGB image, rounded as diffusers' VaeImageProcessor rounds."""
    unit = (pixels / 2 + 0.5).clamp(0, 1)
    array = unit[0].detach().cpu().permute(1, 2, 0).float().numpy()  # (H, W, 3)
    return Image.fromarray((array * 255).round().astype(numpy.uint8))

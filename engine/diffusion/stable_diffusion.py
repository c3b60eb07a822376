"""Stable Diffusion 1.x and 2.x, as a Family."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from engine.diffusion import guidance, schedule
from engine.diffusion.family import Conditioning, Conditions, Traits
from engine.diffusion.inspection import Network, Unfit, check_scheduler, check_weights, inspect_folder
from engine.diffusion.pixels import to_image, to_pixels
from engine.diffusion.prompts import TokenCounter
from engine.errors import InvalidRequest, SpoiltPicture
from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe
from engine.running.device import TokenCount

NETWORKS = {
    "text_encoder": Network("model", {"CLIPTextModel"}),
    "unet": Network("diffusion_pytorch_model", {"UNet2DConditionModel"}),
    "vae": Network("diffusion_pytorch_model"),
}
"""Of a Stable Diffusion folder."""

FROM_TEXT_ALONE: Mapping[str, set[str | int | None]] = {
    "class_embed_type": {None}, "num_class_embeds": {None}, "addition_embed_type": {None, "text"},
    "encoder_hid_dim_type": {None, "text_proj"}, "time_cond_proj_dim": {None},
}  # fmt: skip
"""Settings of a UNet that wants to be told nothing more than a text; the last is the guidance of distilled ones (LCM)."""

PUBLISHED_RGB = {
    (0.18215, (128, 256, 512, 512)): ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473)),
}
"""(scaling factor, widths) of a decoder -> the linear map of its latents, as ModelSpec.latent_rgb. All of Stable Diffusion
1.x and 2.x share one space, whatever their decoders were taught later. Keturn, "Decoding latents to RGB without upscaling",
discuss.huggingface.co/t/23204: rows L1 to L4 of SD 1.4's VAE."""

CACHED_PROMPTS = 256
"""Encoded texts kept; 77 x 768 float32 is 0.23 MB, so at most 60 MB for Stable Diffusion 1.x."""


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, epsilon or v-prediction. What a method is for is said in Family."""

    parts: ClassVar[Sequence[str]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(self, pipeline: Any, device: torch.device):
        """Takes a diffusers pipeline's components, in the dtype they were read in, to `device`."""
        self.device, self.dtype = device, pipeline.unet.dtype
        # A copy, taken now: building other schedulers from a scheduler's config would leak options into them.
        self._scheduler_config = dict(pipeline.scheduler.config)
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.unet = pipeline.unet.to(device, memory_format=memory_format).eval()
        self.vae = pipeline.vae.to(device, memory_format=memory_format).eval()
        self.text_encoder = pipeline.text_encoder.to(device).eval()
        self.tokens = TokenCounter(pipeline.tokenizer)
        self._use_attention_mask = getattr(pipeline.text_encoder.config, "use_attention_mask", False)
        self._encoded: OrderedDict[tuple[str, int], Conditioning] = OrderedDict()
        self.traits = traits_of(self.vae)

    @classmethod
    def read(cls, folder: Path, variant: str | None, device: torch.device, dtype: torch.dtype) -> Self:
        from diffusers import StableDiffusionPipeline

        if not any((folder / "tokenizer").glob("*")):
            raise Unfit("it has no tokenizer. Copy the whole folder again")
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=inspect_folder(folder, NETWORKS, variant),
            use_safetensors=True,  # never unpickle somebody's file
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        check_parts(pipeline)
        check_weights({part: getattr(pipeline, part) for part in NETWORKS})
        return cls(pipeline, device)

    def networks(self) -> Mapping[str, torch.nn.Module]:
        return {part: getattr(self, part) for part in NETWORKS}

    def scheduler(self, recipe: Recipe) -> Any:
        return schedule.build(recipe.scheduler, self._scheduler_config, recipe.steps, recipe.seed)

    def conditions(self, recipe: Recipe) -> Conditions:
        needs = classifier_free(recipe)
        rows = tuple(self.encode(row.text, row.clip_skip) for row in needs.rows)
        return Conditions(needs, rows, (recipe.guidance_scale,) if recipe.guided else ())

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
        prediction = self.unet(model_input.to(self.dtype), timesteps, **conditioning, return_dict=False)[0]
        return prediction.float()

    def combine(self, output: torch.Tensor, scales: torch.Tensor, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return guidance.classifier_free(output, scales, rows)

    def x0(self, scheduler: Any, prediction: torch.Tensor, timestep: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        return schedule.predict_x0(scheduler, prediction, timestep, model_input)

    def encode_image(self, image: Image.Image, generator: torch.Generator | None = None) -> torch.Tensor:
        if image.width % self.traits.scale or image.height % self.traits.scale:
            raise ValueError(f"a picture's sides must be multiples of {self.traits.scale}; it was {image.width} x {image.height}")
        pixels = to_pixels(image).to(self.device)
        found = self._through_vae(lambda: self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.parameters)
        if not _all_finite(found):
            raise SpoiltPicture("The encoder gave no numbers (NaN): try --dtype float32.")
        believed = DiagonalGaussianDistribution(found)
        latents = believed.mode() if generator is None else believed.sample(generator)
        return (self.vae.config.scaling_factor * latents).float()

    def decode(self, latents: torch.Tensor, tiles: int = 1) -> Image.Image:
        pixels = self._through_vae(lambda: self.decode_pixels(latents, tiles))
        if not _all_finite(pixels):
            raise SpoiltPicture("The decoder gave no numbers (NaN): try another scheduler, a lower CFG scale, or --dtype float32.")
        return to_image(pixels)

    def decode_pixels(self, latents: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """Tiles overlap and are blended: they take less memory than the whole, and give nearly the same pixels."""
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        if tiles == 1:
            return self.vae.decode(scaled, return_dict=False)[0]
        usual = self.vae.tile_latent_min_size, self.vae.tile_sample_min_size
        side = 4 * math.ceil(max(scaled.shape[-2:]) / tiles / 4)  # a quarter of it is the overlap: in whole latents
        try:
            self.vae.enable_tiling()
            self.vae.tile_latent_min_size, self.vae.tile_sample_min_size = side, side * self.traits.scale
            return self.vae.decode(scaled, return_dict=False)[0]
        finally:
            self.vae.disable_tiling()
            self.vae.tile_latent_min_size, self.vae.tile_sample_min_size = usual

    def count_tokens(self, text: str) -> TokenCount:
        return self.tokens.count(text)

    def _through_vae(self, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `run` gives; tried again in float32 where that overflows in half precision: for this picture only, since what the
        others give in half precision must not depend on the company they are in."""
        found, half = run(), self.vae.dtype
        if half == torch.float32 or _all_finite(found):
            return found
        try:
            self.vae.to(torch.float32)
            return run()
        finally:
            self.vae.to(half)  # no bit is lost: they were half precision before

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


def traits_of(vae: Any) -> Traits:
    """What a VAE's config says."""
    widths = tuple(vae.config.block_out_channels)
    return Traits(vae.config.latent_channels, 2 ** (len(widths) - 1), PUBLISHED_RGB.get((vae.config.scaling_factor, widths)))


def check_parts(pipeline: Any) -> None:
    """Raises Unfit where a loaded pipeline's parts do not belong together, or are of a kind that is not drawn with."""
    unet, vae, encoder, tokenizer = pipeline.unet, pipeline.vae, pipeline.text_encoder.config, pipeline.tokenizer
    if asked := [key for key, allowed in FROM_TEXT_ALONE.items() if unet.config.get(key) not in allowed]:
        raise Unfit(f"its network asks for more than a text and CFG ({', '.join(asked)}), which is not supported yet")
    channels = {unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels}
    if len(channels) > 1:
        raise Unfit(
            f"its network takes {unet.config.in_channels} channels and gives {unet.config.out_channels}, and its VAE has"
            f" {vae.config.latent_channels}: only models that draw from a text alone are supported, not those that fill in pictures"
        )
    width = unet.config.encoder_hid_dim or unet.config.cross_attention_dim
    if isinstance(width, int) and width != encoder.hidden_size:
        raise Unfit(f"its network reads texts {width:,} wide, and its text encoder's are {encoder.hidden_size:,}")
    scale = vae.config.scaling_factor
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise Unfit(f"its VAE's scaling_factor is {str(scale)[:40]}")
    if len(tokenizer) > encoder.vocab_size or tokenizer.model_max_length > encoder.max_position_embeddings:
        raise Unfit("its tokenizer is not the one of its text encoder")
    check_scheduler(pipeline.scheduler)


def _all_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())

"""The networks of a profile, with random weights, in diffusers' and transformers' own classes."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.settings import Profile


def make_vae(profile: Profile) -> AutoencoderKL:
    """Without attention: a picture's far ends have nothing to tell each other at this size. `scaling_factor` is 1."""
    settings = profile.vae
    sizes = len(settings.channels)
    return AutoencoderKL(  # whose annotations say tuple[int], a tuple of one, where they mean tuple[int, ...]
        block_out_channels=settings.channels,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * sizes,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * sizes,  # pyright: ignore[reportArgumentType]
        latent_channels=settings.latent_channels, layers_per_block=settings.layers, norm_num_groups=settings.groups,
        sample_size=profile.size, mid_block_add_attention=False, scaling_factor=1.0,
    )  # fmt: skip


def latent_side(profile: Profile) -> int:
    return profile.size // 2 ** (len(profile.vae.channels) - 1)


def make_unet(profile: Profile) -> UNet2DConditionModel:
    """`pooled_text` is what DeepFloyd IF does: an attention pooling of the prompt's states; pipelines need nothing more for it."""
    settings = profile.unet
    down = tuple("CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in settings.attention)
    up = tuple("CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(settings.attention))
    return UNet2DConditionModel(
        sample_size=latent_side(profile), in_channels=profile.vae.latent_channels, out_channels=profile.vae.latent_channels,
        block_out_channels=settings.channels, layers_per_block=settings.layers,
        attention_head_dim=settings.heads,  # pyright: ignore[reportArgumentType] - as in make_vae
        down_block_types=down, up_block_types=up, cross_attention_dim=profile.text.width, norm_num_groups=settings.groups,
        use_linear_projection=True, addition_embed_type="text" if settings.pooled_text else None,
        addition_embed_type_num_heads=profile.text.heads,
    )  # fmt: skip


def make_text_encoder(profile: Profile, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    settings = profile.text
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=settings.width, intermediate_size=4 * settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, max_position_embeddings=settings.tokens, projection_dim=settings.width, hidden_act="gelu",
        # The ids of single tokens, which transformers' annotations do not tell from those of several.
        bos_token_id=tokenizer.bos_token_id,  # pyright: ignore[reportArgumentType]
        eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    return CLIPTextModel(config)


class TextAndUnet(nn.Module):
    """What the diffusion stage trains: a text encoder and a U-Net, together."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel):
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet


def posterior_of(vae: AutoencoderKL, pictures: torch.Tensor) -> DiagonalGaussianDistribution:
    """What a VAE makes of pictures: the distribution of their latents."""
    return vae.encode(pictures, return_dict=False)[0]


def decoded(decoder: AutoencoderKL | AutoencoderTiny, latents: torch.Tensor) -> torch.Tensor:
    """What a decoder makes of latents. # (n, C, h, w) -> (n, 3, H, W)"""
    return decoder.decode(latents, return_dict=False)[0]  # pyright: ignore[reportArgumentType] - it takes any tensor, not FloatTensor alone


def make_tiny(profile: Profile) -> AutoencoderTiny:
    """As deep as the VAE, and much narrower: as many sizes, each of `channels`."""
    sizes = len(profile.vae.channels)
    channels = (profile.tiny.channels,) * sizes
    blocks = (profile.tiny.blocks,) * sizes
    return AutoencoderTiny(
        encoder_block_out_channels=channels, decoder_block_out_channels=channels, latent_channels=profile.vae.latent_channels,
        num_encoder_blocks=blocks, num_decoder_blocks=blocks,
    )  # fmt: skip


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1's noise schedule, with v-prediction (arXiv:2202.00512)."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip

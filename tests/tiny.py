"""Stable Diffusion at a size that runs in milliseconds: the real classes, random weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.diffusion.stable_diffusion import StableDiffusion
from tests.conftest import STARTER
from tests.engine.diffusion.rules import loaded, read_config

SIZE = 32
"""Pixels: 16 x 16 latents at f=2."""

CONFIG_OF = {"epsilon": "sd15", "v_prediction": "sd21"}
"""The scheduler_config.json of a model that predicts so."""


def make_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """The scheduler is read from a file that Stable Diffusion was published with; the tokenizer is the embedded model's."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(STARTER / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), in_channels=3, out_channels=3, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIZE,
    )  # fmt: skip
    scheduler = loaded(read_config(CONFIG_OF[prediction_type]))
    pipeline = StableDiffusionPipeline(
        vae, text_encoder.eval(), tokenizer, unet.eval(), scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def read_pipeline(folder) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def family_of(pipeline: StableDiffusionPipeline) -> StableDiffusion:
    """Once for each pipeline, before a test gives it another scheduler."""
    return StableDiffusion(pipeline, torch.device("cpu"))

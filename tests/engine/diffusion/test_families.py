"""Families: what the text encoder reads, and what of it is kept."""

from __future__ import annotations

import copy

import pytest
import torch

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.families import StableDiffusion
from engine.errors import InvalidRequest
from engine.recipes.recipe import Recipe
from tests.tiny import SIZE, family_of, make_pipeline


@pytest.fixture
def family() -> StableDiffusion:
    """Two layers of text encoder, and nothing encoded yet."""
    return family_of(make_pipeline())


def encoded(family: StableDiffusion, text: str, clip_skip: int) -> torch.Tensor:
    with torch.inference_mode():
        return family.encode(text, clip_skip)["encoder_hidden_states"]


def test_clip_skip_two_is_an_encoder_without_its_last_layer(starter_family):
    shorter = copy.deepcopy(starter_family.text_encoder)
    shorter.encoder.layers = shorter.encoder.layers[:-1]
    with torch.inference_mode():
        expected = shorter(starter_family.tokens.padded("an owl, noto style")[0])[0]
    assert torch.equal(encoded(starter_family, "an owl, noto style", 2), expected)


def test_without_a_skip_the_last_layer_is_read(family):
    with torch.inference_mode():
        expected = family.text_encoder(family.tokens.padded("an owl")[0])[0]
        assert torch.equal(family.encode("an owl")["encoder_hidden_states"], expected)
    assert torch.equal(encoded(family, "an owl", 1), expected)


def test_what_is_kept_of_one_skip_is_not_given_for_another(family):
    first, second = (encoded(family, "an owl", clip_skip) for clip_skip in (1, 2))
    assert not torch.equal(first, second)
    assert encoded(family, "an owl", 1) is first
    assert encoded(family, "an owl", 2) is second


@pytest.mark.parametrize("clip_skip", [3, 12])
def test_more_layers_than_the_encoder_has_are_refused_when_an_image_is_begun(family, clip_skip):
    denoiser = Denoiser(family)
    with pytest.raises(InvalidRequest, match=rf"^CLIP skip must be at most 2 with this model, .*; it was {clip_skip}\.$"):
        denoiser.admit("it", Recipe(steps=2, width=SIZE, height=SIZE, clip_skip=clip_skip))
    assert len(denoiser) == 0


@pytest.mark.parametrize("masked", [True, False, None])
@pytest.mark.parametrize("pad", ["eos", "!"])
@pytest.mark.parametrize("text", ["", "an owl", "an owl! in a tree!!", "owl " * 200])
def test_a_text_is_read_as_diffusers_reads_it(text, pad, masked):
    """`use_attention_mask` hides the padding, not what looks like it: with Stable Diffusion's tokenizers that is the end mark or "!"."""
    pipeline = make_pipeline()
    if pad == "!":
        pipeline.tokenizer.pad_token = "!"
        assert pipeline.tokenizer.pad_token_id != pipeline.tokenizer.eos_token_id
    if masked is not None:
        pipeline.text_encoder.config.use_attention_mask = masked
    with torch.inference_mode():
        theirs = pipeline.encode_prompt(text, torch.device("cpu"), 1, True, negative_prompt="no owl")
    family = family_of(pipeline)
    assert torch.equal(encoded(family, text, 1), theirs[0])
    assert torch.equal(encoded(family, "no owl", 1), theirs[1])

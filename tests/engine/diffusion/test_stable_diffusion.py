"""StableDiffusion: what the text encoder reads, and what of it is kept; a picture's latents."""

from __future__ import annotations

import copy
import inspect

import numpy
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.family import Family
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.errors import InvalidRequest, SpoiltPicture
from engine.recipes import families
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


def test_the_same_text_is_read_once(family):
    read = []
    family.text_encoder.register_forward_hook(lambda encoder, given, output: read.append(output))
    denoiser = Denoiser(family)
    for seed in range(3):
        denoiser.admit(seed, Recipe(seed=seed, steps=2, width=SIZE, height=SIZE, prompt="a cat", negative_prompt="dog"))
    assert len(read) == 2


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 1}, {"clip_skip": 2}, {"negative_prompt": "an owl"}, {"width": SIZE + 8}])
def test_an_image_needs_what_its_familys_row_says_without_torch(family, changes):
    recipe = Recipe(**{"prompt": "an owl", "width": SIZE, "height": SIZE, **changes})
    with torch.inference_mode():
        conditions = family.conditions(recipe)
        assert conditions.needs == families.FAMILIES["sd"].needs(recipe)
        told = [family.encode(text.text, text.clip_skip) for text in conditions.needs.rows]
    assert [told is theirs for told, theirs in zip(told, conditions.rows, strict=True)] == [True] * len(told)
    assert conditions.scales == ((recipe.guidance_scale,) if recipe.guided else ())


def test_it_has_what_a_family_must_have(family):
    wanted = {name for name in vars(Family) if not name.startswith("_")}
    assert {"read", "networks", "scheduler", "conditions", "predict", "combine", "x0", "encode_image", "decode"} < wanted
    for name in wanted:
        assert inspect.signature(getattr(StableDiffusion, name)) == inspect.signature(getattr(Family, name)), name
    assert [name for name in Family.__annotations__ if not hasattr(family, name)] == []


# A picture's latents.


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    colours = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), numpy.uint8)
    return Image.fromarray(colours).convert(mode)


def diffusers_encode(pipeline, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
    """What diffusers' image-to-image pipeline makes of a picture, before it adds noise."""
    pipe = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    pipe.scheduler = copy.copy(pipe.scheduler)
    pipe.scheduler.add_noise = lambda latents, noise, timestep: latents
    pixels = pipe.image_processor.preprocess(image)
    return pipe.prepare_latents(pixels, torch.tensor([0]), 1, 1, torch.float32, torch.device("cpu"), generator)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(SIZE, SIZE), (SIZE + 8, 2 * SIZE)])
def test_a_picture_is_encoded_as_diffusers_encodes_it(tiny_pipeline, tiny_family, size):
    ours = tiny_family.encode_image(picture(*size), torch.Generator().manual_seed(3))
    assert torch.equal(ours, diffusers_encode(tiny_pipeline, picture(*size), torch.Generator().manual_seed(3)))
    assert (ours.shape, ours.dtype) == ((1, 4, size[1] // 2, size[0] // 2), torch.float32)


@torch.inference_mode()
def test_a_real_picture_is_encoded_as_diffusers_encodes_it_and_comes_back(starter_pipeline, starter_family):
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    image = starter_family.decode(latents)
    ours = starter_family.encode_image(image, torch.Generator().manual_seed(3))
    assert torch.equal(ours, diffusers_encode(starter_pipeline, image, torch.Generator().manual_seed(3)))
    again = starter_family.decode(starter_family.encode_image(image))
    assert numpy.corrcoef(numpy.ravel(image), numpy.ravel(again))[0, 1] > 0.9


@torch.inference_mode()
def test_without_a_generator_the_likeliest_latents_are_taken(tiny_pipeline, tiny_family):
    pixels = StableDiffusionImg2ImgPipeline(**tiny_pipeline.components).image_processor.preprocess(picture(SIZE, SIZE))
    expected = tiny_pipeline.vae.encode(pixels).latent_dist.mode() * tiny_pipeline.vae.config.scaling_factor
    assert torch.equal(tiny_family.encode_image(picture(SIZE, SIZE)), expected)


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_a_picture_of_another_mode_is_encoded_by_its_colours(tiny_family, mode):
    image = picture(SIZE, SIZE, mode)
    assert torch.equal(tiny_family.encode_image(image), tiny_family.encode_image(image.convert("RGB")))


@pytest.mark.parametrize("size", [(SIZE + 1, SIZE), (SIZE, SIZE - 1)])
def test_a_picture_that_is_no_whole_number_of_latents_is_refused(tiny_family, size):
    with pytest.raises(ValueError, match=rf"multiples of 2; it was {size[0]} x {size[1]}"):
        tiny_family.encode_image(picture(*size))


@torch.inference_mode()
def test_an_encoder_that_overflows_in_half_precision_is_tried_in_float32(monkeypatch):
    family = StableDiffusion(make_pipeline().to(torch.bfloat16), torch.device("cpu"))
    expected = StableDiffusion(make_pipeline().to(torch.bfloat16).to(torch.float32), torch.device("cpu")).encode_image(picture(SIZE, SIZE))
    encoder, forward, dtypes = family.vae.encoder, family.vae.encoder.forward, []

    def encode(pixels, *arguments, **options):
        dtypes.append(pixels.dtype)
        return forward(pixels, *arguments, **options) * (float("nan") if pixels.dtype != torch.float32 else 1)

    monkeypatch.setattr(encoder, "forward", encode)
    assert torch.equal(family.encode_image(picture(SIZE, SIZE)), expected)
    assert (dtypes, family.vae.dtype) == ([torch.bfloat16, torch.float32], torch.bfloat16)
    monkeypatch.setattr(encoder, "forward", lambda *arguments, **options: forward(*arguments, **options) * float("nan"))
    with pytest.raises(SpoiltPicture, match="The encoder gave no numbers"):
        family.encode_image(picture(SIZE, SIZE))

"""What a text of A1111's asks for and is not done here is said, always."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.pictures.infotext import parse_infotext
from engine.pictures.leftovers import MAX_LISTED
from tests.engine.pictures.texts import GPU_NOISE, examples

COMPLETE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x64, Model: m, RNG: CPU"


def notes(more: str = "", prompt: str = "a fox", negative: str = "") -> list[str]:
    return list(parse_infotext(f"{prompt}\nNegative prompt: {negative}\n{COMPLETE}{', ' if more else ''}{more}").notes)


def test_a_text_without_leftovers_has_no_notes() -> None:
    assert notes() == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        # Keys of create_infotext in A1111's modules/processing.py, of earlier versions of it, and of its built-in scripts.
        (
            "Denoising strength: 0.4, Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent",
            "hires fix (2x, 10 steps, Latent, denoising 0.4)",
        ),
        ("Denoising strength: 0.7, Hires resize: 1024x1536, Hires upscaler: None", "hires fix (to 1024x1536, None, denoising 0.7)"),
        ('Hires upscale: 2, Hires prompt: "a fox, big", Hires sampler: DDIM', "hires fix (2x, prompt a fox, big, sampler DDIM)"),
        ("Denoising strength: 0.7, First pass size: 512x512", "hires fix (first pass 512x512, denoising 0.7)"),
        ("Denoising strength: 0.75", "the picture it was made from (img2img, denoising 0.75)"),
        ("Denoising strength: 0.75, Mask blur: 4, Inpaint area: Only masked", "the picture it was made from (inpainting, denoising 0.75)"),
        ("Init image hash: 12ab", "the picture it was made from (img2img)"),
        ("Variation seed: 99, Variation seed strength: 0.3", "variation seed 99 (strength 0.3)"),
        ("Seed resize from: 512x512", "seed resized from 512x512"),
        ("Refiner: xl [12ab], Refiner switch at: 0.8", "refiner “xl [12ab]” (from 0.8)"),
        ("VAE hash: 07af, VAE: ft-mse.pt", "VAE “ft-mse.pt”"),
        ("VAE hash: 07af", "VAE of the hash 07af"),
        ('VAE: ft-mse.pt, Hashes: {"vae": "07af"}', "VAE “ft-mse.pt”"),
        ("Face restoration: GFPGAN", "face restoration (GFPGAN)"),
        ("Tiling: True", "tiling"),
        ('Styles: "ink, noir"', "styles “ink, noir”"),
        ('Lora hashes: "toys: ab, cars: cd, TOYS: ab"', "LoRAs “toys”, “cars”"),
        ('TI hashes: "easyneg: 11"', "embedding “easyneg”"),
        ("Hypernet: ink, Hypernet strength: 0.5", "hypernetwork “ink”"),
        ("AddNet Enabled: True, AddNet Module 1: LoRA, AddNet Model 1: toys(ab)", "LoRA “toys(ab)”"),
        ('Lora hashes: "a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1"', "LoRAs “a”, “b”, “c”, “d”, “e”, “f” and 2 more"),
        ('Script: X/Y/Z plot, X Type: CFG Scale, X Values: "3, 5"', "X/Y/Z plot (CFG Scale: 3, 5)"),
        ("Script: SD upscale, SD upscale overlap: 64", "SD upscale"),
    ],
)
def test_what_is_known_is_named_in_words(more: str, told: str) -> None:
    assert notes(more)[0] == f"Not taken over: {told}."


@pytest.mark.parametrize(
    "more",
    [
        "Denoising strength: 0", "Seed resize from: 0x0", "Seed resize from: -1x-1", "VAE: Automatic", "VAE: None", "Tiling: False",
        "Batch size: 4", "Batch pos: 2", "User: me", "Version: v1.10.1", 'Lora hashes: ""', "Hashes: {}", "Hashes: [1]",
        "App: SD.Next, Operations: txt2img, Parser: native, Pipeline: StableDiffusionPipeline",
        "Created Date: 2025-11-28T09:18:43Z, Civitai resources: [], Civitai metadata: {}",
    ],
)  # fmt: skip
def test_what_changes_nothing_is_not_told(more: str) -> None:
    assert notes(more) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("Eta: 0.67, ENSD: 31337", "Eta 0.67; ENSD 31337"),
        ("Token merging ratio: 0.5", "Token merging ratio 0.5"),
        ("ADetailer model: face.pt, ADetailer steps: 24, ADetailer version: 25.3.0", "ADetailer (model face.pt, steps 24, version 25.3.0)"),
        ('ControlNet 0: "Module: canny, Model: sd15_canny, Weight: 1"', "ControlNet 0 Module: canny, Model: sd15_canny, Wei..."),
        ("a flag", "a flag"),
        ("Steps: 30, steps: 40, Foo: 1, foo: 2", "Foo 1"),
        (", ".join(f"{chr(97 + n % 26) * 2}{n}: 1" for n in range(MAX_LISTED + 7)), "7 more"),
    ],
)
def test_every_other_key_is_listed(more: str, told: str) -> None:
    [told_of] = notes(more)
    assert told_of.startswith("Further keys, not taken over: ")
    assert told_of.endswith(f"{told}.")


@settings(examples, max_examples=200)
@given(
    key=st.from_regex("[A-Za-z][A-Za-z0-9 ]{0,18}[A-Za-z0-9]", fullmatch=True),
    value=st.from_regex("[1-9][a-z0-9.]{0,10}", fullmatch=True),
)
@example(key="Hires anything", value="1")
@example(key="mask anything", value="1")
@example(key="Script", value="1")
@example(key="Refiner switch at", value="0.8")
@example(key="Variation seed strength", value="0.3")
@example(key="Fixed lights", value="1")
@example(key="Embeddings", value="1")
def test_no_key_is_left_out_in_silence(key: str, value: str) -> None:
    assert len(notes(f"{key}: {value}")) == 1


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        # A1111's own examples, in its modules/prompt_parser.py
        ("a (((house:1.3)) [on] a (hill:0.5), sun", "weights such as (house:1.3)"),
        ("an (important) word", "weights by brackets"),
        ("a [word]", "weights by brackets"),
        ("fantasy landscape with a [mountain:lake:0.25]", "[mountain:lake:0.25]"),
        ("a [b:3]", "[b:3]"),
        ("a [in foreground::0.6]", "[in foreground::0.6]"),
        ("a [cow|horse] in a field", "[cow|horse]"),
        ("a cat AND a dog", "AND"),
        ("a cat BREAK a dog", "BREAK"),
        ("a fox <lora:toys:0.8>", "<lora:toys:0.8>"),
        ("a fox <hypernet:ink>", "<hypernet:ink>"),
    ],
)
def test_syntax_that_is_not_understood_is_named(prompt: str, told: str) -> None:
    expected = f"Read as plain text here: {told}."
    assert expected in notes(prompt=prompt)
    assert expected in notes(negative=prompt)
    own = parse_infotext(f"{prompt}\n{COMPLETE}, Version: Darkroom 0.1.0").notes
    assert [note for note in own if note.startswith("Read as plain")] == []  # it always was


@pytest.mark.parametrize("prompt", ["a cat and a dog, BREAKFAST", r"a \(literal\) \[bracket\]", "at 5:30", "<b>bold</b>", "SAND"])
def test_plain_words_are_not_called_syntax(prompt: str) -> None:
    assert notes(prompt=prompt) == []


@pytest.mark.parametrize(
    ("rng", "note"),
    [
        # A1111's reader: "Missing RNG means the default was set, which is GPU RNG"
        ("", GPU_NOISE),
        ("RNG: CPU", ""),
        ("RNG: NV", "Its noise came from the GPU (RNG: NV), here it comes from the CPU: the same seed draws another picture."),
        ("RNG: GPU", "Its noise came from the GPU (RNG: GPU), here it comes from the CPU: the same seed draws another picture."),
        ("Version: ComfyUI", ""),
        ("Version: Fooocus v2.5.5", ""),
        ("Version: neo-2.24", ""),
        ("Version: Darkroom 0.1.0", ""),
        ("Version: v1.10.1", GPU_NOISE),
    ],
)
def test_where_the_noise_came_from_is_told(rng: str, note: str) -> None:
    told = parse_infotext(f"a fox\n{COMPLETE.removesuffix(', RNG: CPU')}, {rng}").notes
    assert told == ((note,) if note else ())


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000, "A" + "\t" * 300_000 + "x", "a: {" * 100_000, "a: [" * 100_000, '"' * 300_000, 'a: "\\' * 100_000, "(" * 200_000,
        "[" * 200_000, "<lora:" * 60_000, "[a:" * 100_000, "steps: 1 " * 50_000, "Steps: 1, Seed: 1, Size: 1\n" * 15_000,
        "Negative prompt:" * 30_000, ", ".join(f"k{n}: 1" for n in range(40_000)),
        'aa: ["x, bb: [", ' + '",", ' * 80_000, "Hashes: " + "[" * 100_000,
        "\t" * 300_000, "model:,seed:," * 30_000, "[a:" + "1" * 300_000, "(a:" + "1" * 300_000, "[a:" + " " * 300_000 + "x",
        "\n" * 300_000 + "x", " \n" * 150_000 + "x", "[a|" * 100_000, "[" + "a" * 300_000, "(a:1" * 90_000, 'a:{"a":1,' * 50_000,
    ],
    ids=range(27),
)  # fmt: skip
def test_hostile_text_is_survived(text: str) -> None:
    assert isinstance(notes(text), list)
    assert isinstance(notes(prompt=text), list)

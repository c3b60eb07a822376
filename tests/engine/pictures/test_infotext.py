"""A1111's text of settings, written and read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UnreadablePicture
from engine.pictures.infotext import infotext, pairs_of, parse_infotext
from engine.pictures.metadata import read_picture
from engine.recipes.recipe import MAX_SEED, Recipe, Style, make_recipe
from engine.recipes.schedulers import SCHEDULERS
from tests.conftest import ROOT
from tests.engine.pictures.texts import GPU_NOISE, NEW_A1111, OLD_A1111, PROVENANCE, any_text, check_settings, examples, recipes


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_settings_come_back_from_the_infotext(scheduler: str) -> None:
    recipe = make_recipe(
        model="a: model, with marks", prompt="a fox\nin the snow", negative_prompt="text", scheduler=scheduler,
        seed=MAX_SEED, steps=31, guidance_scale=7.25, width=512, height=768, clip_skip=2,
    )  # fmt: skip
    found = parse_infotext(infotext(recipe, PROVENANCE))
    assert found.notes == ()
    assert make_recipe(**found.settings) == recipe


@examples
@given(recipe=recipes)
def test_no_prompt_can_spoil_the_settings_of_an_infotext(recipe: Recipe) -> None:
    found = parse_infotext(infotext(recipe, PROVENANCE))
    taken = {name: found.settings[name] for name in ("seed", "steps", "scheduler", "width", "height", "model", "clip_skip")}
    assert taken == {name: getattr(recipe, name) for name in taken}
    assert found.settings["guidance_scale"] == pytest.approx(recipe.guidance_scale, rel=1e-5)


@examples
@given(prompt=any_text, negative_prompt=any_text)
def test_prompts_come_back_from_the_infotext_but_for_the_space_around_lines(prompt: str, negative_prompt: str) -> None:
    def lines(text: str) -> list[str]:
        return [line.strip() for line in text.strip().split("\n")]

    prompt, negative_prompt = prompt.replace("Negative prompt:", ""), negative_prompt.replace("Negative prompt:", "")
    found = parse_infotext(infotext(make_recipe(prompt=prompt, negative_prompt=negative_prompt)))
    assert lines(found.settings["prompt"]) == lines(prompt)
    assert lines(found.settings["negative_prompt"]) == lines(negative_prompt)


def test_the_infotext_holds_the_words_of_the_style() -> None:
    recipe = make_recipe(prompt="a fox", style=Style(name="ink", prompt="ink of {prompt}", negative_prompt="colour"))
    first, second, last = infotext(recipe, PROVENANCE).split("\n")
    assert (first, second) == ("ink of a fox", "Negative prompt: colour")
    assert "Model hash: 0123456789," in last


def test_without_negative_words_the_infotext_has_no_such_line() -> None:
    text = infotext(make_recipe(prompt="a fox", negative_prompt="  "))
    assert "Negative prompt" not in text
    assert "Model hash" not in text
    assert text.count("\n") == 1


TAKEN = {
    "prompt": 'masterpiece, (red fur:1.2), a fox in the snow <lora:add_detail:0.8>\nsecond line, "quoted"',
    "negative_prompt": "blurry, text: none\nwatermark",
    "steps": 28,
    "scheduler": "DPM++ 2M Karras",
    "guidance_scale": 7.5,
    "seed": 965400086,
    "width": 512,
    "height": 768,
    "model": "v1-5-pruned-emaonly",
    "clip_skip": 2,
}


@pytest.mark.parametrize("text", [OLD_A1111, NEW_A1111, "\n" + NEW_A1111 + "\n"], ids=["old", "new", "padded"])
def test_an_infotext_of_a1111_is_read(text: str) -> None:
    found = parse_infotext(text)
    assert (found.settings, found.tool, found.model_hash) == (TAKEN, "A1111", "45dee52b")
    assert found.notes == (
        "Not taken over: LoRAs “add_detail”, “a”, “b”.",
        "Read as plain text here: weights such as (red fur:1.2), <lora:add_detail:0.8>.",
        "CLIP skip acts on the prompt alone here; in A1111 also on the negative prompt.",
        GPU_NOISE,
        "Further keys, not taken over: ENSD 31337.",
    )


def test_clip_skip_stands_where_a1111_writes_it_and_only_when_it_skips() -> None:
    assert "Model: starter, Clip skip: 2, RNG: CPU" in infotext(make_recipe(clip_skip=2), PROVENANCE)
    assert "Clip skip" not in infotext(make_recipe(clip_skip=1), PROVENANCE)


def test_the_text_of_an_unfinished_picture_says_where_it_stopped_and_others_still_read_it() -> None:
    recipe, unfinished = make_recipe(steps=60, seed=5), replace(PROVENANCE, step=16, total=60)
    text = infotext(recipe, unfinished)
    assert dict(RE_PARAM.findall(text.rpartition("\n")[2])).items() >= {"Steps": "60", "Seed": "5", "Stopped at": "16 of 60"}.items()
    found = parse_infotext(text)
    assert found.settings["steps"] == 60
    assert found.notes == ("That picture was stopped at 16 of 60: made to its end, it looks different.",)
    assert "Stopped" not in infotext(recipe, PROVENANCE)


def test_an_infotext_without_clip_skip_says_one() -> None:
    assert parse_infotext(infotext(make_recipe(clip_skip=1))).settings["clip_skip"] == 1


def test_an_infotext_without_prompt_is_read() -> None:
    settings = {"prompt": "", "negative_prompt": "", "steps": 5, "seed": 3, "clip_skip": 1}
    assert parse_infotext("Steps: 5, Seed: 3").settings == settings


@pytest.mark.parametrize(
    ("pair", "note"),
    [
        ("Sampler: Restart", "There is no scheduler like the sampler “Restart” here: it stays as it was."),
        ("Size: big", "“big” is no size in pixels: it stays as it was."),
        ("Seed: 12a", "Seed “12a” is no whole number and was not taken over."),
        ("Seed: 1.5", "Seed “1.5” is no whole number"),
        ("CFG scale: NaN", "CFG scale “NaN” is no number"),
        ("CFG scale: Infinity", "CFG scale “Infinity” is no number"),
        ("CFG scale: <b>7</b>", "CFG scale “<b>7</b>” is no number"),
        ("CFG scale: 1e999", "CFG scale “1e999” is no number"),
        ("Clip skip: 1.5", "CLIP skip “1.5” is no whole number"),
        ("Seed: " + "9" * 400, "Seed “" + "9" * 37 + "...” is no whole number"),
    ],
)
def test_what_cannot_be_taken_over_is_noted_and_the_rest_is_taken(pair: str, note: str) -> None:
    found = parse_infotext(f"a fox\nSteps: 20, {pair}, RNG: CPU")
    assert (found.settings["prompt"], found.settings["steps"]) == ("a fox", 20)
    assert note in found.notes[1]
    assert len(found.notes) == 2
    check_settings(found.settings, found.notes)


@pytest.mark.parametrize("kind", ["SGM Uniform", "Simple", "Polyexponential", "Beta"])
def test_a_sampler_is_taken_without_a_schedule_type_that_is_not_here(kind: str) -> None:
    found = parse_infotext(f"a fox\nSteps: 20, Sampler: Euler, Schedule type: {kind}, RNG: CPU")
    assert found.settings["scheduler"] == "Euler"
    assert found.notes[1] == f"Schedule type “{kind}” is not here for this sampler: Euler is taken without it."


# ---- the grammar

# A1111's own reader: re_param_code in its modules/infotext_utils.py.
RE_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
keys = st.from_regex(r"[A-Za-z][A-Za-z0-9 /-]{0,20}[A-Za-z0-9]", fullmatch=True)
values = st.text(st.sampled_from('ab 1:,"\\[]{}\n') | st.characters(exclude_categories=["C", "Z"]), max_size=20)


def quote(text: str) -> str:
    """`quote` of A1111's modules/infotext_utils.py."""
    return json.dumps(text, ensure_ascii=False) if "," in text or "\n" in text or ":" in text else text


def unquote(text: str) -> str:
    """`unquote` there."""
    if len(text) == 0 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


@settings(examples, max_examples=300)
@given(pairs=st.lists(st.tuples(keys, values), min_size=1, max_size=5))
def test_pairs_are_split_as_a1111_splits_them(pairs: list[tuple[str, str]]) -> None:
    line = ", ".join(f"{key}: {quote(value)}" for key, value in pairs)
    theirs = [(key, unquote(value).strip()) for key, value in RE_PARAM.findall(line)]
    assert [(key, value.strip()) for key, value in pairs_of(line)] == theirs


@pytest.mark.parametrize(
    "text",
    [
        "a fox\nNegative prompt: text\nSteps: 20, Sampler: Euler a, Seed: 5",
        "a fox\r\nNegative prompt: text\r\nSteps: 20, Sampler: Euler a, Seed: 5\r\n",
        "a fox\rNegative prompt: text\rSteps: 20, Sampler: Euler a, Seed: 5",
        "a fox\nnegative Prompt:text\nSTEPS:20,sampler:euler A,seed:5",
        "a fox\nNegative prompt: text\nSampler: Euler a, Seed: 5, Steps: 20",
        "a fox\nNegative prompt: text\nSteps: 20\nSampler: Euler a\nSeed: 5",
        "a fox\nNegative prompt: text\nSteps: 20, Sampler: Euler a,\n Seed: 5",
        "a fox Negative prompt: text Steps: 20, Sampler: Euler a, Seed: 5",
        "a fox\nNegative prompt: text Steps: 20, Sampler: Euler a, Seed: 5",
        "a fox\nNegative prompt: text\nSteps: 20, Sampler: Euler a, Seed: 5\nTemplate:a {fox|owl}\nSteps: 3\nNegative Template: x",
        'a fox\nNegative prompt: text\nSteps: 20, Sampler: Euler a, Seed: 5, Model: "x, Seed: 6", Seed: 7, seed: 8',
        'a fox\nNegative prompt: text\nSteps: 20, Sampler: Euler a, Hashes: {"a": [1, "x, Seed: 6, Steps: 7, y"]}, Seed: 5',
    ],
)
def test_the_same_settings_are_read_however_they_are_laid_out(text: str) -> None:
    found = parse_infotext(text).settings
    assert (found["prompt"], found["negative_prompt"]) == ("a fox", "text")
    assert (found["steps"], found["scheduler"], found["seed"]) == (20, "Euler a", 5)


def test_a_prompt_in_one_line_with_its_settings_is_kept() -> None:
    found = parse_infotext("a fox, 3 steps: up, Steps: 20, Sampler: Euler a, Hires steps: 5")
    assert (found.settings["prompt"], found.settings["steps"]) == ("a fox, 3 steps: up,", 20)


def test_a_prompt_may_speak_of_steps_and_of_negative_prompts() -> None:
    text = "recipe\nSteps: 3, Seed: 4, Size: 8x8\nsays Negative prompt: none\nSteps: 20, Sampler: Euler a, Seed: 5"
    found = parse_infotext(text).settings
    assert (found["prompt"], found["negative_prompt"]) == (text.rpartition("\n")[0], "")
    assert (found["steps"], found["seed"]) == (20, 5)


# ---- invented files of real kinds

USUAL = {
    "prompt": "a red car, a blue house", "negative_prompt": "text, frame", "steps": 20, "scheduler": "Euler a", "guidance_scale": 6.5,
    "seed": 1234, "width": 96, "height": 64, "clip_skip": 1, "model": "starter",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "differs", "notes"),
    [
        ("02-template-after", {}, [GPU_NOISE, "The templates after the settings were left out: what they became is the prompt."]),
        ("04-hires", {}, ["Not taken over: hires fix (2x, 10 steps, Latent, denoising 0.4).", GPU_NOISE]),
        (
            "05-lora", {"prompt": "a red car, a blue house <lora:toys:0.8>"},
            ["Not taken over: LoRA “toys”; embedding “easyneg”.", "Read as plain text here: <lora:toys:0.8>.", GPU_NOISE],
        ),
        (
            "06-emphasis", {"prompt": "(a red car:1.3), [a blue house], AND BREAK [cat:dog:0.5]", "negative_prompt": "((text))"},
            ["Read as plain text here: weights such as (a red car:1.3), AND, BREAK, [cat:dog:0.5].", GPU_NOISE],
        ),
        (
            "07-civitai", {"clip_skip": 2},
            ["Not taken over: LoRA “version 1”.",
             "CLIP skip acts on the prompt alone here; in A1111 also on the negative prompt.", GPU_NOISE],
        ),
        ("10-CFG-Scale-capital", {"guidance_scale": 8.5, "model": None}, ["It names no model: that stays as it was.", GPU_NOISE]),
        (
            "11-sdnext-no-sampler", {"guidance_scale": 6, "scheduler": None},
            ["It names no sampler: that stays as it was.", GPU_NOISE],
        ),
        ("16-windows-line-ends", {"prompt": "a red car,\na blue house", "negative_prompt": "text,\nframe"}, [GPU_NOISE]),
        ("22-variation-seed", {}, ["Not taken over: variation seed 99 (strength 0.3); seed resized from 512x512.", GPU_NOISE]),
    ],
)  # fmt: skip
def test_files_of_real_kinds_are_read_and_nothing_is_left_out_in_silence(name: str, differs: dict[str, Any], notes: list[str]) -> None:
    found = read_picture(ROOT / "tests" / "data" / "metadata" / f"{name}.png")
    assert found.settings == {field: value for field, value in {**USUAL, **differs}.items() if value is not None}
    assert list(found.notes) == notes


# ---- what other tools write, each in the form that its source documents


@pytest.mark.parametrize(
    ("text", "tool", "settings", "notes"),
    [
        (  # the docstring of parse_generation_parameters in A1111's infotext_utils.py, from before there was a Version
            "girl with an artist's beret, ((eyeshadow)), (coquettish)\nNegative prompt: ugly, [blurry], (extra_limb)\n"
            "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b",
            "A1111", {"steps": 20, "scheduler": "Euler a", "seed": 965400086},
            ["names its model by a hash alone, 45dee52b", "plain text here: weights by brackets."],
        ),
        (  # Forge: create_infotext in its modules/processing.py, with the keys that its "modules" and ADetailer add
            "a fox\nSteps: 60, Sampler: DPM++ 3M SDE, Schedule type: Karras, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, "
            'Size: 896x1152, Model hash: 34d8e4c691, Model: flux_dev, ADetailer model: face.pt, ADetailer prompt: "a face, old", '
            'ADetailer steps: 24, '
            'Lora hashes: "nina: e3b0c44298fc", TI: "good, bad", RNG: CPU, Version: f2.0.1v1.10.1-previous-669, Module 1: ae',
            "Forge", {"scheduler": "DPM++ 3M SDE Karras", "guidance_scale": 1, "model": "flux_dev"},
            ["Not taken over: LoRA “nina”; embeddings “good”, “bad”.",
             "Distilled CFG Scale 3.5; ADetailer (model face.pt, prompt a face, old, steps 24); Module 1 ae."],
        ),
        (  # reForge writes A1111's keys with a version of its own; here with the hires fix of create_infotext
            "a fox\nSteps: 28, Sampler: Euler a, Schedule type: Automatic, CFG scale: 5, Seed: 7, Size: 832x1216, Model: n, RNG: CPU, "
            "Denoising strength: 0.35, Hires upscale: 1.5, Hires upscaler: 4x-UltraSharp, Hires CFG Scale: 5, Version: f1.0.5-v1.10.1RC",
            "Forge", {"scheduler": "Euler a"}, ["hires fix (1.5x, 4x-UltraSharp, denoising 0.35, cfg scale 5)"],
        ),
        (  # SD.Next: create_infotext in its modules/processing_info.py; a default sampler is left out
            "a fox\nSteps: 20, Size: 512x512, Seed: 7, CFG scale: 6, CFG rescale: 0.7, Parser: native, Model: sd15, VAE: taesd, "
            'App: SD.Next, Version: 8b73cb6, Operations: "img2img; upscale", Init image size: 64x64, Denoising strength: 0.3, '
            "Variation seed: 9, Variation strength: 0.2, LoRA networks: outline",
            "SD.Next", {"steps": 20, "seed": 7, "guidance_scale": 6},
            ["It names no sampler: that stays as it was.", "Further keys, not taken over: CFG rescale 0.7.",
             "the picture it was made from (img2img, denoising 0.3); upscale; variation seed 9 (strength 0.2); LoRA “outline”; VAE"],
        ),
        (  # Civitai's generator: everything in one line of EXIF, the model in a list of resources
            "neon fog Negative prompt: Steps: 23, Sampler: Undefined, CFG scale: 3.5, Seed: 7, Size: 832x1216, Clip skip: 2, "
            'Created Date: 2025-11-28T09:18:43.5Z, Civitai resources: [{"type":"checkpoint","modelVersionId":2,"modelName":"Z, Image",'
            '"modelVersionName":"Turbo"},{"type":"embed","modelVersionId":3},{"air":"urn:air:sd1:lora:civitai:1@4"}], Civitai metadata: {}',
            "Civitai", {"prompt": "neon fog", "negative_prompt": "", "steps": 23, "model": "Z, Image Turbo", "clip_skip": 2},
            ["no scheduler like the sampler “Undefined”", "embedding “version 3”; LoRA “version 4”"],
        ),
        (  # Civitai's extension for A1111 adds "Hashes"; savers of ComfyUI write the same
            "a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 7, Size: 512x512, Model: m, Version: ComfyUI, "
            'Hashes: {"model": "bb2c", "lora:toys, old": "1f", "embed:easyneg": "2e", "vae": "3d"}',
            "ComfyUI", {"model": "m"}, ["Not taken over: LoRA “toys, old”; embedding “easyneg”; VAE “3d”."],
        ),
        (  # Fooocus: A1111MetadataParser.parse_string in its modules/meta_parser.py
            "a fox\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 7, Size: 1152x896, CFG scale: 4, Sharpness: 2, ADM Guidance: "
            '"(1.5, 0.8, 0.3)", Model: juggernaut, Model hash: aeb7e9e689, Performance: Speed, Scheduler: karras, VAE: Default (model), '
            'Raw prompt: a fox, Lora hashes: "sd_xl_offset: 4852686128", Lora weights: "sd_xl_offset: 0.1", Version: Fooocus v2.5.5',
            "Fooocus", {"scheduler": "DPM++ 2M SDE Karras", "seed": 7},
            ["LoRA “sd_xl_offset”", "Sharpness 2; ADM Guidance (1.5, 0.8, 0.3); Performance Speed."],
        ),
    ],
    ids=["a1111-2022", "forge", "reforge", "sd-next", "civitai", "civitai-hashes", "fooocus"],
)  # fmt: skip
def test_what_other_tools_write_is_read(text: str, tool: str, settings: dict[str, Any], notes: list[str]) -> None:
    found = parse_infotext(text)
    assert found.tool == tool
    assert {name: found.settings.get(name) for name in settings} == settings
    assert [note for note in notes if note not in " ".join(found.notes)] == []
    check_settings(found.settings, found.notes)


@pytest.mark.parametrize("text", ["", "\n\n", "just a prompt", "Software: GIMP, By: me", '{"steps": 20}', "Steps", "Steps 20", ":::,,,"])
def test_text_that_is_no_infotext_is_refused(text: str) -> None:
    with pytest.raises(UnreadablePicture, match="no list of settings"):
        parse_infotext(text)


@pytest.mark.parametrize(
    "pair",
    [
        'Model: "a, \\ud800"', 'Sampler: "a, \\ud800"', 'Civitai resources: [{"type":"lora","modelName":"\\ud800"}]',
        'Civitai resources: [{"type":"checkpoint","modelName":"\\ud800"}]', 'Hashes: {"lora:\\ud800":"x"}',
    ],
)  # fmt: skip
def test_escaped_surrogates_do_not_get_through(pair: str) -> None:
    found = parse_infotext(f"a fox\nSteps: 20, {pair}")
    check_settings(found.settings, found.notes)

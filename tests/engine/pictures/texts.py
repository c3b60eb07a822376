"""Texts of settings as A1111 writes them, and recipes whose texts are hard to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from engine.pictures.made import Provenance
from engine.recipes.recipe import MAX_SEED, Style, make_recipe
from engine.recipes.schedulers import SCHEDULERS

PROVENANCE = Provenance("0123456789abcdef", "cpu", "float32", 2, False, 20, 20, 1.5, {"torch": "2"})

OLD_A1111 = """masterpiece, (red fur:1.2), a fox in the snow <lora:add_detail:0.8>
second line, "quoted"
Negative prompt: blurry, text: none
watermark
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x768, Model hash: 45dee52b, \
Model: v1-5-pruned-emaonly, Clip skip: 2, ENSD: 31337, Lora hashes: "a: 1, b: 2", Version: v1.6.0"""
GPU_NOISE = "Its noise most likely came from the GPU (A1111's default), here it comes from the CPU: the same seed draws another picture."
NEW_A1111 = OLD_A1111.replace("Sampler: DPM++ 2M Karras,", "Sampler: DPM++ 2M, Schedule type: Karras,").replace("v1.6.0", "v1.10.1")

TRICKY = ["\n", "\r\n", "🦊👩‍🚀", "שלום مرحبا", '"', "\\", "\nNegative prompt: ", "\nSteps: 3, Seed: 4", "\0", "\u2028", "{prompt}"]
characters = st.characters(exclude_categories=["Cs"])
any_text = st.lists(st.text(characters, max_size=20) | st.sampled_from(TRICKY), max_size=8).map("".join)
styles = st.builds(Style, name=st.text(characters, max_size=9), prompt=any_text, negative_prompt=any_text)
sizes = st.integers(4, 512).map(lambda eighths: eighths * 8)
recipes = st.builds(
    make_recipe,
    model=st.sampled_from(["starter", "owner/name", "C:\\models\\a, b", 'say "hi"']),
    prompt=any_text,
    negative_prompt=any_text,
    style=st.none() | styles,
    seed=st.integers(0, MAX_SEED),
    steps=st.integers(1, 1000),
    guidance_scale=st.floats(1, 30),
    scheduler=st.sampled_from(list(SCHEDULERS)),
    width=sizes,
    height=sizes,
    clip_skip=st.integers(1, 12),
)
examples = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def check_settings(settings: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Plain strings and finite numbers that any page can show."""
    for value in [*settings.values(), *notes]:
        assert type(value) in {str, int, float, Style, type(None)}
        if isinstance(value, str):
            value.encode()
        if isinstance(value, float):
            assert math.isfinite(value)

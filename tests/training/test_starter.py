"""The model in the repository does what its card says; the evaluation beside the recipe says how often."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from engine.recipes.catalog import Catalog
from tests.conftest import STARTER
from training import scores
from training.evaluate import Painter
from training.questions import FIRST_SEED, Question, known_names
from training.settings import load_config


@pytest.fixture(scope="module")
def painter():
    return Painter.load(STARTER, torch.device("cpu"))


def draw(painter: Painter, *prompts: str, **settings) -> np.ndarray:
    return painter.draw([Question(prompt, FIRST_SEED + number) for number, prompt in enumerate(prompts)], **settings)


def test_the_background_is_the_one_asked_for(painter):
    wanted = ("blue", "pink", "black", "yellow")
    drawn = draw(
        painter,
        *(f"{what} on a {colour} background" for what, colour in zip(("a car", "a cactus", "a moon", "a dog"), wanted, strict=True)),
    )
    assert [scores.background_name(one) for one in drawn] == list(wanted)


def test_a_heart_has_the_colour_asked_for(painter):
    wanted = ("red", "blue", "green", "purple")
    for colour, one in zip(wanted, draw(painter, *(f"a {colour} heart" for colour in wanted)), strict=True):
        assert scores.colour_share(one, colour) > 0.6, colour


def test_a_negative_prompt_takes_a_colour_away(painter):
    apples = ("an apple",) * 6
    share = [[scores.colour_share(one, "red") for one in draw(painter, *apples, negative=negative)] for negative in (None, ["red"] * 6)]
    assert np.mean(share[0]) > 0.3
    assert np.mean(share[1]) < np.mean(share[0]) / 2


def test_outline_style_is_without_colour_and_seeds_differ(painter):
    drawn = draw(painter, "a panda, outline style", "a panda, outline style", "a panda, fluent style").astype(int)
    colourfulness = np.ptp(drawn, axis=-1).mean((1, 2))
    assert max(colourfulness[:2]) < colourfulness[2]
    assert np.abs(drawn[0] - drawn[1]).mean() > 2


def test_a_small_one_in_a_corner_is_in_that_corner(painter):
    ink = (draw(painter, "a small red apple in the top left corner")[0].min(-1) < 160).astype(float)
    rows, columns = np.nonzero(ink)
    assert len(rows) > 20
    assert rows.mean() < 32
    assert columns.mean() < 32


def test_the_tiny_decoder_imitates_the_vae(painter):
    tiny = AutoencoderTiny.from_pretrained(Catalog.load(STARTER.parent / "models.toml").default.tiny_decoder, local_files_only=True)
    latents = painter.pipeline(
        ["a rocket", "a frog"], num_inference_steps=20, guidance_scale=4, output_type="latent",
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    ).images  # fmt: skip
    with torch.inference_mode():
        decoded, imitated = painter.pipeline.vae.decode(latents).sample, tiny.decode(latents).sample
        error = (decoded.clamp(-1, 1) - imitated.clamp(-1, 1)).square().mean().item()
    assert 10 * np.log10(4 / error) > 20  # dB, of values from -1 to 1


def test_its_files_are_safetensors_of_the_committed_recipe():
    weights = {file.suffix for file in STARTER.rglob("*") if file.stat().st_size > 1_000_000}
    assert weights == {".safetensors"}
    made = json.loads((STARTER / "training.json").read_text(encoding="utf-8"))
    profile = load_config().profiles[made["profile"]]
    assert made["steps"] <= profile.diffusion.steps
    assert set(known_names()) <= set(profile.names)


def test_the_cards_snippet_runs(tmp_path, monkeypatch):
    [snippet] = re.findall(r"```python\n(.*?)```", (STARTER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "presets").symlink_to(STARTER.parent)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "the card", "exec"), {})
    with Image.open("car.png") as drawn:
        assert drawn.size == (256, 256)

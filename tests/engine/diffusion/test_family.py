"""Family: a kind of model that is nothing like Stable Diffusion is drawn with, for one class and two rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy
import pytest
import torch
from PIL import Image

from engine.diffusion import loading, schedule
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.family import Conditioning, Conditions, Family, Traits
from engine.diffusion.inspection import Unfit
from engine.diffusion.pixels import to_image, to_pixels
from engine.errors import ModelUnavailable
from engine.recipes import families
from engine.recipes.catalog import ModelSpec
from engine.recipes.families import FamilyRow, Needs
from engine.recipes.plan import Cell, Plan
from engine.recipes.recipe import Recipe
from engine.running.device import TokenCount
from engine.running.engine import Engine
from tests.engine.diffusion import rules

SIZE = 32
LONGEST = 8


def weighted(prompt: str) -> list[tuple[str, float]]:
    """The words of "red:3 blue", with their parts of the whole."""
    pairs = [word.partition(":") for word in prompt.split() or ["nothing"]]
    parts = [float(part or 1) for _, _, part in pairs]
    return [(word, part / sum(parts)) for (word, _, _), part in zip(pairs, parts, strict=True)]


def needs_of(recipe: Recipe) -> Needs:
    """A row a word, whatever the CFG scale is; and only texts whose longest words are equally long share a call."""
    words = [word for word, _ in weighted(recipe.full_prompt)]
    return Needs(tuple(enumerate(words)), (recipe.width, recipe.height, max(map(len, words))))


class Toy:
    """Paints the picture in the colour that is the weighted mean of its words': no U-Net, no CLIP, no guidance, three channels."""

    parts: ClassVar[Sequence[str]] = ("painter",)
    traits = Traits(latent_channels=3, scale=4)

    def __init__(self, painter: torch.nn.Linear, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype, self.painter = device, dtype, painter.to(device, dtype)
        self.config = dict(rules.loaded(rules.read_config("sd15")).config)
        self.alphas = rules.loaded(rules.read_config("sd15")).alphas_cumprod
        self.told: list[dict[str, tuple[int, ...]]] = []

    @classmethod
    def read(cls, folder: Path, variant: str | None, device: torch.device, dtype: torch.dtype) -> Self:
        weight = json.loads((folder / "painter" / "weight.json").read_text(encoding="utf-8"))
        if len(weight) != 3:
            raise Unfit(f"its painter has {len(weight)} colours")
        painter = torch.nn.Linear(1, 3, bias=False).requires_grad_(False)
        painter.weight.copy_(torch.tensor(weight)[:, None])
        return cls(painter, device, dtype)

    def networks(self) -> Mapping[str, torch.nn.Module]:
        return {"painter": self.painter}

    def scheduler(self, recipe: Recipe) -> Any:
        return schedule.build(recipe.scheduler, self.config, recipe.steps, recipe.seed)

    def conditions(self, recipe: Recipe) -> Conditions:
        needs = needs_of(recipe)
        rows = tuple(
            {
                "letters": torch.tensor([[ord(letter) for letter in word.ljust(needs.group[-1], "\0")]], dtype=self.dtype),
                "size": torch.tensor([[recipe.height, recipe.width]], dtype=self.dtype),
            }
            for _, word in needs.rows
        )
        return Conditions(needs, rows, tuple(part for _, part in weighted(recipe.full_prompt)))

    def colours(self, conditioning: Conditioning) -> torch.Tensor:
        """What is painted for each row. # (B, 3, 1, 1)"""
        tone = conditioning["letters"].sum(1, keepdim=True) % 97 / 97 * conditioning["size"][:, :1] / conditioning["size"][:, 1:]
        return torch.tanh(self.painter(tone))[..., None, None]

    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The noise in it, if what is to come were of the row's colour."""
        self.told.append({name: tuple(one.shape) for name, one in conditioning.items()})
        alpha = torch.tensor([schedule.alpha_cumprod_at(self.alphas, float(one)) for one in timesteps]).view(-1, 1, 1, 1)
        return (model_input - alpha.sqrt() * self.colours(conditioning)) / (1 - alpha).sqrt()

    def combine(self, output: torch.Tensor, scales: torch.Tensor, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        parts = scales.split([len(places) for places in rows])
        return [torch.einsum("n,nchw->chw", part, output[list(places)])[None] for part, places in zip(parts, rows, strict=True)]

    def x0(self, scheduler: Any, prediction: torch.Tensor, timestep: torch.Tensor, model_input: torch.Tensor) -> torch.Tensor:
        return schedule.predict_x0(scheduler, prediction, timestep, model_input)

    def encode_image(self, image: Image.Image, generator: torch.Generator | None = None) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(to_pixels(image), self.traits.scale)

    def decode(self, latents: torch.Tensor, tiles: int = 1) -> Image.Image:
        return to_image(self.decode_pixels(latents, tiles))

    def decode_pixels(self, latents: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        return latents.repeat_interleave(self.traits.scale, 2).repeat_interleave(self.traits.scale, 3)

    def count_tokens(self, text: str) -> TokenCount:
        return TokenCount(len(text.split()), LONGEST)


def image(prompt: str, seed: int = 0, **changes) -> Recipe:
    usual = {"model": "toy", "steps": 4, "scheduler": "Euler", "width": SIZE, "height": SIZE}
    return Recipe(**{**usual, "prompt": prompt, "seed": seed, **changes})


def colour_of(family: Toy, recipe: Recipe) -> torch.Tensor:
    """By hand: the weighted mean of the words' colours. # (3)"""
    conditions = family.conditions(recipe)
    colours = [family.colours(told).flatten() for told in conditions.rows]
    return sum(part * colour for part, colour in zip(conditions.scales, colours, strict=True))


@pytest.fixture
def toy() -> Family:
    painter = torch.nn.Linear(1, 3, bias=False).requires_grad_(False)
    painter.weight.copy_(torch.tensor([[1.0], [-0.5], [0.2]]))
    return Toy(painter, torch.device("cpu"), torch.float32)


@pytest.fixture
def spec(monkeypatch, tmp_path) -> ModelSpec:
    """A folder of the kind "toy", with its class and its two rows."""
    (tmp_path / "toy" / "painter").mkdir(parents=True)
    (tmp_path / "toy" / "painter" / "weight.json").write_text("[0.9, -0.6, 0.3]", encoding="utf-8")
    monkeypatch.setitem(loading.FAMILIES, "toy", Toy)
    monkeypatch.setitem(families.FAMILIES, "toy", FamilyRow("toy", "ToyPipeline", needs_of))
    return ModelSpec(
        name="toy", title="Toy", source=str(tmp_path / "toy"), family="toy", native_size=SIZE, scheduler="Euler", max_rows={"cpu": 8}
    )  # fmt: skip


def test_every_family_has_both_rows():
    assert loading.FAMILIES.keys() == families.FAMILIES.keys()


def test_images_become_what_their_rows_combine_to(toy):
    recipes = {
        "one": image("red"), "two": image("red:3 blue", 1), "three": image("red blue:2 tan", 2, guidance_scale=1, scheduler="Heun"),
        "long": image("magenta", 3), "wide": image("red", 4, width=2 * SIZE),
    }  # fmt: skip
    denoiser = Denoiser(toy)
    trajectories = {key: denoiser.admit(key, recipe) for key, recipe in recipes.items()}
    while advances := denoiser.tick():
        assert [advance.error for advance in advances] == [None] * len(advances)
    for key, recipe in recipes.items():
        expected = colour_of(toy, recipe).view(1, 3, 1, 1).expand(1, *toy.traits.latent_shape(recipe))
        assert torch.allclose(trajectories[key].latents, expected, atol=1e-4), key
        assert torch.allclose(trajectories[key].x0[0].float(), expected, atol=2e-3), key


def test_what_cannot_be_stacked_shares_no_call(toy):
    denoiser = Denoiser(toy)
    for seed, word in enumerate(("red", "tan", "azure", "ochre")):
        denoiser.admit(word, image(word, seed, steps=1))
    assert {tuple(advance.key for advance in denoiser.tick()) for _ in range(2)} == {("red", "tan"), ("azure", "ochre")}
    assert {told["letters"] for told in toy.told} == {(2, 3), (2, 5)}
    assert {told["size"] for told in toy.told} == {(2, 2)}


def test_equal_rows_of_the_first_step_are_computed_once(toy):
    denoiser = Denoiser(toy)
    for part in (1, 2, 3):
        denoiser.admit(part, image(f"red:{part} blue"))
    widths = [denoiser.width for _ in iter(denoiser.tick, [])]
    assert widths == [2, 6, 6, 6]


def test_the_engine_draws_with_it(spec, catalog, tmp_path):
    device = TorchDevice("cpu")
    recipes = [image("red"), image("red:3 blue", 1), image("green:2 blue tan", 2), image("red:2 blue", 1, height=SIZE + 8)]
    plan = Plan(tuple(Cell(i, recipe) for i, recipe in enumerate(recipes)))
    with Engine(catalog.with_model(spec), lambda: device, tmp_path) as engine:
        engine.submit(Plan((Cell(0, image("tan", 9)),))).wait()  # the model is loaded, and rehearsed with
        before, estimate = (device.denoiser.calls, device.denoiser.rows_run), engine.estimate(plan)
        job = engine.submit(plan)
        made = {cell: end.made for cell, end in job.wait().items()}
        assert (device.denoiser.calls - before[0], device.denoiser.rows_run - before[1]) == (estimate.calls, estimate.rows)
        assert engine.count_tokens("toy", "red blue") == TokenCount(2, LONGEST)
        for cell, recipe in enumerate(recipes):
            colour = ((colour_of(device.denoiser.family, recipe) / 2 + 0.5) * 255).numpy()
            expected = pytest.approx(numpy.broadcast_to(colour, (recipe.height, recipe.width, 3)), abs=1)
            with Image.open(made[cell].path) as picture:
                assert numpy.asarray(picture, float) == expected
            assert numpy.asarray(engine.frame(job, cell, 1, method="vae"), float) == expected  # the first step sees it already
            assert engine.frame(job, cell, 1, method="linear").size == (recipe.width // 4, recipe.height // 4)


def test_what_is_wrong_with_its_folder_is_a_sentence(spec):
    weight = Path(spec.source) / "painter" / "weight.json"
    for text, told in (("[1, 2]", "its painter has 2 colours."), ("[", "its files are damaged")):
        weight.write_text(text, encoding="utf-8")
        with pytest.raises(ModelUnavailable, match=rf"^Toy cannot be read: {told}"):
            loading.load(spec, torch.device("cpu"), torch.float32, lambda text, part: None)


def test_a_pictures_latents_are_its_colours(toy):
    picture = Image.new("RGB", (SIZE, SIZE), (255, 128, 0))
    assert numpy.array_equal(numpy.asarray(toy.decode(toy.encode_image(picture))), numpy.asarray(picture))

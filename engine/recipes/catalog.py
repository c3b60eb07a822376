"""Catalog: the models this engine offers. Limits: what its operator allows."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.errors import InvalidRequest, ModelUnavailable
from engine.recipes.families import FAMILIES, FAMILY_OF_PIPELINE
from engine.recipes.recipe import MAX_SEED, SIZE_MULTIPLE, Bounds, Recipe, Settings, Style, bounds, label
from engine.recipes.schedulers import DEFAULT_SCHEDULER, own_scheduler


class ModelSpec(BaseModel):
    """One model: where its weights are, and what suits it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    title: str
    source: str
    """A folder (absolute, or relative to the catalog's file) or a hub id "owner/name"."""
    variant: str | None = None
    """diffusers' weight variant, "fp16"; only used for hub ids."""
    family: str = "sd"
    """A row of engine.recipes.families.FAMILIES."""
    native_size: int = Field(512, description="pixels; the size it was trained at")
    steps: int = 20
    guidance_scale: float = 7.0
    useful_guidance: tuple[float, float] = (7.0, 9.0)
    guidance_limits: tuple[float, float] = (3.0, 15.0)
    """Below the first the prompt is mostly ignored, above the second colours burn."""
    scheduler: str = DEFAULT_SCHEDULER
    note: str = ""
    license: str = ""
    latent_rgb: tuple[tuple[float, float, float], ...] | None = None
    """Linear map latent channel -> RGB in [-1, 1], one row a channel; a published or fitted one of its VAE when None."""
    tiny_decoder: str | None = None
    """Of an AutoencoderTiny for its latents; a folder or hub id, as `source`."""
    max_rows: dict[str, int] = Field(default_factory=lambda: {"cpu": 2, "cuda": 16})
    """Largest network batch by kind of device, at its native size: where more rows stop paying, or stop fitting."""
    examples: tuple[str, ...] = ()

    @field_validator("family")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in FAMILIES:
            raise ValueError(f"there is no model family “{name}” here; there is {', '.join(FAMILIES)}")
        return name

    @property
    def is_local(self) -> bool:
        return Path(self.source).is_absolute()

    def rows_on(self, kind: str) -> int:
        """The largest network batch on a kind of device; one guided image's where nothing is known."""
        return self.max_rows.get(kind, 2)

    def recipe(self, **changes: object) -> Recipe:
        """This model's own good settings, with changes."""
        settings = {
            "model": self.name, "steps": self.steps, "guidance_scale": self.guidance_scale,
            "scheduler": self.scheduler, "width": self.native_size, "height": self.native_size,
        }  # fmt: skip
        return Recipe(**{**settings, **changes})


class Limits(BaseModel):
    """What the operator allows, whoever asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_steps: int = 150
    max_pixels: int = 2048 * 2048
    max_images: int = 100
    """Images in one request: a grid of 10 x 10."""
    max_waiting: int = 32
    """Requests of one owner that may wait or run at a time."""
    max_requests: int = 512
    """Requests of everybody that may."""
    max_open: int = 10_000
    """Their images that have not ended: some 50 MB of memory before any of them is begun."""

    def bounds(self, field: str) -> Bounds:
        """(lowest, highest) value of a numeric field of Recipe that is allowed here."""
        low, high = bounds(field)
        return low, min(high, self.max_steps) if field == "steps" else high

    def check(self, recipe: Recipe) -> None:
        """Raises InvalidRequest with the allowed value when the recipe asks for more."""
        if recipe.steps > self.max_steps:
            raise InvalidRequest(f"Steps must be at most {self.max_steps} here; it was {recipe.steps:,}.")
        if recipe.width * recipe.height > self.max_pixels:
            side = math.isqrt(self.max_pixels) // SIZE_MULTIPLE * SIZE_MULTIPLE
            raise InvalidRequest(
                f"{recipe.width} x {recipe.height} is too large here: at most {self.max_pixels:,} pixels, such as {side} x {side}."
            )

    def fit(self, settings: Settings) -> tuple[Settings, list[str]]:
        """(settings from elsewhere, with each number the nearest that is allowed here; a sentence for each that was not).

        A seed has no nearest one: out of bounds it is left out.
        """
        near: dict[str, Any] = {**settings}
        notes: list[str] = []
        if "seed" in near and not _within("seed", near["seed"]):
            notes.append(f"Seed {near.pop('seed')} is not from 0 to {MAX_SEED:,}: it was not taken over.")
        for field in ("steps", "guidance_scale", "clip_skip"):
            if field in near:
                low, high = self.bounds(field)
                given = near[field]
                near[field] = type(given)(min(max(given, low), high))
                if near[field] != given:
                    bound = "least" if near[field] == low else "most"
                    notes.append(f"{label(field)} {given:g} became {near[field]:g}, the {bound} here.")
        sides = {name: near[name] for name in ("width", "height") if name in near}
        fitted = self._fit_size(sides)
        if fitted != sides:
            before, after = (" x ".join(map(str, size.values())) for size in (sides, fitted))
            notes.append(f"Size {before} became {after}, the nearest here.")
        return Settings(**{**near, **fitted}), notes

    def _fit_size(self, sides: Mapping[str, int]) -> dict[str, int]:
        """Rounded down, as A1111 does; both sides by the same factor when there are too many pixels."""
        low, high = map(int, bounds("width"))
        near = {name: min(max(side, low), high) for name, side in sides.items()}
        factor = min(1, math.sqrt(self.max_pixels / math.prod(near.values())))
        return {name: max(int(side * factor) // SIZE_MULTIPLE * SIZE_MULTIPLE, low) for name, side in near.items()}


def _within(field: str, value: float) -> bool:
    low, high = bounds(field)
    return low <= value <= high


class Catalog:
    """The models on offer by name; the first is the default."""

    def __init__(self, models: Iterable[ModelSpec]):
        self._models = {model.name: model for model in models}
        if not self._models:
            raise ValueError("a catalog needs at least one model")

    @classmethod
    def load(cls, file: Path) -> Catalog:
        """The catalog in a TOML file, one table a model."""
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return cls(_from_table(name, table, file.parent) for name, table in tables.items())

    def with_model(self, spec: ModelSpec) -> Catalog:
        """This catalog with one more model, which becomes the default."""
        return Catalog([spec, *(model for model in self if model.name != spec.name)])

    def with_folder(self, folder: Path) -> Catalog:
        """This catalog with a diffusers folder on this machine as its default, under a name that no other model has.

        Raises ModelUnavailable with what is wrong with the folder.
        """
        spec = local_model(folder)
        if known := next((model for model in self if model.source == spec.source), None):
            return self.with_model(known)
        names = itertools.chain([spec.name], (f"{spec.name}-{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in self._models)
        return self.with_model(spec.model_copy(update={"name": free, "title": free}))

    def __iter__(self):
        return iter(self._models.values())

    @property
    def default(self) -> ModelSpec:
        return next(iter(self))

    def find(self, name: str) -> ModelSpec:
        """The model of that name. Raises InvalidRequest with the known names."""
        if name in self._models:
            return self._models[name]
        near = difflib.get_close_matches(name, self._models, n=1, cutoff=0.5) or list(self._models)
        raise InvalidRequest(f"There is no model “{name[:80]}” here; there is {', '.join(near)}.")


def local_model(folder: Path) -> ModelSpec:
    """A catalog entry for a diffusers folder on this machine, which starts on the scheduler that the model was saved with.

    Raises ModelUnavailable with what is wrong with it.
    """
    folder = folder.expanduser().resolve()
    if folder.is_file():
        raise ModelUnavailable(
            f"{folder} is a single file, which cannot be opened yet: make a folder of it with diffusers,"
            f" StableDiffusionPipeline.from_single_file({folder.name!r}).save_pretrained({folder.stem!r}), and give that."
        )
    if not folder.is_dir():
        raise ModelUnavailable(f"There is no folder {folder}: give the folder of a model saved by diffusers.")
    try:
        index = _read_json(folder / "model_index.json")
        kind = str(index.get("_class_name", "nothing"))
        if kind not in FAMILY_OF_PIPELINE:
            raise ModelUnavailable(f"{folder} holds a {kind[:80]}; only {', '.join(FAMILY_OF_PIPELINE)} can be run for now.")
        size = _read_json(folder / "unet" / "config.json").get("sample_size", 64)
        blocks = _read_json(folder / "vae" / "config.json").get("block_out_channels", [0] * 4)
        native = _native_size(size, len(blocks))
        saved = _read_json(folder / "scheduler" / "scheduler_config.json")
        _, saved["_class_name"] = index.get("scheduler") or (None, saved.get("_class_name"))  # what diffusers loads
        return ModelSpec(
            name=folder.name, title=folder.name, source=str(folder), family=FAMILY_OF_PIPELINE[kind],
            native_size=native, scheduler=own_scheduler(saved) or DEFAULT_SCHEDULER,
        )  # fmt: skip
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(folder)
        raise ModelUnavailable(f"{folder} is no diffusers model folder: it has no {missing}.") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelUnavailable(f"{folder} cannot be read as a diffusers model folder: {str(error)[:200]}.") from None


def _native_size(latents: int | list[int], blocks: int) -> int:
    """Pixels along the longer side that a network was trained at, from its `sample_size` and its VAE's number of blocks."""
    sides = latents if isinstance(latents, list) else [latents]
    if not sides or any(type(side) is not int for side in sides):
        raise ValueError(f"its network's sample_size is {str(latents)[:40]}")
    pixels = max(sides) * 2 ** (min(blocks, 10) - 1)
    if not _within("width", pixels):
        low, high = bounds("width")
        raise ValueError(f"it is for pictures of {pixels:,} pixels a side, and {low} to {high:,} can be drawn")
    return pixels


def load_styles(file: Path) -> list[Style]:
    """The style presets in a TOML file: one table a style, its header the name shown."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return [Style(name=name, **table) for name, table in tables.items()]


def _from_table(name: str, table: dict[str, Any], folder: Path) -> ModelSpec:
    found = {key: folder / table[key] for key in ("source", "tiny_decoder") if key in table}
    beside = {key: str(local.resolve()) for key, local in found.items() if local.is_dir()}
    return ModelSpec(name=name, **{**table, **beside})


def _read_json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not a table of settings")
    return content

"""Who is measured: the whole Engine, its Denoiser alone, and plain diffusers. Imports torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils import logging as diffusers_logging
from PIL import Image

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.device import TorchDevice
from engine.diffusion.loading import pick_device, pick_dtype
from engine.local import open_catalog
from engine.pictures.made import Made
from engine.pictures.outputs import open_picture
from engine.recipes.catalog import ModelSpec
from engine.recipes.plan import Plan
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import scheduler_row
from engine.running.engine import Engine
from engine.running.events import Finished, Preview
from engine.running.preview_options import Method, PreviewOptions


@dataclass(frozen=True)
class Drawn:
    """Pictures in the order of a plan's cells, and how many previews of each method a reader saw on the way."""

    pictures: tuple[Image.Image | Made, ...]
    previews: Counter[str]

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The pictures' pixels; those of ours are read from their files, which is no part of making them."""
        return tuple(open_picture(one) if isinstance(one, Made) else one for one in self.pictures)


class Ours:
    """The Engine on this machine's own device, as engine.local puts it together, with its device at hand."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._device: TorchDevice | None = None
        self.engine = Engine(open_catalog(), self._open, folder)
        self.spec: ModelSpec = self.engine.catalog.default

    def _open(self) -> TorchDevice:
        self._device = TorchDevice()
        return self._device

    @property
    def device(self) -> TorchDevice:
        """The engine's own device; there is one once a picture has been made."""
        assert self._device is not None, "draw something first"
        return self._device

    @property
    def unet(self) -> torch.nn.Module:
        return self.device.denoiser.family.networks()["unet"]

    def draw(self, plan: Plan, previews: Method = "off", *, reuse: bool = False) -> Drawn:
        """From the click to the last picture on disk; a grid's cells develop together, as the page has them.

        Raises RuntimeError when a picture failed.
        """
        job = self.engine.submit(plan, previews=PreviewOptions(previews), reuse=reuse, together=plan.grid is not None)
        made: dict[int, Made] = {}
        seen: dict[int, Preview] = {}  # by identity: a step without a picture repeats the one before
        for event in job.events():
            if isinstance(event, Preview) and event.image is not None:
                seen[id(event.image)] = event
            elif isinstance(event, Finished):
                assert event.made.path is not None, event.made.unsaved
                made[event.cell] = event.made
        if len(made) != len(plan.cells):
            raise RuntimeError(f"a picture failed: {job.wait()}")
        return Drawn(tuple(made[cell.index] for cell in plan.cells), Counter(one.method for one in seen.values()))

    def draw_one_by_one(self, plan: Plan, previews: Method = "off") -> Drawn:
        """Each cell as a request of its own, submitted when the one before is finished."""
        drawn = [self.draw(Plan((cell,), plan.exact), previews) for cell in plan.cells]
        return Drawn(tuple(one for each in drawn for one in each.pictures), sum((each.previews for each in drawn), Counter()))

    def first_preview(self, plan: Plan) -> tuple[float, Preview]:
        """Seconds from the click to the first preview with a picture; the job is then stopped."""
        start = time.perf_counter()
        job = self.engine.submit(plan, previews=PreviewOptions("auto"))
        for event in job.events():
            if isinstance(event, Preview) and event.image is not None:
                seconds = time.perf_counter() - start
                self.engine.stop(job)
                job.wait()
                return seconds, event
        raise RuntimeError("no preview had a picture")

    def close(self) -> None:
        self.engine.close()


class Bare:
    """A Denoiser of its own over the engine's loaded network: no thread, no events, no file."""

    def __init__(self, ours: Ours):
        self._family = ours.device.denoiser.family
        self._max_rows = ours.device.packer.max_rows
        self._recipe = ours.spec.recipe(prompt="an owl, noto style")

    @torch.inference_mode()
    def draw(self, plan: Plan) -> Drawn:
        denoiser = Denoiser(self._family, max_rows=self._max_rows)
        trajectories = [denoiser.admit(cell.index, cell.recipe) for cell in plan.cells]
        while not all(one.done for one in trajectories):
            for advance in denoiser.tick():
                if advance.error is not None:
                    raise advance.error
        return Drawn(tuple(self._family.decode(one.latents) for one in trajectories), Counter())

    def call(self, rows: int) -> Callable[[], None]:
        """Makes one network call of `rows` rows when called, and waits for it."""
        family, device = self._family, self._family.device
        with torch.inference_mode():
            told = family.conditions(self._recipe).rows[-1]
            conditioning = {name: torch.cat([part] * rows) for name, part in told.items()}
        latents = torch.zeros(rows, *family.traits.latent_shape(self._recipe), device=device)
        times = torch.full((rows,), 500.0, device=device)

        @torch.inference_mode()
        def run() -> None:
            family.predict(latents, times, conditioning)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run


class Peer:
    """diffusers' StableDiffusionPipeline over the same weights, device and dtype, called as its manual shows."""

    def __init__(self, spec: ModelSpec, folder: Path):
        diffusers_logging.disable_progress_bar()
        device = pick_device()
        self.pipe = StableDiffusionPipeline.from_pretrained(
            spec.source, dtype=pick_dtype(device), use_safetensors=True, local_files_only=True,
            safety_checker=None, requires_safety_checker=False,
        ).to(device)  # fmt: skip
        self.pipe.set_progress_bar_config(disable=True)
        row = scheduler_row(spec.scheduler)
        self.pipe.scheduler = getattr(diffusers, row.class_name).from_config(self.pipe.scheduler.config, **row.options)
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def unet(self) -> torch.nn.Module:
        return self.pipe.unet

    def draw(self, plan: Plan, save: bool = True) -> Drawn:
        """One call of the pipeline for each cell, each picture saved as PNG when asked for."""
        images = []
        for number, cell in enumerate(plan.cells):
            [image] = self._call(cell.recipe, [cell.recipe.seed])
            if save:
                image.save(self._folder / f"{number}.png")
            images.append(image)
        return Drawn(tuple(images), Counter())

    def draw_by_guidance(self, plan: Plan) -> Drawn:
        """One call for all seeds of each guidance scale: the most that one call of the pipeline can share."""
        recipes = [cell.recipe for cell in plan.cells]
        images: dict[Recipe, Image.Image] = {}
        for scale in dict.fromkeys(recipe.guidance_scale for recipe in recipes):
            group = [recipe for recipe in recipes if recipe.guidance_scale == scale]
            made = self._call(group[0], [recipe.seed for recipe in group])
            images.update(zip(group, made, strict=True))
        for number, recipe in enumerate(recipes):
            images[recipe].save(self._folder / f"{number}.png")
        return Drawn(tuple(images[recipe] for recipe in recipes), Counter())

    def _call(self, recipe: Recipe, seeds: Sequence[int]) -> list[Image.Image]:
        made = self.pipe(
            prompt=recipe.prompt, negative_prompt=recipe.negative_prompt, num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance_scale, width=recipe.width, height=recipe.height,
            num_images_per_prompt=len(seeds), generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )  # fmt: skip
        assert isinstance(made, StableDiffusionPipelineOutput)
        return list(made.images)


def count_calls(unet: Any, work: Callable[[], Any]) -> dict[str, int]:
    """{"calls", "rows"} of the network while `work` runs, seen from the network itself."""
    seen = {"calls": 0, "rows": 0}

    def hook(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
        seen["calls"] += 1
        seen["rows"] += output[0].shape[0]

    handle = unet.register_forward_hook(hook)
    try:
        work()
    finally:
        handle.remove()
    return seen


def largest_difference(pairs: Sequence[tuple[Drawn, Drawn]]) -> int:
    """The largest difference of any pixel's colour (0 to 255) between what we and the peer made."""
    return max(
        int(numpy.abs(numpy.asarray(ours, numpy.int16) - numpy.asarray(peer, numpy.int16)).max())
        for left, right in pairs
        for ours, peer in zip(left.images, right.images, strict=True)
    )

"""TorchDevice: the resident model on one CPU or GPU, its denoiser and its previewers."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.family import Family
from engine.diffusion.identity import Identity
from engine.diffusion.loading import Loaded, load, pick_device, pick_dtype
from engine.diffusion.memory import free_unused, is_out_of_memory
from engine.diffusion.previews import Previewers
from engine.diffusion.trajectory import Trajectory
from engine.errors import ModelUnavailable, OutOfMemory, SpoiltPicture
from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import ModelSpec
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import scheduler_row
from engine.running.device import Advance, Key, Report, TokenCount
from engine.running.packing import EXACT_ROWS, Packer
from engine.version import VERSION

KEPT_BYTES = 256 * 2**20
"""Of all images' steps, under way and ended: 100 pictures of 512 x 512 pixels and 50 steps take 160 MB. Only those that
have ended are forgotten to stay within it."""


TILES = (1, 2, 4)
"""How many along a side a picture is decoded in, one after the other while memory runs out: a quarter of it each time."""


@dataclass
class Kept:
    """What is kept of an image: its trajectory, and how to look at it."""

    trajectory: Trajectory
    family: Family | None
    """None once its model has made way for another's."""
    previewers: Previewers
    identity: Future[Identity]
    tiled: bool = False
    """Whether its picture was decoded in tiles."""

    @property
    def bytes(self) -> int:
        x0 = self.trajectory.x0  # all of one shape; asked for with every tick, so not added up one by one
        return self.trajectory.latents.nbytes + (len(x0) * x0[0].nbytes if x0 else 0)

    def part(self) -> None:
        """Lets go of the model: the linear map is all that is left to look with."""
        self.family, self.previewers = None, self.previewers.rough()


class TorchDevice:
    """engine.running.device.Device on torch. Raises ModelUnavailable when the wanted device is not there."""

    def __init__(self, device: str | None = None, dtype: str | None = None, *, exact_rows: int = EXACT_ROWS):
        self._news: list[str] = []  # to be told with the next load
        self._device = pick_device(device, self._news.append)
        self._dtype = pick_dtype(self._device, dtype)
        self._exact_rows = exact_rows
        self._loaded: Loaded | None = None
        self._denoiser: Denoiser | None = None
        self._kept: dict[Key, Kept] = {}
        self._live: set[Key] = set()  # those of which a picture may still be developed
        self._ended: dict[Key, int] = {}  # bytes of the others, those that ended first before
        self._ended_bytes = 0
        self.kind = self._device.type
        self.preview_seconds = 0.0

    @property
    def model(self) -> str | None:
        return self._loaded.spec.name if self._loaded else None

    @property
    def denoiser(self) -> Denoiser:
        if self._denoiser is None:
            raise ModelUnavailable("No model is loaded yet: try again in a moment.")
        return self._denoiser

    @property
    def packer(self) -> Packer:
        return self.denoiser.packer

    @property
    def width(self) -> int:
        return self.denoiser.width

    @property
    def room(self) -> int:
        return KEPT_BYTES

    @property
    def kept_bytes(self) -> int:
        return self._ended_bytes + sum(self._kept[key].bytes for key in self._live)

    def cost(self, recipe: Recipe) -> int:
        latents = math.prod(self.denoiser.family.traits.latent_shape(recipe))
        return latents * (4 + 2 * scheduler_row(recipe.scheduler).calls(recipe.steps))  # float32, and float16 x0

    def load(self, spec: ModelSpec, report: Report) -> Loaded:
        while self._news:
            report(self._news.pop(), None)
        return load(spec, self._device, self._dtype, report)

    def install(self, loaded: Loaded) -> None:
        rows, pixels = loaded.spec.rows_on(self.kind), loaded.spec.native_size**2
        self._denoiser = Denoiser(loaded.family, max_rows=rows, exact_rows=self._exact_rows, native_pixels=pixels)
        self._loaded = loaded  # last: another thread that sees the model asks for its packer
        for kept in self._kept.values():  # they must not hold the old model's memory
            kept.part()
        free_unused(self._device)
        loaded.previewers.measure(loaded.spec.native_size // loaded.family.traits.scale)  # now, while nothing else keeps the device busy

    def admit(
        self, key: Key, recipe: Recipe, *, owner: str = "", exact: bool = False, latents: Any | None = None,
        job: str = "", together: bool = False, alone: int = 0,
    ) -> int:  # fmt: skip
        start = None if latents is None else torch.as_tensor(latents)
        try:
            options = {"owner": owner, "exact": exact, "job": job, "together": together, "alone": alone}
            trajectory = self.denoiser.admit(key, recipe, latents=start, **options)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory("This device's memory is full: try again in a moment, or choose a smaller size.") from None
        assert self._loaded is not None
        self._kept[key] = Kept(trajectory, self._loaded.family, self._loaded.previewers, self._loaded.identity)
        self._live.add(key)
        return trajectory.total

    def tick(self) -> list[Advance]:
        advances = self.denoiser.tick() if self._denoiser else []
        self._make_room()
        return advances

    def preview_costs(self, key: Key) -> dict[str, float]:
        kept = self._kept[key]
        return kept.previewers.costs(kept.trajectory.latents[0, 0].numel())

    def preview(self, key: Key, method: str, step: int | None = None) -> Image.Image:
        self.preview_seconds = 0.0
        kept = self._kept[key]
        x0 = kept.trajectory.x0
        if step is not None and not 1 <= step <= len(x0):
            raise IndexError(f"step {step} of {len(x0)}")
        if method not in kept.previewers.methods:
            method = "linear"
        try:
            return kept.previewers.show(method, x0[-1 if step is None else step - 1])
        finally:
            self.preview_seconds = kept.previewers.seconds

    @torch.inference_mode()
    def picture(self, key: Key) -> Image.Image:
        kept = self._kept[key]
        if kept.family is None:
            raise KeyError(key)
        image = self._decoded(kept, kept.trajectory.latents if kept.trajectory.done else kept.trajectory.x0[-1].float())
        if image.getextrema() == ((0, 0),) * 3:
            raise SpoiltPicture("The picture came out all black: try another scheduler, a lower CFG scale, or --dtype float32.")
        return image

    def _decoded(self, kept: Kept, latents: torch.Tensor) -> Image.Image:
        """The decoded latents, in tiles where the whole does not fit. Raises OutOfMemory; the latents are kept."""
        assert kept.family is not None
        for tiles in TILES:
            try:
                image = kept.family.decode(latents, tiles)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                kept.tiled = tiles > 1
                return image
            free_unused(self._device)  # here, where no traceback holds the failed call's tensors
        size = f"{kept.trajectory.recipe.width} x {kept.trajectory.recipe.height}"
        raise OutOfMemory(
            f"The steps of this picture are done, but decoding {size} does not fit into this device's memory, not even in tiles:"
            " choose a smaller size. What it came to is kept for a while, as latents (Engine.latents)."
        )

    def latents(self, key: Key) -> Any:
        return self._kept[key].trajectory.latents[0].float().cpu().numpy()

    def facts(self, key: Key | None = None) -> Future[DeviceFacts]:
        if key is not None:
            kept = self._kept[key]
            known, bucket, tiled = kept.identity, kept.trajectory.bucket, kept.tiled
        elif self._loaded is not None:
            known, bucket, tiled = self._loaded.identity, 0, False
        else:
            raise ModelUnavailable("No model is loaded yet: try again in a moment.")
        name = torch.cuda.get_device_name(self._device) if self.kind == "cuda" else "cpu"
        dtype = str(self._dtype).removeprefix("torch.")
        versions = {
            "darkroom": VERSION, "torch": torch.__version__,
            "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        }  # fmt: skip
        facts: Future[DeviceFacts] = Future()

        def tell(identity: Future[Identity]) -> None:
            try:
                model = identity.result()
                facts.set_result(DeviceFacts(model.revision, model.weights, name, dtype, bucket, versions, tiled))
            except Exception as error:  # noqa: BLE001 - handed to those who wait for it
                facts.set_exception(error)

        known.add_done_callback(tell)
        return facts

    def drop(self, key: Key) -> None:
        if self._denoiser is not None:
            self._denoiser.drop(key)

    def settle(self, key: Key) -> None:
        self.drop(key)
        if key not in self._live:
            return
        self._live.remove(key)
        self._kept[key].trajectory.rest()
        self._ended[key] = self._kept[key].bytes
        self._ended_bytes += self._ended[key]
        self._make_room()

    def forget(self, key: Key) -> None:
        self.drop(key)
        self._live.discard(key)
        self._ended_bytes -= self._ended.pop(key, 0)
        self._kept.pop(key, None)

    def count_tokens(self, text: str) -> TokenCount | None:
        loaded = self._loaded
        return loaded.family.count_tokens(text) if loaded else None

    def _make_room(self) -> None:
        """Forgets images that have ended, oldest first, while there is no room for all."""
        while self._ended and self.kept_bytes > KEPT_BYTES:
            self.forget(next(iter(self._ended)))

"""TorchDevice: the resident model on one CPU or GPU, its denoiser and its previewers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

import engine
from engine.catalog import ModelSpec
from engine.device import Advance, DeviceFacts, Key, Report, TokenCount
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.loading import Loaded, load, pick_device, pick_dtype
from engine.diffusion.trajectory import Trajectory
from engine.errors import ModelUnavailable, SpoiltPicture
from engine.packing import EXACT_ROWS
from engine.recipe import Recipe


class TorchDevice:
    """engine.device.Device on torch. Raises ModelUnavailable when the wanted device is not there."""

    def __init__(
        self, device: str | None = None, dtype: str | None = None, *, cache: Path | None = None, exact_rows: int = EXACT_ROWS
    ):
        self._device = pick_device(device)
        self._dtype = pick_dtype(self._device, dtype)
        self._cache = cache
        self._exact_rows = exact_rows
        self._loaded: Loaded | None = None
        self._denoiser: Denoiser | None = None
        self._kept: dict[Key, tuple[Trajectory, Loaded]] = {}
        self.kind = self._device.type

    @property
    def model(self) -> str | None:
        return self._loaded.spec.name if self._loaded else None

    @property
    def denoiser(self) -> Denoiser:
        if self._denoiser is None:
            raise ModelUnavailable("No model is loaded yet: try again in a moment.")
        return self._denoiser

    def load(self, spec: ModelSpec, report: Report) -> Loaded:
        return load(spec, self._device, self._dtype, report, self._cache)

    def install(self, loaded: Loaded) -> None:
        self._loaded = loaded
        rows = loaded.spec.max_rows.get(self.kind, 2)
        self._denoiser = Denoiser(loaded.family, max_rows=rows, exact_rows=self._exact_rows)
        # Kept images of the old model hold its decoder; freeing its memory comes before scrubbing back into them.
        self._kept.clear()
        gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()

    def admit(self, key: Key, recipe: Recipe, *, owner: str = "", exact: bool = False, latents: Any | None = None) -> int:
        start = None if latents is None else torch.as_tensor(latents)
        trajectory = self.denoiser.admit(key, recipe, owner=owner, exact=exact, latents=start)
        assert self._loaded is not None
        self._kept[key] = (trajectory, self._loaded)
        return trajectory.total

    def tick(self) -> list[Advance]:
        return self.denoiser.tick() if self._denoiser else []

    def preview_costs(self, key: Key) -> dict[str, float]:
        trajectory, loaded = self._kept[key]
        return loaded.previewers.costs(trajectory.latents[0, 0].numel())

    def preview(self, key: Key, method: str, step: int | None = None) -> Image.Image:
        trajectory, loaded = self._kept[key]
        if step is not None and not 1 <= step <= len(trajectory.x0):
            raise IndexError(f"step {step} of {len(trajectory.x0)}")
        if method not in loaded.previewers.methods:
            method = "linear"
        return loaded.previewers.show(method, trajectory.x0[-1 if step is None else step - 1])

    @torch.inference_mode()
    def picture(self, key: Key) -> Image.Image:
        trajectory, loaded = self._kept[key]
        image = loaded.family.decode(trajectory.latents if trajectory.done else trajectory.x0[-1].float())
        if image.getextrema() == ((0, 0),) * 3:
            raise SpoiltPicture("The picture came out all black: try another scheduler, a lower CFG scale, or --dtype float32.")
        return image

    def latents(self, key: Key) -> Any:
        return self._kept[key][0].latents[0].float().cpu().numpy()

    def facts(self, key: Key) -> DeviceFacts:
        trajectory, loaded = self._kept[key]
        name = torch.cuda.get_device_name(self._device) if self.kind == "cuda" else "cpu"
        versions = {
            "darkroom": engine.__version__, "torch": torch.__version__,
            "diffusers": diffusers.__version__, "transformers": transformers.__version__,
        }  # fmt: skip
        return DeviceFacts(loaded.revision, name, str(loaded.family.dtype).removeprefix("torch."), trajectory.bucket, versions)

    def drop(self, key: Key) -> None:
        if self._denoiser is not None:
            self._denoiser.drop(key)

    def forget(self, key: Key) -> None:
        self.drop(key)
        self._kept.pop(key, None)

    def count_tokens(self, text: str) -> TokenCount | None:
        loaded = self._loaded
        return loaded.family.tokens.count(text) if loaded else None

"""FakeDevice: a Device without a model. It draws pictures computed from the recipe and records what it was asked."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from engine.errors import SpoiltPicture
from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import Catalog, Limits, ModelSpec
from engine.recipes.recipe import Recipe
from engine.running.device import Advance, Key, Report, TokenCount
from engine.running.engine import Engine
from engine.running.messages import Link
from engine.running.packing import Packer
from engine.running.worker import Worker
from tests.conftest import ROOT

SAFETY = 120.0
"""Seconds after which whatever a test holds back goes on by itself, so that a broken test ends."""


@dataclass
class FakeImage:
    """One image on the fake device."""

    recipe: Recipe
    latents: numpy.ndarray
    step: int = 0
    bucket: int = 0
    color: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.recipe.model_dump_json().encode() + self.latents.tobytes()).digest()
        self.color = tuple(64 + byte // 2 for byte in digest[:3])

    def picture(self, step: int, scale: int = 1) -> Image.Image:
        """Plain grey at step 0, the recipe's own color at the last step; a quarter of it dark, to show which way is up."""
        part = step / self.recipe.steps
        now = tuple(round(128 + (value - 128) * part) for value in self.color)
        width, height = self.recipe.width // scale, self.recipe.height // scale
        image = Image.new("RGB", (width, height), now)
        image.paste((32, 32, 32), (0, 0, width // 2, height // 2))
        return image


class FakeDevice:
    """engine.running.device.Device for tests. `history` holds every call, oldest first: (method, key or model, ...).

    What goes wrong is told by seed: `step_errors[seed] = (step, error)` fails that image at its `step`,
    `picture_errors[seed] = error` when it is developed, and the pictures of seeds in `black` come out black.
    `load_errors[model] = error` fails a load.

    `hold()` makes every later tick wait until `let(ticks)` grants it, and `let_go()` ends that;
    a load waits until the event `may_load` is set, which it is to begin with.
    """

    kind = "cpu"

    def __init__(self, tick_seconds: float = 0.0, *, images_a_tick: int = 8):
        self.tick_seconds = tick_seconds
        self.images_a_tick = images_a_tick
        self.packer = Packer(max_rows=2 * images_a_tick)
        self.width = 0
        self.room = 256 * 2**20
        self.history: list[tuple[Any, ...]] = []
        self.sizes: list[tuple[Key, tuple[int, int]]] = []  # of each image that was admitted
        self.model: str | None = None
        self.costs = {"linear": 0.0, "vae": 60.0}
        self.preview_seconds = 0.0
        self.token_limit = 75
        self.load_errors: dict[str, Exception] = {}
        self.step_errors: dict[int, tuple[int, Exception]] = {}
        self.tick_error: Exception | None = None
        self.picture_errors: dict[int, Exception] = {}
        self.black: set[int] = set()
        self.may_load = threading.Event()
        self.may_load.set()
        self.identified: Future[None] = Future()
        self.identified.set_result(None)
        self._images: dict[Key, FakeImage] = {}
        self._live: list[Key] = []
        self._together: set[Key] = set()
        self._held = False
        self._granted = threading.Semaphore(0)

    def hold(self) -> None:
        self._held = True

    def let(self, ticks: int = 1) -> None:
        self._granted.release(ticks)

    def let_go(self) -> None:
        self._held = False
        self._granted.release()
        self.may_load.set()

    @property
    def kept(self) -> set[Key]:
        """The images that are not forgotten."""
        return set(self._images)

    def calls(self, method: str) -> list[tuple[Any, ...]]:
        """What `method` was called with, oldest first."""
        return [call[1:] for call in self.history if call[0] == method]

    # What a Worker calls.

    @property
    def kept_bytes(self) -> int:
        return sum(image.latents.nbytes + image.latents.size * 2 * image.step for image in self._images.values())

    def cost(self, recipe: Recipe) -> int:
        return 4 * (recipe.height // 8) * (recipe.width // 8) * (4 + 2 * recipe.steps)

    def load(self, spec: ModelSpec, report: Report) -> ModelSpec:
        self.history.append(("load", spec.name))
        report(f"Loading {spec.title} ...", None)
        self.may_load.wait(SAFETY)
        report(f"Downloading {spec.title}: 1.00 of 2.00 GB", 0.5)
        if spec.name in self.load_errors:
            raise self.load_errors[spec.name]
        return spec

    def install(self, loaded: ModelSpec) -> None:
        assert not self._live, "no image may be under way"
        self.history.append(("install", loaded.name))
        self.model = loaded.name

    def admit(
        self, key: Key, recipe: Recipe, *, owner: str, exact: bool, latents: Any | None, job: str = "", together: bool = False,
        alone: int = 0,
    ) -> int:  # fmt: skip
        assert recipe.model == self.model, "an image of a model that is not resident"
        self.history.append(("admit", key, owner))
        self.sizes.append((key, (recipe.width, recipe.height)))
        noise = numpy.random.default_rng(recipe.seed).standard_normal((4, recipe.height // 8, recipe.width // 8), numpy.float32)
        self._images[key] = FakeImage(recipe, noise if latents is None else numpy.asarray(latents, numpy.float32))
        self._live.append(key)
        self._together |= {key} if together else set()
        return recipe.steps

    def tick(self) -> list[Advance]:
        if self._held:
            self._granted.acquire(timeout=SAFETY)
        time.sleep(self.tick_seconds)
        if self.tick_error is not None:
            error, self.tick_error = self.tick_error, None
            raise error
        turn = sorted(self._live, key=lambda key: self._images[key].step if key in self._together else 0)
        picked = turn[: self.images_a_tick]
        self.width = 2 * len(picked)
        self.history.append(("tick", tuple(picked)))
        return [self._advance(key, len(picked)) for key in picked]

    def preview_costs(self, key: Key) -> dict[str, float]:
        own = self._images[key].recipe.model == self.model
        return self.costs if own else {"linear": self.costs["linear"]}

    def preview(self, key: Key, method: str, step: int | None = None) -> Image.Image:
        self.history.append(("preview", key, method, step))
        self.preview_seconds = self.costs.get(method, 0.0)
        image = self._images[key]
        method = method if image.recipe.model == self.model else "linear"
        step = image.step if step is None else step
        if not 1 <= step <= image.step:
            raise IndexError(step)
        return image.picture(step, scale=8 if method == "linear" else 1)

    def picture(self, key: Key) -> Image.Image:
        self.history.append(("picture", key))
        image = self._images[key]
        seed = image.recipe.seed
        if seed in self.picture_errors:
            raise self.picture_errors[seed]
        if seed in self.black:
            raise SpoiltPicture("The picture came out all black: try another scheduler.")
        return image.picture(image.step)

    def latents(self, key: Key) -> numpy.ndarray:
        return self._images[key].latents

    def facts(self, key: Key | None = None) -> Future[DeviceFacts]:
        bucket = self._images[key].bucket if key is not None else 0
        facts: Future[DeviceFacts] = Future()
        known = DeviceFacts("fake-revision", "fake-weights", "cpu", "float32", bucket, {"darkroom": "test"})
        self.identified.add_done_callback(lambda _: facts.set_result(known))
        return facts

    def drop(self, key: Key) -> None:
        self.history.append(("drop", key))
        if key in self._live:
            self._live.remove(key)

    def settle(self, key: Key) -> None:
        self.history.append(("settle", key))
        self.drop(key)

    def forget(self, key: Key) -> None:
        self.history.append(("forget", key))
        self._images.pop(key, None)
        if key in self._live:
            self._live.remove(key)

    def count_tokens(self, text: str) -> TokenCount | None:
        words = text.split()
        return TokenCount(len(words), self.token_limit, " ".join(words[self.token_limit :])) if self.model else None

    def _advance(self, key: Key, bucket: int) -> Advance:
        image = self._images[key]
        image.bucket = max(image.bucket, bucket)
        total = image.recipe.steps
        fails_at, error = self.step_errors.get(image.recipe.seed, (0, None))
        if error is not None and image.step + 1 >= fails_at:
            self._live.remove(key)
            return Advance(key, image.step, total, error=error)
        image.step += 1
        if image.step == total:
            self._live.remove(key)
        return Advance(key, image.step, total, done=image.step == total)


def fake_engine(
    tmp_path: Path, *, device: FakeDevice | None = None, catalog: Catalog | None = None, limits: Limits | None = None,
    worker: Callable[..., Link] = Worker,
) -> Engine:  # fmt: skip
    """An Engine over a FakeDevice with the real catalog; its pictures are written below `tmp_path`."""
    catalog = catalog or Catalog.load(ROOT / "presets" / "models.toml")
    return Engine(catalog, lambda: device or FakeDevice(), tmp_path, limits, worker=worker)

"""Residency: which model is on the device, which one is being loaded, and what is told of both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from engine.errors import EngineError, ModelUnavailable
from engine.pictures.made import DeviceFacts
from engine.recipes.catalog import Catalog, ModelSpec
from engine.running.admission import Admission
from engine.running.device import Device, Key
from engine.running.events import Notice
from engine.running.messages import Answered, Called, Resident, Tell, Told, Trouble

log = logging.getLogger(__name__)

REHEARSED_SECONDS = 0.5
"""A lone call that takes longer than this is not followed by a larger or wider one just to know its speed."""

SMALLEST_REHEARSED = 64
"""Pixels of the side with which a rehearsal begins: a network of real size takes 10 s a call at 512 on a CPU."""


class Surroundings(Protocol):
    """What a residency needs of the worker that it belongs to."""

    line: Admission

    def post(self, run: Callable[[], None]) -> None:
        """Has something done in the worker's thread. From any thread."""
        ...

    def under_way(self) -> bool:
        """Whether an image of the resident model is: another cannot be installed then."""
        ...

    def disturbed(self) -> bool:
        """Whether somebody has come: nobody waits for a rehearsal."""
        ...

    def lost(self, model: str, message: str) -> None:
        """A model that images wait for cannot be had."""
        ...

    def calling(self) -> AbstractContextManager[None]:
        """Around what may take long, or hang."""
        ...


class Residency:
    """The device, opened when it is first needed, and its models. In the worker's thread, but for what is said to be otherwise."""

    def __init__(self, open_device: Callable[[], Device], catalog: Catalog, tell: Tell, around: Surroundings):
        self._open_device = open_device
        self._catalog = catalog
        self._tell = tell
        self._around = around
        self._device: Device | None = None
        self._loading: str | None = None
        self._progress: Notice | None = None
        self._ready: tuple[str, Any] | None = None  # a loaded model that waits for the last images of the old one
        self._rehearsing: str | None = None
        self._warmed: list[int] = []  # tickets of those that wait for the load which is going on
        self._told: Resident | None = None

    @property
    def model(self) -> str | None:
        """The resident model's name. From any thread."""
        return self._device.model if self._device is not None else None

    @property
    def device(self) -> Device:
        """Opened now if it was not. Raises what opening raises."""
        if self._device is None:
            self._device = self._open_device()
            self._say(Resident(self._device.kind))
        return self._device

    @property
    def opened(self) -> Device | None:
        """The device, if it was opened already. From any thread."""
        return self._device

    @property
    def changing(self) -> bool:
        """Whether a loaded model waits for its turn: no image of the resident one is let in any more."""
        return self._ready is not None

    @property
    def may_load(self) -> bool:
        """Whether a load could begin."""
        return self._loading is None

    def progress_of(self, models: set[str]) -> Notice | None:
        """How far the load of one of these models has come; None where none is being loaded. From any thread."""
        progress = self._progress
        return progress if self._loading in models else None

    def warm(self, ticket: int, model: str, idle: bool) -> None:
        """Loads a model that nobody waits for, if nothing else is going on; answers once that is over, however it ended."""
        spec = self._catalog.find(model)
        idle = idle and self._ready is None and self._loading is None
        if self._loading != spec.name and (not idle or self.model == spec.name):
            self._tell(Answered(ticket))
            return
        self._warmed.append(ticket)
        if self._loading is None:
            self._rehearsing = spec.name
            self._load(spec)

    def answer_warmed(self) -> None:
        """Nobody waits for a load any more."""
        warmed, self._warmed = self._warmed, []
        for ticket in warmed:
            self._tell(Answered(ticket))

    def turn(self) -> bool:
        """Installs a loaded model once no image of the old one is under way, and has the next one loaded that somebody waits for.

        Images of the resident model do not wait for a download behind somebody else's; once the other is ready, the ones under
        way are finished and it is its turn. Returns whether images of the resident model may be let in.
        """
        if self._ready and not self._around.under_way():
            self._install(*self._ready)
        if self._ready:
            return False
        wanted = self._around.line.wanted(self.model)
        if wanted is not None and self._loading is None:
            self._load(self._catalog.find(wanted))
        return self.model is not None

    def refresh(self) -> None:
        """After a tick: memory may have run out in it, so that calls are packed otherwise from now on."""
        if self._device is not None and self._told is not None and self._device.packer.rules != self._told.rules:
            self._tell_resident()

    def _tell_resident(self) -> None:
        """Tells what is resident; once more when the model's files are hashed. From any thread."""
        device = self.device
        facts, said = device.facts(), Resident(device.kind, device.model, device.packer.rules)

        def known(done: Future[DeviceFacts]) -> None:
            if done.exception() is None and device.model == said.model:
                self._say(replace(said, facts=done.result()))

        if not facts.done():
            self._say(said)
        facts.add_done_callback(known)

    def _say(self, resident: Resident) -> None:
        self._told = resident
        self._tell(resident)

    def _load(self, spec: ModelSpec) -> None:
        """Has a model loaded beside the resident one, in a thread of its own."""
        self._loading = spec.name
        self._tell(Trouble(spec.name, ""))

        def report(text: str, progress: float | None = None) -> None:  # in the loading thread
            if progress is None:  # a download shows its own bar in the terminal
                log.info("%s", text)
            self._progress = told = Notice(text, progress=-1.0 if progress is None else progress)
            for job in self._around.line.jobs(spec.name):
                self._tell(Told(job, told))

        try:
            device = self.device
        except BaseException as error:  # noqa: BLE001 - no torch, no such device: told to those who wait
            self._failed(spec, error)
            return

        def work() -> None:
            try:
                loaded = device.load(spec, report)
            except BaseException as error:  # noqa: BLE001 - told to those who wait for the model
                failure = error
                self._around.post(lambda: self._failed(spec, failure))
            else:
                self._around.post(lambda: self._loaded(spec, loaded))

        try:
            threading.Thread(target=work, name=f"load {spec.name}", daemon=True).start()
        except RuntimeError as error:  # no more threads can be had
            self._failed(spec, error)

    def _loaded(self, spec: ModelSpec, loaded: Any) -> None:
        self._loading = self._progress = None
        line = self._around.line
        others = self._around.under_way() or line.waits_for(self.model)
        if self._rehearsing == spec.name and others and not line.waits_for(spec.name):
            self._rehearsing = None  # nobody waits for it, and others' pictures came first
            self.answer_warmed()
            return
        self._ready = (spec.name, loaded)

    def _failed(self, spec: ModelSpec, error: BaseException) -> None:
        self._loading = self._progress = self._rehearsing = None
        if not isinstance(error, EngineError):
            log.error("loading %s failed", spec.name, exc_info=error)
            error = ModelUnavailable(f"{spec.title} could not be loaded; the log has the details.")  # its words may hold a path
        log.info("%s", error)  # the command line tells it by itself
        self._tell(Trouble(spec.name, str(error)))
        self.answer_warmed()  # whoever hears of it asks for the trouble
        self._around.lost(spec.name, str(error))

    def _install(self, model: str, loaded: Any) -> None:
        self._ready = None
        try:
            with self._around.calling():
                self.device.install(loaded)
        except BaseException as error:  # noqa: BLE001 - told to those who wait for the model
            self._failed(self._catalog.find(model), error)
            return
        self._tell_resident()
        self._rehearse(model)
        self.answer_warmed()
        log.info("%s is ready", model)

    def _rehearse(self, model: str) -> None:
        """Of a model loaded before anybody asked: the time of a lone call, from small pictures to those of its own size as long
        as that is short, and of the widest.

        The first estimate of a grid is then measured, not guessed, and the first picture finds a network that has run.
        """
        warmed, self._rehearsing = self._rehearsing == model, None
        if not warmed:
            return
        spec, device = self._catalog.find(model), self.device
        sides = [side for side in (SMALLEST_REHEARSED << doubled for doubled in range(8)) if side < spec.native_size] + [spec.native_size]
        try:
            for images, side in [*((1, side) for side in sides), (max(device.packer.max_rows // 2, 1), sides[-1])]:
                if self._around.disturbed():
                    return
                if self._rehearse_calls(device, spec, images, side) > REHEARSED_SECONDS:
                    return
        except Exception:  # nothing depends on it
            log.exception("the rehearsal of %s failed", model)

    def _rehearse_calls(self, device: Device, spec: ModelSpec, images: int, side: int) -> float:
        """Seconds of a call for so many images: the second of two, since the first of a width is slower than any other."""
        keys: list[Key] = [("rehearsal", i) for i in range(images)]
        recipe = spec.recipe(steps=2, width=side, height=side)
        seconds = 0.0
        try:
            for seed, key in enumerate(keys):
                device.admit(key, recipe.replace(seed=seed), owner="", exact=False, latents=None)
            for _ in range(2):
                start = time.perf_counter()
                with self._around.calling():
                    advances = device.tick()
                seconds = time.perf_counter() - start
                for advance in advances:
                    if advance.error is not None:
                        raise advance.error
        finally:
            for key in keys:
                device.forget(key)
        self._tell(Called(spec.name, recipe.width * recipe.height, device.width, seconds))
        return seconds

"""Patience: a device's call that does not come back is spoken of."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.running.speed import seconds_shown

log = logging.getLogger(__name__)

HANG_SECONDS = 120.0
"""A call that takes longer is spoken of: the first one of a real-size model on a CPU may take nearly as long."""

HANG_TIMES = 5
"""... unless calls here have been so slow that it is not even so many times the slowest of them."""


class Patience:
    """Watches the calls that may hang, in a thread of its own until it is closed; `tell` takes a sentence about one that seems to."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._since: float | None = None
        self._slowest = 0.0
        self._told: float | None = None
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="worker's watch", daemon=True).start()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around what may take long, or hang: a call of the network or the decoder."""
        since = self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
            self._slowest = max(self._slowest, time.monotonic() - since)

    def look(self, now: float) -> None:
        """Once a call that seems to hang: tells that it may never come back."""
        since = self._since
        if since is None or since == self._told or now - since < max(HANG_SECONDS, HANG_TIMES * self._slowest):
            return
        self._told = since
        silence = seconds_shown(now - since)
        text = f"The device has not answered for {silence}. If this goes on, Darkroom must be restarted; what is finished is on disk."
        log.error("%s", text)
        self._tell(text)

    def close(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(HANG_SECONDS / 20):
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("whether the device hangs could not be told")

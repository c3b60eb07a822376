"""gradio's pages are built inside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Built = TypeVar("Built")


def in_a_loop(build: Callable[[], Built]) -> Built:
    """What `build` returns. Wherever gradio finds no event loop running it makes a new one and never closes it."""

    async def building() -> Built:
        return build()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(building())
    return build()

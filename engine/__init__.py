"""The engine: a Recipe describes one image, a Plan is a grid of recipes, the Engine turns a plan into Events.

Usable without the page and without gradio. `__all__` is what it promises to others; nothing of it is loaded before it is used,
and none of it loads torch before there is something to draw.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.version import VERSION

if TYPE_CHECKING:
    from engine.errors import EngineError, InvalidRequest, ModelUnavailable, NotSaved, OutOfMemory, SpoiltPicture, UnreadablePicture
    from engine.local import open_engine
    from engine.pictures.made import Made
    from engine.pictures.metadata import read_picture
    from engine.pictures.outputs import open_picture
    from engine.recipes.axes import Offer
    from engine.recipes.catalog import Limits
    from engine.recipes.plan import AxisLine, Grid, Plan, plan_grid, plan_images
    from engine.recipes.recipe import Recipe, Style
    from engine.running.engine import Engine
    from engine.running.events import Cancelled, Developing, Event, Failed, Finished, Notice, Preview, Queued
    from engine.running.job import Job
    from engine.running.preview_options import PreviewOptions
    from engine.sheets.sheet import sheet_image

__version__ = VERSION

__all__ = [
    "AxisLine",
    "Cancelled",
    "Developing",
    "Engine",
    "EngineError",
    "Event",
    "Failed",
    "Finished",
    "Grid",
    "InvalidRequest",
    "Job",
    "Limits",
    "Made",
    "ModelUnavailable",
    "NotSaved",
    "Notice",
    "Offer",
    "OutOfMemory",
    "Plan",
    "Preview",
    "PreviewOptions",
    "Queued",
    "Recipe",
    "SpoiltPicture",
    "Style",
    "UnreadablePicture",
    "open_engine",
    "open_picture",
    "plan_grid",
    "plan_images",
    "read_picture",
    "sheet_image",
]

_MODULES = {
    "engine.errors": (
        "EngineError", "InvalidRequest", "ModelUnavailable", "NotSaved", "OutOfMemory", "SpoiltPicture", "UnreadablePicture",
    ),
    "engine.local": ("open_engine",),
    "engine.pictures.made": ("Made",),
    "engine.pictures.metadata": ("read_picture",),
    "engine.pictures.outputs": ("open_picture",),
    "engine.recipes.axes": ("Offer",),
    "engine.recipes.catalog": ("Limits",),
    "engine.recipes.plan": ("AxisLine", "Grid", "Plan", "plan_grid", "plan_images"),
    "engine.recipes.recipe": ("Recipe", "Style"),
    "engine.running.engine": ("Engine",),
    "engine.running.events": ("Cancelled", "Developing", "Event", "Failed", "Finished", "Notice", "Preview", "Queued"),
    "engine.running.job": ("Job",),
    "engine.running.preview_options": ("PreviewOptions",),
    "engine.sheets.sheet": ("sheet_image",),
}  # fmt: skip
"""Where each public name is: what a type checker reads above, for when the program runs."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a checker reads the imports above, and shall find what is misspelt

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

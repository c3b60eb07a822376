"""The engine of this machine, put together: the presets beside the code, and torch when it is first needed."""

from __future__ import annotations

from pathlib import Path

from engine.recipes.catalog import Catalog, Limits
from engine.running import heap
from engine.running.device import Device
from engine.running.engine import Engine

PRESETS = Path(__file__).resolve().parent.parent / "presets"
DATA_DIR = Path(__file__).resolve().parent.parent


def open_catalog(model: str | None = None) -> Catalog:
    """The catalog of presets/models.toml; `model`, a name or a folder, becomes its default.

    Raises EngineError when it is neither.
    """
    catalog = Catalog.load(PRESETS / "models.toml")
    if model is None:
        return catalog
    looks_like_path = model not in {spec.name for spec in catalog} and (Path(model).exists() or "/" in model)
    return catalog.with_folder(Path(model)) if looks_like_path else catalog.with_model(catalog.find(model))


def open_engine(
    *, model: str | None = None, device: str | None = None, dtype: str | None = None,
    data_dir: Path = DATA_DIR, out: Path | None = None, limits: Limits | None = None,
) -> Engine:  # fmt: skip
    """An Engine on this machine's own device. torch is imported in its worker's thread, with the first model."""
    heap.keep_freed()

    def open_device() -> Device:
        from engine.diffusion.device import TorchDevice

        return TorchDevice(device, dtype)

    return Engine(open_catalog(model), open_device, data_dir, limits, out)

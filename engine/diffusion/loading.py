"""ModelSpec -> a family on a device, with its previewers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.diffusion.family import Family
from engine.diffusion.identity import READ, WEIGHTS, Identity, identify_beside, stamps
from engine.diffusion.inspection import Unfit
from engine.diffusion.memory import is_out_of_memory
from engine.diffusion.previews import Previewers, linear_factors
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.errors import ModelUnavailable
from engine.recipes.catalog import ModelSpec
from engine.running.device import Report

log = logging.getLogger(__name__)

FAMILIES: Mapping[str, type[Family]] = {"sd": StableDiffusion}
"""What reads and draws each kind of model in engine.recipes.families.FAMILIES."""


@dataclass(frozen=True)
class Loaded:
    """A model ready to draw."""

    spec: ModelSpec
    family: Family
    previewers: Previewers
    identity: Future[Identity]
    """Still being computed when the model is ready."""


def pick_device(wanted: str | None = None, tell: Callable[[str], None] = log.warning) -> torch.device:
    """The device asked for, else CUDA where it works; of a GPU that does not work with this torch a sentence is told.

    Raises ModelUnavailable when the device asked for is not there.
    """
    try:
        if wanted is not None:
            return _working(wanted)
        if torch.cuda.is_available():
            return _working("cuda")
    except (RuntimeError, AssertionError) as error:
        if wanted is not None:
            raise ModelUnavailable(f"There is no usable device “{wanted}” here ({_first_line(error)}): use --device cpu.") from None
        tell(f"Pictures are made on the CPU, slowly: this PyTorch cannot use the graphics card here ({_first_line(error)}).")
    return torch.device("cpu")


def _working(name: str) -> torch.device:
    """A device that has just computed something. A card too old or too new for this torch is found, and then runs no kernel."""
    device = torch.device(name)
    (torch.ones(1, device=device) + 1).item()
    return device


def pick_dtype(device: torch.device, wanted: str | None = None) -> torch.dtype:
    """The network's number format: float16 on CUDA and float32 elsewhere, unless asked otherwise."""
    if wanted is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, wanted)


def load(spec: ModelSpec, device: torch.device, dtype: torch.dtype, report: Report) -> Loaded:
    """Fetches (on first use), reads and places a model. Raises ModelUnavailable with a sentence."""
    folder = fetch(spec, report)
    report(f"Loading {spec.title} ...", None)
    parts = FAMILIES[spec.family].parts
    before = stamps(folder, parts)
    identity = identify_beside(folder, parts, before)
    family = _read(folder, spec, device, dtype)
    for network in family.networks().values():
        own_weights(network)
    if stamps(folder, parts) != before:
        raise ModelUnavailable(f"{spec.title} was changed while it was being read: try again when its files are complete.")
    return Loaded(spec, family, Previewers(family, linear_factors(family, spec.latent_rgb), _tiny_decoder(spec, family)), identity)


def fetch(spec: ModelSpec, report: Report) -> Path:
    """The model's folder on this machine, downloaded first where it is a hub id not seen before.

    Raises ModelUnavailable when it is not here and cannot be had.
    """
    if spec.is_local:
        if not Path(spec.source).is_dir():
            log.warning("%s is gone", spec.source)
            raise ModelUnavailable(f"The folder of {spec.title} is gone: put it back, or pick another model.")
        return Path(spec.source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = {"repo_id": spec.source, "allow_patterns": _patterns(FAMILIES[spec.family].parts, spec.variant)}
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        pass  # not here yet
    try:
        report(f"Asking the model hub for {spec.title} ...", None)
        size = sum(file.file_size or 0 for file in snapshot_download(**wanted, dry_run=True))
        return Path(snapshot_download(**wanted, tqdm_class=_reporting_bar(spec.title, size, report)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ConnectionError, ValueError) as error:
        if getattr(error, "errno", None) == 28:  # ENOSPC
            raise ModelUnavailable(f"The disk is full: make room to download {spec.title}.") from None
        raise ModelUnavailable(
            f"{spec.title} is not on this machine and the model hub cannot be reached: connect and try again,"
            " or choose the Starter model, which needs no download."
        ) from error


def own_weights(module: torch.nn.Module) -> None:
    """Copies weights that are pages of a file into memory of the process: safetensors maps what needs no conversion.

    A file written over in place would change the resident model unseen, and one cut short end the process (SIGBUS).
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu" and not tensor.untyped_storage().resizable():  # memory that torch did not allocate
            tensor.data = tensor.data.clone()


def _read(folder: Path, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Family:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        return FAMILIES[spec.family].read(folder, None if spec.is_local else spec.variant, device, dtype)
    except Unfit as error:
        log.warning("%s: %s", folder, error)
        raise ModelUnavailable(f"{spec.title} cannot be read: {error}.") from error
    except Exception as error:  # somebody's files, read by somebody's code
        if is_out_of_memory(error):
            raise
        log.info("%s cannot be read", folder, exc_info=error)
        reason = _without_paths(error, folder)
        raise ModelUnavailable(f"{spec.title} cannot be read: its files are damaged or do not belong together ({reason}).") from error


def _tiny_decoder(spec: ModelSpec, family: Family) -> Any | None:
    """The catalog's AutoencoderTiny, downloaded (a few MB) where it can be had; previews do without it where not."""
    if spec.tiny_decoder is None:
        return None
    from diffusers import AutoencoderTiny
    from huggingface_hub import snapshot_download

    folder = Path(spec.tiny_decoder)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(spec.tiny_decoder, allow_patterns=["*.json", "*.safetensors"]))
        tiny: Any = AutoencoderTiny.from_pretrained(folder, dtype=family.dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, ConnectionError):
        return None
    return tiny.to(family.device).eval()


def _patterns(parts: Iterable[str], variant: str | None) -> list[str]:
    """The files of a hub's folder that are used here, with the weights of one variant."""
    weights = f".{variant}*{WEIGHTS}" if variant else WEIGHTS
    return ["model_index.json", *(f"{part}/*{kind}" for part in parts for kind in (*sorted(READ - {WEIGHTS}), weights))]


def _reporting_bar(title: str, size: int, report: Report) -> type:
    """A tqdm class for snapshot_download that also reports the bytes that have come of `size`."""
    from huggingface_hub.utils import tqdm

    class ReportingBar(tqdm):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options)
            # Counted here: without a terminal tqdm is disabled, and then neither counts nor remembers its options.
            self._counts = options.get("unit") == "B" and "Reconstruct" in str(options.get("desc"))
            self._bytes = float(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> Any:
            if self._counts and size:
                self._bytes += n or 0
                report(f"Downloading {title}: {self._bytes / 1e9:.2f} of {size / 1e9:.2f} GB", min(self._bytes / size, 1.0))
            return super().update(n)

    return ReportingBar


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _without_paths(error: BaseException, folder: Path) -> str:
    """An error's first line without the paths of this machine, which are no visitor's business; the log has them."""
    line = _first_line(error).replace(f"{folder}/", "").replace(str(folder), "its folder")
    return re.sub(r"(?<![\w/:])(?:[A-Za-z]:)?[\\/](?:[^\\/\s'\"]+[\\/])+", "", line)[:150].rstrip(" .")

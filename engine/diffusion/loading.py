"""ModelSpec -> a family on a device, with its previewers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.diffusion.families import FAMILIES, StableDiffusion
from engine.diffusion.identity import Identity, identify_beside, stamps
from engine.diffusion.inspection import Unfit, check_parts, check_weights, inspect_folder
from engine.diffusion.previews import Previewers, linear_factors
from engine.errors import ModelUnavailable
from engine.recipes.catalog import ModelSpec
from engine.running.device import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model ready to draw."""

    spec: ModelSpec
    family: StableDiffusion
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
    before = stamps(folder)
    identity = identify_beside(folder, before)
    pipeline = _read(folder, spec, dtype)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        own_weights(part)
    if stamps(folder) != before:
        raise ModelUnavailable(f"{spec.title} was changed while it was being read: try again when its files are complete.")
    family = FAMILIES[spec.family](pipeline, device)
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

    wanted = {"repo_id": spec.source, "allow_patterns": _patterns(spec.variant)}
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


def _read(folder: Path, spec: ModelSpec, dtype: torch.dtype) -> Any:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    if not any((folder / "tokenizer").glob("*")):
        raise ModelUnavailable(f"{spec.title} cannot be read: it has no tokenizer. Copy the whole folder again.")
    try:
        variant = inspect_folder(folder, None if spec.is_local else spec.variant)
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,  # never unpickle somebody's file
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        check_parts(pipeline)
        check_weights(pipeline)
    except Unfit as error:
        log.warning("%s: %s", folder, error)
        raise ModelUnavailable(f"{spec.title} cannot be read: {error}.") from error
    except Exception as error:  # somebody's files, read by somebody's code
        log.info("%s cannot be read", folder, exc_info=error)
        reason = _without_paths(error, folder)
        raise ModelUnavailable(f"{spec.title} cannot be read: its files are damaged or do not belong together ({reason}).") from error
    return pipeline


def _tiny_decoder(spec: ModelSpec, family: StableDiffusion) -> Any | None:
    """The catalog's AutoencoderTiny, downloaded (a few MB) where it can be had; previews do without it where not."""
    if spec.tiny_decoder is None:
        return None
    from diffusers import AutoencoderTiny
    from huggingface_hub import snapshot_download

    folder = Path(spec.tiny_decoder)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(spec.tiny_decoder, allow_patterns=["*.json", "*.safetensors"]))
        tiny = AutoencoderTiny.from_pretrained(folder, dtype=family.dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, ConnectionError):
        return None
    return tiny.to(family.device).eval()


def _patterns(variant: str | None) -> list[str]:
    """The files of a Stable Diffusion folder that are used here: configs, tokenizer and safetensors of one variant."""
    weights = f"*.{variant}*.safetensors" if variant else "*.safetensors"
    parts = ("text_encoder", "unet", "vae")
    return [
        "model_index.json", "scheduler/*.json", "tokenizer/*",
        *(f"{part}/*.json" for part in parts), *(f"{part}/{weights}" for part in parts),
    ]  # fmt: skip


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

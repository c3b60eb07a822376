"""On what, with what and when it was measured; neither host name nor folders of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow", "gradio")


def facts() -> dict[str, Any]:
    """Processor, threads, GPU and versions. Imports torch."""
    import torch

    from engine.diffusion.loading import pick_device, pick_dtype

    device = pick_device()
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": memory_gib(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": device.type,
        "dtype": str(pick_dtype(device)).removeprefix("torch."),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def load() -> list[float] | None:
    """The system's load averages over 1, 5 and 15 minutes: others at work make figures worthless."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(checkout: Path = ROOT) -> dict[str, Any]:
    """The commit measured, and whether tracked files differed from it."""
    return {"commit": _git(checkout, "rev-parse", "HEAD"), "changed_since": bool(_git(checkout, "status", "--porcelain"))}


def slug(machine: dict[str, Any]) -> str:
    """ "cpu", or the GPU's name fit for a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", (machine["gpu"] or "cpu").lower()).strip("-")


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

"""A profile's training in one folder: what every stage is given, and the files that stages leave to each other."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import InvalidRequest
from training.data import MANIFEST, read_manifest
from training.files import write_json
from training.pictures import load_pictures
from training.scenes import Stage, narrowed
from training.settings import Config, Profile

NEEDED = {
    "scenes.npy": "scenes", "captions.json": "scenes", "tokenizer": "tokenizer", "vae.pt": "vae", "vae-folded.pt": "latents",
    "latents.npy": "latents", "tokens.npy": "latents", "diffusion.pt": "diffusion", "tiny.pt": "tiny",
}  # fmt: skip
"""File -> the stage that makes it."""


STAGES = "stages.json"
"""In a profile's folder: with what settings each stage that is no training was done. A training's checkpoint says it itself."""


@dataclass(frozen=True)
class Work:
    """`data` is the data stage's folder, `folder` this profile's. `stop_at` is as in loop.Run."""

    config: Config
    name: str
    data: Path
    folder: Path
    device: torch.device
    say: Callable[[str], None]
    stop_at: float = math.inf
    processes: int = 1
    """For what is done on the CPU beside the networks."""

    @property
    def profile(self) -> Profile:
        return self.config.profile(self.name)

    def file(self, name: str) -> Path:
        """A file that another stage made. Raises InvalidRequest, naming the stage, where it has not run."""
        file = self.folder / name
        if not file.exists():
            raise InvalidRequest(
                f"There is no {name} in {self.folder}: run `python -m training {NEEDED[name]} --profile {self.name}` first."
            )
        return file

    def stage(self) -> Stage:
        """The profile's pictures, read from the archive."""
        manifest = narrowed(read_manifest(self.data), self.profile)
        pixels = load_pictures(self.data, manifest, self.profile.size)
        return Stage(manifest, pixels, self.config.scenes, self.config.held_out)

    def array(self, name: str) -> np.ndarray:
        """An array of an earlier stage, read from the disk as it is used."""
        return np.load(self.file(name), mmap_mode="r")

    def captions(self) -> list[list[str]]:
        """Of each scene, its wordings."""
        return json.loads(self.file("captions.json").read_text(encoding="utf-8"))

    def is_done(self, stage: str) -> bool:
        """Whether a stage may be passed over: done, and with the settings of today. Never of a training, which looks for itself."""
        if stage == "data":
            return (self.data / MANIFEST).exists()
        return stage in self._settings() and self._done().get(stage) == self._settings()[stage]

    def mark_done(self, stage: str) -> None:
        if stage in self._settings():
            write_json(self.folder / STAGES, self._done() | {stage: self._settings()[stage]})

    def _done(self) -> dict[str, str]:
        file = self.folder / STAGES
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _settings(self) -> dict[str, str]:
        profile = self.profile
        return {
            "scenes": self.made_with(),
            "tokenizer": self.made_with(profile.text),
            "latents": self.made_with(profile.text, profile.vae, profile.vae_training),
        }

    def made_with(self, *settings: Any) -> str:
        """A short name of everything that a result depends on; checkpoints of other settings are refused by it."""
        profile, config = self.profile, self.config
        said = [str((profile.size, profile.scenes, profile.groups, profile.newest_version, profile.names))]
        said += [rules.model_dump_json() for rules in (config.subjects, config.scenes, config.held_out)]
        said += [setting.model_dump_json() for setting in settings]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def as_input(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """# (n, h, w, 3) uint8 -> (n, 3, h, w) float32 in [-1, 1]"""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

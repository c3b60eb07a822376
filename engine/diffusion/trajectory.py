"""Trajectory: one image on its way from noise to picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from engine.diffusion.family import Conditions
from engine.recipes.recipe import Recipe
from engine.running.device import Key
from engine.running.packing import Load, load_of


@dataclass
class Trajectory:
    """The state of one image between ticks. Latents are float32 on the network's device."""

    key: Key
    recipe: Recipe
    owner: str
    exact: bool
    scheduler: Any
    step_options: Mapping[str, Any]
    """What every call of the scheduler's `step` takes besides the prediction."""
    latents: torch.Tensor  # (1, C, h, w), as the scheduler holds them
    conditions: Conditions
    origin: Hashable
    """What its latents before the first step depend on; images of one origin are shown to the network once then."""
    job: str = ""
    together: bool = False
    """Whether it takes turns with its job's other images, or waits for earlier ones to be finished."""
    alone: int = 0
    """Rows of the network calls that it has to itself; 0 where it may share them."""
    step: int = 0
    bucket: int = 0
    """The widest batch it has been part of, in rows."""
    x0: list[torch.Tensor] = field(default_factory=list)
    """The predicted clean latents after each step, float16."""

    @property
    def rows(self) -> int:
        """Of the network's batch, that it takes."""
        return len(self.conditions.rows)

    def load(self) -> Load:
        """What it asks of the next network call."""
        options = {"exact": self.exact, "owner": self.owner, "job": self.job, "together": self.together, "alone": self.alone}
        return load_of(self.recipe, self.conditions.needs, self.key, self.step, origin=self.origin, **options)

    def __post_init__(self) -> None:
        self.total = len(self.scheduler.timesteps)
        """Network calls, which is not always the recipe's steps: second-order rules take two a step."""

    @property
    def done(self) -> bool:
        return self.step >= self.total

    @property
    def timestep(self) -> torch.Tensor:
        return self.scheduler.timesteps[self.step]

    def model_input(self) -> torch.Tensor:
        """The latents as the network wants to see them now. # (1, C, h, w)"""
        return self.scheduler.scale_model_input(self.latents, self.timestep)

    def advance(self, prediction: torch.Tensor, x0: torch.Tensor) -> None:
        """One scheduler step with the combined prediction (1, C, h, w)."""
        self.latents = self.scheduler.step(prediction, self.timestep, self.latents, return_dict=False, **self.step_options)[0]
        self.x0.append(x0.to(torch.float16))
        self.step += 1

    def rest(self) -> None:
        """Lets go of what only stepping needs, and of the GPU's memory: an image that has ended is kept to be looked at."""
        self.scheduler, self.step_options = None, {}
        self.conditions = replace(self.conditions, rows=())
        self.latents = self.latents.cpu()
        if self.x0 and self.x0[0].device.type != "cpu":
            self.x0 = list(torch.cat(self.x0).cpu().split(1))  # one copy, not one a step

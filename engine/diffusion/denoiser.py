"""Denoiser: advances many trajectories together, one network call a tick.

Every image has its own scheduler, generator, guidance scale and place in its own timesteps; the network
takes a vector of timesteps, so images that share nothing but their group share its calls. What the network is, and how its rows
become one prediction, is the family's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.diffusion import noise
from engine.diffusion.family import Conditioning, Family
from engine.diffusion.memory import free_unused, is_out_of_memory
from engine.diffusion.trajectory import Trajectory
from engine.errors import InvalidRequest, OutOfMemory, SpoiltPicture
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import scheduler_row
from engine.running.device import Advance, Key
from engine.running.packing import EXACT_ROWS, Packer, Row, first_origin


class Denoiser:
    """The trajectories of one loaded model. Not thread-safe: one thread owns the network.

    `engine.running.packing` says which of them share a call, and what its options mean; `padded` is its own default on CUDA only.
    """

    def __init__(
        self, family: Family, *, max_rows: int = 16, exact_rows: int = EXACT_ROWS, padded: bool | None = None,
        native_pixels: int | None = None,
    ):  # fmt: skip
        self.family = family
        self.packer = Packer(max_rows, exact_rows, family.device.type == "cuda" if padded is None else padded, native_pixels)
        self.calls = 0
        """Network calls made, for tests and benchmarks; `rows_run` counts their rows, padding included."""
        self.rows_run = 0
        self.width = 0
        """Rows of the last call, padding included."""
        self._live: dict[Key, Trajectory] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __getitem__(self, key: Key) -> Trajectory:
        return self._live[key]

    @torch.inference_mode()
    def admit(
        self, key: Key, recipe: Recipe, *, owner: str = "", exact: bool = False, latents: torch.Tensor | None = None,
        job: str = "", together: bool = False, alone: int = 0,
    ) -> Trajectory:  # fmt: skip
        """A new trajectory, at its noise. It takes part in the next tick; `alone`, in calls of so many rows that it shares with no other.

        `latents` (1, C, h, w) or (C, h, w), standard normal, stand in for the seed's own draw, as in diffusers'
        pipelines: the generator then starts afresh. Raises InvalidRequest when the scheduler or family refuses the recipe.
        """
        row = scheduler_row(recipe.scheduler)
        if recipe.steps > row.max_steps:
            raise InvalidRequest(f"{row.name} takes at most {row.max_steps} steps; it was {recipe.steps}.")
        scheduler = self.family.scheduler(recipe)
        generator = noise.generator_for(recipe.seed)
        start = self._start(recipe, latents, generator).to(self.family.device) * scheduler.init_noise_sigma
        if row.noise == "seed":
            scheduler.noise_sampler = noise.BrownianNoise(start, scheduler.sigmas, recipe.seed)
        trajectory = Trajectory(
            key, recipe, owner, exact, scheduler,
            step_options={**row.step_options, **({"generator": generator} if row.noise == "generator" else {})},
            latents=start,
            conditions=self.family.conditions(recipe),
            origin=first_origin(recipe) if latents is None else key,
            job=job, together=together, alone=alone,
        )  # fmt: skip
        if exact and trajectory.rows > self.packer.exact_rows:
            raise ValueError(f"exact_rows={self.packer.exact_rows} is too small for an image of {trajectory.rows} rows")
        self._live[key] = trajectory
        return trajectory

    def drop(self, key: Key) -> Trajectory | None:
        """Takes a trajectory out; it is not part of the next tick. None when there is none of that key."""
        return self._live.pop(key, None)

    @torch.inference_mode()
    def tick(self) -> list[Advance]:
        """One network call for as many unfinished trajectories as fit, and their scheduler steps.

        Out of memory halves the batch and tries again; nothing is lost, as latents change only after the call.
        """
        call = self.packer.pick({key: one.load() for key, one in self._live.items() if not one.done})
        if call is None:
            return []
        picked = [self._live[key] for key in call.images]
        pixels = picked[0].recipe.width * picked[0].recipe.height
        failure: Exception | None = None
        predictions: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            predictions = self._predict(picked, call.width)
        except Exception as error:  # noqa: BLE001 - whatever one image's numbers provoke must not end the others
            # A traceback holds the call's tensors: only of an image's own fault is it kept, for the log.
            failure = error if len(picked) == 1 and not is_out_of_memory(error) else error.with_traceback(None)
        if failure is None:
            self.packer.went_well(pixels, call.width)
            return [self._advance(one, *prediction) for one, prediction in zip(picked, predictions, strict=True)]
        if is_out_of_memory(failure):
            free_unused(self.family.device)
            if call.width > picked[0].rows and not picked[0].exact:
                self.packer.ran_out(pixels, call.width)
                return self.tick()
        elif len(picked) > 1:
            return [advance for one in picked for advance in self._tick_alone(one)]
        return [self._fail(picked[0], failure)]

    def _start(self, recipe: Recipe, latents: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        shape = self.family.traits.latent_shape(recipe)
        if latents is None:
            return noise.initial_noise(shape, generator)
        given = torch.as_tensor(latents, dtype=torch.float32)
        given = given[None] if given.dim() == 3 else given
        if given.shape != (1, *shape):
            raise InvalidRequest(f"Latents for {recipe.width} x {recipe.height} must be {shape}; they were {tuple(latents.shape)}.")
        return given

    def _predict(self, picked: Sequence[Trajectory], width: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(combined prediction, model input) of each, from one network call of `width` rows."""
        shown = {one.key: one.model_input() for one in picked}
        names = [one.load().rows for one in picked]
        rows: dict[Row, tuple[Trajectory, Conditioning]] = {}
        for one, named in zip(picked, names, strict=True):
            for name, told in zip(named, one.conditions.rows, strict=True):
                rows.setdefault(name, (one, told))
        padded = [*rows.values(), *[(picked[0], picked[0].conditions.rows[0])] * (width - len(rows))]
        images = torch.cat([shown[one.key] for one, _ in padded])  # (width, C, h, w)
        # float32: time embeddings are computed in it whatever the scheduler's own type, and it holds every timestep.
        numbers = [float(one.timestep) for one, _ in padded] + [scale for one in picked for scale in one.conditions.scales]
        on_cuda = images.device.type == "cuda"  # one copy that the GPU makes when it comes to it: nothing waits for it here
        numbers = torch.tensor(numbers, dtype=torch.float32, pin_memory=on_cuda).to(images.device, non_blocking=True)
        conditioning = stack([told for _, told in padded])
        output = self.family.predict(images, numbers[:width], conditioning)
        self.calls += 1
        self.rows_run += width
        self.width = width
        place = {name: i for i, name in enumerate(rows)}
        combined = self.family.combine(output, numbers[width:], [[place[name] for name in named] for named in names])
        for one in picked:
            one.bucket = max(one.bucket, width)
        return [(prediction, shown[one.key]) for one, prediction in zip(picked, combined, strict=True)]

    def _advance(self, one: Trajectory, prediction: torch.Tensor, shown: torch.Tensor) -> Advance:
        try:
            x0 = self.family.x0(one.scheduler, prediction, one.timestep, shown)
            one.advance(prediction, x0)
            if one.done and not bool(torch.isfinite(one.latents).all()):
                raise SpoiltPicture("The network gave no numbers (NaN): try another scheduler, more steps, or a lower CFG scale.")
        except Exception as error:  # noqa: BLE001 - reported as this image's failure
            return self._fail(one, error)
        return Advance(one.key, one.step, one.total, one.done)

    def _fail(self, one: Trajectory, error: Exception) -> Advance:
        self.drop(one.key)
        return Advance(one.key, one.step, one.total, error=self._too_large(one) if is_out_of_memory(error) else error)

    def _too_large(self, one: Trajectory) -> OutOfMemory:
        size = f"{one.recipe.width} x {one.recipe.height}"
        if one.exact and self.packer.exact_rows > one.rows:
            return OutOfMemory(
                f"Exact always computes {self.packer.exact_rows} rows at a time, and at {size} they do not fit into this device's"
                " memory: switch Exact off, or choose a smaller size."
            )
        return OutOfMemory(f"{size} does not fit into this device's memory: choose a smaller size.")

    def _tick_alone(self, one: Trajectory) -> list[Advance]:
        """One trajectory's step in a call of its own, after a call shared with others failed: the culprit fails alone."""
        try:
            [prediction] = self._predict([one], self.packer.exact_rows if one.exact else one.rows)
        except Exception as error:  # noqa: BLE001
            return [self._fail(one, error)]
        return [self._advance(one, *prediction)]


def stack(parts: Sequence[Conditioning]) -> Conditioning:
    """One-row conditionings as one batch."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

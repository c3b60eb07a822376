"""Denoiser: advances many trajectories together, one network call a tick.

Every image has its own scheduler, generator, guidance scale and place in its own timesteps; the network
takes a vector of timesteps, so images that share nothing but their size share its calls.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from engine.device import Advance, Key
from engine.diffusion import noise, schedule
from engine.diffusion.families import Conditioning, StableDiffusion
from engine.diffusion.trajectory import Trajectory
from engine.errors import InvalidRequest, OutOfMemory, SpoiltPicture
from engine.recipe import Recipe
from engine.schedulers import scheduler_row

EXACT_ROWS = 8
"""Rows of the fixed batch of exact images: enough for four guided images to share a call."""

WASTE = 0.25
"""The most of a padded bucket that may be padding before a smaller, full bucket is used instead."""


class Denoiser:
    """The trajectories of one loaded model. Not thread-safe: one thread owns the network.

    Exact images run in calls of `exact_rows` rows, always: their neighbours then change no bit. Fast ones are
    packed freely, up to `max_rows`; with `padded` into powers of two, which spares CUDA a new choice of kernels
    for every width. On the CPU a padding row costs as much as a real one, so there is none.
    """

    def __init__(
        self, family: StableDiffusion, *, max_rows: int = 16, exact_rows: int = EXACT_ROWS, padded: bool | None = None
    ):
        self.family = family
        self.max_rows = max_rows
        self.exact_rows = exact_rows
        self.padded = family.device.type == "cuda" if padded is None else padded
        self.calls = 0
        """Network calls made, for tests and benchmarks; `rows_run` counts their rows, padding included."""
        self.rows_run = 0
        self._live: dict[Key, Trajectory] = {}
        self._owners: list[str] = []  # whose turn it is to be picked first

    def __len__(self) -> int:
        return len(self._live)

    def __getitem__(self, key: Key) -> Trajectory:
        return self._live[key]

    @torch.inference_mode()
    def admit(
        self, key: Key, recipe: Recipe, *, owner: str = "", exact: bool = False, latents: torch.Tensor | None = None
    ) -> Trajectory:
        """A new trajectory, at its noise. It takes part in the next tick.

        `latents` (1, C, h, w) or (C, h, w), standard normal, stand in for the seed's own draw, as in diffusers'
        pipelines: the generator then starts afresh. Raises InvalidRequest when the scheduler or family refuses the recipe.
        """
        row = scheduler_row(recipe.scheduler)
        if recipe.steps > row.max_steps:
            raise InvalidRequest(f"{row.name} takes at most {row.max_steps} steps; it was {recipe.steps}.")
        try:
            scheduler = schedule.build(row.name, self.family.scheduler_config, recipe.steps, recipe.seed)
        except (ValueError, IndexError, ImportError) as error:
            raise InvalidRequest(f"{row.name} cannot run {recipe.steps} steps of this model: {error}") from error
        generator = noise.generator_for(recipe.seed)
        start = self._start(recipe, latents, generator)
        prompt = self.family.encode(recipe.full_prompt, recipe.clip_skip)
        trajectory = Trajectory(
            key, recipe, owner, exact, scheduler,
            step_options={**row.step_options, **({"generator": generator} if row.noise == "generator" else {})},
            latents=start.to(self.family.device) * scheduler.init_noise_sigma,
            conditioning=(self.family.encode(recipe.full_negative_prompt), prompt) if recipe.guided else (prompt,),
        )  # fmt: skip
        if exact and trajectory.rows > self.exact_rows:
            raise ValueError(f"exact_rows={self.exact_rows} is too small for a guided image")
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
        picked, bucket = self._pick()
        if not picked:
            return []
        failure: Exception | None = None
        try:
            predictions = self._predict(picked, bucket)
        except Exception as error:  # noqa: BLE001 - whatever one image's numbers provoke must not end the others
            failure = error.with_traceback(None)  # a traceback would pin the call's tensors
        if failure is None:
            return [self._advance(one, *prediction) for one, prediction in zip(picked, predictions, strict=True)]
        if _is_out_of_memory(failure):
            return self._after_out_of_memory(picked, bucket)
        if len(picked) > 1:
            return [advance for one in picked for advance in self._tick_alone(one)]
        return [self._fail(picked[0], failure)]

    def _start(self, recipe: Recipe, latents: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        shape = self.family.latent_shape(recipe)
        if latents is None:
            return noise.initial_noise(shape, generator)
        given = torch.as_tensor(latents, dtype=torch.float32)
        given = given[None] if given.dim() == 3 else given
        if given.shape != (1, *shape):
            raise InvalidRequest(f"Latents for {recipe.width} x {recipe.height} must be {shape}; they were {tuple(latents.shape)}.")
        return given

    def _pick(self) -> tuple[list[Trajectory], int]:
        """The trajectories of the next call and its width: owners in turn, and each owner's images first come,
        first served, so that early ones are finished before late ones are begun."""
        waiting = self._in_turn()
        if not waiting:
            return [], 0
        first = waiting[0]
        shape = first.latents.shape
        peers = [one for one in waiting if one.latents.shape == shape]
        if not first.exact:
            peers = [one for one in peers if not one.exact]
        wanted = max(min(sum(one.rows for one in peers), self.max_rows), first.rows)
        width = self.exact_rows if first.exact else choose_bucket(wanted, first.rows) if self.padded else wanted
        picked, used = [], 0
        for one in peers:
            if used + one.rows <= width:
                picked.append(one)
                used += one.rows
        self._owners.append(self._owners.pop(self._owners.index(first.owner)))
        return picked, width if first.exact or self.padded else used

    def _in_turn(self) -> list[Trajectory]:
        """All unfinished trajectories, one of each owner in turn."""
        queues: dict[str, list[Trajectory]] = {}
        for one in self._live.values():
            if not one.done:
                queues.setdefault(one.owner, []).append(one)
        self._owners = [owner for owner in self._owners if owner in queues]
        self._owners += [owner for owner in queues if owner not in self._owners]
        longest = max(map(len, queues.values()), default=0)
        return [queues[owner][place] for place in range(longest) for owner in self._owners if place < len(queues[owner])]

    def _predict(self, picked: Sequence[Trajectory], bucket: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(guided prediction, model input) of each, from one network call of `bucket` rows."""
        shown = [one.model_input() for one in picked]
        rows = [(image, one) for image, one in zip(shown, picked, strict=True) for _ in one.conditioning]
        padding = bucket - len(rows)
        images = torch.cat([image for image, _ in rows] + [shown[0]] * padding)  # (bucket, C, h, w)
        # float32: time embeddings are computed in it whatever the scheduler's own type, and it holds every timestep.
        times = torch.stack([one.timestep.to(torch.float32) for _, one in rows] + [picked[0].timestep.float()] * padding)
        conditioning = stack([part for one in picked for part in one.conditioning], padding)
        output = self.family.predict(images, times.to(images.device), conditioning)
        self.calls += 1
        self.rows_run += bucket
        guided = guide(output, [one.recipe.guidance_scale for one in picked], [one.rows for one in picked])
        for one in picked:
            one.bucket = max(one.bucket, bucket)
        return list(zip(guided, shown, strict=True))

    def _advance(self, one: Trajectory, prediction: torch.Tensor, shown: torch.Tensor) -> Advance:
        try:
            x0 = schedule.predict_x0(one.scheduler, prediction, one.timestep, shown)
            one.advance(prediction, x0)
            if one.done and not bool(torch.isfinite(one.latents).all()):
                raise SpoiltPicture("The network gave no numbers (NaN): try another scheduler, more steps, or a lower CFG scale.")
        except Exception as error:  # noqa: BLE001 - reported as this image's failure
            return self._fail(one, error)
        return Advance(one.key, one.step, one.total, one.done)

    def _fail(self, one: Trajectory, error: Exception) -> Advance:
        self.drop(one.key)
        return Advance(one.key, one.step, one.total, error=error)

    def _tick_alone(self, one: Trajectory) -> list[Advance]:
        """One trajectory's step in a call of its own, after a call shared with others failed: the culprit fails alone."""
        try:
            [prediction] = self._predict([one], self.exact_rows if one.exact else one.rows)
        except Exception as error:  # noqa: BLE001
            return [self._fail(one, error.with_traceback(None))]
        return [self._advance(one, *prediction)]

    def _after_out_of_memory(self, picked: Sequence[Trajectory], bucket: int) -> list[Advance]:
        """Called outside of any `except`, so that no traceback holds the failed call's tensors."""
        gc.collect()
        if self.family.device.type == "cuda":
            torch.cuda.empty_cache()
        first = picked[0]
        if not first.exact and bucket > first.rows:
            self.max_rows = max(bucket // 2, first.rows)
            return self.tick()
        sentence = f"{first.recipe.width} x {first.recipe.height} does not fit into this device's memory: choose a smaller size."
        return [self._fail(first, OutOfMemory(sentence))]


def choose_bucket(rows: int, least: int) -> int:
    """The padded width of a call when `rows` rows could run: a power of two, at least `least`.

    The next power above is taken when at most WASTE of it is padding, else the one below, filled.
    """
    above = 1 << (rows - 1).bit_length()
    return max(above if above - rows <= WASTE * above else above // 2, least)


def guide(output: torch.Tensor, scales: Sequence[float], rows: Sequence[int]) -> list[torch.Tensor]:
    """Classifier-free guidance (arXiv:2207.12598, in diffusers' form u + w (c - u)) of each image's rows of one call.

    `output` (B, C, h, w) holds, image after image, (unconditional, conditional) or (conditional) and then padding.
    """
    starts = [sum(rows[:i]) for i in range(len(rows))]
    pairs = [i for i, count in enumerate(rows) if count == 2]
    results = [output[start : start + 1] for start in starts]
    if pairs:
        first = torch.tensor([starts[i] for i in pairs], device=output.device)
        weight = torch.tensor([scales[i] for i in pairs], dtype=output.dtype, device=output.device).view(-1, 1, 1, 1)
        unconditional, conditional = output[first], output[first + 1]
        guided = unconditional + weight * (conditional - unconditional)  # (pairs, C, h, w)
        for place, i in enumerate(pairs):
            results[i] = guided[place : place + 1]
    return results


def stack(parts: Sequence[Conditioning], padding: int) -> Conditioning:
    """One-row conditionings as one batch, with the first repeated `padding` times behind."""
    padded = [*parts, *[parts[0]] * padding]
    return {name: torch.cat([part[name] for part in padded]) for name in parts[0]}


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch raises a plain RuntimeError from its DefaultCPUAllocator.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)

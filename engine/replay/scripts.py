"""A picture as a short plain diffusers script, without Darkroom, and as a command of ours.

The script is the proof of what a seed promises: of a picture that was drawn alone and fast on the CPU it gives the same bits.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from engine.pictures.made import Provenance
from engine.recipes.catalog import ModelSpec
from engine.recipes.families import FAMILIES
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import OF_THE_MODEL, SchedulerRow, scheduler_row
from engine.replay.verifying import LONE_ROWS

_HOME = Path(__file__).resolve().parents[2]

DTYPES = ("float32", "float16", "bfloat16")

_PINNED = ("torch", "diffusers", "transformers")

OLDER_ENCODER = '''
# diffusers' CLIP skip looks for the encoder's last norm where transformers had it before version 5.
if not hasattr(pipe.text_encoder, "text_model"):
    type(pipe.text_encoder).text_model = property(lambda encoder: encoder)
'''
"""Lines that a script with CLIP skip needs."""


OF_THE_MODEL_ALONE = (
    'of_the_model = """', *textwrap.wrap(" ".join(sorted(OF_THE_MODEL)), 100, initial_indent="    ", subsequent_indent="    "),
    '""".split()',
    'config = {key: value for key, value in pipe.scheduler.config.items() if key in of_the_model or key[0] == "_"}',
)  # fmt: skip
"""Lines that take from a pipeline's scheduler what engine.diffusion.schedule takes."""


def as_python(recipe: Recipe, provenance: Provenance, spec: ModelSpec) -> str:
    """A Python script that draws a picture by diffusers alone; `spec` is its model's. A model's own folder is named, not where it lies."""
    row, pipeline = scheduler_row(recipe.scheduler), FAMILIES[spec.family].pipeline
    lines = [
        *[f"# {line}" for line in _remarks(recipe, provenance, spec, row)],
        "import torch", f"from diffusers import {', '.join(sorted([row.class_name, pipeline]))}", "",
        f"pipe = {loading(pipeline, spec, provenance)}",
        *(OLDER_ENCODER.rstrip().split("\n") if recipe.clip_skip > 1 else []),
        "",
        "# The model's noise schedule, without the options of the rule that it was saved with.",
        *OF_THE_MODEL_ALONE,
        f"pipe.scheduler = {row.class_name}.from_config({called(['config'], scheduler_options(row, recipe.seed))})",
        "",
        f'generator = torch.Generator("cpu").manual_seed({recipe.seed})',
    ]  # fmt: skip
    settings = call_settings(recipe)
    noise, given = noise_lines(device_of(provenance), str(recipe.height), str(recipe.width))
    lines += [*noise, "image = pipe(", *(f"    {name}={value!r}," for name, value in settings.items()), *(f"    {one}," for one in given)]
    lines += [").images[0]", f'image.save("seed-{recipe.seed}.png")', ""]
    return "\n".join(lines)


def as_command(recipe: Recipe, provenance: Provenance, spec: ModelSpec) -> str:
    """The command line of ours, for a POSIX shell, that draws a picture again; its style's words are part of the prompts.

    Raises InvalidRequest when they do not fit into a command.
    """
    plain = recipe.replace(prompt=recipe.full_prompt, negative_prompt=recipe.full_negative_prompt, style=None)
    if "\0" in plain.prompt + plain.negative_prompt:
        raise InvalidRequest("The prompt holds a sign (NUL) that no command line can hold: take it out.")
    device, dtype = device_of(provenance), provenance.dtype
    flags = {
        "prompt": plain.prompt, "negative": plain.negative_prompt or None, "seed": plain.seed, "cfg": plain.guidance_scale,
        "steps": plain.steps, "scheduler": plain.scheduler, "width": plain.width, "height": plain.height,
        "clip-skip": plain.clip_skip if plain.clip_skip > 1 else None, "model": spec.name, "device": device,
        "dtype": dtype if dtype in DTYPES and dtype != ("float32" if device == "cpu" else "float16") else None,
    }  # fmt: skip
    # --flag=value: a value may begin with a dash.
    given = [f"--{flag}={shlex.quote(str(value))}" for flag, value in flags.items() if value is not None]
    return " ".join(["python -m engine generate", *given, *(["--exact"] if provenance.exact else [])])


def device_of(provenance: Provenance) -> str:
    """What torch calls the kind of device that made a picture."""
    return "cpu" if provenance.device == "cpu" else "cuda"


def loading(pipeline: str, spec: ModelSpec, provenance: Provenance) -> str:
    """The expression that loads a model in a script."""
    device, dtype = device_of(provenance), provenance.dtype if provenance.dtype in DTYPES else "float32"
    variant = f" variant={spec.variant!r}," if spec.variant and not spec.is_local else ""
    return (
        f"{pipeline}.from_pretrained(\n    {place_of(spec)!r}, dtype=torch.{dtype},{variant} use_safetensors=True,\n"
        f"    safety_checker=None, requires_safety_checker=False,\n).to({device!r})"
    )


def place_of(spec: ModelSpec) -> str:
    """Where a script finds a model: its id on the hub, or a folder below Darkroom's own; else only its name, since whoever copies the
    script may be a guest of this machine."""
    if not spec.is_local:
        return spec.source
    source = Path(spec.source)
    return source.relative_to(_HOME).as_posix() if source.is_relative_to(_HOME) else spec.name


def scheduler_options(row: SchedulerRow, seed: int) -> dict[str, Any]:
    """The options that make a rule of diffusers' class; some draw their noise from a seed of their own."""
    return {**row.options, **({"noise_sampler_seed": seed} if row.noise == "seed" else {})}


def call_settings(recipe: Recipe) -> dict[str, Any]:
    """What a pipeline is called with, but for its noise."""
    settings: dict[str, Any] = {
        "prompt": recipe.full_prompt, "negative_prompt": recipe.full_negative_prompt, "num_inference_steps": recipe.steps,
        "guidance_scale": recipe.guidance_scale, "width": recipe.width, "height": recipe.height,
    }  # fmt: skip
    return settings | ({"clip_skip": recipe.clip_skip - 1} if recipe.clip_skip > 1 else {})  # diffusers counts from 0


def noise_lines(device: str, height: str, width: str) -> tuple[list[str], list[str]]:
    """(lines that draw the first noise where the pipeline's own draw would be another, the arguments that hand it over): on a graphics
    card the pipeline draws in half precision."""
    if device == "cpu":
        return [], ["generator=generator"]
    shape = f"shape = 1, pipe.unet.config.in_channels, {height} // pipe.vae_scale_factor, {width} // pipe.vae_scale_factor"
    return [shape, "noise = torch.randn(shape, generator=generator).to(pipe.device, pipe.dtype)"], ["latents=noise", "generator=generator"]


def called(given: Sequence[str], options: Mapping[str, Any]) -> str:
    """The arguments of a call, as they are written."""
    return ", ".join([*given, *(f"{name}={value!r}" for name, value in options.items())])


def packages(versions: Mapping[str, str], rows: Sequence[SchedulerRow]) -> str:
    """What a script needs, as pip takes it, in the versions that made the picture as far as they are known."""
    known = {name: found[0] for name in _PINNED if (found := re.match(r"[0-9][0-9a-z.]*", versions.get(name, "")))}  # somebody's file
    pinned = [f"{name}=={known[name]}" if name in known else name for name in _PINNED]
    return " ".join([*pinned, *sorted({package for row in rows for package in row.needs})])


def _remarks(recipe: Recipe, provenance: Provenance, spec: ModelSpec, row: SchedulerRow) -> list[str]:
    lines = [f"pip install {packages(provenance.versions, [row])}"]
    if spec.is_local:
        where = "from Darkroom's folder" if Path(spec.source).is_relative_to(_HOME) else f"where the model's folder “{spec.name}” is"
        lines.append(f"Run it {where}, or write the model's place below.")
    if device_of(provenance) != "cpu":
        lines.append("Made on a graphics card: this draws nearly the same picture, not the same bits.")
        if row.noise == "seed":
            lines.append("But this scheduler's noise is drawn on the card here, and was not: it is another picture.")
    elif provenance.exact or provenance.bucket > LONE_ROWS or provenance.tiled:
        lines.append("Made with Exact, among others or in tiles: this draws the same picture but for rounding.")
    else:
        lines.append("With these versions, on the CPU, it draws the same picture bit for bit.")
    if provenance.unfinished:
        lines.append(f"The picture was stopped at step {provenance.step} of {provenance.total}; this goes on to its end.")
    return lines

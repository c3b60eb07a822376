"""What Darkroom promises its visitors, measured on the real engine: `python -P benchmarks/promises.py CASE [--quick]` prints the figures
of one case as a line of JSON.

It stands alone and uses only what the engine offers everybody, so that the same file measures an older checkout too: in that folder,
with PYTHONPATH at it. benchmarks.figures does both.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from engine.diffusion.device import TorchDevice
from engine.local import open_catalog
from engine.pictures.outputs import open_picture
from engine.recipes.axes import Offer
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.plan import AxisLine, Grid, Plan, plan_grid, plan_images
from engine.running.engine import Engine
from engine.running.events import Preview, Queued
from engine.running.job import Job
from engine.running.preview_options import PreviewOptions

PATIENCE = 400.0
"""Seconds after which what does not come counts as never."""

LARGE = "written at 1024 px"
"""The prompt of pictures in whose place a large one is written."""

GRAIN = 12.0
"""Standard deviation of the grain in a made-up picture (colours 0 to 255): PNG then takes about as long as for a photograph."""


@dataclass(frozen=True)
class Figure:
    """One thing measured: raw samples in `unit`. Their median is to be at most `aim`, or with `least` at least."""

    name: str
    unit: str
    samples: Sequence[float]
    aim: float | None = None
    least: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tick:
    begin: float
    end: float
    keys: frozenset[Any]


class Watched(TorchDevice):
    """The real device, which notes its ticks and previews. Where a recipe's prompt is LARGE, its picture is `large`."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.large: Image.Image | None = None
        self.ticks: list[Tick] = []
        self.previews: Counter[Any] = Counter()
        self.first_preview: dict[Any, int] = {}
        """Ticks before each image's first preview."""
        self._large_keys: set[Any] = set()
        self._ticked = threading.Condition()
        self.begun = threading.Event()
        """A first tick has begun, if only to rehearse."""

    def admit(self, key: Any, recipe: Any, **asked: Any) -> int:
        if recipe.prompt == LARGE:
            self._large_keys.add(key)
        return super().admit(key, recipe, **asked)

    def tick(self) -> list[Any]:
        self.begun.set()
        begin = time.perf_counter()
        advances = super().tick()
        with self._ticked:
            self.ticks.append(Tick(begin, time.perf_counter(), frozenset(advance.key for advance in advances)))
            self._ticked.notify_all()
        return advances

    def preview(self, key: Any, method: str, step: int | None = None) -> Image.Image:
        self.first_preview.setdefault(key, len(self.ticks))
        self.previews[key] += 1
        return super().preview(key, method, step)

    def picture(self, key: Any) -> Any:
        found = super().picture(key)
        return self.large if key in self._large_keys else found

    def wait_for_tick(self, number: int) -> None:
        """Until so many ticks are over. Raises TimeoutError."""
        with self._ticked:
            if not self._ticked.wait_for(lambda: len(self.ticks) >= number, PATIENCE):
                raise TimeoutError(f"there were only {len(self.ticks)} ticks")


@contextmanager
def opened(catalog: Catalog | None = None) -> Iterator[tuple[Engine, Watched]]:
    """An engine in a folder of its own, its model loaded and used once."""
    with tempfile.TemporaryDirectory() as folder:
        device = Watched()
        with Engine(catalog or open_catalog(), lambda: device, Path(folder)) as engine:
            engine.submit(pictures(engine, prompt="warming up", steps=2)).wait()
            yield engine, device


def pictures(engine: Engine, count: int = 1, **changes: Any) -> Plan:
    return plan_images(engine.catalog.default.recipe(**changes), engine.catalog, Limits(), count=count)


# The cases.


def newcomer(quick: bool) -> Iterator[Figure]:
    """Ticks until a newcomer's first preview, beside other owners' waiting cells."""
    owners, cells = (4, 20) if quick else (32, 100)
    with opened() as (engine, device):
        for number in range(owners):
            plan = pictures(engine, cells, prompt=f"an owl {number}", seed=1000 * number)
            engine.submit(plan, f"crowd-{number:02d}", PreviewOptions("auto"), together=True)
        device.wait_for_tick(len(device.ticks) + 2)
        before, start = len(device.ticks), time.perf_counter()
        job = engine.submit(pictures(engine, prompt="a cat"), "newcomer", PreviewOptions("auto"))
        next(event for event in job.events() if isinstance(event, Preview) and event.image is not None)
        facts = {"waiting cells": owners * cells, "seconds": round(time.perf_counter() - start, 3)}
        yield Figure("ticks until a newcomer's first preview", "ticks", [device.first_preview[job.id, 0] - before], 2, facts=facts)
        leave()  # thousands of pictures are under way: nobody waits for them


def estimate(quick: bool) -> Iterator[Figure]:
    """What a grid of 10 x 10 cells will cost, at two rows a call; each with other steps, so that none is known already."""
    steps = 15 if quick else 150
    spec = open_catalog().default
    narrow = Catalog([spec.model_copy(update={"max_rows": {"cpu": 2, "cuda": 2}})])
    with opened(narrow) as (engine, _):
        for together in (True, False):
            samples: list[float] = []
            while True:
                recipe = engine.catalog.default.recipe(prompt="an owl", steps=steps - len(samples))
                x, y = AxisLine(axis="seed", values="1-10"), AxisLine(axis="cfg", values="2-11")
                plan = plan_grid(Grid(recipe=recipe, x=x, y=y), Offer(engine.catalog, Limits()))
                start = time.perf_counter()
                cost = engine.estimate(plan, together=together)
                samples.append(1000 * (time.perf_counter() - start))
                if len(samples) == 5 or sum(samples) >= 15_000:
                    break
            facts = {"calls": cost.calls, "rows": cost.rows, "seconds said": cost.seconds and round(cost.seconds)}
            way = "all at once" if together else "one after another"
            yield Figure(f"estimate of 100 cells of {steps} steps, {way}", "ms", samples, 20, facts=facts)


def writing(quick: bool) -> Iterator[Figure]:
    """Time from step to step of a visitor's picture while another's pictures of 1024 px are written, against alone."""
    steps, written = (60, 2) if quick else (150, 8)
    alone, beside, gaps = [], [], []
    with opened() as (engine, device):
        device.large = made_up(1024)
        for repeat in range(1 if quick else 3):
            alone.append(_step(device, _run(engine, device, steps, repeat))[0])
            start = len(device.ticks)
            job = engine.submit(pictures(engine, prompt="an owl", steps=steps, seed=100 + repeat), "bystander", PreviewOptions("off"))
            device.wait_for_tick(start + 10)
            other = engine.submit(pictures(engine, written, prompt=LARGE, steps=1, seed=10 * repeat), "writer", PreviewOptions("off"))
            job.wait()
            step, gap = _step(device, job)
            beside.append(step)
            gaps.append(gap)
            assert len(other.made()) == written or not other.failures(), "the large pictures were not written"
            other.wait()
    ratios = [one / other for one, other in zip(beside, alone, strict=True)]
    facts = {"ms a step alone": rounded(alone), "ms a step beside": rounded(beside), "longest pause, ms": rounded(gaps)}
    yield Figure(f"a step while {written} pictures of 1024 px are written / alone", "", ratios, 1.1, facts=facts)


def _run(engine: Engine, device: Watched, steps: int, seed: int) -> Job:
    job = engine.submit(pictures(engine, prompt="an owl", steps=steps, seed=seed), "bystander", PreviewOptions("off"))
    job.wait()
    return job


def _step(device: Watched, job: Job) -> tuple[float, float]:
    """(mean milliseconds from step to step of a job's only picture, the longest pause between two) from its tenth tick on; the calls
    that others shared count for their pause only."""
    key = (job.id, 0)
    places = [place for place, tick in enumerate(device.ticks) if key in tick.keys][10:]
    pauses = [device.ticks[place].begin - device.ticks[place - 1].end for place in places]
    calls = [tick.end - tick.begin for tick in (device.ticks[place] for place in places) if tick.keys == {key}]
    return 1000 * (statistics.mean(calls) + statistics.mean(pauses)), 1000 * max(pauses)


def previews(quick: bool) -> Iterator[Figure]:
    """Previews of one visitor (auto) beside another's full ones (vae), against alone."""
    steps, cells = (20, 2) if quick else (60, 8)
    counts: dict[str, list[int]] = {"alone": [], "beside": []}
    with opened() as (engine, device):

        def visit(way: str, repeat: int) -> None:
            plan = pictures(engine, prompt=f"an owl {way}", steps=steps, seed=repeat)
            job = engine.submit(plan, f"visitor {way} {repeat}", PreviewOptions("auto"))
            job.wait()
            counts[way].append(device.previews[job.id, 0])

        for repeat in range(1 if quick else 3):
            visit("alone", repeat)
            plan = pictures(engine, cells, prompt="a cat", steps=150, seed=100 * repeat)
            other = engine.submit(plan, "with vae", PreviewOptions("vae"), together=True)
            device.wait_for_tick(len(device.ticks) + 5)
            visit("beside", repeat)
            engine.stop(other)
            other.wait()
    ratios = [beside / max(alone, 1) for alone, beside in zip(*counts.values(), strict=True)]
    yield Figure(f"previews of {steps} steps beside another's vae / alone", "", ratios, 0.5, least=True, facts=counts)


def real_size(quick: bool, model: Path) -> Iterator[Figure]:
    """A model of Stable Diffusion 1.5's size at 256 px: a click as it has just been loaded and, if it is, rehearsed; and a second one."""
    with tempfile.TemporaryDirectory() as folder:
        device = Watched()
        with Engine(open_catalog(str(model)), lambda: device, Path(folder)) as engine:
            start = time.perf_counter()
            engine.warm()
            while engine.count_tokens(engine.catalog.default.name, "an owl") is None:
                if time.perf_counter() - start > PATIENCE:
                    raise TimeoutError("the model was not loaded")
                time.sleep(0.01)
            yield Figure("load the model", "s", [time.perf_counter() - start])
            device.begun.wait(5.0)
            jobs = set()
            for number, when in enumerate(("just loaded", "again")):
                recipe = {"prompt": f"an owl {number}", "width": 256, "height": 256, "steps": 20}
                clicked = time.perf_counter()
                job = engine.submit(pictures(engine, **recipe), "visitor", PreviewOptions("auto"))
                jobs.add(job.id)
                seen: dict[str, float] = {}
                for event in job.events():
                    if isinstance(event, Queued):
                        seen.setdefault("Queued", time.perf_counter() - clicked)
                    elif isinstance(event, Preview) and event.image is not None:
                        seen["its first preview"] = time.perf_counter() - clicked
                        break
                stopped = time.perf_counter()
                engine.stop(job)
                job.wait()
                for name, seconds in seen.items():
                    yield Figure(f"{when}: click to {name}", "s", [seconds])
                yield Figure(f"{when}: Stop to its end", "s", [time.perf_counter() - stopped])
            calls = [tick.end - tick.begin for tick in device.ticks if any(job_id in jobs for job_id, _ in tick.keys)]
            yield Figure("a network call", "s", [round(one, 3) for one in calls])


def soak(quick: bool) -> Iterator[Figure]:
    """What the process' memory grows by in the second half of 600 small jobs of eight owners, each of whose pictures are looked at."""
    jobs = 60 if quick else 600
    held: list[float] = []
    with opened() as (engine, _):
        for number in range(jobs):
            plan = pictures(engine, 1 + number % 2, prompt=f"an owl {number}", steps=2, seed=number)
            job = engine.submit(plan, f"visitor {number % 8}", PreviewOptions("auto"), together=True)
            for made in job.made().values() if job.wait() else ():
                open_picture(made)
            held.append(resident_mib())
    half = jobs // 2  # the engine's own folder is gone by now
    slope = 100 * statistics.linear_regression(range(half, jobs), held[half:]).slope
    facts = {"MiB at the start": round(held[0]), "MiB at the end": round(held[-1]), "files left": files_left()}
    yield Figure(f"growth a hundred jobs, the last {jobs - half} of {jobs:,}", "MiB", [slope], 1, facts=facts)


def make_model(quick: bool, folder: Path) -> None:
    """A pipeline with random weights: Stable Diffusion 1.5's own configuration (runwayml/stable-diffusion-v1-5), or a tiny one.

    The tokenizer is the embedded model's, in the length of CLIP's: the words are of no account here.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    wide, text_width = ((32, 32, 64, 64), 64) if quick else ((320, 640, 1280, 1280), 768)
    tokenizer = CLIPTokenizer.from_pretrained(Path(open_catalog().default.source) / "tokenizer", model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=text_width, intermediate_size=4 * text_width, num_hidden_layers=12,
        num_attention_heads=text_width // 64, max_position_embeddings=77, projection_dim=text_width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, block_out_channels=wide, cross_attention_dim=text_width, attention_head_dim=8)
    unet.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            parameter.fill_(1.0) if "norm" in name and name.endswith("weight") else parameter.normal_(0.0, 0.02)
    vae_wide = (32, 32, 32, 32) if quick else (128, 256, 512, 512)
    vae = AutoencoderKL(  # whose annotations say tuple[int], a tuple of one, where they mean tuple[int, ...]
        block_out_channels=vae_wide,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        layers_per_block=2, latent_channels=4, sample_size=512,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
    )
    # Its annotations name an enumeration for the scheduler, and do not say that the two after it may be None.
    parts: tuple[Any, ...] = (vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None)
    pipeline = StableDiffusionPipeline(*parts, requires_safety_checker=False)
    pipeline.save_pretrained(folder, safe_serialization=True)


# What several cases need.


def made_up(side: int) -> Image.Image:
    """A picture of `side` x `side` pixels with soft shapes and grain."""
    generator = numpy.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 256, (8, 8, 3), numpy.uint8))
    soft = numpy.asarray(colours.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((soft + generator.normal(0, GRAIN, soft.shape)).clip(0, 255).astype(numpy.uint8))


def resident_mib() -> float:
    """Memory that the process holds (VmRSS; Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def files_left() -> int:
    """Files and folders of this process in the system's temporary folder, which benchmarks.figures makes for each case."""
    return sum(1 for _ in Path(tempfile.gettempdir()).rglob("*"))


def rounded(samples: Sequence[float]) -> list[float]:
    return [round(one, 2) for one in samples]


found: list[Figure] = []
CASES = {"newcomer": newcomer, "estimate": estimate, "writing": writing, "previews": previews, "soak": soak, "real-size": real_size}


def leave() -> None:
    """Prints what was found and ends the process: a crowd's thousands of pictures are not waited for."""
    print(json.dumps([asdict(figure) for figure in found]), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=(*CASES, "make-model"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="of real-size; made by make-model")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.case == "make-model":
        make_model(options.quick, options.model)
        return
    extra = {"model": options.model} if options.case == "real-size" else {}
    for figure in CASES[options.case](options.quick, **extra):
        found.append(figure)
    leave()


if __name__ == "__main__":
    main()

"""The scenes stage: all of a profile's pictures composed and captioned once, on as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from training.captions import captions
from training.files import write_json
from training.work import Work

Share = tuple[Work, int, int, str]
"""The work, the first scene, the one after the last, and the array's file."""


def compose_scenes(work: Work) -> None:
    """Writes scenes.npy # (N, size, size, 3) uint8 and, when that is whole, captions.json."""
    work.folder.mkdir(parents=True, exist_ok=True)
    file, count, size = work.folder / "scenes.npy", work.profile.scenes, work.profile.size
    np.lib.format.open_memmap(file, "w+", np.uint8, (count, size, size, 3)).flush()
    ends = [count * part // work.processes for part in range(work.processes + 1)]
    silent = replace(work, say=print)  # what goes to another process must be found there by name
    shares = [(silent, start, end, str(file)) for start, end in pairwise(ends)]
    if len(shares) == 1:
        said = [compose_share(shares[0])]
    else:
        with ProcessPoolExecutor(work.processes, multiprocessing.get_context("spawn")) as pool:
            said = list(pool.map(compose_share, shares))
    write_json(work.folder / "captions.json", [one for share in said for one in share])
    work.say(f"{count:,} scenes of {size} x {size} composed")


def compose_share(share: Share) -> list[list[str]]:
    """Composes scenes into their places in the array; returns their captions."""
    work, start, end, file = share
    stage, said = work.stage(), []
    array = np.load(Path(file), mmap_mode="r+")
    for index in range(start, end):
        scene = stage.scene(index)
        array[index] = stage.draw(scene)
        said.append(captions(stage, scene, index, work.config.scenes))
    array.flush()
    return said

"""`python -m benchmarks.memory WHO`: makes pictures in this fresh process, then prints its peak memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

WHO = {"peer": 1, "engine": 1, "engine-nine": 9}
"""Who draws -> how many pictures."""


def main(who: str) -> None:
    """Draws and prints {"peak_mib", "ru_maxrss_mib", "cuda_peak_mib"}."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        draw(who, Path(folder))
    cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(json.dumps({"peak_mib": high_water_mark() or usage, "ru_maxrss_mib": usage, "cuda_peak_mib": cuda}))


def draw(who: str, folder: Path) -> None:
    """The pictures of `who`, from a cold start."""
    from benchmarks.subjects import Ours, Peer
    from engine.local import open_catalog

    spec = open_catalog().default
    recipes = [spec.recipe(prompt="an owl, noto style", seed=seed) for seed in range(WHO[who])]
    if who == "peer":
        Peer(spec, folder).draw(recipes)
        return
    ours = Ours(folder)
    try:
        ours.draw(recipes)
    finally:
        ours.close()


def high_water_mark() -> float | None:
    """MiB this program has held at most (VmHWM), None where /proc does not tell.

    ru_maxrss will not do alone: Linux hands a parent's own peak down to the process it starts.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main(sys.argv[1])

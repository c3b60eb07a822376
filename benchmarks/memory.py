"""`python -m benchmarks.memory peer|engine [SIDE]`: makes one picture, or with SIDE a grid of SIDE x SIDE cells, in this
fresh process, then prints its peak memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.plans import one_picture, square
from engine.local import open_catalog


def main(who: str, side: int | None = None) -> None:
    """Draws and prints {"peak_mib", "ru_maxrss_mib", "cuda_peak_mib"}."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        draw(who, side, Path(folder))
    cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(json.dumps({"peak_mib": high_water_mark() or usage, "ru_maxrss_mib": usage, "cuda_peak_mib": cuda}))


def draw(who: str, side: int | None, folder: Path) -> None:
    """One picture or a grid by `who`, from a cold start."""
    from benchmarks.subjects import Ours, Peer

    catalog = open_catalog()
    plan = square(catalog, 0, side) if side else one_picture(catalog, 0)
    if who == "peer":
        Peer(catalog.default, folder).draw(plan)
        return
    ours = Ours(folder)
    try:
        ours.draw(plan)
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
    main(sys.argv[1], *map(int, sys.argv[2:]))

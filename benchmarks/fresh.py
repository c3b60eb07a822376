"""What is measured in fresh processes: imports, the page's start, a cold picture, peak memory. No torch here."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import Comparison, Measure, Result, Skipped, interleave

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds after which a process that says nothing counts as failed."""

IMPORT = """
import sys, time
start = time.perf_counter()
import engine.local
print(time.perf_counter() - start, "torch" in sys.modules)
"""


class FreshFailed(Exception):
    """A process could not be measured; the message is its last line."""


def measure(repeats: int, sides: Sequence[int], say: Callable[[str], None]) -> Iterator[Result]:
    """Every case that needs fresh processes; the memory of grids with so many cells along a side.

    Run it before this process grows (see memory.high_water_mark).
    """
    cases = (
        ("start-up", "import engine.local", import_time), ("start-up", "app.py to HTTP 200", page_time),
        ("start-up", "python -m engine generate", cold_picture), ("memory", "peak", partial(peak_memory, sides=sides)),
    )  # fmt: skip
    for case, name, work in cases:
        say(f"{case}, {name}, in fresh processes")
        try:
            yield from work(repeats)
        except (FreshFailed, FileNotFoundError, subprocess.TimeoutExpired) as error:
            yield Skipped(case, name, scrubbed(str(error)))


def import_time(repeats: int) -> Iterator[Result]:
    """import engine.local in a fresh interpreter."""
    fresh_output(["-c", IMPORT])
    found = [fresh_output(["-c", IMPORT]).split() for _ in range(repeats)]
    facts = {"torch imported": any(torch == "True" for _, torch in found)}
    yield Measure("start-up", "import engine.local", "s", tuple(float(seconds) for seconds, _ in found), facts=facts)


def page_time(repeats: int) -> Iterator[Result]:
    """python app.py until the page answers."""
    require("app.py")
    knows_data_dir = "--data-dir" in fresh_output(["app.py", "--help"])
    samples = [_page_once(knows_data_dir) for _ in range(repeats + 1)]
    yield Measure("start-up", "python app.py to HTTP 200", "s", tuple(samples[1:]), aim=5.0)


def cold_picture(repeats: int) -> Iterator[Result]:
    """python -m engine generate, cold, to a finished picture; the peer is a fresh process too."""
    require("engine/__main__.py")

    def ours(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fresh_output(["-m", "engine", "generate", "--prompt", "an owl, noto style", "--seed", "0", "--data-dir", folder])

    series = interleave(ours, lambda number: fresh_output(["-m", "benchmarks.memory", "peer"]), repeats)
    yield Comparison("start-up", "python -m engine generate, cold", "fresh process: load, pipe(...) + PNG", series.ours, series.peer)


def peak_memory(repeats: int, sides: Sequence[int]) -> Iterator[Result]:
    """Peak memory of one picture, and of grids by their number of cells."""
    titles: dict[tuple[str, ...], str] = {("peer",): "diffusers pipeline, 1 picture", ("engine",): "Engine, 1 picture"}
    titles |= {("engine", str(side)): f"Engine, grid of {side * side} cells" for side in sides}
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {subject: [] for subject in titles}
    for _ in range(repeats):
        for subject in titles:
            found[subject].append(json.loads(fresh_output(["-m", "benchmarks.memory", *subject]).splitlines()[-1]))
    peaks = {subject: tuple(one["peak_mib"] for one in runs) for subject, runs in found.items()}
    growth = _growth({side * side: statistics.median(peaks["engine", str(side)]) for side in sides})
    for subject, runs in found.items():
        facts: dict[str, Any] = {key: [one[key] for one in runs] for key in ("ru_maxrss_mib", "cuda_peak_mib") if runs[0][key] is not None}
        if subject[1:] and (cells := int(subject[1]) ** 2) in growth:
            facts |= growth[cells]
        yield Measure("memory", titles[subject], "MiB", peaks[subject], facts=facts)


def _growth(peaks: dict[int, float]) -> dict[int, dict[str, float]]:
    """By a grid's number of cells, what each of those that the next smaller grid lacks took. Up to the widest network
    batch a cell also widens that; from there on it only is kept."""
    sizes = itertools.pairwise(sorted(peaks))
    return {more: {f"MiB for each cell above {less}": round((peaks[more] - peaks[less]) / (more - less), 3)} for less, more in sizes}


def _page_once(knows_data_dir: bool) -> float:
    """Seconds from starting app.py to its page's first 200."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        where = ["--data-dir", folder] if knows_data_dir else []
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), *where], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                    log.seek(0)
                    raise FreshFailed(last_line(log.read().decode(errors="replace")))
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            _end(process)


def _answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
        return
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fresh_output(arguments: Sequence[str], patience: float = PATIENCE) -> str:
    """What a fresh interpreter prints. Raises FreshFailed with its last line when it ends with an error."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience, check=False
    )
    if done.returncode:
        raise FreshFailed(last_line(done.stderr))
    return done.stdout


def require(path: str) -> None:
    if not (ROOT / path).is_file():
        raise FileNotFoundError(f"there is no {path} yet")


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it ended without a word")


def scrubbed(text: str) -> str:
    """Without this machine's folders."""
    return text.replace(str(ROOT), ".").replace(tempfile.gettempdir(), "TMP").replace(sys.executable, "python")

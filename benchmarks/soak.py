"""`python -m benchmarks.soak [--jobs N] [--visitors N] [--device cpu|cuda]`: how the page's process grows under use.

Starts `app.py` in a process of its own and has visitors open the page, press Generate and follow the run to its end, all over
HTTP as a browser does, a new session for each. Prints {"rss_mib": after each hundred jobs, "growth_mib": per hundred over
the last half, "files", "folders": left in gradio's folder, ...} as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
VISITORS = 1
"""Of whom each presses in turn; browsers keep their visitor's token. What is kept of each visitor's finished requests is bounded,
so that with one of them the growth of 1,200 requests shows what stays after that is full; with 32, what is kept."""

STARTING_SECONDS = 180

FRAME = 0.1
"""Seconds between two questions of the stage's script."""


class Page:
    """A page that is served, as its own configuration tells of it."""

    def __init__(self, address: str, client: httpx.Client):
        self.address, self.client = address, client
        config = client.get(f"{address}config").raise_for_status().json()
        self.components = {one["id"]: one for one in config["components"]}
        self.ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
        visitor = next(one["id"] for one in config["components"] if one["type"] == "browserstate")
        self.values = {id: one["props"].get("value") for id, one in self.components.items()}
        self.visitor = visitor
        self.wired = {(target[0], target[1]): one for one in config["dependencies"] for target in one["targets"]}

    def fire(self, session: str, visitor: str, source: str, event: str, data: Any = None, **typed: Any) -> dict[int, Any]:
        """What an event's handler changed, by component."""
        wired = self.wired[self.ids[source], event]
        held = {**self.values, self.visitor: visitor, **{self.ids[name]: value for name, value in typed.items()}}
        body = {
            "data": [held[one] if held[one] is not None else "" for one in wired["inputs"]], "fn_index": wired["id"],
            "session_hash": session, "event_data": data, "trigger_id": self.ids[source],
        }  # fmt: skip
        reply = self.client.post(f"{self.address}gradio_api/run/predict", json=body).raise_for_status()
        return dict(zip(wired["outputs"], reply.json()["data"], strict=True))

    def ask(self, session: str, asked: Any) -> dict[str, Any]:
        """The answer to what the stage's script asks."""
        body = {"data": asked, "component_id": self.ids["stage"], "fn_name": "ask_stage", "session_hash": session}
        return self.client.post(f"{self.address}gradio_api/component_server/", json=body).raise_for_status().json()

    def run(self, visitor: str, seed: int, steps: int) -> None:
        """One visit: the page, a press, the run to its end, the picture and its thumbnail."""
        session = uuid.uuid4().hex[:12]
        self.client.get(self.address).raise_for_status()
        typed = {"prompt": f"an owl {seed}", "seed": seed, "seed-mode": "Keep", "steps": steps}
        first = self.fire(session, visitor, "generate", "click", **typed)
        stage = first[self.ids["stage"]]
        key, answer, seen = _value(stage)["key"], {}, -1
        while not answer.get("done"):
            answer = self.ask(session, {"question": "frame", "key": key, "seen": seen, "page": 0, "large": True})
            seen = answer.get("version", seen)
            if "error" in answer:
                raise RuntimeError("the run was forgotten")
            time.sleep(FRAME)
        self.fire(session, visitor, "stage", "act", {"key": key})
        [cell] = answer["cells"]
        self.client.get(self.address + cell["src"]).raise_for_status()


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(soak(Path(folder), options.jobs, options.device, options.steps, options.visitors)))


def soak(folder: Path, jobs: int, device: str, steps: int, visitors: int) -> dict[str, Any]:
    """What becomes of a page's memory and temporary files over so many jobs."""
    temporary = folder / "gradio"
    temporary.mkdir()
    port = _free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", str(folder / "data"), "--device", device]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(temporary), "TMPDIR": str(temporary)}
    with (folder / "log").open("w") as log, httpx.Client(timeout=60) as client:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait_until_ready(folder / "log", server)
            page = Page(f"http://127.0.0.1:{port}/", client)
            tokens = [uuid.uuid4().hex for _ in range(visitors)]
            sizes, begun = [], time.perf_counter()
            for number in range(jobs):
                if number % 100 == 0:
                    sizes.append(_resident_mib(server.pid))
                    print(f"{number} jobs: {sizes[-1]:.1f} MiB", file=sys.stderr)
                page.run(tokens[number % visitors], number, steps)
            sizes.append(_resident_mib(server.pid))
            seconds = time.perf_counter() - begun
            left = list(temporary.rglob("*"))
        finally:
            server.terminate()
            server.wait(timeout=60)
    growth = [later - earlier for earlier, later in itertools.pairwise(sizes)]
    return {
        "jobs": jobs, "visitors": visitors, "steps": steps, "device": device, "seconds": round(seconds, 1),
        "rss_mib": [round(size, 1) for size in sizes],
        "growth_mib": round(statistics.mean(growth[len(growth) // 2 :]), 2),
        "files": sum(path.is_file() for path in left), "folders": sum(path.is_dir() for path in left),
    }  # fmt: skip


def _value(shown: Any) -> Any:
    """A component's new value, however gradio wraps it."""
    return shown["value"] if isinstance(shown, dict) and shown.get("__type__") == "update" else shown


def _wait_until_ready(log: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTING_SECONDS
    while not re.search(r"is ready", log.read_text()):
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"app.py did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _resident_mib(process: int) -> float:
    """VmRSS, of Linux alone."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description="How the page's process grows under use.")
    parser.add_argument("--jobs", type=int, default=1200)
    parser.add_argument("--visitors", type=int, default=VISITORS)
    parser.add_argument("--steps", type=int, default=2, help="of each picture")
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    main()

"""`python -m benchmarks.figures [--before CHECKOUT]`: whether the promises of benchmarks.promises are kept on this machine, here and in
another checkout, and a short comparison with diffusers."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.fresh import ROOT, FreshFailed, fresh_output, last_line, require, scrubbed
from benchmarks.run import QUIET, RESULTS, say, write_results
from benchmarks.timing import Figure, Result, Skipped

SCRIPT = Path(__file__).with_name("promises.py")
CASES = ("newcomer", "estimate", "writing", "previews", "real-size", "soak")
PATIENCE = 900.0
"""Seconds after which a case counts as failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and writes it beside the JSON."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from benchmarks import machine, report

    load, results = machine.load(), list(promises(options.only, options.before, options.quick))
    if "page" in options.only:
        results.append(page_memory(options.quick))
    if "diffusers" in options.only:
        from benchmarks import cases

        results += cases.measure(cases.Effort(1 if options.quick else 5, {3: 1 if options.quick else 3}, 0, ways=False, alone=True), say)
    about = {
        "date": datetime.now().strftime("%Y-%m-%d"), "quick": options.quick,
        "command": " ".join(["python -m benchmarks.figures", *(Path(one).name if "/" in one else one for one in given)]),
        **machine.commit(), "before": machine.commit(options.before)["commit"] if options.before else None,
        "machine": machine.facts(), "load_before": load, "load_after": machine.load(),
    }  # fmt: skip
    table = report.to_markdown(about, results)
    print(table)
    file = options.out or RESULTS / f"{about['date']}-figures-{machine.slug(about['machine'])}.json"
    write_results(file, report.to_json(about, results), table)
    return 0


def promises(wanted: Sequence[str], before: Path | None, quick: bool) -> Iterator[Result]:
    """The figures of each case, here and `before`, one process after the other."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        for case in (case for case in CASES if case in wanted):
            try:
                if case == "real-size":
                    _measured("make-model", ROOT, quick, model)
                now = _measured(case, ROOT, quick, model)
            except (FreshFailed, subprocess.TimeoutExpired) as error:
                yield Skipped(case, "here", scrubbed(str(error)))
                continue
            then: list[dict[str, Any]] = []
            if before is not None:
                try:
                    then = _measured(case, before, quick, model)
                except (FreshFailed, subprocess.TimeoutExpired) as error:
                    yield Skipped(case, "before", scrubbed(str(error)))
            yield from beside(case, now, then)


def page_memory(quick: bool) -> Result:
    """How the page's own process grows under visitors who come over HTTP (benchmarks.soak); only here, as it speaks today's page."""
    jobs = 200 if quick else 1200
    say(f"page, {jobs:,} visits")
    try:
        require("benchmarks/soak.py")
        told = json.loads(fresh_output(["-m", "benchmarks.soak", "--jobs", str(jobs)], PATIENCE).splitlines()[-1])
    except (FreshFailed, FileNotFoundError, subprocess.TimeoutExpired) as error:
        return Skipped("page", "here", scrubbed(str(error)))
    facts = {"MiB after each hundred": told["rss_mib"], "files left": told["files"], "folders left": told["folders"]}
    return Figure("page", f"growth a hundred visits, the last half of {jobs:,}", "MiB", (told["growth_mib"],), aim=1.0, facts=facts)


def beside(case: str, now: Sequence[dict[str, Any]], then: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    """Each figure measured now, with the one of its name from before."""
    known = {one["name"]: one for one in then}
    for one in now:
        other = known.get(one["name"], {"samples": (), "facts": {}})
        yield Figure(
            case, one["name"], one["unit"], tuple(one["samples"]), tuple(other["samples"]), one["aim"], one["least"],
            one["facts"], other["facts"],
        )  # fmt: skip


def _measured(case: str, checkout: Path, quick: bool, model: Path) -> list[dict[str, Any]]:
    """What a case prints when it runs in a checkout, with a temporary folder of its own. Raises FreshFailed with its last line."""
    say(f"{case} in {checkout.name}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [case, "--model", str(model), *(["--quick"] if quick else [])]
        done = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), *arguments], cwd=checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE, check=False, env={**os.environ, "PYTHONPATH": str(checkout), "TMPDIR": folder},
        )  # fmt: skip
    say(f"{case} took {time.perf_counter() - start:.0f} s")
    if done.returncode:
        raise FreshFailed(last_line(done.stderr))
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--before", type=_checkout, metavar="CHECKOUT", help="folder of an older checkout, for the column of that name")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it works, not how fast it is")
    everything = (*CASES, "page", "diffusers")
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, metavar="CASE", help=", ".join(everything))
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file; the table goes beside it as .md")
    return parser


def _checkout(text: str) -> Path:
    folder = Path(text).resolve()
    if not (folder / "engine" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no checkout of Darkroom")
    return folder


if __name__ == "__main__":
    sys.exit(main())

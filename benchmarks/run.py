"""`python -m benchmarks.run`: measures the engine against plain diffusers on this machine and writes what it found."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "GRADIO_ANALYTICS_ENABLED": "False"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and writes it beside the JSON."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    for name, value in QUIET.items():  # before any library is imported, here or in a process started from here
        os.environ.setdefault(name, value)
    # Fresh processes first, while this one is small: see memory.high_water_mark.
    from benchmarks import fresh, machine
    from benchmarks.timing import Result

    before = machine.load()
    repeats = options.repeats or (2 if options.quick else 6)
    fewer = max(3, repeats // 2)
    results: list[Result] = list(fresh.measure(1, (3, 5), say) if options.quick else fresh.measure(fewer, (3, 5, 8, 10), say))

    from benchmarks import cases, report

    quick, full = cases.Effort(repeats, {3: 1}, 4, (1, 2, 4, 8)), cases.Effort(repeats, {3: repeats, 5: fewer}, 40)
    effort = quick if options.quick else full
    results += cases.measure(effort, say)
    about = {
        "date": datetime.now().strftime("%Y-%m-%d"), "quick": options.quick, "repeats": repeats, "command": _command(given),
        **machine.commit(), "machine": machine.facts(), "load_before": before, "load_after": machine.load(),
    }  # fmt: skip
    table = report.to_markdown(about, results)
    print(table)
    write_results(options.out or RESULTS / f"{about['date']}-{machine.slug(about['machine'])}.json", report.to_json(about, results), table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats: shows that it works, not how fast it is")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file; the table goes beside it as .md")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="timed pairs of each comparison; default: 6")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _command(arguments: Sequence[str]) -> str:
    """The command line, with files by their names only."""
    return " ".join(["python -m benchmarks.run", *(Path(one).name if "/" in one else one for one in arguments)])


def write_results(file: Path, content: dict[str, Any], table: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    say(f"written: {file.name} and {file.with_suffix('.md').name}")


def say(text: str) -> None:
    print(f"[benchmarks] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

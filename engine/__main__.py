"""python -m engine: pictures and comparison grids from the terminal, one JSON line each on stdout."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from engine.cli import generate, grid, models, verify
from engine.cli.following import STOPPED
from engine.errors import EngineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 when a picture failed or is not the same, 2 for bad input, 130 when it was stopped."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return options.run(options)
    except EngineError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="Darkroom's engine: pictures from prompts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (generate, grid, models, verify):
        command.define(commands.add_parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())

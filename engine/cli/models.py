"""`models`: which there are, one JSON line each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from engine.local import open_catalog


def define(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to those of the command line."""
    add_parser("models", help="list the models on offer, one JSON line each").set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the catalog; returns the exit code."""
    for spec in open_catalog():
        told = spec.model_dump(include={"name", "title", "native_size", "steps", "guidance_scale", "scheduler", "license", "note"})
        print(json.dumps({**told, "download": None if spec.is_local else spec.source}))
    return 0

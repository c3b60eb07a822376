"""Files that are whole or not there, and checkpoints among them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.errors import InvalidRequest


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `file`, then puts it in its place: an interruption leaves the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")
    write(beside)
    os.replace(beside, file)


def write_json(file: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_whole(file, lambda beside: beside.write_text(text, encoding="utf-8"))


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    write_whole(file, lambda beside: torch.save(state, beside))


def load_checkpoint(file: Path, made_with: str) -> dict[str, Any] | None:
    """The state on the CPU, or None where there is none yet. Raises InvalidRequest for one that other settings made."""
    if not file.is_file():
        return None
    state = torch.load(file, map_location="cpu", weights_only=True)
    if state["made_with"] != made_with:
        raise InvalidRequest(f"{file} was made with other settings: delete it to begin anew, or put the settings back.")
    return state

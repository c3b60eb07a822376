"""Commands run over a device without a network, in this process, and what they came to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.__main__ import main
from engine.local import open_catalog
from engine.running.engine import Engine
from tests.fake_device import FakeDevice

SLOW_RUN = """
import sys
import engine.cli.flags
from engine.__main__ import main
from engine.local import open_catalog
from engine.running.engine import Engine
from tests.fake_device import FakeDevice
def open_slow(*, model, out, data_dir, **_):
    return Engine(open_catalog(model), lambda: FakeDevice(0.02), data_dir, None, out)
engine.cli.flags.open_engine = open_slow
sys.exit(main(sys.argv[1:]))
"""
"""A command in a process of its own, over a device that takes a while for each step: there is time to stop it."""


@dataclass(frozen=True)
class Run:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Run]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, device: FakeDevice) -> Command:
    """Runs the command line over the fake device."""

    def open_fake(*, model: str | None, out: Path | None, data_dir: Path, **_: object) -> Engine:
        return Engine(open_catalog(model), lambda: device, data_dir, None, out)

    monkeypatch.setattr("engine.cli.flags.open_engine", open_fake)

    def run(*arguments: object, command: str = "generate") -> Run:
        code = main([command, "--data-dir", str(tmp_path / "data"), *map(str, arguments)])
        return Run(code, *capsys.readouterr())

    return run

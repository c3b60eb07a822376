from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.running.engine import Engine
from tests.fake_device import FakeDevice, fake_engine


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def engine(tmp_path: Path, device: FakeDevice) -> Iterator[Engine]:
    with fake_engine(tmp_path, device=device) as engine:
        yield engine

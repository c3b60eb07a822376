"""python -m engine models."""

from __future__ import annotations

import json

from engine.__main__ import main
from engine.recipes.catalog import Catalog


def test_models_are_listed(capsys, catalog: Catalog):
    assert main(["models"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == [spec.name for spec in catalog]
    assert all({"title", "native_size", "steps", "guidance_scale", "scheduler", "license"} <= line.keys() for line in lines)
    assert lines[0]["download"] is None
    assert lines[1]["download"] == catalog.find("sd15").source

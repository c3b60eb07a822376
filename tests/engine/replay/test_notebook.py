"""A sheet's notebook: Jupyter's reader takes it, and its code draws the cells bit for bit."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from PIL import Image

from engine.errors import InvalidRequest
from engine.local import open_catalog, open_engine
from engine.pictures.made import Provenance
from engine.pictures.outputs import open_picture
from engine.recipes.axes import Offer
from engine.recipes.catalog import Limits
from engine.recipes.plan import AxisLine, Grid, Plan, plan_grid, plan_images
from engine.replay.notebook import notebook
from tests.conftest import ROOT

SECONDS = 120
CATALOG = open_catalog()
ON_CPU = Provenance("a", "cpu", "float32", 2, False, 4, 4, 0.5, {"torch": "2.13.0+cpu", "diffusers": "0.42.1"})
HOSTILE = "an owl </script> ``` \n# **x** {y} \"z\" 'w' \\ 🦉"


def sheet(x: str, y: str = "cfg: 1, 4", z: str | None = None, **recipe) -> Plan:
    parts = {name: line.split(": ", 1) for name, line in zip("xyz", (x, y, z), strict=True) if line}
    lines = {name: AxisLine(axis=axis, values=values) for name, (axis, values) in parts.items()}
    given = {"prompt": "a red apple, noto style", "steps": 3, "seed": 5, **recipe}
    return plan_grid(Grid(recipe=CATALOG.default.recipe(**given), **lines), Offer(CATALOG, Limits()))


def code_of(text: str) -> list[str]:
    found = nbformat.reads(text, as_version=4)
    nbformat.validate(found)
    return [cell.source for cell in found.cells if cell.cell_type == "code"]


def test_its_code_draws_each_cell_as_it_is_drawn_alone(tmp_path):
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    plan = sheet("scheduler: Euler a, DPM++ SDE Karras, DDIM", "clip_skip: 1, 2", "seed: 5, 6")
    _, *code = code_of(notebook(plan, ON_CPU, CATALOG))
    code[-1] = "for number, picture in enumerate(pictures): picture.save(f'{number}.png')"
    command = [sys.executable, "-c", "\n".join(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    places = [(x, y, z) for z in range(2) for y in range(2) for x in range(3)]
    with open_engine(device="cpu", data_dir=tmp_path) as engine:
        for number, place in enumerate(places):
            [end] = engine.submit(plan_images(plan.at(place).recipe, engine.catalog, engine.limits)).wait().values()
            with Image.open(tmp_path / f"{number}.png") as image:
                assert image.tobytes() == open_picture(end.made).tobytes(), place


def test_whatever_is_in_the_words_it_stays_text():
    plan = sheet("seed: 1, 2", prompt=HOSTILE)
    text = notebook(plan, ON_CPU, CATALOG)
    heading, *_ = nbformat.reads(text, as_version=4).cells
    assert all(line.startswith("    ") for line in heading.source.splitlines()[2:])
    common = ast.literal_eval(next(part for part in code_of(text) if part.startswith("common")).partition("= ")[2].partition("\ncells")[0])
    assert common["prompt"] == HOSTILE


@pytest.mark.parametrize("x", ["size: 64x64, 96x64", "prompt: a cat || a dog", "seed: 1-3", "scheduler: Euler, Heun", "steps: 2, 3"])
def test_every_part_is_python(x):
    install, *code = code_of(notebook(sheet(x), ON_CPU, CATALOG))
    assert install == "%pip install -q torch==2.13.0 diffusers==0.42.1 transformers accelerate"
    for part in code:
        ast.parse(part)


def test_on_a_graphics_card_the_noise_is_drawn_on_the_cpu():
    code = "\n".join(code_of(notebook(sheet("seed: 1, 2"), replace(ON_CPU, device="NVIDIA H100", dtype="float16"), CATALOG))[1:])
    ast.parse(code)
    assert ".to('cuda')" in code
    assert "latents=noise" in code


def test_a_model_that_is_gone_is_said_to_be():
    plan = sheet("seed: 1, 2")
    other = CATALOG.with_model(CATALOG.default.model_copy(update={"name": "other"}))
    gone = type(other)([other.find("other")])
    with pytest.raises(InvalidRequest, match="There is no model “starter” here"):
        notebook(plan, ON_CPU, gone)

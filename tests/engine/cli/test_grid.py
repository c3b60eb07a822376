"""python -m engine grid: what a script or a person at a terminal gets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from engine.errors import NotSaved, OutOfMemory
from engine.pictures.metadata import read_picture
from engine.recipes.plan import MAX_LINE, AxisLine
from tests.conftest import ROOT
from tests.engine.cli.conftest import SLOW_RUN, Command

OWL = ("--prompt", "an owl", "--steps", 2, "--x", "cfg: 3, 5", "--y", "seed: 1, 2, 3")
"""Six cells, of seeds and CFG scales."""


@pytest.fixture
def grid(command: Command) -> Command:
    """Runs the command `grid` over the fake device."""
    return partial(command, command="grid")


def test_a_grid_tells_of_each_cell_and_of_its_sheet(grid, tmp_path):
    run = grid(*OWL, "--out", tmp_path / "out")
    assert run.code == 0
    *cells, sheet = run.lines
    assert [line["place"] for line in cells] == [[x, y, 0] for y in range(3) for x in range(2)]
    assert cells[1].keys() == {"path", "place", "values", "recipe", "seconds", "sha256", "reused"}
    assert (cells[1]["values"], cells[1]["reused"]) == ({"CFG scale": "5", "Seed": "1"}, False)
    assert (cells[1]["recipe"]["guidance_scale"], cells[1]["recipe"]["seed"], cells[1]["recipe"]["steps"]) == (5, 1, 2)
    assert {Path(line["path"]) for line in cells} | {Path(sheet["sheet"])} == set((tmp_path / "out").iterdir())
    assert (sheet["cells"], sheet["shape"]) == (6, [2, 3, 1])
    assert re.fullmatch(r"\d{6}-[0-9a-f]{12}-sheet\.png", Path(sheet["sheet"]).name)
    found = read_picture(Path(sheet["sheet"])).grid
    assert [(line.axis, line.values) for line in (found.x, found.y)] == [("cfg", "3, 5"), ("seed", "1, 2, 3")]


def test_what_a_grid_takes_is_said_before_it_starts(grid):
    first, again, fresh = grid(*OWL), grid(*OWL, "--x", "cfg: 3, 5, 7"), grid(*OWL, "--fresh")
    beginning = r"6 cells, 0 of them taken from the disk: 2 network calls of 18 rows, about \d+\.\d s\n"
    assert re.match(beginning, first.err)
    assert re.match(r"9 cells, 6 of them taken from the disk: 2 network calls of 12 rows", again.err)
    assert re.match(beginning, fresh.err)
    assert [line["reused"] for line in again.lines[:-1]].count(True) == 6
    assert not any(line["reused"] for line in fresh.lines[:-1])
    assert {line["sha256"] for line in first.lines[:-1]} < {line["sha256"] for line in again.lines[:-1]}


def test_of_a_model_that_is_not_loaded_less_is_claimed(grid):
    run = grid("--prompt", "an owl", "--steps", 2, "--x", "model: starter, sd15")
    assert re.match(r"2 cells, at least 0 of them taken from the disk: at most 4 network calls of 8 rows\n", run.err)
    assert [line["recipe"]["model"] for line in run.lines[:-1]] == ["starter", "sd15"]


def test_a_preset_gives_axes_and_prompt_unless_others_are_given(grid):
    whole = grid("--preset", "replace", "--steps", 1)
    assert whole.lines[-1]["shape"] == [6, 4, 1]
    assert whole.lines[8]["values"] == {"Prompt S/R (X)": "fluent", "Prompt S/R (Y)": "rocket"}
    assert whole.lines[8]["recipe"]["prompt"] == "a rocket, fluent style"
    other = grid("--preset", "REPL", "--steps", 1, "--x", "steps: 1", "--prompt", "one sunflower")
    assert [line["recipe"]["prompt"] for line in other.lines[:-1]] == ["one sunflower", "one rocket", "one cactus", "one panda"]


def test_every_flag_reaches_the_grid(grid):
    given = {
        "--prompt": "an owl", "--negative": "red", "--seed": 7, "--cfg": 3.5, "--scheduler": "Euler a",
        "--width": 128, "--height": 96, "--clip-skip": 2, "--x": "steps: 2", "--z": "style: ink",
    }  # fmt: skip
    line, sheet = grid(*(part for pair in given.items() for part in pair), "--exact").lines
    told = line["recipe"]
    assert [told.pop("style")["name"], *told.values()] == ["Ink drawing", "starter", "an owl", "red", 7, 2, 3.5, "Euler a", 128, 96, 2]
    with Image.open(line["path"]) as image:
        assert json.loads(image.text["darkroom"])["provenance"]["exact"] is True
    assert read_picture(Path(sheet["sheet"])).grid.exact is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--x", "cfg 3, 5"], "--x takes an axis, a colon and its values, such as “cfg: 3, 5, 7”; “cfg 3, 5” has no colon."),
        (["--y", ""], "--y takes an axis, a colon"),
        (["--z", "cgf: 3"], "There is no axis “cgf”; there is CFG scale."),
        (["--x", "q" * 9000 + ": 3"], "There is no axis"),
        (["--x", "cfg: 3, x"], "CFG scale cannot read “x”"),
        (["--x", "cfg:"], "CFG scale"),
        (["--x", "seed: " + "1" * (MAX_LINE + 1)], "--x has 20,002 characters of values; at most 20,000 are accepted."),
        (["--x", "cfg: 3", "--y", "cfg: 5"], "CFG scale is on two axes"),
        (["--x", "seed: 1-11", "--y", "cfg: 1-10"], "11 x 10 = 110 cells are more than the 100 allowed here"),
        (["--preset", "seed-cgf"], "--preset: there is no “seed-cgf” here; did you mean seed-cfg"),
        (["--preset", "../../models"], "--preset: there is no"),
        (["--x", "cfg: 3", "--steps", 0], "Steps must be a whole number from 1"),
        ([], "Say what to vary with --x, --y or --z"),
    ],
    ids=lambda value: " ".join(str(part)[:12] for part in value) if isinstance(value, list) else "",
)
def test_a_bad_grid_is_one_sentence(grid, device, arguments, sentence):
    run = grid("--prompt", "an owl", *arguments)
    assert (run.code, run.out) == (2, "")
    [line] = run.err.splitlines()
    assert line.startswith("darkroom: ")
    assert sentence in line
    assert device.history == []


def test_lines_of_an_axis_are_values_with_their_commas(grid):
    run = grid("--prompt", "", "--steps", 1, "--x", "prompt: a cat, sitting\na dog, running\na bird")
    *cells, sheet = run.lines
    assert [cell["values"] for cell in cells] == [{"Prompt": text} for text in ("a cat, sitting", "a dog, running", "a bird")]
    assert read_picture(Path(sheet["sheet"])).grid.x == AxisLine(axis="prompt", values="a cat, sitting\na dog, running\na bird")


def test_letters_that_are_boxes_in_the_sheet_are_told(grid, monkeypatch):
    monkeypatch.setattr("engine.cli.grid.missing_letters", lambda plan: f"Boxes: {plan.heading}")
    run = grid("--prompt", "แมว", "--steps", 1, "--x", "cfg: 3")
    assert run.code == 0
    assert "Boxes: แมว\n" in run.err


def test_a_grid_needs_a_prompt_from_somewhere(grid):
    assert "Say what to draw with --prompt." in grid("--x", "cfg: 3").err
    assert grid("--prompt", "", "--x", "cfg: 3", "--steps", 1).code == 0


def test_a_cell_that_fails_stands_in_the_sheet_and_in_the_exit_code(grid, device):
    device.step_errors[2] = (1, OutOfMemory("There is no room for this picture."))
    run = grid(*OWL)
    assert run.code == 1
    assert [line["recipe"]["seed"] for line in run.lines[:-1]] == [1, 1, 3, 3]
    assert run.lines[-1]["cells"] == 4
    assert run.err.count("There is no room for this picture.") == 1


def test_a_grid_of_a_model_that_cannot_be_loaded_has_no_sheet(grid, device):
    device.load_errors["starter"] = OSError("no such file")
    run = grid(*OWL)
    assert (run.code, run.out) == (1, "")
    assert run.err.count("could not be loaded; the log has the details") == 1


def test_a_sheet_that_cannot_be_written_is_said(grid, monkeypatch):
    full = mock.Mock(side_effect=NotSaved("The picture could not be saved: the disk is full."))
    monkeypatch.setattr("engine.cli.grid.write_picture", full)
    run = grid(*OWL)
    assert run.code == 1
    assert len(run.lines) == 6
    assert "could not be saved: the disk is full" in run.err
    assert "Traceback" not in run.err


def test_control_c_keeps_the_finished_cells_and_writes_their_sheet(tmp_path):
    arguments = ["grid", "--prompt", "an owl", "--x", "steps: 1, 150", "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        lines = [json.loads(line) for line in [first, *running.stdout]]
        err = running.stderr.read()
    assert running.returncode == 130
    assert "Stopped." in err
    assert "Traceback" not in err
    assert [line["recipe"]["steps"] for line in lines[:-1]] in ([1, 150], [1])
    assert Path(lines[-1]["sheet"]).exists()
    assert lines[-1]["cells"] == len(lines) - 1

"""python -m engine: what a script or a person at a terminal gets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image

from engine.__main__ import main
from engine.errors import NotSaved, OutOfMemory
from engine.local import open_catalog
from engine.pictures.metadata import read_picture
from engine.recipes.catalog import Catalog
from engine.recipes.plan import MAX_LINE, AxisLine
from engine.running.engine import Engine
from tests.conftest import ROOT
from tests.fake_device import FakeDevice

SECONDS = 120
"""How long a real run may take on a slow, shared machine; here it takes about ten."""

WITHOUT_GRADIO = 'raise ImportError("gradio is not installed here")\n'

SLOW_RUN = """
import sys
from pathlib import Path
import engine.__main__ as command
from engine.running.engine import Engine
from engine.local import open_catalog
from tests.fake_device import FakeDevice
command.open_engine = lambda *, model, out, data_dir, **_: Engine(open_catalog(model), lambda: FakeDevice(0.02), data_dir, None, out)
sys.exit(command.main(sys.argv[1:]))
"""


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

    monkeypatch.setattr("engine.__main__.open_engine", open_fake)

    def run(*arguments: object, command: str = "generate") -> Run:
        code = main([command, "--data-dir", str(tmp_path / "data"), *map(str, arguments)])
        return Run(code, *capsys.readouterr())

    return run


@pytest.fixture
def grid(command: Command) -> Command:
    """Runs the command `grid` over the fake device."""
    return partial(command, command="grid")


def sha256_of(file: Path | str) -> str:
    with Image.open(file) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


# The embedded model, in a process of its own, where gradio cannot be imported.


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "path").mkdir()
    (folder / "path" / "gradio.py").write_text(WITHOUT_GRADIO, encoding="utf-8")
    options = {"--prompt": "an owl, noto style", "--seed": 7, "--steps": 4, "--count": 2, "--device": "cpu"}
    places = {"--out": folder / "out", "--previews": folder / "steps", "--data-dir": folder / "data"}
    arguments = [str(part) for pair in {**options, **places}.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-m", "engine", "generate", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
        env={**os.environ, "PYTHONPATH": str(folder / "path"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return Run(done.returncode, done.stdout, done.stderr), folder


def test_a_real_run_tells_of_each_picture_in_a_line(real):
    run, folder = real
    assert run.code == 0, run.err
    assert [line["recipe"]["seed"] for line in run.lines] == [7, 8]
    for line in run.lines:
        assert line.keys() == {"path", "recipe", "seconds", "sha256"}
        assert Path(line["path"]).parent == folder / "out"
        assert line["seconds"] > 0
        assert sha256_of(line["path"]) == line["sha256"]
        found = read_picture(Path(line["path"]))
        assert found.source == "Darkroom"
        assert {**found.settings, "style": None} == line["recipe"]
        assert (found.settings["prompt"], found.settings["steps"]) == ("an owl, noto style", 4)


def test_a_real_run_writes_each_step(real):
    _, folder = real
    steps = sorted(file.name.partition("-")[2] for file in (folder / "steps").iterdir())
    assert steps == [f"{cell:02d}-step-{step:03d}.png" for cell in range(2) for step in range(1, 5)]
    sizes = set()
    for file in (folder / "steps").iterdir():
        with Image.open(file) as image:
            sizes.add(image.size)
    assert sizes == {(64, 64)}


def test_a_real_run_leaves_nothing_but_its_pictures(real):
    run, folder = real
    assert sorted(file.name for file in (folder / "out").iterdir()) == sorted(Path(line["path"]).name for line in run.lines)
    assert "Traceback" not in run.err


def test_the_same_seed_is_the_same_picture(real, tmp_path, capsys):
    again = ["generate", "--prompt", "an owl, noto style", "--seed", "7", "--steps", "4", "--device", "cpu", "--exact"]
    pictures = []
    for count in ("1", "2"):
        assert main([*again, "--count", count, "--out", str(tmp_path), "--data-dir", str(tmp_path)]) == 0
        pictures.append([json.loads(line)["sha256"] for line in capsys.readouterr().out.splitlines()])
    assert pictures[0][0] == pictures[1][0]
    assert pictures[1][0] != pictures[1][1]


# Over the fake device.


def test_pictures_with_seeds_one_after_the_other(command, tmp_path):
    run = command("--prompt", "an owl", "--seed", 40, "--steps", 3, "--count", 3, "--out", tmp_path / "out")
    assert run.code == 0
    assert [line["recipe"]["seed"] for line in run.lines] == [40, 41, 42]
    assert {Path(line["path"]) for line in run.lines} == set((tmp_path / "out").iterdir())


def test_every_flag_reaches_the_recipe(command):
    given = {
        "--prompt": "an owl", "--negative": "red", "--seed": 2**53 - 1, "--cfg": 3.5, "--steps": 2, "--scheduler": "Euler a",
        "--width": 128, "--height": 96, "--clip-skip": 2,
    }  # fmt: skip
    [line] = command(*(part for pair in given.items() for part in pair)).lines
    assert list(line["recipe"].values()) == ["starter", "an owl", "red", None, 2**53 - 1, 2, 3.5, "Euler a", 128, 96, 2]


def test_without_flags_the_models_own_settings_are_used(command):
    [line] = command("--prompt", "an owl").lines
    spec = open_catalog().default
    assert line["recipe"] == spec.recipe(prompt="an owl", seed=line["recipe"]["seed"]).model_dump(mode="json")


def test_without_a_seed_one_is_drawn(command):
    assert len({command("--prompt", "an owl", "--steps", 1).lines[0]["recipe"]["seed"] for _ in range(5)}) > 1


def test_without_a_folder_pictures_go_into_the_days_own(command, tmp_path):
    [line] = command("--prompt", "an owl", "--steps", 1).lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", Path(line["path"]).parent.name)
    assert Path(line["path"]).parent.parent == tmp_path / "data" / "outputs"


def test_other_letters_stay_readable(command):
    run = command("--prompt", "eine Eule, 梟", "--steps", 1)
    assert "eine Eule, 梟" in run.out


def test_exact_is_written_down(command):
    [line] = command("--prompt", "an owl", "--steps", 1, "--exact").lines
    with Image.open(line["path"]) as image:
        assert json.loads(image.text["darkroom"])["provenance"]["exact"] is True


def test_an_empty_prompt_works_and_says_so(command):
    run = command("--prompt", "", "--steps", 2)
    assert run.code == 0
    assert len(run.lines) == 1
    assert "The prompt is empty, so the model draws whatever it likes." in run.err


def test_words_that_are_cut_are_told(command, device):
    device.token_limit = 2
    assert "these words were cut: “on a branch”" in command("--prompt", "an owl on a branch", "--steps", 2).err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--steps", 0], "Steps must be a whole number from 1"),
        (["--steps", 10000], "Steps must be"),
        (["--steps", 151], "Steps must be at most 150 here"),
        (["--width", 500], "Width must be a multiple of 8: try 496 or 504"),
        (["--height", 8], "Height must be a whole number from 32"),
        (["--width", 100000], "Width must be a whole number from 32"),
        (["--width", 4096, "--height", 4096], "is too large here"),
        (["--seed", -1], "Seed must be a whole number from 0"),
        (["--seed", 2**64], "Seed must be a whole number from 0"),
        (["--seed", 2**53 - 1, "--count", 2], "The last seed would be above"),
        (["--cfg", "nan"], "CFG scale must be a number from 1 to 30"),
        (["--cfg", 0], "CFG scale must be a number from 1 to 30"),
        (["--steps", 2000], "Steps must be a whole number from 1 to 150; it was 2000."),
        (["--steps", 200], "Steps must be at most 150 here; it was 200."),
        (["--clip-skip", 0], "CLIP skip must be a whole number from 1 to 12; it was 0."),
        (["--scheduler", "Eulr"], "There is no scheduler “Eulr”"),
        (["--model", "nothing"], "There is no model “nothing” here"),
        (["--prompt", "x" * 10_000], "Prompt has 10,000 characters; at most 4,000 are accepted"),
        (["--count", 0], "Number of images must be from 1 to 100; it was 0"),
        (["--count", 1000], "Number of images must be from 1 to 100; it was 1,000"),
    ],
    ids=lambda value: " ".join(str(part)[:12] for part in value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(command, device, arguments, sentence):
    run = command("--prompt", "an owl", *arguments)
    assert (run.code, run.out) == (2, "")
    [line] = run.err.splitlines()
    assert line.startswith("darkroom: ")
    assert sentence in line
    assert device.history == []


@pytest.mark.parametrize(
    ("kind", "sentence"), [("empty", "has no model_index.json"), ("missing", "There is no folder"), ("file", "is a single file")]
)
def test_a_folder_that_is_no_model_is_one_sentence(command, tmp_path, kind, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("words", encoding="utf-8")
    run = command("--prompt", "an owl", "--model", tmp_path / kind)
    assert (run.code, run.out) == (2, "")
    [line] = run.err.splitlines()
    assert sentence in line


@pytest.mark.parametrize("arguments", [[], ["generate"], ["generate", "--prompt", "x", "--steps", "many"], ["paint"]])
def test_a_command_that_cannot_be_read_ends_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to(command, tmp_path):
    """It is said before anything is made for it."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    run = command("--prompt", "an owl", "--steps", 2, "--out", tmp_path / "file")
    assert (run.code, run.lines) == (2, [])
    assert f"Pictures cannot be written into {tmp_path / 'file'}: it is no folder." in run.err
    assert "Traceback" not in run.err


def test_a_folder_for_steps_that_cannot_be_written_to(command, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    run = command("--prompt", "an owl", "--steps", 2, "--previews", tmp_path / "file", "--out", tmp_path / "out")
    assert run.code == 2
    assert f"Previews cannot be written into {tmp_path / 'file'}" in run.err
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_steps_are_told_apart_and_complete_however_fast_they_are_made(command, tmp_path):
    run = command("--prompt", "an owl", "--seed", 1, "--steps", 30, "--previews", tmp_path / "steps")
    assert run.code == 0
    pictures = [sha256_of(file) for file in (tmp_path / "steps").iterdir()]
    assert len(pictures) == len(set(pictures)) == 30


def test_a_picture_that_fails_leaves_the_others(command, device):
    device.step_errors[2] = (1, OutOfMemory("There is no room for this picture."))
    run = command("--prompt", "an owl", "--seed", 1, "--steps", 2, "--count", 3)
    assert run.code == 1
    assert [line["recipe"]["seed"] for line in run.lines] == [1, 3]
    assert "There is no room for this picture." in run.err


def test_a_model_that_cannot_be_loaded(command, device):
    device.load_errors["starter"] = OSError("no such file")
    run = command("--prompt", "an owl")
    assert (run.code, run.out) == (1, "")
    assert "could not be loaded; the log has the details" in run.err


def test_models_are_listed(capsys, catalog: Catalog):
    assert main(["models"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == [spec.name for spec in catalog]
    assert all({"title", "native_size", "steps", "guidance_scale", "scheduler", "license"} <= line.keys() for line in lines)
    assert lines[0]["download"] is None
    assert lines[1]["download"] == catalog.find("sd15").source


def test_control_c_stops_and_keeps_what_was_made(tmp_path):
    arguments = ["generate", "--prompt", "an owl", "--steps", "150", "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with running:
        seen = ""
        while not re.search(r"[5-9]/150", seen):
            character = running.stderr.read(1)
            assert character, f"it ended by itself: {seen}"
            seen += character
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    assert running.returncode == 130
    assert "Stopped." in rest
    assert "Traceback" not in rest
    [file] = (tmp_path / "out").iterdir()
    assert "-unfinished-" in file.name
    assert read_picture(file).settings["prompt"] == "an owl"


# Grids.

OWL = ("--prompt", "an owl", "--steps", 2, "--x", "cfg: 3, 5", "--y", "seed: 1, 2, 3")


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
    monkeypatch.setattr("engine.__main__.missing_letters", lambda plan: f"Boxes: {plan.heading}")
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
    monkeypatch.setattr("engine.__main__.write_picture", full)
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

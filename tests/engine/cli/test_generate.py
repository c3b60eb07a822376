"""python -m engine generate: what a script or a person at a terminal gets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from engine.__main__ import main
from engine.errors import OutOfMemory
from engine.local import open_catalog
from engine.pictures.metadata import read_picture
from tests.conftest import ROOT
from tests.engine.cli.conftest import SLOW_RUN, Run

SECONDS = 120
"""How long a real run may take on a slow, shared machine; here it takes about ten."""

WITHOUT_GRADIO = 'raise ImportError("gradio is not installed here")\n'


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

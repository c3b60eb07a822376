"""What is copied of a picture: the script is run by Python, the command read by a shell and by our own parser."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from engine.__main__ import _parser
from engine.cli.flags import recipe_asked_for
from engine.errors import InvalidRequest
from engine.local import open_catalog, open_engine
from engine.pictures.made import Made, Provenance
from engine.pictures.outputs import open_picture
from engine.recipes.plan import plan_images
from engine.recipes.recipe import Recipe, Style
from engine.recipes.schedulers import available_schedulers
from engine.replay.scripts import as_command, as_python
from tests.conftest import ROOT
from tests.fake_device import fake_engine

SECONDS = 240
"""For a process that loads a model for each of some forty pictures, on a slow, shared machine."""

ON_CPU = Provenance("a", "cpu", "float32", 2, False, 4, 4, 0.5, {"torch": "2.13.0+cpu", "diffusers": "0.42.1"})
ON_CUDA = replace(ON_CPU, device="NVIDIA H100", dtype="float16")
STYLE = Style(name="flat", prompt="{prompt}, “flat” style", negative_prompt="3d")
SPEC = open_catalog().default

RUN_EACH = "import runpy, sys\nfor file in sys.argv[1:]: runpy.run_path(file)"


def run(folder: Path, scripts: list[str]) -> None:
    """Runs them one after the other in a process of its own, which knows nothing of Darkroom's modules."""
    files = []
    for number, script in enumerate(scripts):
        assert "engine" not in script
        files.append(folder / f"script-{number}.py")
        files[-1].write_text(script, encoding="utf-8")
    command = [sys.executable, "-c", RUN_EACH, *map(str, files)] if len(files) > 1 else [sys.executable, str(files[0])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "are not expected and will be ignored" not in done.stderr


def draw(engine, recipe: Recipe) -> Made:
    [end] = engine.submit(plan_images(recipe, engine.catalog, engine.limits)).wait().values()
    return end.made


def same_bits(file: Path, made: Made) -> bool:
    with Image.open(file) as image:
        return image.tobytes() == open_picture(made).tobytes()


def test_the_script_of_a_lone_picture_draws_the_same_bits(tmp_path):
    """Every scheduler with guidance and a negative prompt; without guidance, with CLIP skip, with a style and odd signs."""
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    changes = [{"scheduler": name, "seed": seed} for seed, name in enumerate(available_schedulers())]
    changes += [
        {"guidance_scale": 1, "seed": 101}, {"guidance_scale": 1, "seed": 102, "scheduler": "Euler a", "clip_skip": 2},
        {"clip_skip": 2, "seed": 103}, {"seed": 104, "negative_prompt": ""}, {"seed": 105, "style": STYLE, "width": 96},
        {"seed": 106, "prompt": "an \"owl's\\\n nest\" 🦉 {x} #"}, {"seed": 107, "prompt": ""},
    ]  # fmt: skip
    with open_engine(device="cpu", data_dir=tmp_path) as engine:
        base = {"prompt": "a red apple, noto style", "negative_prompt": "blue", "steps": 3}
        made = [draw(engine, SPEC.recipe(**{**base, **one})) for one in changes]
    run(tmp_path, [as_python(one.recipe, one.provenance, SPEC) for one in made])
    assert [one.recipe for one in made if not same_bits(tmp_path / f"seed-{one.recipe.seed}.png", one)] == []


def test_a_models_saved_rule_does_not_leak_into_the_script(tmp_path):
    """The model's folder was saved with DPM++ 2M SDE Karras; Euler is drawn, and the folder is named and not where it lies."""
    from tests.engine.diffusion import rules
    from tests.tiny import SIZE, make_pipeline

    pipeline = make_pipeline()
    pipeline.register_modules(scheduler=rules.loaded(rules.read_config("dpm-sde")))
    pipeline.save_pretrained(tmp_path / "my-model")
    (tmp_path / "my-model" / "scheduler" / "scheduler_config.json").write_bytes((rules.CONFIGS / "dpm-sde.json").read_bytes())
    with open_engine(model=str(tmp_path / "my-model"), device="cpu", data_dir=tmp_path) as engine:
        spec = engine.catalog.default
        made = draw(engine, spec.recipe(prompt="a red apple", seed=5, steps=5, scheduler="Euler", width=SIZE, height=SIZE))
    script = as_python(made.recipe, made.provenance, spec)
    assert str(tmp_path) not in script
    run(tmp_path, [script])
    assert same_bits(tmp_path / "seed-5.png", made)


@pytest.mark.parametrize(
    ("provenance", "changes", "remark"),
    [
        (ON_CPU, {}, "the same picture bit for bit"),
        (replace(ON_CPU, exact=True), {}, "the same picture but for rounding"),
        (replace(ON_CPU, bucket=8), {}, "the same picture but for rounding"),
        (ON_CUDA, {}, "nearly the same picture, not the same bits"),
        (ON_CUDA, {"scheduler": "DPM++ SDE"}, "it is another picture"),
        (replace(ON_CPU, step=2), {}, "stopped at step 2 of 4"),
    ],
)
def test_a_script_says_what_it_promises(provenance, changes, remark):
    assert remark in as_python(SPEC.recipe(prompt="an owl", **changes), provenance, SPEC)


def test_a_script_for_a_graphics_card_draws_its_noise_in_full_precision_on_the_cpu():
    script = as_python(SPEC.recipe(prompt="an owl"), ON_CUDA, SPEC)
    assert "dtype=torch.float16" in script
    assert ".to('cuda')" in script
    assert "latents=noise" in script
    ast.parse(script)


def test_a_hub_models_script_names_it_and_its_variant():
    spec = SPEC.model_copy(update={"source": "owner/model", "variant": "fp16"})
    script = as_python(SPEC.recipe(prompt="an owl"), ON_CUDA, spec)
    assert "'owner/model', dtype=torch.float16, variant='fp16'" in script


def test_what_a_strangers_record_says_is_no_code():
    versions = {"torch": "2.13\nimport os", "diffusers": "x; y", "transformers": "5.23.0"}
    script = as_python(SPEC.recipe(prompt="an owl"), replace(ON_CPU, versions=versions, dtype="evil()"), SPEC)
    assert script.startswith("# pip install torch==2.13 diffusers transformers==5.23.0\n")
    assert "import os" not in script
    assert "evil" not in script + as_command(SPEC.recipe(), replace(ON_CPU, dtype="evil()"), SPEC)


# The command.

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
RECIPES = st.builds(
    SPEC.recipe, prompt=WORDS, negative_prompt=WORDS, seed=st.integers(0, 2**53 - 1), steps=st.integers(1, 150),
    guidance_scale=st.floats(1, 30), scheduler=st.sampled_from(available_schedulers()), width=st.integers(4, 64).map(lambda n: 8 * n),
    height=st.integers(4, 64).map(lambda n: 8 * n), clip_skip=st.integers(1, 12), style=st.sampled_from([None, STYLE]),
)  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with fake_engine(tmp_path_factory.mktemp("commands")) as engine:
        yield engine


@given(recipe=RECIPES, exact=st.booleans())
@example(recipe=SPEC.recipe(prompt="--seed $(id) `id` 'a' \"b\" \\ \n -x ${HOME} !! 🦉", negative_prompt="-n"), exact=True)
def test_our_own_parser_reads_the_command_back(engine, recipe, exact):
    python, *words = shlex.split(as_command(recipe, replace(ON_CPU, exact=exact), SPEC))
    assert [python, *words[:3]] == ["python", "-m", "engine", "generate"]
    options = _parser().parse_args(words[2:])
    plain = recipe.replace(prompt=recipe.full_prompt, negative_prompt=recipe.full_negative_prompt, style=None)
    assert recipe_asked_for(engine, options) == plain
    assert (options.exact, options.device, options.dtype, options.count) == (exact, "cpu", None, 1)


@pytest.mark.parametrize("prompt", ["an owl's \"nest\"", "$(id) `id` $HOME ~ * \\", "two\nlines\n", "-x", "", " spaced ", "🦉 ünï", "a!b"])
def test_a_shell_reads_the_command_as_it_is_meant(prompt):
    command = as_command(SPEC.recipe(prompt=prompt), ON_CUDA, SPEC)
    assert command.startswith("python ")
    told = subprocess.run(
        ["sh", "-c", command.replace("python", f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.argv[1:])'", 1)],
        capture_output=True, text=True, check=True, env={"HOME": "elsewhere", "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    words = ast.literal_eval(told.stdout)
    assert words == shlex.split(command)[1:]
    assert f"--prompt={prompt}" in words
    assert "--device=cuda" in words


def test_what_does_not_fit_into_a_command_is_said():
    long = Style(name="long", prompt="{prompt}" + "x" * 3991)
    with pytest.raises(InvalidRequest, match="at most 4,000 are accepted"):
        as_command(SPEC.recipe(prompt="y" * 10, style=long), ON_CPU, SPEC)
    with pytest.raises(InvalidRequest, match="no command line can hold"):
        as_command(SPEC.recipe(prompt="a\0b"), ON_CPU, SPEC)

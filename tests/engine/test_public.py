"""What `import engine` promises to others."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import engine
from tests.conftest import ROOT
from tests.fake_device import fake_engine
from tests.fresh_interpreter import modules_left_after


def imported_from(tree: ast.AST) -> dict[str, list[str]]:
    """The names that each module is asked for."""
    return {node.module or "": [alias.name for alias in node.names] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("name", engine.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(engine, name)
    for one in get_args(found) or [found]:  # of Event, each of what it may be
        assert one.__doc__, f"{name} has no docstring"
        assert not one.__doc__.startswith(f"{one.__name__}("), f"{name} has only the docstring that dataclasses write"


def test_a_type_checker_reads_the_names_from_the_modules_that_the_program_takes_them_from() -> None:
    tree = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    assert imported_from(checked) == {module: list(names) for module, names in engine._MODULES.items()}
    assert sorted(name for names in engine._MODULES.values() for name in names) == sorted(engine.__all__)
    assert (Path(engine.__file__).parent / "py.typed").read_text(encoding="utf-8") == ""


def test_what_is_not_public_is_missed_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'Worker'"):
        _ = engine.Worker
    assert set(engine.__all__) <= set(dir(engine))


def test_the_name_alone_loads_nothing_and_all_names_together_no_torch() -> None:
    assert modules_left_after("import engine", "pydantic", "PIL", "engine.errors") == set()
    assert modules_left_after("from engine import *", "torch", "gradio", "pydantic") == {"pydantic"}


def test_a_grid_can_be_made_and_read_again_with_public_names_alone(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as darkroom:
        offer = engine.Offer(darkroom.catalog, darkroom.limits)
        recipe = darkroom.catalog.default.recipe(prompt="an owl", style=engine.Style(name="ink", prompt="{prompt}, ink"), steps=2)
        grid = engine.Grid(recipe=recipe, x=engine.AxisLine(axis="cfg", values="3, 5"))
        job = darkroom.submit(engine.plan_grid(grid, offer), previews=engine.PreviewOptions("off"))
        told = {type(event) for event in job.events()}
        assert {engine.Queued, engine.Preview, engine.Finished} <= told <= set(get_args(engine.Event))
        for cell, made in job.made().items():
            assert engine.open_picture(made).size == (recipe.width, recipe.height)
            assert engine.read_picture(made.path).settings == dict(job.plan.cell(cell).recipe)
        assert engine.sheet_image(job.plan, job.made()).width > 2 * recipe.width
        with pytest.raises(engine.InvalidRequest, match="no axis “size of owls”"):
            engine.plan_grid(engine.Grid(recipe=recipe, x=engine.AxisLine(axis="size of owls", values="3")), offer)


def test_the_example_of_the_readme_needs_only_public_names() -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    wanted = imported_from(ast.parse(example))
    assert wanted.keys() == {"engine"}
    assert set(wanted["engine"]) <= set(engine.__all__)

"""What `import engine` promises to others."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import engine
from tests.conftest import ROOT
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


def test_the_example_of_the_readme_needs_only_public_names() -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    wanted = imported_from(ast.parse(example))
    assert wanted.keys() == {"engine"}
    assert set(wanted["engine"]) <= set(engine.__all__)

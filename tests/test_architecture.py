"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import engine
from tests.conftest import ROOT
from tests.fresh_interpreter import modules_left_after

TORCH = {"torch", "diffusers", "transformers"}
LONGEST_FUNCTION = 60
"""Lines; where widgets, arguments and work meet, other applications of this field grow functions of hundreds."""

VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "shared", "misc"}


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


ENGINE = [file for file in sources("engine") if "diffusion" not in file.relative_to(ROOT).parts]
DIFFUSION, UI = sources("engine/diffusion"), sources("ui")
PRODUCT = [*sources("engine", "ui", "benchmarks", "training"), *ROOT.glob("*.py")]


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def names_of(node: ast.AST, package: list[str]) -> list[str]:
    """The dotted names that a node imports; `from a import b` may mean the module a.b, so it gives both."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module or ""]
        return [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return [node.args[0].value] if called in {"import_module", "__import__"} else []
    return []


def imports(node: ast.AST, package: list[str], inside_function: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is imported only when a function runs)."""
    for name in names_of(node, package):
        yield name, inside_function
    inside_function = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package, inside_function)


@cache
def imports_of(file: Path) -> frozenset[tuple[str, bool]]:
    package = list(file.relative_to(ROOT).parent.parts)
    return frozenset(imports(tree_of(file), package))


def is_in(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def breaches(files: list[Path], forbidden: set[str]) -> list[str]:
    return [f"{shown(file)} imports {name}" for file in files for name, _ in sorted(imports_of(file)) if is_in(name, forbidden)]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_the_walk_sees_every_kind_of_import() -> None:
    code = "import a.b\nfrom . import c\nfrom ..d import e\nfrom f import g\ndef h():\n    import i\n    import_module('j.k')\n"
    assert set(imports(ast.parse(code), ["top", "sub"])) == {
        ("a.b", False), ("top.sub", False), ("top.sub.c", False), ("top.d", False), ("top.d.e", False),
        ("f", False), ("f.g", False), ("i", True), ("j.k", True),
    }  # fmt: skip
    assert ENGINE
    assert DIFFUSION
    assert breaches(DIFFUSION, TORCH), "torch lives in engine/diffusion: a walk that finds none there is blind"


def test_the_engine_never_imports_torch_or_the_page() -> None:
    assert breaches(ENGINE, TORCH | {"gradio", "ui", "app"}) == []


def test_the_engine_needs_only_the_standard_library_and_a_few_packages() -> None:
    allowed = set(sys.stdlib_module_names) | {"engine", "pydantic", "PIL", "tqdm", "choix"}  # a bar for the terminal; blind votes
    allowed |= {"dynamicprompts", "pyparsing"}  # prompt variants; the second is how the first says that it cannot read one
    assert [f"{shown(file)} imports {name}" for file in ENGINE for name, _ in sorted(imports_of(file)) if not is_in(name, allowed)] == []


def test_only_local_reaches_into_diffusion_and_only_when_a_device_is_opened() -> None:
    found = {(shown(file), late) for file in ENGINE for name, late in imports_of(file) if is_in(name, {"engine.diffusion"})}
    assert found <= {("engine/local.py", True)}


MAY_IMPORT = {
    "recipes": set(),
    "pictures": {"recipes"},
    "library": {"recipes", "pictures"},
    "running": {"recipes", "pictures", "library"},
    "sheets": {"recipes", "pictures"},
    "diffusion": {"recipes", "running", "pictures"},
    "replay": {"recipes", "pictures", "running", "sheets"},
    "cli": {"recipes", "pictures", "running", "sheets", "replay"},
}
"""Of the engine's rooms: nothing climbs. `errors` and `version` are everybody's; what stands beside the rooms puts them together, and
only the command line knows the one of it that opens an engine."""


def test_the_rooms_of_the_engine_know_only_those_below_them() -> None:
    rooms = {room: sources(f"engine/{room}") for room in MAY_IMPORT}
    assert {file.parent.name for file in sources("engine")} == {"engine", *rooms}, "a room is missing here"
    assert all(rooms.values())
    others = {room: {f"engine.{other}" for other in MAY_IMPORT.keys() - {room} - may} for room, may in MAY_IMPORT.items()}
    beside = {room: {"engine.__main__"} if room == "cli" else {"engine.__main__", "engine.local"} for room in MAY_IMPORT}
    assert [line for room, files in rooms.items() for line in breaches(files, others[room] | beside[room])] == []


def test_the_engine_itself_names_its_modules_and_not_its_public_names() -> None:
    """Those would lead from any room into any other, unseen."""
    top = {"engine", *(f"engine.{name}" for name in engine.__all__)}
    assert [f"{shown(file)} imports {name}" for file in [*ENGINE, *DIFFUSION] for name, _ in imports_of(file) if name in top] == []


def test_nobody_knows_the_command_line_but_its_entry() -> None:
    files = [file for file in PRODUCT if not shown(file).startswith("engine/cli/") and shown(file) != "engine/__main__.py"]
    assert breaches(files, {"engine.cli", "engine.__main__"}) == []


def test_only_the_loader_knows_a_model_family_by_name() -> None:
    """All others in diffusion know what a Family is."""
    one = "engine.diffusion.stable_diffusion"
    assert [shown(file) for file in DIFFUSION for name, _ in imports_of(file) if name == one] == ["engine/diffusion/loading.py"]


_TABLE = re.findall(r"^\| `([\w./]+?)/?` \|.*\|(.*)\|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
ROOMS = {folder: may.strip() for folder, may in _TABLE}
"""Folder -> what it may import, as docs/architecture.md says it."""

CALLED = {"Pillow": "PIL"}


def test_every_room_is_in_the_documents_table() -> None:
    folders = {shown(file.parent) for file in PRODUCT if file.parent != ROOT}
    assert {*ROOMS} == {"app.py", "presets", *folders}


@pytest.mark.parametrize("room", [room for room, may in ROOMS.items() if may and not may.startswith(("everything", "all of"))])
def test_the_documents_table_names_the_packages_that_a_room_imports(room: str) -> None:
    named = {CALLED.get(word, word) for word in re.sub("`[^`]*`", "", ROOMS[room]).split(", ") if re.fullmatch(r"\w+", word)}
    found = {name.partition(".")[0] for file in sources(room) for name, _ in imports_of(file)}
    assert found - set(sys.stdlib_module_names) - {"engine", "ui"} == named


def test_a_sheet_knows_no_tab() -> None:
    assert breaches(sources("ui/sheet"), {"ui.tabs", "ui.page", "gradio"}) == []


def test_what_a_sheet_is_told_is_made_of_values() -> None:
    """Live and in a saved page: neither an engine nor the disk is asked."""
    forbidden = {"engine.running.engine", "engine.pictures.outputs", "engine.library.library", "ui.sheet.live", "ui.sheet.saved_page"}
    assert breaches([ROOT / "ui" / "sheet" / "answers.py"], forbidden | {"ui.sheet.takeaway"}) == []


def test_diffusion_never_imports_the_page() -> None:
    assert breaches(DIFFUSION, {"gradio", "ui", "app"}) == []


def test_the_page_never_imports_torch_or_diffusion() -> None:
    assert breaches(UI, TORCH | {"engine.diffusion", "app"}) == []


def test_pillows_save_is_called_in_one_place() -> None:
    """Of images that threads share: what a save leaves on one, another's save would take."""
    calls = [(file, node) for file in [*ENGINE, *DIFFUSION, *UI] for node in ast.walk(tree_of(file)) if isinstance(node, ast.Call)]
    assert [shown(file) for file, call in calls if getattr(call.func, "attr", "") == "save"] == ["engine/pictures/encoding.py"]


def test_nothing_is_global() -> None:
    assert [shown(file) for file in PRODUCT for node in ast.walk(tree_of(file)) if isinstance(node, ast.Global)] == []


def test_no_function_is_longer_than_the_limit() -> None:
    places = [(file, function) for file in PRODUCT for function in functions(tree_of(file))]
    lengths = {f"{shown(file)} {function.name}": function.end_lineno - function.lineno + 1 for file, function in places}
    assert {place: lines for place, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}


def test_no_file_hides_a_missing_noun() -> None:
    names = [file.relative_to(ROOT).with_suffix("").as_posix() for file in [*PRODUCT, *sources("tests")]]
    assert [name for name in names if VAGUE & set(name.lower().replace("/", "_").split("_"))] == []


def test_no_source_names_a_place_of_one_machine() -> None:
    places = ("/" + "work/", "/" + "home/", "/" + "Users/")
    texts = {shown(file): file.read_text(encoding="utf-8") for file in [*PRODUCT, *sources("tests")]}
    assert [name for name, text in texts.items() if any(place in text for place in places)] == []


def test_the_engine_starts_without_torch_and_without_gradio() -> None:
    code = "\n".join(f"import {module_of(file)}" for file in ENGINE)
    assert "import engine.local" in code
    assert modules_left_after(code, *sorted(TORCH), "gradio", "scipy") == set()  # scipy, with choix, only when votes are ranked


@pytest.mark.skipif(not (ROOT / "ui" / "page.py").exists(), reason="there is no page yet")
def test_the_page_is_built_without_torch() -> None:
    assert modules_left_after("import ui.page", *sorted(TORCH)) == set()


def test_the_product_never_imports_training() -> None:
    assert breaches([*ENGINE, *DIFFUSION, *UI, *ROOT.glob("*.py")], {"training"}) == []


def test_no_test_module_imports_another() -> None:
    modules = [file for file in sources("tests") if file.name.startswith("test_")]
    names = {module_of(file) for file in modules}
    assert modules
    assert [line for file in sources("tests") for line in breaches([file], names - {module_of(file)})] == []

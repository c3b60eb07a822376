"""What the documents say of the code: paths, names, flags, commands, tables and examples, each held to the code itself."""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import app
import benchmarks.figures
import benchmarks.library
import benchmarks.run
import engine.__main__
import training.__main__
from engine.diffusion.device import KEPT_BYTES
from engine.pictures import developing
from engine.pictures.foreign import _READERS
from engine.recipes.axes import AXES, Offer
from engine.recipes.catalog import Catalog, Limits
from engine.recipes.plan import AxisLine, Grid, plan_grid
from engine.running import admission, finishing, packing, preview_budget
from tests.conftest import ROOT
from tests.fake_device import fake_engine

DOCS = [
    ROOT / name
    for name in (
        "README.md", "benchmarks/README.md", "docs/adding.md", "docs/architecture.md", "presets/starter/README.md", "training/README.md",
    )
]  # fmt: skip
"""All but docs/changelog.md, which tells of what has been."""

README = ROOT / "README.md"
each_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: str(doc.relative_to(ROOT)))

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "engine": engine.__main__._parser, "training": training.__main__._parser,
    "benchmarks.run": benchmarks.run._parser, "benchmarks.figures": benchmarks.figures._parser,
    "benchmarks.library": benchmarks.library._parser,
}  # fmt: skip
"""python -m NAME -> what reads its arguments. app.py is `make run`."""

FOLDERS = ("benchmarks", "docs", "engine", "presets", "tests", "training", "ui")
KINDS = {".py", ".js", ".css", ".toml", ".json"}
PATH = re.compile(r"\w[\w.-]*(/[\w.-]*)*")
NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\)|=\S+)?")
ENDING = re.compile(r"\.(py|js|css|md|toml|json|csv|npy|pt|zip|txt)$")

ELSEWHERE = {"pipe", "image.save", "torch.compile", "diffusers.StableDiffusionPipeline", "VmHWM", "emojibase-data"}
"""Names that belong to others: diffusers' and Pillow's, torch's, Linux', a package of npm."""

MADE_LATER = ("outputs/", "evaluation/", "model/", "tokenizer/")
"""Folders that only running the code makes."""


def text_of(doc: Path) -> str:
    return doc.read_text(encoding="utf-8")


def fences(doc: Path, kind: str) -> list[str]:
    """The blocks of a kind ("sh", "python", "")."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(doc), flags=re.DOTALL | re.MULTILINE)
    return [text for named, text in found if named == kind]


def prose(doc: Path) -> str:
    return re.sub(r"^```.*?^```", "", text_of(doc), flags=re.DOTALL | re.MULTILINE)


def codes(text: str) -> list[str]:
    """What stands between backticks, with a table's escaped bars as they are meant."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", text)]


def tables(doc: Path) -> Iterator[list[list[str]]]:
    """Of each table its rows of cells, the head first; GitHub splits a row at every bar that is not escaped, in code too."""
    for block in re.findall(r"(?:^\|.*\|\n)+", prose(doc), flags=re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def commands(doc: Path) -> Iterator[list[str]]:
    """The words of every command line in a document, without comments."""
    for line in "".join([*fences(doc, "sh"), *fences(doc, "")]).splitlines():
        if words := shlex.split(line, comments=True):
            yield words
    for code in codes(prose(doc)):
        if code.startswith(("python -m ", "make ")):
            yield shlex.split(code)


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def help_of(parser: argparse.ArgumentParser) -> str:
    """The help of a parser and of all its commands."""
    return "\n".join([parser.format_help(), *(help_of(command) for group in commands_of(parser) for command in group.choices.values())])


def commands_of(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


@cache
def sources() -> dict[Path, str]:
    files = [ROOT / "app.py", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.suffix in KINDS)]
    return {file: file.read_text(encoding="utf-8") for file in files if file != Path(__file__) and "results" not in file.parts}


@cache
def file_names() -> frozenset[str]:
    return frozenset(file.name for folder in FOLDERS for file in (ROOT / folder).rglob("*"))


@cache
def words() -> frozenset[str]:
    return frozenset(word for text in sources().values() for word in re.findall(r"[A-Za-z_]\w*", text))


@cache
def members() -> dict[str, set[str]]:
    """Class or module, in lower case, as documents write `engine.submit` of an engine -> the names in it."""
    found: dict[str, set[str]] = {}
    for file, text in sources().items():
        if file.suffix == ".py":
            tree = ast.parse(text)
            module = file.parent.name if file.stem == "__init__" else file.stem
            found.setdefault(module.casefold(), set()).update(names_in(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name.casefold(), set()).update(names_in(node))
    return found


def names_in(body: ast.Module | ast.ClassDef) -> Iterator[str]:
    """What is defined there: functions, classes, constants, fields."""
    for node in ast.walk(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def is_path(code: str) -> bool:
    return PATH.fullmatch(code) is not None and ("/" in code or ENDING.search(code) is not None)


def is_there(doc: Path, path: str) -> bool:
    """Beside the document, in the repository, or alone by its name anywhere in it; what only a run makes is named in the code."""
    if (doc.parent / path).exists() or (ROOT / path).exists():
        return True
    if path.startswith(MADE_LATER) or doc.parent.name == "training":
        name = Path(path)
        return any(name.name in text for text in sources().values()) or {name.stem, name.suffix[1:]} <= words()
    return path in file_names()


def is_known(name: str) -> bool:
    if name in ELSEWHERE or name in file_names():
        return True
    module = ROOT.joinpath(*name.split("."))
    if module.is_dir() or module.with_suffix(".py").is_file():
        return True
    holder, _, member = name.rpartition(".")
    return member in members().get(holder.rpartition(".")[2].casefold(), ()) if holder else name in words()


@each_doc
def test_every_path_is_there(doc: Path) -> None:
    assert [code for code in codes(prose(doc)) if is_path(code) and not is_there(doc, code)] == []


@each_doc
def test_every_name_is_in_the_code(doc: Path) -> None:
    named = [match[1] for code in codes(prose(doc)) if not is_path(code) and (match := NAME.fullmatch(code))]
    assert [name for name in named if not is_known(name)] == []


@pytest.mark.parametrize(("name", "known"), [
    ("Engine.submit", True), ("Engine.sumbit", False), ("engine.running.device.Device", True), ("engine.running.device.Devise", False),
    ("engine.recipes", True), ("engine.receipts", False), ("OF_THE_MODEL", True), ("OF_THE_MODELS", False), ("device.tick", True),
])  # fmt: skip
def test_a_name_that_is_not_there_is_seen(name: str, known: bool) -> None:
    assert is_known(name) is known


@pytest.mark.parametrize(("path", "there"), [
    ("engine/local.py", True), ("engine/remote.py", False), ("worker.py", True), ("walker.py", False), ("ui/", True), ("iu/", False),
])  # fmt: skip
def test_a_path_that_is_not_there_is_seen(path: str, there: bool) -> None:
    assert is_path(path)
    assert is_there(ROOT / "docs" / "architecture.md", path) is there


@pytest.mark.parametrize("doc", [*DOCS, ROOT / "docs" / "changelog.md"], ids=lambda doc: str(doc.relative_to(ROOT)))
def test_every_link_leads_somewhere(doc: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text_of(doc)) if not link.startswith(("http", "#"))]
    assert [link for link in links if not (doc.parent / link.partition("#")[0]).exists()] == []


@each_doc
def test_every_row_of_a_table_has_as_many_cells_as_its_head(doc: Path) -> None:
    assert [row for rows in tables(doc) for row in rows if len(row) != len(rows[0])] == []


# Flags and commands.


@each_doc
def test_every_flag_is_one(doc: Path) -> None:
    known = flags_in("".join(help_of(parser()) for parser in (app._parser, *PARSERS.values())))
    assert flags_in(text_of(doc)) - {"--index-url"} <= known


def test_the_readme_names_every_flag_of_the_page() -> None:
    [rows] = [rows for rows in tables(README) if rows[0][0] == "flag"]
    assert flags_in("".join(row[0] for row in rows[1:])) == flags_in(help_of(app._parser())) - {"--help"}


@pytest.mark.parametrize("name", ["app", "engine"])
def test_what_the_readme_leaves_out_help_explains(name: str) -> None:
    def unexplained(parser: argparse.ArgumentParser) -> Iterator[str]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield from unexplained(command)
            elif not action.help:
                yield str(action.option_strings)

    assert list(unexplained({"app": app._parser, "engine": engine.__main__._parser}[name]())) == []


@each_doc
def test_every_command_is_one(doc: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for words in commands(doc):
        if words[0] == "make":
            target, given = (words[1:2] or ["help"])[0], dict(word.split("=", 1) for word in words[2:])
            assert target in targets
            if target == "run":
                app._parser().parse_args(shlex.split(given.get("ARGS", "")))
        elif words[:3] == ["git", "worktree", "add"]:
            continue
        else:
            assert words[0] in {"python", ".venv/bin/python"}
            assert words[1] == "-m"
            check_arguments(words[2], words[3:])


def check_arguments(module: str, arguments: list[str]) -> None:
    if module == "pip":
        assert arguments[:2] == ["install", "-r"]
        assert (ROOT / arguments[2]).is_file()
    elif len(arguments) == 1 and not arguments[0].startswith("-"):  # a command by its name, without what it needs
        assert arguments[0] in {name for group in commands_of(PARSERS[module]()) for name in group.choices}
    elif arguments:
        PARSERS[module]().parse_args([str(ROOT) if word == "CHECKOUT" else word for word in arguments])
    else:
        assert module in PARSERS


# The table of notations.

TEXTS = ["a cat, sitting", "a dog"]
MEANT: dict[str, tuple[str, list[str]]] = {
    "1, 3, 5-9": ("seed", ["1", "3", "5", "6", "7", "8", "9"]), "1-9 (+2)": ("seed", ["1", "3", "5", "7", "9"]),
    "1-10 [4]": ("cfg", ["1", "4", "7", "10"]), "4 random seeds": ("seed", []), "Euler, heun k": ("scheduler", ["Euler", "Heun Karras"]),
    '"a cat, sitting", a dog': ("prompt", TEXTS), "a cat\\, sitting, a dog": ("prompt", TEXTS),
    "a cat, sitting || a dog": ("prompt", TEXTS),
    "red, green, blue": ("replace", ["a red apple", "a green apple", "a blue apple"]),
    "a {red|green} {apple|pear}": ("variants", ["a red apple", "a red pear", "a green apple", "a green pear"]),
}  # fmt: skip
"""Notation -> axis, and what its cells show: the values, or where prompts are rewritten the prompts."""


def test_every_notation_means_what_it_says(catalog: Catalog) -> None:
    [rows] = [rows for rows in tables(README) if rows[0] == ["notation", "means"]]
    assert [code for row in rows[1:] for code in codes(row[0])] == list(MEANT)
    assert rows[1][1].split(", ") == MEANT["1, 3, 5-9"][1]
    recipe = catalog.default.recipe(prompt="a red apple")
    for notation, (axis, meant) in MEANT.items():
        plan = plan_grid(Grid(recipe=recipe, x=AxisLine(axis=axis, values=notation)), Offer(catalog, Limits()))
        prompts, values = [cell.recipe.prompt for cell in plan.cells], list(plan.labels[0])
        if axis in {"replace", "variants", "prompt"}:
            assert prompts == meant
        elif meant:
            assert values == meant
        else:
            assert len(set(values)) == 4
            assert all(value.isdecimal() for value in values)


def test_the_words_of_the_notations_are_axes() -> None:
    assert {"Prompt S/R", "Prompt variants"} <= {row.label for row in AXES.values()}


# Architecture.

ARCHITECTURE = ROOT / "docs" / "architecture.md"
FIGURES = [
    ("**What is under way is bounded**, in images ({})", admission.UNDER_WAY),
    ("When {} pictures wait to be written, no new image is begun", developing.CROWDED),
    ("returned to the kernel every {} pictures", finishing.GIVEN_BACK_EVERY),
    ("runs every call at a fixed width ({} rows, padded)", packing.EXACT_ROWS),
    ("after {} that went well", packing.PROBED_AFTER),
    ("earns a tenth ({} % on CUDA)", round(100 * preview_budget.SHARE["cuda"])),
    ("finished images within {} MiB", KEPT_BYTES // 2**20),
]


@pytest.mark.parametrize(("sentence", "value"), FIGURES)
def test_figures_in_the_text_are_the_codes(sentence: str, value: int) -> None:
    assert sentence.format(value) in " ".join(text_of(ARCHITECTURE).split())
    assert preview_budget.SHARE["cpu"] == 0.1


# Examples.


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run an example in, with a device that draws at once."""
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    monkeypatch.chdir(tmp_path)
    for module in ("engine.local", "engine.cli.flags"):
        monkeypatch.setattr(f"{module}.open_engine", lambda **_: fake_engine(tmp_path / "outputs"))
    return tmp_path


def test_the_readmes_python_runs(elsewhere: Path) -> None:
    [example] = fences(README, "python")
    with redirect_stdout(io.StringIO()) as told:
        exec(compile(example, str(README), "exec"), {"__name__": "example"})
    lines = [line.rsplit(" ", 1) for line in told.getvalue().splitlines()]
    assert [Path(path).suffix for path, _ in lines] == [".png", ".png"]
    assert all(Path(path).is_file() and len(digest) == 64 for path, digest in lines)


COMMANDS = [words for words in commands(README) if words[1:3] == ["-m", "engine"]]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[3] != "verify"], ids=" ".join)
def test_the_readmes_command_lines_run(elsewhere: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.__main__.main(words[3:]) == 0
    told = capsys.readouterr().out.splitlines()
    if words[3] != "models":
        pictures = [line for line in map(json.loads, told) if "sheet" not in line]
        assert all(line["path"] and len(line["sha256"]) == 64 and line["seconds"] >= 0 for line in pictures)
        assert len(pictures) == (4 if words[3] == "generate" else json.loads(told[-1])["cells"])


def test_the_readmes_pictures_are_verified(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [making, *_], [verifying] = ([words[3:] for words in COMMANDS if words[3] == name] for name in ("generate", "verify"))
    assert engine.__main__.main(making) == 0
    assert verifying.pop() == "pictures/*.png"
    pictures = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert engine.__main__.main([*verifying, *pictures]) == 0
    assert [json.loads(line)["identical"] for line in capsys.readouterr().out.splitlines()] == [True] * 4


def test_the_starters_python_runs(elsewhere: Path) -> None:
    from PIL import Image

    [example] = fences(ROOT / "presets" / "starter" / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {"__name__": "example"})
    with Image.open("car.png") as image:
        assert image.size == (256, 256)


def test_every_tool_whose_pictures_are_read_is_named() -> None:
    assert [tool for tool, _ in _READERS if tool not in text_of(README)] == []


def test_the_page_is_told_the_same_version_of_gradio_as_pip() -> None:
    [told] = re.findall(r"^sdk_version: (\S+)$", text_of(README), flags=re.MULTILINE)
    assert f"gradio=={told} " in (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_a_space_gets_the_oldest_python_that_is_promised() -> None:
    [told] = re.findall(r'^python_version: "(\S+)"$', text_of(README), flags=re.MULTILINE)
    assert f'requires-python = ">={told}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"Python {told} or newer" in text_of(README)
    assert sys.version_info >= tuple(map(int, told.split(".")))

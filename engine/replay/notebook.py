"""A sheet as a notebook: plain diffusers, without Darkroom, that draws every cell and puts them in rows and columns."""

from __future__ import annotations

import json
from typing import Any

from engine.pictures.made import Provenance
from engine.recipes.catalog import Catalog, ModelSpec
from engine.recipes.families import FAMILIES
from engine.recipes.plan import Plan
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SchedulerRow, scheduler_row
from engine.replay.scripts import (
    DTYPES,
    OF_THE_MODEL_ALONE,
    OLDER_ENCODER,
    call_settings,
    device_of,
    noise_lines,
    packages,
    place_of,
)


def notebook(plan: Plan, provenance: Provenance, catalog: Catalog) -> str:
    """The notebook (nbformat 4.5, JSON) of a grid's sheet, for the kind of device and in the versions of one of its pictures.

    Each cell is drawn alone. Raises InvalidRequest when a model is not there any more, ValueError for a plan of no grid.
    """
    if plan.grid is None:
        raise ValueError("only the plan of a grid has a sheet")
    recipes = [cell.recipe for cell in sorted(plan.cells, key=lambda cell: cell.place[::-1])]  # page by page, row by row
    rows = list({recipe.scheduler: scheduler_row(recipe.scheduler) for recipe in recipes}.values())
    specs = [catalog.find(name) for name in dict.fromkeys(recipe.model for recipe in recipes)]
    parts = [
        ("markdown", _heading(plan)),
        ("code", f"%pip install -q {packages(provenance.versions, rows)} accelerate"),
        ("code", _drawing(recipes, rows, specs, provenance)),
        ("code", _cells(recipes)),
        ("code", "pictures = [draw(**common, **cell) for cell in cells]"),
        ("code", _showing(plan)),
    ]
    content = {"cells": [_cell(*part, number) for number, part in enumerate(parts)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=True, indent=1)


def _cell(kind: str, text: str, number: int) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _heading(plan: Plan) -> str:
    """What the sheet compares. Its prompt is a block of text: nothing in it is markup."""
    ways = zip(("columns", "rows", "pages"), plan.titles, plan.labels, strict=True)
    axes = [f"{way}: {title} {', '.join(labels)}" for way, title, labels in ways if title]
    block = "\n".join(f"    {line}" for text in (plan.heading, *axes) for line in text.splitlines())
    return f"# A contact sheet, drawn by diffusers alone\n\n{block}"


def _drawing(recipes: list[Recipe], rows: list[SchedulerRow], specs: list[ModelSpec], provenance: Provenance) -> str:
    """The code of `draw`, which takes a cell's settings and gives its picture."""
    device, dtype = device_of(provenance), provenance.dtype if provenance.dtype in DTYPES else "float32"
    places = {spec.name: (place_of(spec), None if spec.is_local else spec.variant) for spec in specs}
    rules = {row.name: (row.class_name, dict(row.options)) for row in rows}
    seeded = [row.name for row in rows if row.noise == "seed"]
    pipeline = FAMILIES[specs[0].family].pipeline
    noise, given = noise_lines(device, "settings['height']", "settings['width']")
    lines = [
        "import diffusers", "import torch", "",
        "# Where the models are (ids on the hub, or folders), and the variant of their weights.",
        f"places = {_table(places)}",
        "# Each scheduler's class and options.",
        f"rules = {_table(rules)}",
        "# What describes the model, whatever rule it was saved with.",
        *OF_THE_MODEL_ALONE[:-1],
        "loaded = {}", "", "",
        "def load(name):",
        "    place, variant = places[name]",
        f"    pipe = diffusers.{pipeline}.from_pretrained(",
        f"        place, variant=variant, dtype=torch.{dtype}, use_safetensors=True,",
        "        safety_checker=None, requires_safety_checker=False,",
        f"    ).to({device!r})",
        *([f"    {line}" for line in OLDER_ENCODER.strip().split("\n")] if _skips(recipes) else []),
        f"    {OF_THE_MODEL_ALONE[-1]}",
        "    return pipe, config", "", "",
        "def draw(model, scheduler, seed, **settings):",
        "    if model not in loaded:",
        "        loaded[model] = load(model)",
        "    pipe, config = loaded[model]",
        "    kind, options = rules[scheduler]",
        *([f"    if scheduler in {seeded}:", "        options = {**options, 'noise_sampler_seed': seed}"] if seeded else []),
        "    pipe.scheduler = getattr(diffusers, kind).from_config(config, **options)",
        '    generator = torch.Generator("cpu").manual_seed(seed)',
        *(f"    {line}" for line in noise),
        f"    return pipe(**settings, {', '.join(given)}).images[0]",
    ]  # fmt: skip
    return "\n".join(lines)


def _cells(recipes: list[Recipe]) -> str:
    """The code of `common`, which all cells share, and of `cells`, what each has of its own."""
    skip: dict[str, Any] = {"clip_skip": None} if _skips(recipes) else {}
    settings = [{"model": one.model, "scheduler": one.scheduler, "seed": one.seed, **skip, **call_settings(one)} for one in recipes]
    common = {name: value for name, value in settings[0].items() if all(one[name] == value for one in settings)}
    own = [{name: value for name, value in one.items() if name not in common} for one in settings]
    return "\n".join([f"common = {_table(common)}", "cells = [", *(f"    {one!r}," for one in own), "]"])


def _showing(plan: Plan) -> str:
    across, down, _ = plan.shape
    lines = [
        "from diffusers.utils import make_image_grid",
        "from IPython.display import display",
        "",
        "size = max(picture.size for picture in pictures)",
        f"for start in range(0, len(pictures), {across * down}):",
        f"    page = [picture.resize(size) for picture in pictures[start : start + {across * down}]]",
        f"    display(make_image_grid(page, rows={down}, cols={across}))",
    ]
    return "\n".join(lines)


def _skips(recipes: list[Recipe]) -> bool:
    return any(recipe.clip_skip > 1 for recipe in recipes)


def _table(table: dict[str, Any]) -> str:
    return "\n".join(["{", *(f"    {name!r}: {value!r}," for name, value in table.items()), "}"])

"""The library at 100 and at 10,000 pictures: `python -m benchmarks.library` prints medians in milliseconds, and their ratios.

The files are empty: what is measured does not open them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine.library.library import Library
from engine.library.search import Page, Query
from engine.pictures.made import DeviceFacts, Made, Origin, Provenance
from engine.recipes.recipe import make_recipe

SIZES = (100, 10_000)
WORDS = ("owl", "fox", "rocket", "sunflower", "red", "green", "castle", "noto", "twemoji", "ink", "night", "forest")
FACTS = DeviceFacts("revision", "weights", "cpu", "float32", 2)
PROVENANCE = Provenance("revision", "cpu", "float32", 2, False, 20, 20, 1.0)


def filled(folder: Path, pictures: int) -> Library:
    """A library of so many pictures by random words, nine seeds of each recipe, in grids of 90."""
    chance, library = random.Random(pictures), Library(folder / "pictures.sqlite", folder / "outputs")
    recipe = make_recipe()
    (folder / "outputs").mkdir()
    for number in range(pictures):
        if number % 9 == 0:
            recipe = make_recipe(prompt=" ".join(chance.sample(WORDS, 5)), scheduler=chance.choice(("Euler", "Heun", "DDIM")), steps=20)
        path = folder / "outputs" / f"{number}.png"
        made = Made(recipe.replace(seed=number), PROVENANCE, f"{number:064x}", path)
        path.touch()  # rows without files are swept away
        library.remember(made, FACTS, Origin("somebody", f"job-{number // 90}", number % 90))
    return library


def last_page(library: Library) -> Page:
    page = library.search(Query(oldest_first=True))
    return library.search(Query(), page.next)


ASKED: dict[str, Callable[[Library], Page]] = {
    "first page": lambda library: library.search(Query()),
    "first page of stacks": lambda library: library.search(Query(stacked=True)),
    "a word": lambda library: library.search(Query("owl")),
    "a word and a scheduler": lambda library: library.search(Query("owl", scheduler="Euler")),
    "a word, as stacks": lambda library: library.search(Query("owl", stacked=True)),
    "a word that is nowhere": lambda library: library.search(Query("zeppelin")),
    "one grid": lambda library: library.search(Query(job="job-0")),
    "the page at the other end": last_page,
}


def milliseconds(library: Library, ask: Callable[[Library], Page], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        ask(library)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.library", description="Measures the library at 100 and at 10,000 pictures.")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often each is asked (default: 20)")
    return parser


def main() -> None:
    options = _parser().parse_args()
    measured = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            library = filled(Path(folder), size)
            measured[size] = {name: milliseconds(library, ask, options.rounds) for name, ask in ASKED.items()}
            library.close()
    few, many = (measured[size] for size in SIZES)
    print(f"| asked | {SIZES[0]:,} pictures, ms | {SIZES[1]:,} pictures, ms | ratio |\n|---|---|---|---|")
    for name in ASKED:
        print(f"| {name} | {few[name]:.2f} | {many[name]:.2f} | {many[name] / few[name]:.1f} |")


if __name__ == "__main__":
    main()

"""Forecast: the network calls that a plan will take, counted without making them.

Packs as engine.running.packing does, in whole numbers instead of loads, and counts at once what repeats: while no image begins or ends,
the calls go round in a circle.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from engine.recipes.families import Needs
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import scheduler_row
from engine.running.packing import ADMITTED_A_TICK, Packer, Rules, first_origin, row_names

Calls = Counter[tuple[int, int]]
"""How many network calls there are by (pixels of a picture, rows with padding)."""


def count_calls(
    recipes: Sequence[Recipe], needs: Callable[[Recipe], Needs[Hashable]], packer: Packer, *, exact: bool = False, together: bool = False
) -> Calls:
    """The calls that one job of these recipes takes on an otherwise idle device; `needs` is that of the model's FamilyRow."""
    groups: dict[Hashable, int] = {}
    numbers: dict[Hashable, int] = {}
    images = []
    for recipe in recipes:
        wanted = needs(recipe)
        group = groups.setdefault(wanted.group, len(groups))
        rows = tuple(numbers.setdefault(name, len(numbers)) for name in row_names(wanted.rows, first_origin(recipe)))
        images.append(_Image(group, recipe.width * recipe.height, rows, scheduler_row(recipe.scheduler).calls(recipe.steps)))
    return Counter(_counted(tuple(images), packer.rules, exact, together))


@lru_cache(maxsize=256)
def _counted(images: tuple[_Image, ...], rules: Rules, exact: bool, together: bool) -> Calls:
    """Of words and groups only which are equal matters: the count stays while somebody types."""
    return _Forecast(images, Packer(*rules), exact, together).run()


@dataclass(frozen=True)
class _Image:
    group: int
    pixels: int
    rows: tuple[int, ...]
    """Of its first step, by number: images may share them. Later it needs as many of its own."""
    calls: int


@dataclass
class _Line:
    """Images of one group under way, in their turn."""

    pixels: int

    order: list[int] = field(default_factory=list)
    own: int = 0
    """Rows of those that have begun: nobody shares them."""
    shared: Counter[int] = field(default_factory=Counter)
    """Rows of those that have not, with how many need each."""

    @property
    def rows(self) -> int:
        return self.own + len(self.shared)


class _Forecast:
    """One run. An image's turn is a number from which it follows (modulo their count): where all develop together, those that
    have come less far are first; else it is its own number."""

    def __init__(self, images: Sequence[_Image], packer: Packer, exact: bool, together: bool):
        self._images, self._packer, self._exact, self._together = images, packer, exact, together
        self._left = [image.calls for image in images]
        self._admitted = 0
        self._fresh: set[int] = set()  # admitted, not begun
        self._lines: dict[int, _Line] = {}  # by group
        self._total: Calls = Counter()
        self._watch()

    def run(self) -> Calls:
        while self._admitted < len(self._images) or self._lines:
            changed = self._admit()
            group = min(self._lines, key=lambda group: self._lines[group].order[0])
            line = self._lines[group]
            picked, width = self._pick(line)
            changed |= self._advance(line, picked)
            if not line.order:
                del self._lines[group]
            call = (line.pixels, width)
            self._total[call] += 1
            if changed:
                self._watch()
            else:
                self._skip(call, picked)
        return self._total

    def _admit(self) -> bool:
        new = range(self._admitted, min(self._admitted + ADMITTED_A_TICK, len(self._images)))
        for i in new:
            image = self._images[i]
            line = self._lines.setdefault(image.group, _Line(image.pixels))
            insort(line.order, i)
            line.shared.update(image.rows)
        self._fresh.update(new)
        self._admitted = new.stop
        return bool(new)

    def _pick(self, line: _Line) -> tuple[list[int], int]:
        """The turns of the images in the next call, and its rows with padding: Packer.pick for one owner's one job."""
        images, fresh, count = self._images, self._fresh, len(self._images)
        most = self._packer.width(line.pixels, line.rows, len(images[line.order[0] % count].rows), self._exact)
        picked: list[int] = []
        used, rows = 0, set()  # the rows that others may share
        for turn in line.order:
            i = turn % count
            names = images[i].rows
            new = len(names) if i not in fresh else sum(row not in rows for row in names)
            if used + new <= most:
                used += new
                picked.append(turn)
                if i in fresh:
                    rows.update(names)
            if used == most and not rows:
                break
        return picked, most if self._exact or self._packer.padded else used

    def _advance(self, line: _Line, picked: Sequence[int]) -> bool:
        """One step of the picked images; whether any of them has begun or ended with it."""
        count, changed = len(self._images), False
        for turn in picked:
            i = turn % count
            needs = len(self._images[i].rows)
            self._left[i] -= 1
            if i in self._fresh:
                changed = True
                self._fresh.remove(i)
                line.shared = +(line.shared - Counter(self._images[i].rows))
                line.own += needs
            if not self._left[i]:
                changed = True
                line.own -= needs
                line.order.remove(turn)
            elif self._together:
                line.order.remove(turn)
                insort(line.order, turn + count)
        return changed

    # What repeats.

    def _watch(self, patience: int | None = None) -> None:
        """Begins to watch for a repetition, for so many calls."""
        self._patience = patience or 2 * len(self._images)
        self._steps: Counter[int] = Counter()
        self._calls: Calls = Counter()

    def _skip(self, call: tuple[int, int], picked: Sequence[int]) -> None:
        """Counts another call in which nothing has begun or ended, and all repetitions that follow, until shortly before something does.

        Images that go in turns stand to each other as they did once all have taken equally many steps since; those
        that do not, at once. One that was ahead at first is waited for: then watching begins again, for longer.
        """
        self._calls[call] += 1
        self._steps.update(turn % len(self._images) for turn in picked)
        under_way = sum(len(line.order) for line in self._lines.values())
        if self._together and (len(self._steps) < under_way or len(set(self._steps.values())) > 1):
            if self._calls.total() >= self._patience:
                self._watch(2 * self._patience)
            return
        rounds = min((self._left[i] - 1) // steps for i, steps in self._steps.items())
        for i, steps in self._steps.items():
            self._left[i] -= rounds * steps
        for repeated, times in self._calls.items():
            self._total[repeated] += rounds * times
        self._watch()

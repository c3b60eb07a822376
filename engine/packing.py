"""Packing: which images share the next network call, and how many rows it has.

No torch: the denoiser packs its calls with this, and an estimate made before anything runs packs the same way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.recipe import Recipe
from engine.schedulers import scheduler_row

EXACT_ROWS = 8
"""Rows of the fixed batch of exact images: enough for four guided images to share a call."""

WASTE = 0.25
"""The most of a padded bucket that may be padding before a smaller, full bucket is used instead."""

ADMITTED_A_TICK = 16
"""Building a scheduler takes milliseconds: a large plan must not hold up the images under way."""

Row = Hashable
"""Names what a row of the network's batch computes: rows of one name are computed once, for all images that need them."""


@dataclass(frozen=True)
class Load:
    """What an image asks of the next network call. Images of different `size` cannot share one."""

    rows: tuple[Row, ...]
    size: tuple[int, ...]
    exact: bool = False
    owner: str = ""
    behind: int = 0
    """Its place in the owner's line: lower ones first, equal ones as they came."""


@dataclass(frozen=True)
class Call:
    """One network call: the images that take part, the distinct rows they need, and its width with padding."""

    images: tuple[Hashable, ...]
    rows: tuple[Row, ...]
    width: int


class Packer:
    """Packs calls of at most `max_rows` rows, owners in turn.

    Exact images run in calls of `exact_rows` rows, always: their neighbours then change no bit. Fast ones are
    packed freely; with `padded` into powers of two, which spares CUDA a new choice of kernels for every width.
    On the CPU a padding row costs as much as a real one, so there is none.
    """

    def __init__(self, max_rows: int = 16, exact_rows: int = EXACT_ROWS, padded: bool = False):
        self.max_rows = max_rows
        self.exact_rows = exact_rows
        self.padded = padded
        self._owners: list[str] = []  # whose turn it is to be picked first

    def pick(self, waiting: Mapping[Hashable, Load]) -> Call | None:
        """The next call for images in the order in which they came; None when there are none.

        Each owner's images come first come, first served, so that early ones are finished before late ones are begun,
        unless their loads say that they are `behind` others.
        """
        order = self._in_turn(waiting)
        if not order:
            return None
        first = waiting[order[0]]
        peers = [key for key in order if waiting[key].size == first.size and (first.exact or not waiting[key].exact)]
        most = self._width(first, [waiting[key] for key in peers])
        images: list[Hashable] = []
        rows: dict[Row, None] = {}
        for key in peers:
            new = [row for row in waiting[key].rows if row not in rows]
            if len(rows) + len(new) <= most:
                images.append(key)
                rows |= dict.fromkeys(new)
        self._owners.append(self._owners.pop(self._owners.index(first.owner)))
        return Call(tuple(images), tuple(rows), most if first.exact or self.padded else len(rows))

    def _width(self, first: Load, peers: Sequence[Load]) -> int:
        if first.exact:
            return self.exact_rows
        least = len(set(first.rows))
        wanted = max(min(len({row for one in peers for row in one.rows}), self.max_rows), least)
        return choose_bucket(wanted, least) if self.padded else wanted

    def _in_turn(self, waiting: Mapping[Hashable, Load]) -> list[Hashable]:
        """All images, one of each owner in turn."""
        queues: dict[str, list[Hashable]] = {}
        for key, load in waiting.items():
            queues.setdefault(load.owner, []).append(key)
        for queue in queues.values():
            queue.sort(key=lambda key: waiting[key].behind)
        self._owners = [owner for owner in self._owners if owner in queues]
        self._owners += [owner for owner in queues if owner not in self._owners]
        longest = max(map(len, queues.values()), default=0)
        return [queues[owner][place] for place in range(longest) for owner in self._owners if place < len(queues[owner])]


def choose_bucket(rows: int, least: int) -> int:
    """The padded width of a call when `rows` rows could run: a power of two, at least `least`.

    The next power above is taken when at most WASTE of it is padding, else the one below, filled.
    """
    above = 1 << (rows - 1).bit_length()
    return max(above if above - rows <= WASTE * above else above // 2, least)


def row_names(recipe: Recipe, origin: Hashable) -> tuple[Row, ...]:
    """The rows an image needs in a call: (unconditional, conditional) when guided, (conditional,) when not.

    `origin` stands for the latents: the image itself, or `first_origin` before its first step.
    """
    conditional = (origin, "conditional", recipe.full_prompt)
    return ((origin, "unconditional", recipe.full_negative_prompt), conditional) if recipe.guided else (conditional,)


def first_origin(recipe: Recipe) -> Hashable:
    """What the latents before the first step depend on: images that agree in it show the network the same picture then.

    The scheduler and its steps are part of it: they scale the noise and choose the first timestep.
    """
    everything_else = recipe.model_copy(update={"prompt": "", "negative_prompt": "", "style": None, "guidance_scale": 1.0})
    return ("first", everything_else)


def simulate(
    recipes: Sequence[Recipe], packer: Packer, *, exact: bool = False, together: bool = False
) -> Iterator[tuple[Call, Recipe]]:
    """The calls that a plan of these recipes takes on an otherwise idle device, with one of the recipes in each."""
    left = {i: scheduler_row(recipe.scheduler).calls(recipe.steps) for i, recipe in enumerate(recipes)}
    done = dict.fromkeys(left, 0)
    waiting = list(left)
    live: list[int] = []
    while waiting or live:
        live += waiting[:ADMITTED_A_TICK]
        del waiting[:ADMITTED_A_TICK]
        call = packer.pick({i: load_of(recipes[i], i, done[i], exact=exact, together=together) for i in live})
        if call is None:
            return
        yield call, recipes[call.images[0]]
        for i in call.images:
            done[i] += 1
        live = [i for i in live if done[i] < left[i]]


def load_of(
    recipe: Recipe, key: Hashable, step: int, *, origin: Hashable = None, exact: bool = False, owner: str = "", together: bool = False
) -> Load:
    """What an image that has taken `step` steps asks of the next call; `origin` stands in for `first_origin`.

    Images that develop `together` take turns: those that have come less far are first.
    """
    first = first_origin(recipe) if origin is None else origin
    start = key if step else first
    return Load(row_names(recipe, start), (recipe.width, recipe.height), exact, owner, step if together else 0)

"""Packing: which images share the next network call, and how many rows it has.

No torch: the denoiser packs its calls with this, and an estimate made before anything runs packs the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.recipes.families import Needs
from engine.recipes.recipe import Recipe

EXACT_ROWS = 8
"""Rows of the fixed batch of exact images: enough for four guided images to share a call."""

WASTE = 0.25
"""The most of a padded bucket that may be padding before a smaller, full bucket is used instead."""

ADMITTED_A_TICK = 16
"""Building a scheduler takes milliseconds: a large plan must not hold up the images under way."""

PROBED_AFTER = 16
"""Calls that must go well before twice as many rows are tried, where memory ran out; twice as many calls each time that fails:
others' memory may have been in the way for a moment, and what never fits is tried ever more seldom."""

Rules = tuple[int, int, bool, int | None, tuple[tuple[int, int], ...]]
"""What a Packer packs by: (max_rows, exact_rows, padded, native_pixels, narrowed)."""

Row = Hashable
"""Names what a row of the network's batch computes: rows of one name are computed once, for all images that need them."""


@dataclass(frozen=True)
class Load:
    """What an image asks of the next network call. Images of different `group` cannot share one; those of one have equally many pixels."""

    rows: tuple[Row, ...]
    group: Hashable
    pixels: int
    exact: bool = False
    owner: str = ""
    job: str = ""
    behind: int = 0
    """Its place in the job's line: lower ones first, equal ones as they came."""
    alone: int = 0
    """Rows that its call is padded to; 0 where it may share it."""


@dataclass(frozen=True)
class Call:
    """One network call: the images that take part, the distinct rows they need, and its width with padding."""

    images: tuple[Hashable, ...]
    rows: tuple[Row, ...]
    width: int


class Turns:
    """Whose turn it is, among any number of names that come and go. Whoever is new is next, whatever others wait for."""

    def __init__(self) -> None:
        self._order: list[str] = []

    def in_turn(self, names: Collection[str]) -> list[str]:
        """The names that are there now, whose turn is next first."""
        known = set(self._order)
        self._order = [name for name in names if name not in known] + [name for name in self._order if name in names]
        return list(self._order)

    def interleave(self, queues: Mapping[str, Sequence[Hashable]]) -> list[Hashable]:
        """One of each queue in turn, until all are empty."""
        order = self.in_turn(queues)
        longest = max(map(len, queues.values()), default=0)
        return [queues[name][place] for place in range(longest) for name in order if place < len(queues[name])]

    def took(self, names: Iterable[str]) -> None:
        """The next turn is another's: these had theirs. The first of them chose what kind of turn it was, so it is last now."""
        first, *others = dict.fromkeys(names)
        served = [*others, first]
        self._order = [name for name in self._order if name not in served] + served


@dataclass(frozen=True)
class Narrowed:
    """How wide calls for pictures of one size are since memory ran out in one, until more have gone well."""

    rows: int
    patience: int = PROBED_AFTER
    well: int = 0
    """Calls that have gone well at this width; at `patience` twice as many rows are tried."""
    probing: bool = False
    """Whether this is such a try."""


class Packer:
    """Packs calls of at most `max_rows` rows: owners in turn, and each owner's jobs in turn.

    That many rows are for pictures of `native_pixels` (None: of any size); larger ones get fewer in proportion, but always
    one image's. Where memory runs out, calls for pictures of that size are narrowed, and widened again later.

    Exact images run in calls of `exact_rows` rows, always: their neighbours then change no bit. Fast ones are
    packed freely; with `padded` into powers of two, which spares CUDA a new choice of kernels for every width.
    On the CPU a padding row costs as much as a real one, so there is none.
    """

    def __init__(
        self, max_rows: int = 16, exact_rows: int = EXACT_ROWS, padded: bool = False, native_pixels: int | None = None,
        narrowed: Iterable[tuple[int, int]] = (),
    ):  # fmt: skip
        self.max_rows = max_rows
        self.exact_rows = exact_rows
        self.padded = padded
        self.native_pixels = native_pixels
        # By pixels. Replaced, never changed: other threads ask for the rules.
        self._narrowed: Mapping[int, Narrowed] = {pixels: Narrowed(rows) for pixels, rows in narrowed}
        self._owners = Turns()
        self._jobs: dict[str, Turns] = {}

    def pick(self, waiting: Mapping[Hashable, Load]) -> Call | None:
        """The next call for images in the order in which they came; None when there are none.

        A job's images are served as they came, so that early ones are finished before late ones are begun, unless
        their loads say that they are `behind` others.
        """
        order = self._in_turn(waiting)
        if not order:
            return None
        first = waiting[order[0]]
        peers = [key for key in order if waiting[key].group == first.group and (first.exact or not waiting[key].exact)]
        wanted = max(first.alone, len({row for key in peers for row in waiting[key].rows}))
        most = self.width(first.pixels, wanted, len(set(first.rows)), first.exact)
        images: list[Hashable] = []
        rows: dict[Row, None] = {}
        for key in peers:
            new = [row for row in waiting[key].rows if row not in rows]
            if len(rows) + len(new) <= most:
                images.append(key)
                rows |= dict.fromkeys(new)
        taken = [waiting[key] for key in images]
        self._owners.took(load.owner for load in taken)
        for owner in {load.owner for load in taken}:
            self._jobs[owner].took(load.job for load in taken if load.owner == owner)
        return Call(tuple(images), tuple(rows), most if first.exact or first.alone or self.padded else len(rows))

    @property
    def rules(self) -> Rules:
        """What `Packer(*rules)` packs like this one by."""
        narrowed = tuple(sorted((pixels, one.rows) for pixels, one in self._narrowed.items()))
        return (self.max_rows, self.exact_rows, self.padded, self.native_pixels, narrowed)

    def width(self, pixels: int, rows: int, least: int, exact: bool) -> int:
        """The most rows, padding included, of a call for pictures of so many pixels that need so many different rows, its first one
        `least`."""
        if exact:
            return self.exact_rows
        wanted = max(min(rows, self.most_rows(pixels)), least)
        return choose_bucket(wanted, least) if self.padded else wanted

    def most_rows(self, pixels: int) -> int:
        """The most rows of a call for pictures of so many pixels; one image's rows are run whatever this says."""
        narrowed = self._narrowed.get(pixels)
        return self._usual(pixels) if narrowed is None else min(narrowed.rows, self._usual(pixels))

    def ran_out(self, pixels: int, width: int) -> None:
        """Memory ran out in a call of `width` rows for pictures of so many pixels: half as many are run from now on."""
        before = self._narrowed.get(pixels, Narrowed(width))
        patience = 2 * before.patience if before.probing else before.patience
        self._narrowed = {**self._narrowed, pixels: Narrowed(max(width // 2, 1), patience)}

    def went_well(self, pixels: int, width: int) -> None:
        """A call went well: after enough of them that were as wide as they may be, twice as many rows are tried."""
        now = self._narrowed.get(pixels)
        if now is None or 2 * width <= now.rows:  # so few rows tell nothing
            return
        if now.well + 1 < now.patience:
            self._narrowed = {**self._narrowed, pixels: replace(now, well=now.well + 1)}
        elif now.rows < self._usual(pixels):
            self._narrowed = {**self._narrowed, pixels: Narrowed(min(2 * now.rows, self._usual(pixels)), now.patience, probing=True)}
        else:
            self._narrowed = {other: one for other, one in self._narrowed.items() if other != pixels}

    def _usual(self, pixels: int) -> int:
        if self.native_pixels is None or pixels <= self.native_pixels:
            return self.max_rows
        rows = max(self.max_rows * self.native_pixels // pixels, 1)
        return 1 << (rows.bit_length() - 1) if self.padded else rows  # padding must not make more of it

    def _in_turn(self, waiting: Mapping[Hashable, Load]) -> list[Hashable]:
        """All images, one of each owner in turn, and among an owner's one of each job in turn."""
        lines: dict[str, dict[str, list[Hashable]]] = {}
        for key, load in waiting.items():
            lines.setdefault(load.owner, {}).setdefault(load.job, []).append(key)
        for line in (line for jobs in lines.values() for line in jobs.values()):
            line.sort(key=lambda key: waiting[key].behind)
        self._jobs = {owner: self._jobs.get(owner, Turns()) for owner in lines}
        return self._owners.interleave({owner: self._jobs[owner].interleave(jobs) for owner, jobs in lines.items()})


def choose_bucket(rows: int, least: int) -> int:
    """The padded width of a call when `rows` rows could run: a power of two, at least `least`.

    The next power above is taken when at most WASTE of it is padding, else the one below, filled.
    """
    above = 1 << (rows - 1).bit_length()
    return max(above if above - rows <= WASTE * above else above // 2, least)


def row_names(told: Iterable[Hashable], origin: Hashable) -> tuple[Row, ...]:
    """The rows that an image needs in a call, by what the network is told in each (`Needs.rows`) and by the latents that it is shown.

    `origin` stands for the latents: the image itself, or `first_origin` before its first step.
    """
    return tuple((origin, one) for one in told)


def first_origin(recipe: Recipe) -> Hashable:
    """What the latents before the first step depend on: images that agree in it show the network the same picture then.

    The scheduler and its steps are part of it: they scale the noise and choose the first timestep.
    """
    everything_else = recipe.model_copy(update={"prompt": "", "negative_prompt": "", "style": None, "guidance_scale": 1.0})
    return ("first", everything_else)


def load_of(
    recipe: Recipe, needs: Needs[Hashable], key: Hashable, step: int, *, origin: Hashable = None, exact: bool = False, owner: str = "",
    job: str = "", together: bool = False, alone: int = 0,
) -> Load:  # fmt: skip
    """What an image that has taken `step` steps asks of the next call; `origin` stands in for `first_origin`.

    Images that develop `together` take turns: those that have come less far are first. One that is `alone` shares no
    call: it has so many rows to itself, as far as they fit.
    """
    if step:
        origin = key
    elif origin is None:
        origin = first_origin(recipe)
    pixels = recipe.width * recipe.height
    group = (needs.group, key) if alone else needs.group
    return Load(row_names(needs.rows, origin), group, pixels, exact, owner, job, step if together else 0, alone)

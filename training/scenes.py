"""Scenes: what a training picture shows (subjects, places, colours), drawn by seed, and the picture itself."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import InvalidRequest
from training.data import MANIFEST, Manifest, Picture
from training.pictures import HUES, can_be_recoloured, compose, main_colour, recoloured
from training.settings import HeldOut, Profile, SceneRules
from training.split import pair_is_held_out
from training.words import Subject

BACKGROUNDS = {
    "white": (255, 255, 255), "black": (24, 24, 26), "grey": (150, 152, 156), "red": (224, 52, 52), "orange": (250, 146, 40),
    "yellow": (252, 218, 70), "green": (76, 176, 92), "blue": (62, 122, 224), "purple": (146, 86, 196), "pink": (248, 158, 194),
    "brown": (130, 84, 56),
}  # fmt: skip

WOBBLE = 10
"""Of a background's red, green and blue, either way, so that its word means a range; white stays white."""

PLACES = {
    "": (0.5, 0.5), "centre": (0.5, 0.5), "top left": (0.26, 0.26), "top right": (0.74, 0.26), "bottom left": (0.26, 0.74),
    "bottom right": (0.74, 0.74), "beside": (0.26, 0.5), "above": (0.5, 0.26),
}  # fmt: skip
"""Where the (first) subject's middle is, as shares of width and height; the second one of a pair lies opposite."""

SMALL, WHOLE, HALF = (0.36, 0.46), (0.84, 0.96), (0.44, 0.5)
"""Sides of a subject that is small, alone, or one of two; drawn between, as shares of the picture's."""


@dataclass(frozen=True)
class Part:
    """A subject in a scene. `colour` is what it was turned to, or "" as it is; the square is in shares of the width."""

    picture: int
    colour: str
    box: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """One picture's content. `place` is a key of PLACES: "" is one subject, "beside" and "above" are two."""

    parts: tuple[Part, ...]
    background: str
    rgb: tuple[int, int, int]
    place: str


class Stage:
    """A profile's pictures and scenes made of them. Held-out pictures are never in a scene.

    `pixels` are the manifest's pictures. # (N, size, size, 4)
    """

    def __init__(self, manifest: Manifest, pixels: np.ndarray, rules: SceneRules, held_out: HeldOut):
        self.manifest, self.pixels, self.size = manifest, pixels, pixels.shape[1]
        self._rules, self.held_out = rules, held_out
        self.subjects = {one.code: one for one in manifest.subjects}
        self.training = [at for at, one in enumerate(manifest.pictures) if not one.held_out]
        self.colours = {at: main_colour(pixels[at]) for at in self.training}
        self._recolourable = {at for at in self.training if self.colours[at] in HUES and can_be_recoloured(pixels[at])}
        self._by_style: dict[str, list[int]] = defaultdict(list)
        for at in self.training:
            self._by_style[manifest.pictures[at].style].append(at)

    def picture(self, part: Part) -> Picture:
        return self.manifest.pictures[part.picture]

    def subject(self, part: Part) -> Subject:
        return self.subjects[self.picture(part).code]

    def scene(self, index: int) -> Scene:
        """The same for an index whatever was drawn before; every training picture comes round as the main one in turn."""
        rng = random.Random(f"{self._rules.seed}/{index}")
        first = self._turn(index)
        kind = rng.random()
        if kind < self._rules.pairs:
            return self._pair(first, rng)
        place = rng.choice([place for place in PLACES if place not in {"", "beside", "above"}]) if kind < self._placed_end else ""
        side = rng.uniform(*(SMALL if place else WHOLE))
        middle = PLACES[place]
        if not place and rng.random() < self._rules.steady:
            side = 1.0
        elif not place:
            middle = tuple(at + rng.uniform(-1, 1) * (1 - side) / 2 * 0.6 for at in middle)
        part = Part(first, self._new_colour(first, rng), _box(middle, side))
        return Scene((part,), *self._ground([part], rng), place)

    def draw(self, scene: Scene) -> np.ndarray:
        """The scene's picture. # (size, size, 3) uint8"""
        return compose([(self._rgba(part), part.box) for part in scene.parts], scene.rgb, self.size)

    def _rgba(self, part: Part) -> np.ndarray:
        pixels = self.pixels[part.picture]
        return recoloured(pixels, part.colour) if part.colour else pixels

    @property
    def _placed_end(self) -> float:
        return self._rules.pairs + self._rules.placed

    def _turn(self, index: int) -> int:
        """The main picture of a scene: a new order for each round through all of them."""
        turn, place = divmod(index, len(self.training))
        return self.training[_shuffled(len(self.training), f"{self._rules.seed}/{turn}")[place]]

    def _pair(self, first: int, rng: random.Random) -> Scene:
        code = self.manifest.pictures[first].code
        same_style = self._by_style[self.manifest.pictures[first].style]
        second = first
        for _ in range(20):  # a partner that is another subject and not held out with this one; nearly always the first drawn
            second = rng.choice(same_style)
            other = self.manifest.pictures[second].code
            if other != code and not pair_is_held_out(code, other, self.held_out):
                break
        else:
            return Scene((Part(first, "", _box((0.5, 0.5), 0.9)),), "white", BACKGROUNDS["white"], "")
        place = rng.choice(["beside", "beside", "above"])
        x, y = PLACES[place]
        parts = tuple(
            Part(at, self._new_colour(at, rng), _box(middle, rng.uniform(*HALF)))
            for at, middle in ((first, (x, y)), (second, (1 - x, 1 - y)))
        )
        return Scene(parts, *self._ground(parts, rng), place)

    def _new_colour(self, at: int, rng: random.Random) -> str:
        if at not in self._recolourable or rng.random() >= self._rules.recoloured:
            return ""
        return rng.choice([colour for colour in HUES if colour != self.colours[at]])

    def _ground(self, parts: Sequence[Part], rng: random.Random) -> tuple[str, tuple[int, int, int]]:
        """A background that no subject disappears in."""
        if rng.random() < self._rules.white:
            return "white", BACKGROUNDS["white"]
        taken = {part.colour or self.colours[part.picture] for part in parts} | {"white"}
        name = rng.choice([colour for colour in BACKGROUNDS if colour not in taken])
        red, green, blue = (min(255, max(0, value + rng.randint(-WOBBLE, WOBBLE))) for value in BACKGROUNDS[name])
        return name, (red, green, blue)


def narrowed(manifest: Manifest, profile: Profile) -> Manifest:
    """The manifest with the subjects that a profile trains on, and their pictures.

    Raises InvalidRequest for a name that is no subject's.
    """
    wanted = set(profile.names)
    if unknown := wanted - {one.name for one in manifest.subjects}:
        raise InvalidRequest(f"No subject is called {', '.join(sorted(unknown))}; the names are those in {MANIFEST}.")
    kept = tuple(
        one for one in manifest.subjects
        if one.version <= profile.newest_version
        and (not profile.groups or one.group in profile.groups)
        and (not wanted or one.name in wanted)
    )  # fmt: skip
    codes = {one.code for one in kept}
    pictures = tuple(one for one in manifest.pictures if one.code in codes)
    return manifest.model_copy(update={"subjects": kept, "pictures": pictures})


def _box(middle: tuple[float, ...], side: float) -> tuple[float, float, float]:
    return middle[0] - side / 2, middle[1] - side / 2, side


def _shuffled(count: int, seed: str) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order
